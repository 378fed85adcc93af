r"""The aggregate posterior q(z) = 1/n sum_i q(z|x_i) beside the prior: what sets them apart, and where holes are.

Divergences and log densities are in nats. A leading ``n`` is data or draws, a trailing ``k`` latent units.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import Conditioned, condition_of
from ppl_vae.data.checks import check_seed
from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.information import Information, gaussian_aggregate_information, is_diagonal_gaussian
from ppl_vae.diagnostics.members import draw_places, of_one_member
from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.diagnostics.two_sample import TwoSampleTest, as_samples, mmd_test
from ppl_vae.diagnostics.weights import inspect_draws
from ppl_vae.errors import InputError
from ppl_vae.training.engine import Engine, chunks

__all__ = ["HOLE_LEVEL", "Holes", "PriorMatch", "RateSplit"]
__all__ += ["auc", "check_rows", "compare_with_prior", "draw_data", "find_holes", "gaussian_codes", "split_rate"]

Array = NDArray[np.float64]

HOLE_LEVEL = 0.01  # share of draws of the aggregate posterior in what is called a hole, as near as n allows
BLOCK = 2**22  # numbers worked on together
FOLDS, MIN_DATA = 5, 20


@dataclass(frozen=True)
class RateSplit:
    """The mean rate as the sum of three parts, in nats; standard errors are over data.

    Attributes:
        information: Mutual information, and KL(q(z), p(z)), which is the sum of the two below.
        total_correlation: KL(q(z), prod_k q(z_k)): how far units are from independent.
        unit_kl: Sum over units of KL(q(z_k), p(z_k)): how far single units are from their prior.
        unit_kls: The same by unit, (k,).
    """

    information: Information
    total_correlation: Estimate
    unit_kl: Estimate
    unit_kls: tuple[Estimate, ...]


@dataclass(frozen=True, eq=False)
class Holes:
    """Draws of the prior that lie where the aggregate posterior hardly has mass.

    Attributes:
        how: Source of log q(z) - log p(z): "density", the mixture of the guides of other data, or "classifier".
        share: Share of the prior's draws in holes. Its standard error includes that of the threshold.
        level: What is expected of it for a prior that matches: j / (n + 1), the nearest to ``HOLE_LEVEL`` that
            there is, and above 0.015 for n below 66. Of the n draws behind the threshold j - 1 lie below it.
        threshold: log q(z) - log p(z) in nats below which a draw lies in a hole.
        log_ratio_prior: It, of the prior's draws, (m,).
        log_ratio_aggregate: It, of the aggregate posterior's, (n,).
        in_hole: Which of the prior's draws these are, (m,).
    """

    how: Literal["density", "classifier"]
    share: Estimate
    level: float
    threshold: float
    log_ratio_prior: Array
    log_ratio_aggregate: Array
    in_hole: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PriorMatch:
    """Draws of the aggregate posterior, one a datum, beside as many of the prior, all sites together.

    Attributes:
        test: MMD test of the two.
        auc: Probability that a classifier, fitted to other draws, ranks a draw of the aggregate posterior above
            one of the prior: 0.5 where they are alike. A mean over folds, whose dependence its standard error
            takes in.
        holes: Holes in the prior.
        prior_latents: The prior's draws by site, (n, *event), to decode what lies in holes.
    """

    test: TwoSampleTest
    auc: Estimate
    holes: Holes
    prior_latents: Mapping[str, NDArray[Any]]


def split_rate(loc: ArrayLike, scale: ArrayLike, *, num_draws: int = 1, seed: int = 0) -> RateSplit:
    r"""Mutual information, total correlation and KL of the units of Gaussian guides under a standard normal prior.

    .. math:: \tfrac1n \sum_i KL(q(z|x_i), p(z)) = I_q(x; z) + KL(q(z), \textstyle\prod_k q(z_k))
        + \sum_k KL(q(z_k), p(z_k))

    All are Monte Carlo averages over the mixture of all n guides, which holds each datum's own. So the mutual
    information is at most log n and, for the population, biased low; what it lacks is in the other two, most
    of it in the total correlation, as single units are told apart less well than all together. Where the mutual
    information comes near log n the total correlation says little: use more data. The parts add up to the
    rate within their standard errors.

    Args:
        loc: Posterior means, (n, k).
        scale: Posterior standard deviations (not variances), (n, k), positive.
        num_draws: Draws per datum.
        seed: Seed of the draws.

    Raises:
        InputError: The shapes differ or are not (n, k), an entry is out of range, or ``num_draws`` is below 1.

    Source:
        Chen, Li, Grosse & Duvenaud, arXiv:1802.04942, with the whole mixture in place of minibatch weights.
    """
    check_seed(seed)
    first, second = np.random.SeedSequence(seed).generate_state(2).tolist()
    information = gaussian_aggregate_information(loc, scale, num_draws=num_draws, seed=first)
    mean, sd = np.asarray(loc, np.float64), np.asarray(scale, np.float64)
    rng, correlation, kl = np.random.default_rng(second), np.zeros(len(mean)), np.zeros(mean.shape)
    for _ in range(num_draws):
        z = mean + sd * rng.standard_normal(mean.shape)
        joint, units = _log_mixture(z, mean, sd)
        correlation += (joint - units.sum(axis=1)) / num_draws
        kl += (units + 0.5 * (z**2 + np.log(2.0 * np.pi))) / num_draws
    return RateSplit(
        information=information,
        total_correlation=Estimate(*mean_and_standard_error(correlation)),
        unit_kl=Estimate(*mean_and_standard_error(kl.sum(axis=1))),
        unit_kls=tuple(Estimate(*mean_and_standard_error(column)) for column in kl.T),
    )


def gaussian_codes(engine: Engine, x: NDArray[Any], *, seed: int = 0) -> tuple[Array, Array] | str:
    """Means and standard deviations of the top site's guide, or why it is not what `split_rate` assumes.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        seed: Seed of the draws that the densities are looked at with.

    Returns:
        Two arrays (n, k); or a reason, where members of a group have one each, the guide depends on draws of other
        sites or is not a diagonal Gaussian, or the prior is not a standard normal.
    """
    site, fields = engine.latents[0], ("loc", "scale", "latents", "log_guide", "log_prior")
    if site in engine.nested:
        return f"each member of a group has a {site} of its own"
    found = {name: of[site] for name, of in inspect_draws(engine, x, fields, num_draws=2, seed=seed).items()}
    loc, scale = found["loc"], found["scale"]
    if not all(np.allclose(values[0], values[1], rtol=1e-3, atol=1e-4) for values in (loc, scale)):
        return f"the guide of {site} depends on draws of other sites, not on x alone"
    if not is_diagonal_gaussian(found["log_guide"], found["latents"], loc, scale):
        return f"the guide of {site} is not a diagonal Gaussian"
    if not is_diagonal_gaussian(found["log_prior"], found["latents"], 0.0, 1.0):
        return f"the prior of {site} is not a standard normal"
    return _units(loc[0]), _units(scale[0])


def compare_with_prior(
    engine: Engine,
    x: NDArray[Any],
    *,
    reference: NDArray[Any] | None = None,
    num_permutations: int = 199,
    seed: int = 0,
) -> PriorMatch:
    """Compare the aggregate posterior with the prior by draws, and find holes in the prior.

    Works for any guide and prior. A conditional model draws from the prior under the conditions of the data. Of
    rows that are groups the latent of the group and those of one member, drawn at random, are compared.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape), n >= 20.
        reference: Other data, (m, *data_shape), whose guides give the density of the aggregate posterior where
            there is one latent site, Gaussian with a standard normal prior; without them, or elsewhere, holes are
            found by the classifier.
        num_permutations: Permutations of the MMD test.
        seed: Seed of all draws and of the classifier.

    Raises:
        InputError: There are fewer than 20 data, draws are not finite, or an option is invalid.

    Source:
        Nadeau & Bengio, Machine Learning 52, 2003, for the variance of a mean over folds.
    """
    check_rows(x, seed)
    if len(x) < MIN_DATA:
        raise InputError(f"x must hold {MIN_DATA} data or more, but holds {len(x)}; pass more")
    seeds = np.random.SeedSequence(seed).generate_state(5).tolist()
    coded = inspect_draws(engine, x, ("latents",), num_draws=1, seed=seeds[0])["latents"]
    prior, _ = draw_data(engine, x, seed=seeds[1])
    places = draw_places(engine, x, seeds[4])

    def joined(latents: Mapping[str, NDArray[Any]]) -> Array:
        units = [of_one_member(engine, name, latents[name][None], places)[0] for name in coded]
        return np.concatenate(units, axis=1).astype(np.float64)

    codes, draws = joined({name: value[0] for name, value in coded.items()}), joined(prior)
    codes, draws = as_samples(codes, draws, ("codes", "draws of the prior"))
    odds, area = _log_odds(codes, draws, seeds[2])
    gaussian = "no reference" if reference is None or len(coded) > 1 else gaussian_codes(engine, reference)
    if isinstance(gaussian, str):
        holes = find_holes(*odds, how="classifier")
    else:
        ratios = (
            _log_mixture(z, *gaussian)[0] + 0.5 * (z**2 + np.log(2.0 * np.pi)).sum(axis=1) for z in (codes, draws)
        )
        holes = find_holes(*ratios, how="density")
    return PriorMatch(
        test=mmd_test(codes, draws, num_permutations=num_permutations, seed=seeds[3]),
        auc=area,
        holes=holes,
        prior_latents=prior,
    )


def find_holes(
    aggregate: ArrayLike, prior: ArrayLike, *, how: Literal["density", "classifier"] = "density"
) -> Holes:
    """Find the draws of the prior whose log q(z) - log p(z) is below the j-th smallest of n of the aggregate's.

    Args:
        aggregate: log q(z) - log p(z) of draws of the aggregate posterior whose own guides are not in q, (n,).
        prior: It, of draws of the prior, (m,); -inf where q is zero.
        how: Where they are from.

    Raises:
        InputError: Too few draws, another shape, or an entry is nan or +inf.

    Example:
        >>> find_holes(range(100), [-5.0, 50.0, 60.0, 70.0]).share.value
        0.25
    """
    inside, found = np.asarray(aggregate, np.float64), np.asarray(prior, np.float64)
    for name, values in (("aggregate", inside), ("prior", found)):
        if values.ndim != 1 or not values.size or not (values < np.inf).all():
            raise InputError(
                f"{name} must hold log ratios below +inf of shape (n,), but has shape {values.shape}"
                f"{'' if (values < np.inf).all() else ' and an entry that is nan or +inf'}; pass one a draw"
            )
    number = max(1, round(HOLE_LEVEL * (len(inside) + 1)))
    ordered = np.concatenate([[-np.inf], np.sort(inside), [np.inf]])
    in_hole = found < ordered[number]
    share = in_hole.mean()
    # The law of the j-th smallest of n spans the others about it, from j - sqrt(j) to j + sqrt(j).
    below = np.searchsorted(np.sort(found), ordered[: 2 * number + 1]) / len(found)
    low, high = np.interp([number - number**0.5, number + number**0.5], np.arange(len(below)), below)
    variance = share * (1.0 - share) / len(found) + (high - low) ** 2 / 4.0
    estimate = Estimate(float(share), float(np.sqrt(variance)))
    return Holes(how, estimate, number / (len(inside) + 1), float(ordered[number]), found, inside, in_hole)


def auc(positive: ArrayLike, negative: ArrayLike) -> Estimate:
    """Probability that a score of the first kind exceeds one of the second, ties counting half.

    Args:
        positive: Scores, (n,).
        negative: Scores, (m,).

    Source:
        DeLong, DeLong & Clarke-Pearson, Biometrics 44 (3), 1988, for the standard error.

    Example:
        >>> auc([2.0, 3.0], [0.0, 2.5]).value
        0.75
    """
    first, second = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    of_first, of_second = _share_below(first, second), _share_below(second, first)
    variance = of_first.var() / max(1, len(first) - 1) + of_second.var() / max(1, len(second) - 1)
    return Estimate(float(of_first.mean()), float(np.sqrt(variance)))


def draw_data(
    engine: Engine, like: NDArray[Any], *, seed: int, latents: Mapping[str, NDArray[Any]] | None = None
) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
    """Latents and x drawn from a model, noise included, a row for each datum and under its condition.

    Args:
        engine: What holds the fit.
        like: Data, (n, *data_shape).
        seed: Seed of the draws.
        latents: Those of all sites, (n, *event), by default drawn from the prior.

    Returns:
        Latents by site, (n, *event), and x, (n, *data_shape), with the conditions.

    Raises:
        InputError: Draws of x are not finite.
    """
    condition, pieces = condition_of(like), []
    parts = chunks(len(like), engine.max_rows)
    for part, state in zip(parts, np.random.SeedSequence(seed).generate_state(len(parts)).tolist(), strict=True):
        given = None if latents is None else {name: value[part] for name, value in latents.items()}
        own = None if condition is None else condition[part]
        pieces.append(engine.generate(part.stop - part.start, seed=state, latents=given, condition=own))
    x = np.concatenate([piece.x for piece in pieces]).astype(np.float32)
    if not np.isfinite(x).all():
        raise InputError("draws of x must be finite, but some are not; look at the decoder's output, or fit again")
    found = {name: np.concatenate([piece.latents[name] for piece in pieces]) for name in engine.latents}
    return found, x if condition is None else Conditioned(x, condition)


def check_rows(x: NDArray[Any], seed: int) -> None:
    """Refuse data that cannot be simulated row by row.

    Raises:
        InputError: There are none, or the seed is invalid.
    """
    check_seed(seed)
    if x.ndim < 2 or x.size == 0:
        raise InputError(f"x must have shape (n, *data_shape), none of them zero, but has {x.shape}; pass data")


def _share_below(values: Array, others: Array) -> Array:
    ordered = np.sort(others)
    counts = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    share: Array = counts / (2.0 * len(others))
    return share


def _log_odds(codes: Array, draws: Array, seed: int) -> tuple[tuple[Array, Array], Estimate]:
    """Log odds of being a code, of codes and prior's draws, by classifiers that never saw them; and their AUC."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    points = np.concatenate([codes, draws])
    is_code = np.arange(len(points)) < len(codes)
    model = HistGradientBoostingClassifier(
        max_iter=50, min_samples_leaf=5, early_stopping=False, random_state=seed
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    splits = list(folds.split(points, is_code))
    odds = cross_val_predict(model, points, is_code, cv=splits, method="decision_function")
    found = [auc(odds[test][is_code[test]], odds[test][~is_code[test]]) for _, test in splits]
    # Each fold is tested on what the others are fitted to, so that 1 / FOLDS alone would be too small.
    variance = np.mean([part.standard_error**2 for part in found]) * (1.0 / FOLDS + 1.0 / (FOLDS - 1))
    mean = np.mean([part.value for part in found])
    return (odds[is_code], odds[~is_code]), Estimate(float(mean), float(np.sqrt(variance)))


def _log_mixture(z: Array, loc: Array, scale: Array) -> tuple[Array, Array]:
    """Log density of an equal mixture of Gaussians at z (m, k), all units, (m,), and each by itself, (m, k)."""
    joint, units = np.empty(len(z)), np.empty(z.shape)
    for part in chunks(len(z), max(1, BLOCK // len(loc))):
        total = np.zeros((part.stop - part.start, len(loc)))
        for unit in range(z.shape[1]):
            standard = (z[part, unit, None] - loc[:, unit]) / scale[:, unit]
            log_density = -0.5 * (standard * standard + np.log(2.0 * np.pi)) - np.log(scale[:, unit])
            units[part, unit] = _log_mean_exp(log_density)
            total += log_density
        joint[part] = _log_mean_exp(total)
    return joint, units


def _log_mean_exp(values: Array) -> Array:
    # On large arrays scipy's logsumexp takes ten times as long.
    peak = values.max(axis=1, keepdims=True)
    return np.asarray(peak[:, 0] + np.log(np.exp(values - peak).mean(axis=1)))


def _units(values: NDArray[Any]) -> Array:
    return np.reshape(values, (len(values), -1)).astype(np.float64)
