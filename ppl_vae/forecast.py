"""What a linear VAE makes of data, before anything is trained: rates, distortion and loss in nats per datum.

The loss is distortion + beta rate, as of the models, with a Gaussian likelihood of standard deviation ``scale``.
One level, conditional or not, has the latent site "z"; two levels have "z1", next to the data, and "z2".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import Dataset, SelectedRows, add_condition, load, make_splits
from ppl_vae.errors import InputError
from ppl_vae.sweeps.grid import make_points
from ppl_vae.theory.linear_vae import check_parameter
from ppl_vae.theory.over_betas import Curve, critical_over, curve_over, optima_over, with_new_data
from ppl_vae.theory.second_moments import (
    ConditionalMoments,
    Moments,
    Spectrum,
    conditional_moments,
    second_moments,
)
from ppl_vae.theory.spiked_covariance import estimate_spikes, samples_needed, spike_limits

__all__ = ["Forecast", "Strengths", "forecast"]

Array = NDArray[np.float64]
NUM_BETAS = 25
MAX_SETTINGS = 10_000
NO_GAP = 0.1  # share of directions from which on those that stand out are no few
SCALES: dict[str, float | None] = {"posterior_scale1": 1.0, "posterior_scale2": None, "prior_scale1": None}
SHOWN = 5  # betas in a note


@dataclass(frozen=True, eq=False)
class Strengths:
    """What stands out of noise in the spectrum, by the model of ``theory.spiked_covariance``.

    Attributes:
        eta: Variance of the noise in every direction.
        edge: The largest eigenvalue of noise alone.
        weakest: The least strength that this many data show.
        rho: Strengths of the r directions that stand out, the largest first, (r,).
        cos2: Squared overlaps of their eigenvectors with the directions of the population, (r,).
        num_needed: Training data that bring the error of each down to a share of its strength, (r,).
    """

    eta: float
    edge: float
    weakest: float
    rho: Array
    cos2: Array
    num_needed: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is to be expected of a fit.

    Attributes:
        setting: What for: model, data, num_data (training rows, which are all that was read), seed, condition,
            centre, latent_dim by site, scale, other scales (None where they are learned), error, epsilon, delta.
        spectrum: Eigenvalues, (d,), the largest first; of a conditional model those of the residual.
        rank: How many are not 0.
        strengths: What stands out of noise, or None where that cannot be told.
        curve: The model over the betas.
        critical_betas: By site the betas from which on its latents carry nothing, (k,), and "z1_low" and
            "z1_high", between which z2 does, nan where it never does. Where one site's beta varies the other's is
            held; where both do there are none.
        advised: Betas by site, or None.
        criterion: What they are advised by, or why there are none.
        notes: What needs care.
    """

    setting: dict[str, Any]
    spectrum: Array
    rank: int
    strengths: Strengths | None
    curve: Curve
    critical_betas: dict[str, Array]
    advised: dict[str, float] | None
    criterion: str
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``files.strict_json`` takes them."""
        return asdict(self)

    @property
    def varied(self) -> str:
        """The site that curves are drawn over: whose beta varies most, z2 where both vary together."""
        return max(self.curve.betas, key=lambda site: (np.ptp(self.curve.betas[site]), site))

    def page(self) -> str:
        """A page of at most 100 columns for people."""
        from ppl_vae.diagnostics.forecast_picture import forecast_page

        return forecast_page(self)


def forecast(
    data: str | Path | ArrayLike | Dataset,
    *,
    latent_dim: int | Sequence[int],
    scale: float,
    centre: bool = True,
    beta: Any = None,
    condition: str | Path | ArrayLike | None = None,
    levels: int = 1,
    likelihood: str = "gaussian",
    prior_scale: float = 1.0,
    error: float = 0.1,
    epsilon: float = 0.01,
    delta: float = 0.05,
    seed: int = 0,
    **scales: float | None,
) -> Forecast:
    """Forecast which latents of a linear VAE live at which beta, from the training data's second moments alone.

    Args:
        data: What ``load`` takes; rows on the disk are read by blocks.
        latent_dim: Number of latents; for two levels those of z1 and z2, or one number for both.
        scale: Standard deviation of the Gaussian likelihood.
        centre: Whether the model has biases.
        beta: Betas as of ``sweeps.grid.make_points``: a text such as "0.1:10:log25", numbers, or these by site. Of
            two levels one site's may vary, or both together. None takes 25 about the thresholds.
        condition: What ``add_condition`` takes, or None for none.
        levels: 1 or 2.
        likelihood: "gaussian"; no other has a closed form.
        prior_scale: Standard deviation of the (top) prior.
        error: Share of a direction's strength that counts as well recovered.
        epsilon: Divergence in nats below which a latent counts as collapsed.
        delta: Share of data that may lie above it.
        seed: Seed of the split into training data and others.
        **scales: For two levels ``posterior_scale1`` (1) and ``posterior_scale2`` (None), None where they are
            learned, and ``prior_scale1`` (None for ``scale``).

    Raises:
        InputError: An argument out of range, data as of ``load``, or betas at which the loss has no minimum.

    Source:
        Ichikawa & Hukushima, arXiv:2309.07663, for strengths and samples; Dang, Tran, Nguyen & Ho,
        arXiv:2306.05023, for conditions, two levels and thresholds; Lucas et al., arXiv:1911.02469, for collapse.
    """
    sites = ["z"] if levels == 1 else ["z1", "z2"]
    _check(levels, likelihood, condition is not None, error)
    sizes, widths = _sizes(latent_dim, sites), _widths(sites, scale, prior_scale, scales)
    check_parameter(epsilon, "epsilon")
    betas = None if beta is None else _settings(beta, sites)
    seen = _look(load(data), condition, centre, seed)
    values, rank, smallest = seen.spectrum.values, seen.spectrum.rank, min(sizes.values())
    strengths, doubts = _strengths(seen, error)
    advised, criterion = _least_error(values[:smallest], strengths, scale)
    betas = betas or dict.fromkeys(sites, _range(values[: min(smallest, rank)] / scale**2, advised))
    optima = optima_over(seen.moments, sizes, betas, widths)
    curve = curve_over(optima, betas, widths, epsilon, delta)
    if levels == 2:
        advised, criterion = _most_modes(curve)
    elif strengths is not None and seen.condition is None:
        curve = with_new_data(curve, values, _population(strengths, smallest), scale)
    return Forecast(
        setting={
            "model": f"linear {'mhvae' if levels == 2 else 'vae' if seen.condition is None else 'cvae'}",
            **{name: getattr(seen, name) for name in ("data", "num_data", "condition")},
            **{"seed": seed, "centre": centre, "latent_dim": sizes},
            **widths,
            **{"error": error, "epsilon": epsilon, "delta": delta},
        },
        spectrum=values,
        rank=rank,
        strengths=strengths,
        curve=curve,
        critical_betas=critical_over(optima[0], betas),
        advised=advised,
        criterion=criterion,
        notes=[*_limits(levels, seen.condition), *doubts, *_warnings(optima, betas)],
    )


def _check(levels: int, likelihood: str, is_conditional: bool, error: float) -> None:
    if likelihood != "gaussian":
        raise InputError(
            f"likelihood must be gaussian for a forecast, but it is {likelihood}: the closed forms are of squared "
            "errors and one scale; forecast a gaussian model, or sweep over betas"
        )
    if levels not in (1, 2) or (is_conditional and levels == 2):
        raise InputError(
            f"levels must be 1, or 2 without a condition, but it is {levels!r}; leave one of the two out"
        )
    if not 0.0 < error < 1.0:
        raise InputError(f"error must be a share above 0 and below 1, but it is {error}; pass one such as 0.1")


def _sizes(latent_dim: int | Sequence[int], sites: list[str]) -> dict[str, int]:
    given = [latent_dim] * len(sites) if isinstance(latent_dim, int | np.integer) else list(latent_dim)
    if len(given) != len(sites) or not all(isinstance(k, int | np.integer) and k >= 1 for k in given):
        raise InputError(
            f"latent_dim must be 1 or more for {' and '.join(sites)}, but it is {latent_dim!r}; pass one number"
        )
    return dict(zip(sites, map(int, given), strict=True))


def _widths(
    sites: list[str], scale: float, prior_scale: float, scales: Mapping[str, float | None]
) -> dict[str, float | None]:
    known = SCALES if len(sites) == 2 else {}
    if unknown := [name for name in scales if name not in known]:
        raise InputError(
            f"scales must be {', '.join(SCALES)}, of two levels, but there is {unknown[0]}; leave it out, or pass "
            "levels=2"
        )
    found = {"scale": scale, **known, **scales, "prior_scale2" if known else "prior_scale": prior_scale}
    if known and found["prior_scale1"] is None:
        found["prior_scale1"] = scale
    return {name: width if width is None else float(check_parameter(width, name)) for name, width in found.items()}


def _settings(beta: Any, sites: list[str]) -> dict[str, Array]:
    points = make_points(beta, [0], sites, max_runs=MAX_SETTINGS)
    betas = {site: check_parameter([point.betas[site] for point in points], f"beta of {site}") for site in sites}
    first, last = betas[sites[0]], betas[sites[-1]]
    if np.ptp(first) > 0 and np.ptp(last) > 0 and not np.array_equal(first, last):
        raise InputError(
            f"beta must vary at one site, or at both together, but it has {len(points)} settings of both; fix one"
        )
    return betas


def _range(critical: Array, advised: Mapping[str, float] | None) -> Array:
    """Betas from where all these latents live, and those advised, to where none lives."""
    first, last = (critical[0], critical[-1]) if len(critical) else (1.0, 1.0)
    return np.geomspace(0.5 * min(last, (advised or {"z": last})["z"]), 2.0 * first, NUM_BETAS)


class _Seen(NamedTuple):
    """What is read of data: of the rows that a fit with this seed would train on."""

    data: str
    condition: str | None
    moments: Moments | ConditionalMoments
    spectrum: Spectrum  # of the data, or of the residual
    num_data: int
    num_free: int  # data but for those that the mean and the condition take up


def _look(dataset: Dataset, condition: Any, centre: bool, seed: int) -> _Seen:
    found = dataset if condition is None else add_condition(dataset, condition)
    rows = make_splits(found, seed=seed).train
    x, n = SelectedRows(found.x, rows), len(rows)
    if found.condition is None:
        plain = second_moments(x, centre=centre)
        return _Seen(found.name, None, plain, plain.spectrum, n, n - centre)
    given = conditional_moments(SelectedRows(found.condition, rows), x, centre=centre)
    name = str(found.arrangement.get("condition") or "an array")
    return _Seen(found.name, name, given, given.residual, n, n - given.condition.rank - centre)


def _strengths(seen: _Seen, error: float) -> tuple[Strengths | None, list[str]]:
    values, n = seen.spectrum.values, seen.num_free
    if n > len(values):
        values = values[: seen.spectrum.rank]  # the others are constants rather than noise
    try:
        eta, rho, alpha = estimate_spikes(values * seen.num_data / n, num_data=n)
    except InputError as reason:
        return None, [f"signal and noise are not told apart: {str(reason).partition(';')[0]}"]
    limits, edge = (spike_limits(alpha=alpha, signal=signal, noise=eta) for signal in (rho, eta))
    alphas = samples_needed(error=error * rho, signal=rho, noise=eta)
    needed = np.ceil(alphas * len(values)).astype(np.int64) + seen.num_data - n
    notes = []
    if not len(rho):
        notes.append("nothing stands out of noise: what a latent encodes is likely noise of these data")
    elif len(rho) > NO_GAP * len(values):
        notes.append(
            f"{len(rho)} of {len(values)} eigenvalues stand out, so the spectrum has no gap: take noise, samples "
            "and advised beta for orders of magnitude"
        )
    return Strengths(eta, float(edge.s_edge), float(eta / np.sqrt(alpha)), rho, limits.cos2, needed), notes


def _population(strengths: Strengths, num: int) -> Array:
    """Variance of the population along the first directions of the data."""
    variances = np.full(max(num, len(strengths.rho)), strengths.eta)
    variances[: len(strengths.rho)] += strengths.rho * strengths.cos2
    return variances[:num]


def _least_error(s: Array, strengths: Strengths | None, scale: float) -> tuple[dict[str, float] | None, str]:
    """The beta of the least error of the directions, summed over latents, of which each has a best of its own."""
    if strengths is None or not len(strengths.rho):
        return None, "no direction stands out of noise, so that no beta recovers one"
    goal = np.zeros(len(s))
    seen = (strengths.rho * strengths.cos2)[: len(s)]
    goal[: len(seen)] = seen
    low, high = (s - goal).min(), (s - goal).max()
    for _ in range(3):
        grid = np.linspace(low, high, 1001)
        q = np.maximum(s - grid[:, None], 0.0)
        best = int((q - 2.0 * np.sqrt(q * goal)).sum(-1).argmin())
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 1000)]
    advised = {"z": float(grid[best] / scale**2)}
    return advised, "the least error of the signal that stands out, were the noise flat"


def _most_modes(curve: Curve) -> tuple[dict[str, float] | None, str]:
    number = curve.active["z2"]
    if not number.any():
        return None, "at no setting does z2 carry anything of the data"
    elbo = np.where(number == number.max(), -curve.distortion - curve.rate, -np.inf)
    best = int(elbo.argmax())
    most = f"the best ELBO among the settings at which z2 carries {number[best]} directions, as many as at any"
    return {site: float(beta[best]) for site, beta in curve.betas.items()}, most


def _limits(levels: int, condition: str | None) -> list[str]:
    notes = ["this is linear theory: other networks follow it near full collapse, at small betas only roughly"]
    if condition is not None:
        notes.append("networks may predict more from a condition than a line does: then fewer latents live")
    if levels == 2:
        notes.append("the term of z1 is no rate, and may be negative; only the sum with that of z2 is one")
    return notes


def _warnings(optima: Sequence[Any], betas: Mapping[str, Array]) -> list[str]:
    """Those of all optima, each once, with the betas of those that are not of all settings."""
    found: dict[str, list[str]] = {}
    for optimum, *row in zip(optima, *betas.values(), strict=True):
        at = " ".join(f"{site}={beta:.3g}" for site, beta in zip(betas, row, strict=True))
        for text in optimum.warnings:
            found.setdefault(text, []).append(at)
    return [
        text if len(at) == len(optima) else f"{text} (at beta {', '.join(at[:SHOWN])}{' ...' * (len(at) > SHOWN)})"
        for text, at in found.items()
    ]
