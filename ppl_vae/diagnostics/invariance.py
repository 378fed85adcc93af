r"""How invariant a code is under a transformation t of the data; nats per datum.

.. math:: R(x) = E_t \, KL(q(z \mid t(x)), q(z \mid x))
    = I(z; t \mid x) + KL(\bar q(z \mid x), q(z \mid x)), \quad \bar q(z \mid x) = E_t \, q(z \mid t(x))

A leading ``t`` is transformations, then ``n`` data.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from ppl_vae.data import Conditioned, condition_of
from ppl_vae.data.checks import check_seed
from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.information import is_diagonal_gaussian
from ppl_vae.diagnostics.invariance_page import Invariance, SiteConsistency
from ppl_vae.diagnostics.probe import ProbeResult, linear_probe
from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.diagnostics.weights import inspect_draws, unit_means
from ppl_vae.errors import InputError
from ppl_vae.formulas.divergences import gaussian_kl
from ppl_vae.likelihoods.support import LIKELIHOODS
from ppl_vae.plugins import Backend
from ppl_vae.training.engine import Engine
from ppl_vae.training.prepared import evenly_spaced
from ppl_vae.transforms import Transform, find_transform

__all__ = ["Invariance", "SiteConsistency", "invariance_of_run", "measure_invariance", "transformed_copies"]

MAX_DATA = 2000
FIELDS = ("latents", "loc", "scale", "log_guide")


def invariance_of_run(
    run: Any,
    transform: str,
    *,
    split: str = "test",
    num_transforms: int = 5,
    max_data: int = MAX_DATA,
    seed: int = 0,
) -> Invariance:
    """Measure how invariant the code of a run is.

    Data are transformed while they are grey, and then brought to the support of the variant's ``likelihood``, as
    those of the fit were. Where the fit drew binary pixels, t draws them anew, and is more than its name.
    Conditions are not transformed.

    Args:
        run: A ``Run``.
        transform: Name of a transformation; see ``transforms.find_transform``.
        split: "train", "validation" or "test".
        num_transforms: Transformations of each datum, 2 or more.
        max_data: At most so many data of the split, evenly spaced; the time grows with their number times the
            square of that of the transformations.
        seed: Seed of the transformations and of the draws of codes.

    Raises:
        InputError: An argument breaks its rule, or the transformation does not fit the data.
    """
    check_seed(seed)
    data, likelihood = run.data, run.program.options.get("likelihood")
    binarise = run.record["settings"]["binarise"]
    if run.engine.nested:
        raise InputError(
            f"transform must be left out for a run whose rows are groups, but it is {transform!r}; measure a run "
            "of single data"
        )
    found = find_transform(
        transform,
        data.dataset.data_shape,
        likelihood=likelihood if likelihood in LIKELIHOODS else None,
        binarise=None if binarise == "none" else binarise,
    )
    rows = data.evaluated(split)
    rows = rows[evenly_spaced(len(rows), max_data)]
    grey = np.asarray(data.rows(rows, grey=True))
    labels = data.dataset.labels
    return measure_invariance(
        run.engine,
        data.rows(rows),
        transformed_copies(found, grey, num_transforms=num_transforms, backend=run.program.backend, seed=seed),
        transform=transform,
        labels=None if labels is None else labels[rows],
        # A probe must not be scored on what it was fitted to.
        train_x=None if split == "train" else data.split("train"),
        train_labels=None if split == "train" else data.labels("train"),
        notes=found.notes,
        seed=seed,
    )


def transformed_copies(
    transform: Transform, x: ArrayLike, *, num_transforms: int = 5, backend: Backend = "pyro", seed: int = 0
) -> NDArray[np.float32]:
    """Transformed copies of data, each with draws of its own.

    Args:
        transform: The transformation.
        x: Data that it takes, (n, *data_shape).
        num_transforms: Copies of each datum, 2 or more.
        backend: The library that computes them; the draws of the two differ.
        seed: Seed of the draws.

    Returns:
        Copies, (t, n, *data_shape).

    Raises:
        InputError: The transformation does not take such data, or there are too few copies.
    """
    check_seed(seed)
    if num_transforms < 2:
        raise InputError(f"num_transforms must be 2 or more, but it is {num_transforms}; 5 are a handful")
    transform.check(x)
    grey = np.asarray(x, np.float32)
    if backend == "pyro":
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            copies = [transform.pyro(torch.as_tensor(grey)).numpy() for _ in range(num_transforms)]
    else:
        import jax

        keys = jax.random.split(jax.random.key(seed), num_transforms)
        copies = [np.asarray(transform.numpyro(key, grey)) for key in keys]
    return np.stack(copies)


def measure_invariance(
    engine: Engine,
    x: NDArray[Any],
    copies: ArrayLike,
    *,
    transform: str = "",
    labels: ArrayLike | None = None,
    train_x: NDArray[Any] | None = None,
    train_labels: ArrayLike | None = None,
    notes: tuple[str, ...] = (),
    seed: int = 0,
) -> Invariance:
    r"""Measure how invariant a code is, on data and transformed copies of them.

    With one draw z_i of each guide q_i = q(z given t_i(x)), the information that the code holds about t is
    estimated from two sides, as the mean over i of

    .. math:: \log q_i(z_i) - \log \frac1T \sum_j q_j(z_i)
        \quad\text{and}\quad \log q_i(z_i) - \log \frac{1}{T-1} \sum_{j \ne i} q_j(z_i).

    The first is the information about which of these T transformations it was: at most log T, and in expectation
    below that about t by (C - 1) / 2T to first order, where C is the mean of q(z given t) over the mean guide. The
    second is in expectation above it, by about as much. With few transformations read them as an interval.

    Args:
        engine: What holds the fit.
        x: Data as the fit sees them, (n, *data_shape), n >= 2.
        copies: Transformed data, (t, n, *data_shape), t >= 2, with the conditions of ``x`` if it has any.
        transform: Name for the record.
        labels: Classes of ``x``, (n,), for the probe.
        train_x: Other data to fit the probe to, as they are, (m, *data_shape).
        train_labels: Their classes, (m,).
        notes: Go into the record.
        seed: Seed of the draws of codes.

    Raises:
        InputError: The shapes do not fit, there are too few data or copies, or a density is nan.

    Source:
        The split is a chain rule of the KL divergence; R is that of Sinha & Dieng, arXiv:2105.14859. The two sides
        are the bounds for tractable encoders of Poole et al., arXiv:1905.06922.
    """
    data, moved = np.asanyarray(x), np.asarray(copies)
    _check(data, moved)
    flat = _like(moved.reshape(-1, *data.shape[1:]), data)
    drawn = inspect_draws(engine, flat, FIELDS, num_draws=1, seed=seed)
    there = {field: {name: _by_copy(v, len(moved)) for name, v in drawn[field].items()} for field in FIELDS}
    given: dict[str, Any] = {"num_draws": len(moved), "seed": seed, "latents": there["latents"]}
    here = inspect_draws(engine, data, FIELDS, **given)
    divergences = {name: _divergence(*_at(name, there, here)) for name in engine.latents}
    total = np.sum([kl for _, kl in divergences.values()], axis=0)
    log_q = [
        _joint(inspect_draws(engine, _like(copy, data), ("log_guide",), **given)["log_guide"]) for copy in moved
    ]
    least, most = _information(np.stack(log_q))
    probes = _probes(engine, data, flat, labels, train_x, train_labels)
    return Invariance(
        transform=transform,
        num_data=len(data),
        num_transforms=len(moved),
        sites=[SiteConsistency(name, how, _estimate(kl)) for name, (how, kl) in divergences.items()],
        consistency=_estimate(total),
        information=_estimate(least),
        information_at_most=_estimate(most),
        bias=_estimate(total - least),
        ceiling=float(np.log(len(moved))),
        probe=None if isinstance(probes, str) else probes[0],
        probe_transformed=None if isinstance(probes, str) else probes[1],
        not_estimated={"probe": probes} if isinstance(probes, str) else {},
        notes=notes,
    )


def _at(name: str, *sides: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """What each branch says of a site."""
    return tuple({field: side[field][name] for field in FIELDS} for side in sides)


def _divergence(q: Mapping[str, Any], p: Mapping[str, Any]) -> tuple[str, NDArray[np.float64]]:
    """How the KL of a site is found, and its mean over transformations, (n,)."""
    if all(is_diagonal_gaussian(side["log_guide"], q["latents"], side["loc"], side["scale"]) for side in (q, p)):
        moments = (np.asarray(side[field], np.float64) for side in (q, p) for field in ("loc", "scale"))
        elements = gaussian_kl(*moments)
        return "analytic", elements.mean(axis=0).reshape(elements.shape[1], -1).sum(axis=1)
    return "sampled", (np.asarray(q["log_guide"], np.float64) - p["log_guide"]).mean(axis=0)


def _information(log_q: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Information about the transformation from below and from above, (n,).

    Args:
        log_q: Log density of draw i under guide j, (j, i, n).
    """
    num_transforms = len(log_q)
    each = np.arange(num_transforms)
    ratio = log_q - log_q[each, each]
    least = np.log(num_transforms) - logsumexp(ratio, axis=0)
    ratio[each, each] = -np.inf
    most = np.log(num_transforms - 1) - logsumexp(ratio, axis=0)
    return least.mean(axis=0), most.mean(axis=0)


def _probes(
    engine: Engine,
    data: NDArray[Any],
    flat: NDArray[Any],
    labels: ArrayLike | None,
    train_x: NDArray[Any] | None,
    train_labels: ArrayLike | None,
) -> tuple[ProbeResult, Estimate] | str:
    if labels is None or train_x is None or train_labels is None:
        return "it needs labels, and training data with labels"
    train, clean, moved = (_codes(engine, part) for part in (train_x, data, flat))
    copied = np.tile(np.asarray(labels), len(flat) // len(data))
    try:
        probe = linear_probe(train, train_labels, clean, labels)
        share = linear_probe(train, train_labels, moved, copied).accuracy
    except InputError as error:
        return str(error)
    return probe, Estimate(share, float(np.sqrt(share * (1.0 - share) / len(data))))


def _codes(engine: Engine, x: NDArray[Any]) -> NDArray[np.float64]:
    return np.concatenate(list(unit_means(engine, x).values()), axis=1)


def _joint(log_guide: Mapping[str, Any]) -> NDArray[np.float64]:
    return np.sum([np.asarray(value, np.float64) for value in log_guide.values()], axis=0)


def _by_copy(values: NDArray[Any], num_copies: int) -> NDArray[Any]:
    """Values (1, t n, ...) as (t, n, ...)."""
    return values.reshape(num_copies, -1, *values.shape[2:])


def _like(rows: NDArray[Any], data: NDArray[Any]) -> NDArray[Any]:
    """Rows with the conditions of the data, repeated as often as needed."""
    condition = condition_of(data)
    return rows if condition is None else Conditioned(rows, condition[np.arange(len(rows)) % len(data)])


def _estimate(values: NDArray[np.float64]) -> Estimate:
    return Estimate(*mean_and_standard_error(values))


def _check(data: NDArray[Any], copies: NDArray[Any]) -> None:
    if data.ndim < 2 or len(data) < 2:
        raise InputError(
            "x must hold 2 data or more, one row each, for standard errors over data, but has shape "
            f"{data.shape}; pass more data"
        )
    if copies.shape[1:] != data.shape or len(copies) < 2:
        raise InputError(
            f"copies must have shape (t, {', '.join(map(str, data.shape))}) with t of 2 or more, but has shape "
            f"{copies.shape}; make them by transformed_copies"
        )
