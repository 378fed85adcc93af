"""Latents of a run: maps of the posterior means, rates by unit beside a forecast, and the data class by class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.audit import SiteAudit, audit
from ppl_vae.diagnostics.activity import active_units_by_variance
from ppl_vae.errors import InputError
from ppl_vae.objective.terms import SITE_TERM
from ppl_vae.report.blocks import Block, Figure, Note, Section, Table, Topic, table
from ppl_vae.report.plots import NUM_SERIES, axis, figure, line, numbers, points, series
from ppl_vae.report.sources import RunSource

__all__ = ["latents_section"]

MAX_MAPS, MAX_CLASSES = 3, 40
SYMBOLS = ("circle", "diamond", "cross", "triangle-up")
Array = NDArray[np.float64]


def latents_section(sources: Sequence[RunSource]) -> Section:
    """Maps, units, the forecast and the classes of each run.

    Args:
        sources: The runs.
    """
    topics = (
        Topic("Maps", tuple(block for source in sources for block in _maps(source))),
        Topic("Units", tuple(block for source in sources for block in _units(source))),
        Topic("Forecast", tuple(block for source in sources for block in _forecast(source))),
        Topic("Classes", tuple(_classes(source) for source in sources)),
    )
    lead = "What the guide writes into the latents of test data, and which of them carry anything."
    return Section("latents", "Latents", lead, topics)


def _maps(source: RunSource) -> list[Block]:
    found: list[Block] = [_map(source, site) for site in source.engine.latents[:MAX_MAPS]]
    if more := source.engine.latents[MAX_MAPS:]:
        found.append(
            Note(f"Maps of {', '.join(more)} of {source.label}: left out, for three are enough to look at.")
        )
    return found


def _map(source: RunSource, site: str) -> Block:
    means, title = source.means[site], f"{source.label}, {site}"
    if len(means) < 2 or not np.isfinite(means).all():
        return Note(f"{title}: no map, for it needs two data or more and finite means.")
    across, heads, how = _plane(means, site)
    groups = _by_class(source, len(means))
    if across.shape[1] == 1:
        edges = np.histogram_bin_edges(across, 40)
        traces = [
            {
                **line(
                    (edges[1:] + edges[:-1]) / 2, np.histogram(across[rows], edges)[0], name=name, colour=colour
                ),
                "line_shape": "hvh",
            }
            for name, rows, colour, _ in groups
        ]
        spec = figure(traces, axis(heads[0]), axis("number of data"), height=420)
    else:
        traces = [
            points(*across[rows].T, name=name, colour=colour, size=6, opacity=0.75, marker={"symbol": symbol})
            for name, rows, colour, symbol in groups
        ]
        spec = figure(traces, axis(heads[0]), axis(heads[1]), height=460)
    told = "coloured by label" if len(groups) > 1 else "labels not told apart"
    return Figure(title, spec, f"Posterior means of {len(means)} test data, {told}: {how}.")


def _plane(means: Array, site: str) -> tuple[Array, list[str], str]:
    """Means in one or two dimensions, names of these, and what they are."""
    if means.shape[1] <= 2:
        return means, [f"{site}[{unit}]" for unit in range(means.shape[1])], f"the units of {site} as they are"
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(means)
    shares = [0.0 if np.isnan(share) else share for share in pca.explained_variance_ratio_]
    heads = [f"axis {i + 1} ({share:.0%})" for i, share in enumerate(shares)]
    return pca.transform(means), heads, f"the first two principal axes hold {sum(shares):.0%} of their variance"


def _by_class(source: RunSource, num_points: int) -> list[tuple[str, NDArray[np.int64], str, str]]:
    """By class a name, its rows, a colour and a symbol."""
    labels = source.labels
    if labels is None or len(labels) != num_points or len(np.unique(labels)) > MAX_CLASSES:
        return [("data", np.arange(num_points), series(0), SYMBOLS[0])]
    return [
        (source.class_name(int(code)), np.flatnonzero(labels == code), series(i), SYMBOLS[i // NUM_SERIES])
        for i, code in enumerate(np.unique(labels))
    ]


def _units(source: RunSource) -> list[Block]:
    how = dict(source.inspected["how"])
    names, rates, sites = [], [], []
    variances: list[float | None] = []
    for site, rate in source.unit_rates.items():
        variance = active_units_by_variance(source.means[site])[1] if len(source.means[site]) > 1 else None
        mean = rate.mean(axis=0)
        alone = f"{site}, joint" if source.means[site].shape[1] > 1 else site
        names += [f"{site}[{unit}]" for unit in range(len(mean))] if len(mean) > 1 else [alone]
        rates += mean.tolist()
        sites += [site] * len(mean)
        same = variance is not None and len(variance) == len(mean)
        variances += variance.tolist() if variance is not None and same else [None] * len(mean)
    bars = [
        {"type": "bar", "x": [n for n, s in zip(names, sites, strict=True) if s == site], "name": site}
        | {"y": numbers([r for r, s in zip(rates, sites, strict=True) if s == site])}
        | {"marker": {"color": series(i)}, "hovertemplate": "%{x}: %{y:.4g} nats<extra></extra>"}
        for i, site in enumerate(source.unit_rates)
    ]
    spec = figure(bars, axis("unit", type="category"), axis(f"rate [nats per {source.row}]"), bargap=0.25)
    active = sum(rate > 0.01 for rate in rates)
    terms = [site for site, method in how.items() if method == SITE_TERM]
    joint = [site for site, rate in source.unit_rates.items() if rate.shape[1] < source.means[site].shape[1]]
    counted = "rates are" if joint else "units have a rate"
    said = f"{active} of {len(rates)} {counted} above 0.01 nats; in all {sum(rates):.4g} nats."
    said += f" All units of {', '.join(joint)} have one, joint rate." if joint else ""
    said += f" What stands for {', '.join(terms)} is a site term, no rate." if terms else ""
    cells = {"unit": names, "rate [nats]": rates, "variance of the mean": variances}
    told = "A unit is in use where the variance of its posterior mean is above 0.01."
    chart = Figure(f"{source.label}, rate by unit", spec, said, is_wide=True)
    return [chart, table(f"{source.label}, units", cells, told)]


def _forecast(source: RunSource) -> list[Block]:
    try:
        found = audit(source.run)
    except InputError as error:
        return [Note(f"Forecast of {source.label}: left out, for {error}.")]
    blocks = [b for site in found.sites if (b := _forecast_of(source, site)) is not None]
    advice = f" Advice: {'; '.join(found.advice)}." if found.advice else ""
    verdict = Note(
        f"Audit of {source.label}: {found.verdict}; {found.meaning}.{advice}",
        f"ppl-vae audit {source.run.path}",
        is_gap=False,
    )
    return [*blocks, verdict]


def _forecast_of(source: RunSource, site: SiteAudit) -> Block | None:
    if site.predicted_kl is None or site.kl is None:
        return None
    units = np.arange(1, len(site.kl) + 1)
    predicted = np.zeros(len(units))
    predicted[: len(site.predicted_kl)] = site.predicted_kl[: len(units)]
    measured = np.sort(site.kl)[::-1]
    style: dict[str, Any] = {"mode": "lines+markers", "hovertemplate": "%{y:.4g} nats"}
    traces = [
        line(units, predicted, name="best linear model", colour="--muted", dash=1, **style),
        line(units, measured, name="this fit", colour=series(0), **style),
    ]
    spec = figure(
        traces, axis(f"latents of {site.site}, sorted", dtick=1 if len(units) <= 20 else None), axis("KL [nats]")
    )
    summary = (
        f"KL of each latent of {site.site} on training data, each curve sorted by itself: {measured.sum():.4g} "
        f"nats in all, and {predicted.sum():.4g} of the best linear model at the same betas and scale."
    )
    return Figure(f"{source.label}, forecast and fit of {site.site}", spec, summary, is_wide=True)


def _classes(source: RunSource) -> Table | Note:
    labels = source.labels
    if labels is None:
        return Note(f"Table of classes of {source.label}: left out, for its data have no labels.")
    distortion = -source.inspected["log_likelihood"].mean(axis=0, dtype=np.float64)
    rate = np.sum([r.sum(axis=1) for r in source.unit_rates.values()], axis=0)
    codes = np.unique(labels)
    members = [labels == code for code in codes]
    columns: dict[str, Any] = {
        "class": [source.class_name(int(code)) for code in codes],
        "data": [int(rows.sum()) for rows in members],
        "distortion": [float(distortion[rows].mean()) for rows in members],
        "rate": [float(rate[rows].mean()) for rows in members],
        "elbo": [float(-(distortion + rate)[rows].mean()) for rows in members],
    }
    told = f"Means over the test data of a class, in nats per {source.row}; elbo = -(distortion + rate)."
    return table(f"{source.label}, classes", columns, told)
