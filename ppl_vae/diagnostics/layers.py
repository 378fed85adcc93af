"""What each layer's rate buys: bounds, information about labels, probes, reconstructions; in nats per datum.

Everything is unscaled: betas do not enter. Layers come top first, as the model draws them. A leading ``s`` is
draws, ``n`` data, a trailing ``k`` units.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import condition_of
from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.label_information import label_information
from ppl_vae.diagnostics.layer_page import LayersSummary, LayerSummary
from ppl_vae.diagnostics.layer_probes import class_covering_rows, probe_accuracies
from ppl_vae.diagnostics.psnr import is_unit_interval, psnr, psnr_of_means, squared_errors
from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.diagnostics.weights import inspect_draws, posterior_means
from ppl_vae.errors import InputError
from ppl_vae.objective.terms import SITE_TERM
from ppl_vae.theory.rate_bounds import accuracy_ceiling, label_entropy
from ppl_vae.training.engine import Engine
from ppl_vae.training.prepared import evenly_spaced

__all__ = [
    "LayerAccuracies",
    "LayerSummary",
    "LayersSummary",
    "measure_layers",
    "probe_layers",
    "reconstruct_from",
]

MAX_TRAIN, MAX_TEST, MAX_RECONSTRUCTED, MAX_INFORMATION = 2000, 1000, 1000, 2000
TRAIN_DRAWS, TEST_DRAWS, RECONSTRUCTION_DRAWS = 5, 10, 4
ALLOWED = 3.0  # standard errors, beyond which a bound counts as broken


@dataclass(frozen=True)
class LayerAccuracies:
    """Accuracies of probes by site and by name of the probe.

    Attributes:
        on_samples: On draws from the guide.
        on_means: On posterior means.
        num_train: Data that the probes were fitted to.
        num_test: Data that they were tested on.
    """

    on_samples: Mapping[str, dict[str, Estimate]]
    on_means: Mapping[str, dict[str, Estimate]]
    num_train: int
    num_test: int


def measure_layers(
    engine: Engine,
    x: NDArray[Any],
    rates: Mapping[str, NDArray[np.float64]],
    how: Mapping[str, str],
    *,
    labels: ArrayLike | None = None,
    train_x: NDArray[Any] | None = None,
    train_labels: ArrayLike | None = None,
    top_is_gaussian: bool = True,
    prior_is_fixed: bool = True,
    seed: int = 0,
) -> LayersSummary:
    """Say of each layer what its rate buys.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        rates: Rates of ``x`` by site, averaged over draws, (n,) each.
        how: How they were computed, by site.
        labels: Classes of ``x``, (n,).
        train_x: Other data, to fit probes on.
        train_labels: Their classes.
        top_is_gaussian: Whether the guide of the top site is a diagonal Gaussian given x alone, as the estimate
            of what it knows of the labels needs.
        prior_is_fixed: Whether the top prior is the same for all data. The rate of one that depends on a condition
            bounds what the code tells beyond it, and so nothing of labels.
        seed: Seed of the draws and of the choice of data.

    Raises:
        InputError: Data or labels of the wrong shape.
    """
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(4)]
    sums = _rates_from_top(engine.latents, rates, how)
    entropy = None if labels is None else label_entropy(np.unique(labels, return_counts=True)[1])
    probed = probe_layers(engine, x, labels, train_x, train_labels, seeds[0])
    known = None
    if labels is not None and top_is_gaussian:
        known = _label_information(engine, x, np.asarray(labels), seeds[1])
    few = x[evenly_spaced(len(x), MAX_RECONSTRUCTED)]
    peak, ratios, ratio_of_means = _reconstructions(engine, few, seeds[2])
    bounded = labels if prior_is_fixed else None
    layers = [
        _layer(
            *(name, how[name], rates[name], sums[name], bounded),
            *(entropy if prior_is_fixed else None, probed, ratios[name]),
        )
        for name in engine.latents
    ]
    return LayersSummary(
        layers=layers,
        label_entropy=entropy,
        label_information=None if known is None else known[0],
        label_information_ceiling=None if known is None or entropy is None else min(entropy, known[1]),
        psnr_of_means=ratio_of_means,
        peak=peak,
        num_reconstructed=len(few),
        num_probe_train=0 if isinstance(probed, str) else probed.num_train,
        num_probe_test=0 if isinstance(probed, str) else probed.num_test,
        not_estimated={"probes": probed} if isinstance(probed, str) else {},
        errors=_errors(layers, None if known is None else known[0], bounded, probed),
    )


def probe_layers(
    engine: Engine,
    x: NDArray[Any],
    labels: ArrayLike | None,
    train_x: NDArray[Any] | None,
    train_labels: ArrayLike | None,
    seed: int = 0,
) -> LayerAccuracies | str:
    """Accuracies of probes on samples and on means of each layer.

    At most 2000 data to learn from, one draw each (five for the logistic probe), and 1000 to be tested on, ten
    draws each.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        labels: Their classes, (n,).
        train_x: Other data, to fit probes on.
        train_labels: Their classes.
        seed: Seed of the draws and of the choice of data.

    Returns:
        The accuracies, or why there are none.
    """
    if labels is None or train_x is None or train_labels is None:
        return "they need labels, and training data with labels"
    y, test_y = np.asarray(train_labels), np.asarray(labels)
    rows, test_rows = class_covering_rows(y, MAX_TRAIN, seed), class_covering_rows(test_y, MAX_TEST, seed)
    sets = (train_x[rows], TRAIN_DRAWS), (x[test_rows], TEST_DRAWS)
    samples = [
        inspect_draws(engine, data, ("latents",), num_draws=draws, seed=seed + number)["latents"]
        for number, (data, draws) in enumerate(sets)
    ]
    means = [{name: value[None] for name, value in posterior_means(engine, data).items()} for data, _ in sets]
    try:
        on_samples, on_means = (
            {
                site: probe_accuracies(_codes(train[site]), y[rows], _codes(test[site]), test_y[test_rows])
                for site in engine.latents
            }
            for train, test in (samples, means)
        )
    except InputError as error:
        return str(error)
    return LayerAccuracies(on_samples, on_means, num_train=len(rows), num_test=len(test_rows))


def reconstruct_from(
    engine: Engine,
    latents: Mapping[str, NDArray[Any]],
    level: str,
    *,
    seed: int,
    condition: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Mean of x given a layer and those above it, with the layers below drawn from the model.

    Args:
        engine: What holds the fit.
        latents: Values of the layers, of the given one and of all above at least, (n, *event).
        level: The lowest layer whose values count.
        seed: Seed of the layers below.
        condition: Condition of each datum for a conditional model, (n, *condition_shape).

    Returns:
        Means, (n, *data_shape).

    Raises:
        InputError: The model has no such layer.
    """
    if level not in engine.latents:
        raise InputError(
            f"level must be one of {', '.join(engine.latents)}, but it is {level!r}; choose one of them"
        )
    kept = engine.latents[: engine.latents.index(level) + 1]
    given = {name: latents[name] for name in kept}
    return engine.generate(len(given[level]), seed=seed, latents=given, condition=condition).mean


def _rates_from_top(
    sites: list[str], rates: Mapping[str, NDArray[np.float64]], how: Mapping[str, str]
) -> dict[str, NDArray[np.float64] | None]:
    """Sums of rates per datum; None where a site term is among them, but for all together, whose sum is a rate."""
    sums: dict[str, NDArray[np.float64] | None] = {}
    total = np.zeros_like(rates[sites[0]])
    for number, name in enumerate(sites, start=1):
        total = total + rates[name]
        is_rate = number == len(sites) or SITE_TERM not in (how[site] for site in sites[:number])
        sums[name] = total if is_rate else None
    return sums


def _layer(
    name: str,
    how: str,
    rate: NDArray[np.float64],
    total: NDArray[np.float64] | None,
    labels: ArrayLike | None,
    entropy: float | None,
    probed: LayerAccuracies | str,
    ratio: Estimate,
) -> LayerSummary:
    from_top = None if total is None else _estimate(total)
    ceiling = None
    if from_top is not None and labels is not None:
        width = 2.0 * from_top.standard_error
        ceiling = accuracy_ceiling(from_top.value + np.array([-width, 0.0, width]), _counts(labels)).tolist()
    return LayerSummary(
        name=name,
        how=how,
        rate=_estimate(rate),
        rate_from_top=from_top,
        accuracy_ceiling=None if ceiling is None else ceiling[1],
        accuracy_ceiling_interval=None if ceiling is None else (ceiling[0], ceiling[2]),
        is_empty=None if from_top is None or entropy is None else from_top.value >= entropy,
        accuracy_on_samples={} if isinstance(probed, str) else probed.on_samples[name],
        accuracy_on_means={} if isinstance(probed, str) else probed.on_means[name],
        psnr=ratio,
    )


def _label_information(
    engine: Engine, x: NDArray[Any], labels: NDArray[np.generic], seed: int
) -> tuple[Estimate, float]:
    """What the top layer knows of the labels, and log of the number of data of that estimate."""
    rows = class_covering_rows(labels, MAX_INFORMATION, seed)
    found = inspect_draws(engine, x[rows], ("loc", "scale"), num_draws=1, seed=seed)
    loc, scale = (found[field][engine.latents[0]][0].reshape(len(rows), -1) for field in ("loc", "scale"))
    return label_information(loc, scale, labels[rows], seed=seed), float(np.log(len(rows)))


def _reconstructions(engine: Engine, x: NDArray[Any], seed: int) -> tuple[float, dict[str, Estimate], Estimate]:
    """The peak, PSNR by layer, and that of the mean of x at the posterior means."""
    peak = 1.0 if is_unit_interval(x) else float(x.max()) - float(x.min())
    latents = inspect_draws(engine, x, ("latents",), num_draws=RECONSTRUCTION_DRAWS, seed=seed)["latents"]
    draws = [{name: value[draw] for name, value in latents.items()} for draw in range(RECONSTRUCTION_DRAWS)]
    seeds = np.random.SeedSequence(seed).generate_state(RECONSTRUCTION_DRAWS)
    ratios = {}
    for site in engine.latents:
        pairs = zip(draws, seeds, strict=True)
        means = [reconstruct_from(engine, draw, site, seed=int(s), condition=condition_of(x)) for draw, s in pairs]
        errors = [squared_errors(x, mean) for mean in means]
        ratios[site] = psnr(np.mean(errors, axis=0), peak)
    return peak, ratios, psnr_of_means(engine, x, peak)


def _errors(
    layers: list[LayerSummary], known: Estimate | None, labels: ArrayLike | None, probed: LayerAccuracies | str
) -> list[str]:
    """Bounds that are broken by more than three standard errors."""
    found = []
    for layer in layers:
        if layer.how != SITE_TERM and layer.rate.value < -ALLOWED * layer.rate.standard_error:
            found.append(
                f"the rate of {layer.name} is {_show(layer.rate)}, but no rate is below 0: the guide does not "
                "draw the layers in the model's order, or a density is wrong"
            )
        if labels is not None and layer.rate_from_top is not None and not isinstance(probed, str):
            found += _accuracy_errors(layer, layer.rate_from_top, _counts(labels), probed.num_test)
    total = layers[0].rate_from_top
    if known is not None and total is not None:
        error = np.hypot(known.standard_error, total.standard_error)
        if known.value > total.value + ALLOWED * error:
            found.append(
                f"{layers[0].name} knows {_show(known)} nats about the labels, more than its rate "
                f"{_show(total)}: the rate does not belong to the densities that are drawn from"
            )
    return found


def _accuracy_errors(layer: LayerSummary, total: Estimate, shares: NDArray[np.int64], num_test: int) -> list[str]:
    high = float(accuracy_ceiling(total.value + ALLOWED * total.standard_error, shares))
    # Of an accuracy at the ceiling; the error that was measured may be 0 by chance.
    least = np.sqrt(high * (1.0 - high) / num_test)
    return [
        f"{name} reads {_show(accuracy)} of the labels from samples of {layer.name}, but its rate and those "
        f"above allow {high:.3f} at most: the layer learns of x past its rate (a wrong density, or a model that "
        "sees x), or the labels are not those of the rates"
        for name, accuracy in layer.accuracy_on_samples.items()
        if accuracy.value - ALLOWED * max(accuracy.standard_error, least) > high
    ]


def _codes(draws: NDArray[Any]) -> NDArray[Any]:
    return np.reshape(draws, (*draws.shape[:2], -1))


def _counts(labels: ArrayLike) -> NDArray[np.int64]:
    return np.unique(labels, return_counts=True)[1].astype(np.int64)


def _estimate(values: NDArray[np.float64]) -> Estimate:
    return Estimate(*mean_and_standard_error(values))


def _show(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} +- {estimate.standard_error:.3f}"
