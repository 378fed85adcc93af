"""The result of a fit: what each split says of the trained model, in nats per datum."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import condition_of
from ppl_vae.diagnostics.activity import active_units_by_variance
from ppl_vae.diagnostics.psnr import is_unit_interval, psnr_of_means
from ppl_vae.diagnostics.weights import log_px, unit_means
from ppl_vae.likelihoods.support import bits_per_dim
from ppl_vae.objective.terms import SITE_TERM
from ppl_vae.training.engine import Engine
from ppl_vae.training.loop import nested
from ppl_vae.training.prepared import SPLITS, Prepared, evenly_spaced
from ppl_vae.training.seeds import child_seed
from ppl_vae.training.settings import FitSettings

__all__ = ["evaluate_splits", "result_table", "run_page"]

MAX_RECONSTRUCTED = 1000


def evaluate_splits(
    engine: Engine,
    loss: Any,
    data: Prepared,
    settings: FitSettings,
    betas: Mapping[str, float],
    *,
    has_levels: bool = False,
) -> dict[str, Any]:
    """Result of a fit on every split.

    Args:
        engine: Holds the selected parameters.
        loss: The loss that was minimised.
        data: Splits as they are evaluated.
        settings: Seed, and how log p(x) is estimated.
        betas: Final beta of each site.
        has_levels: Whether the likelihood is a mass on grey levels, so that nats are lengths of codes.

    Returns:
        Each quantity by split: ``loss``, ``distortion``, ``rates`` and ``active_units`` by site, ``elbo``,
        ``log_px`` with ``log_px_standard_error`` over data (of models that give x a density), ``extras`` by name;
        with levels also
        ``bits_per_dim`` by the ELBO and ``bits_per_dim_log_px``; of data in [0, 1] also ``psnr`` in decibels,
        of the mean of x at the posterior means of at most 1000 data. Where a row of the data is a group, all that
        is per group, and the mean number of ``members`` and per member ``distortion_per_member`` and
        ``rates_per_member`` stand beside it.
    """
    result: dict[str, Any] = {}
    some = {split: _some(data.split(split), MAX_RECONSTRUCTED) for split in SPLITS}
    has_peak = all(map(is_unit_interval, some.values())) and not engine.nested
    for split in SPLITS:
        values = _evaluate(engine, loss, data.split(split), settings, betas)
        shape, members = data.dataset.data_shape, 1.0
        if engine.nested:
            values |= _per_member(values, data.split(split), shape)
            shape, members = shape[1:], values["members"]
        if has_levels:
            values["bits_per_dim"] = bits_per_dim(-values["elbo"] / members, shape)
            values["bits_per_dim_log_px"] = bits_per_dim(-values["log_px"] / members, shape)
        if has_peak:
            values["psnr"] = psnr_of_means(engine, some[split]).value
        for name, value in values.items():
            result.setdefault(name, {})[split] = value
    return result


def _evaluate(
    engine: Engine, loss: Any, x: NDArray[np.float32], settings: FitSettings, betas: Mapping[str, float]
) -> dict[str, Any]:
    seed = child_seed(settings.seed, "evaluation")
    values = nested(engine.evaluate(loss, x, betas, seed=seed))
    values["active_units"] = {
        site: int(active_units_by_variance(means)[0].sum()) if len(means) > 1 else 0
        for site, means in unit_means(engine, x).items()
    }
    if engine.has_density:
        some = _some(x, settings.log_px_data)
        estimate = log_px(engine, some, num_draws=settings.log_px_draws, seed=seed)
        values["log_px"], values["log_px_standard_error"] = estimate.mean
    return values


def _per_member(values: Mapping[str, Any], x: NDArray[np.float32], data_shape: tuple[int, ...]) -> dict[str, Any]:
    present = condition_of(x)
    members = float(data_shape[0] if present is None else present.sum(axis=1).mean())
    return {
        "members": members,
        "distortion_per_member": values["distortion"] / members,
        "rates_per_member": {site: rate / members for site, rate in values["rates"].items()},
    }


def _some(x: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    return x[evenly_spaced(len(x), most)]


def run_page(run: Any) -> str:
    """What the command prints of a run: what was fitted on what, the result, what was written.

    Args:
        run: A finished ``Run``.
    """
    record = run.record
    model, data, settings = record["model"], record["data"], record["settings"]
    sizes = "/".join(str(data["splits"][split]) for split in SPLITS)
    final = record.get("final_betas", record["betas"])
    betas = ", ".join(f"{site}={beta:.4g}" for site, beta in final.items())
    options = "  ".join(f"{name}={value}" for name, value in model["options"].items())
    epochs = f"epochs={settings['epochs']}" + (" (stopped early)" if record["stopped_early"] else "")
    dead = [site for site, active in record["result"]["active_units"]["test"].items() if not active]
    notes = [
        *record["notes"],
        *(f"no unit of {site} is active: train longer, or lower beta or scale" for site in dead),
    ]
    row = "group" if run.engine.nested else "datum"
    num_units = {
        site: means.shape[1] for site, means in unit_means(run.engine, run.data.split("test")[:1]).items()
    }
    return "\n".join(
        [
            f"{model['name']} ({model['backend']})  data={data['name']} n={sizes} binarise={settings['binarise']}",
            f"loss={_loss(record['loss'])}  beta {betas}  {epochs}  best epoch {record['best_epoch'] or 'none'}  "
            f"selected={settings['select']}  seed={settings['seed']}",
            options,
            *_target_lines(record),
            result_table(record["result"], num_units, record["how"], row=row),
            *_split_lines(record["result"]),
            f"{_how(record['how'])}; active units: variance of the posterior mean > 0.01; +-: standard error over "
            "data",
            *(f"note: {note}" for note in notes),
            f"wrote {run.path}/{{run.json, checkpoint-final.safetensors, posterior.nc, overview.png}}",
        ]
    )


def _loss(record: Mapping[str, Any]) -> str:
    base = record.get("base")
    return f"{record['name']} on {_loss(base)}" if base else str(record["name"])


def _target_lines(record: Mapping[str, Any]) -> list[str]:
    if not record.get("target_rates"):
        return []
    reached = record["reached_rates"]
    pairs = [f"{name} {rate:g} (reached {reached[name]:.4g})" for name, rate in record["target_rates"].items()]
    return [f"target rates, validation over the last tenth of the epochs: {', '.join(pairs)}; beta was found"]


def _split_lines(result: Mapping[str, Any]) -> list[str]:
    """What some results have besides."""
    lines, splits = [], " / ".join(SPLITS)
    if "bits_per_dim" in result:
        by = {"the ELBO": result["bits_per_dim"], "log p(x)": result["bits_per_dim_log_px"]}
        numbers = ", ".join(f"{name} {_by_split(values, 3)}" for name, values in by.items())
        lines.append(f"bits per dimension ({splits}): {numbers}")
    if "members" in result:
        sites = result["rates_per_member"]["test"]
        by_site = {s: {split: result["rates_per_member"][split][s] for split in SPLITS} for s in sites}
        columns = {"distortion": result["distortion_per_member"], **{f"rate {s}": v for s, v in by_site.items()}}
        numbers = ", ".join(f"{name} {_by_split(column, 3)}" for name, column in columns.items())
        lines.append(f"members a group ({splits}): {_by_split(result['members'], 1)}; nats per member: {numbers}")
    extras = result.get("extras", {})
    # Those of sites and of the second branch stay in the record.
    terms = {name: {s: extras[s][name] for s in SPLITS} for name in extras.get("test", {}) if "/" not in name}
    if terms:
        numbers = ", ".join(f"{name} {_by_split(values, 3)}" for name, values in terms.items())
        lines.append(f"terms of the loss ({splits}): {numbers}")
    if "psnr" in result:
        lines.append(f"PSNR of the mean at the posterior means ({splits}): {_by_split(result['psnr'], 2)} dB")
    return lines


def _by_split(values: Mapping[str, float | None], digits: int) -> str:
    return " / ".join("not finite" if (v := values[s]) is None else f"{v:.{digits}f}" for s in SPLITS)


def _how(how: Mapping[str, str]) -> str:
    rates = [f"{site} {method}" for site, method in how.items() if method != SITE_TERM]
    terms = [site for site, method in how.items() if method == SITE_TERM]
    parts = [f"rates: {', '.join(rates)}"] if rates else []
    if terms:
        parts.append(f"of {', '.join(terms)} a sampled site term, no rate: only the sum over sites is one")
    return "; ".join(parts)


def result_table(
    result: Mapping[str, Any], num_units: Mapping[str, int], how: Mapping[str, str], *, row: str = "datum"
) -> str:
    """The result as a table for people.

    Args:
        result: What ``evaluate_splits`` gave.
        num_units: Number of latent units by site.
        how: How the rates were computed by site; what is a site term is headed so.
        row: What a row of the data is.
    """
    sites = list(result["rates"]["test"])
    names = {site: SITE_TERM if how[site] == SITE_TERM else "rate" for site in sites}
    rate_heads = list(names.values()) if len(sites) == 1 else [f"{names[site]} {site}" for site in sites]
    log_px = {"log p(x)": "log_px", "+-": "log_px_standard_error"} if "log_px" in result else {}
    heads = ["loss", "distortion", *rate_heads, "elbo", *log_px]
    widths = [max(12, len(head) + 2) for head in heads]
    lines = ["split     " + _row(heads, widths) + f"  active units   [nats per {row}]"]
    for split in SPLITS:
        numbers = [
            result["loss"][split],
            result["distortion"][split],
            *(result["rates"][split][site] for site in sites),
            result["elbo"][split],
            *(result[name][split] for name in log_px.values()),
        ]
        active = ", ".join(f"{result['active_units'][split][s]} of {num_units[s]}" for s in sites)
        # JSON has no number for what is not finite.
        cells = ["not finite" if n is None else f"{n:.2f}" if abs(n) < 1e7 else f"{n:.4g}" for n in numbers]
        lines.append(f"{split:<10}" + _row(cells, widths) + f"  {active}")
    return "\n".join(lines)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
