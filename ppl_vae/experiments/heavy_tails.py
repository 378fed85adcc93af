"""Models fitted to heavy-tailed data, and the tails of their draws: what the programs on the t3VAE share.

Points are compared by one number each: the coordinate in one dimension, and otherwise the distance from the origin
with the sign of the first coordinate. Tail counts are those of so many draws as ``COUNTED``.

Source:
    Kim et al., ICLR 2024, arXiv:2312.01133: data, models and the test are those of its released code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ppl_vae.data import load
from ppl_vae.data.generators import CurvedMixture, StudentTMixture
from ppl_vae.plugins import Backend

__all__ = [
    "COUNTED",
    "FRESH",
    "FULL",
    "QUANTILES",
    "SMALL",
    "TEST",
    "Model",
    "Size",
    "compare",
    "entropy_of",
    "fit_model",
    "p_values",
    "published_models",
    "signed_radius",
    "t3_name",
    "tails",
    "versions",
]

COUNTED = 500_000
QUANTILES = (1e-4, 1e-3, 0.999, 0.9999)
TEST, FRESH = "test data", "another draw of the law"
ENTROPY_DRAWS = 20_000
TEST_SEED, FRESH_SEED = 3, 4  # of the released code's test data, and of another draw

NETWORK: dict[str, Any] = {"hidden_dim": 64, "num_hidden": 2, "latent_dim": 1}


@dataclass(frozen=True)
class Model:
    """A model to fit and to draw from.

    Attributes:
        name: What tables call it.
        variant: Which of ``models/`` it is.
        options: Options of ``fit``.
        priors: What z is drawn from, "model" or "alternative".
    """

    name: str
    variant: str
    options: Mapping[str, Any] = field(default_factory=dict)
    priors: tuple[str, ...] = ("model",)


@dataclass(frozen=True)
class Size:
    """How much is fitted and drawn.

    Attributes:
        num_train: Data to fit.
        num_validation: Data to choose the epoch by.
        num_draws: Draws of each model.
        num_full: Points of each side in the test on all points.
        permutations: Of each test.
        seeds: Of weights and noise; a fit of each model for each.
    """

    num_train: int
    num_validation: int
    num_draws: int
    num_full: int
    permutations: int
    seeds: tuple[int, ...]


SMALL = Size(30_000, 10_000, num_draws=100_000, num_full=20_000, permutations=199, seeds=(42,))
FULL = Size(200_000, 200_000, num_draws=500_000, num_full=100_000, permutations=999, seeds=(42, 43))


def published_models(
    *, scale: float, entropy: float, dfs: Mapping[str, Sequence[float]], betas: Sequence[float]
) -> list[Model]:
    """The models of the source and, beside the published t3VAE, that with the entropy of the data in its loss.

    Args:
        scale: Standard deviation, or scale, of all decoders that have one.
        entropy: Differential entropy of the data in nats.
        dfs: Degrees of freedom nu by "published" and "corrected" (t3VAE), "product" (DE-VAE) and "student"
            (VAE-st).
        betas: Of the beta-VAEs.
    """
    normal = {**NETWORK, "scale": scale, "learn_scale": False}
    both = ("model", "alternative")
    found = []
    for kind, loss in (("published", {}), ("corrected", {"loss_options": {"entropy": f"{entropy:.6g}"}})):
        for df in dfs[kind]:
            options = {**NETWORK, "df": df, "scale": scale, **loss}
            found.append(Model(t3_name(df, kind), "t3vae", options, both))
    found.append(Model("VAE", "beta_vae", normal))
    found += [Model(f"beta-VAE {beta:g}", "beta_vae", {**normal, "beta": beta}) for beta in betas]
    found.append(Model("Student-t VAE", "beta_vae", {**NETWORK, "likelihood": "student-t"}))
    for kind, name in (("product", "DE-VAE"), ("student", "VAE-st")):
        prior = {"product": "product-student-t", "student": "student-t"}[kind]
        for df in dfs[kind]:
            found.append(Model(f"{name} nu={df:g}", "prior_vae", {**normal, "prior": prior, "df": df}))
    return found


def t3_name(df: float, kind: str) -> str:
    """What tables call a t3VAE; ``kind`` is "published" or "corrected"."""
    return f"t3VAE nu={df:g}{', corrected' if kind == 'corrected' else ''}"


def entropy_of(law: StudentTMixture | CurvedMixture) -> tuple[float, float]:
    """Differential entropy of a law in nats and its standard error, by Monte Carlo with the exact density."""
    found = -law.log_density(law.sample(ENTROPY_DRAWS, seed=FRESH_SEED))
    return float(found.mean()), float(found.std() / np.sqrt(ENTROPY_DRAWS))


def signed_radius(x: NDArray[Any]) -> NDArray[np.float64]:
    """One number a point: its norm with the sign of its first coordinate, (n,), of points (n, d)."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    return np.copysign(np.linalg.norm(flat, axis=1), flat[:, 0])


def tails(draws: NDArray[Any], test: NDArray[Any], *, cut: float, far: float) -> dict[str, float]:
    """How far the tails of draws are from those of test data.

    Args:
        draws: Points, (n, d).
        test: Points of the true law, (m, d).
        cut: Distance from the origin from which on a point is counted in a tail.
        far: Distance from which on masses are compared.

    Returns:
        ``ks``, the Kolmogorov-Smirnov distance; ``left`` and ``right``, tail counts; ``mass``, beyond ``far`` over
        that of ``test``; ``q1`` to ``q4``, ``QUANTILES``.
    """
    from scipy.stats import ks_2samp

    ours, true = signed_radius(draws), signed_radius(test)
    mass = (np.abs(ours) > far).mean() / (np.abs(true) > far).mean()
    found = {"ks": ks_2samp(ours, true, method="asymp").statistic, "mass": mass}
    found |= {"left": COUNTED * (ours < -cut).mean(), "right": COUNTED * (ours > cut).mean()}
    found |= {f"q{number}": q for number, q in enumerate(np.quantile(ours, QUANTILES), 1)}
    return {name: float(value) for name, value in found.items()}


def p_values(
    draws: NDArray[Any], test: NDArray[Any], *, cut: float, size: Size, seed: int = 0
) -> dict[str, float]:
    """P-values of the linear-time MMD test on all points and on those of either tail.

    Args:
        draws: Points, (n, d).
        test: Points of the true law, (m, d).
        cut: As of ``tails``.
        size: Points and permutations of the tests.
        seed: Seed of the permutations.

    Returns:
        ``p_full``, ``p_left`` and ``p_right``, nan where there are too few points.
    """
    from ppl_vae.diagnostics.two_sample import MIN_POINTS, mmd_test

    radii, found = [signed_radius(x) for x in (draws, test)], {}
    full = [np.arange(len(r)) < size.num_full for r in radii]
    parts = {"full": full, "left": [r < -cut for r in radii], "right": [r > cut for r in radii]}
    for part, chosen in parts.items():
        x, y = draws[chosen[0]], test[chosen[1]]
        found[f"p_{part}"] = float("nan")
        if min(len(x), len(y)) >= MIN_POINTS:
            one = mmd_test(x, y, form="linear", num_permutations=size.permutations, seed=seed)
            found[f"p_{part}"] = one.p_value
    return found


def fit_model(
    model: Model, data: Any, *, backend: Backend, out: Path, seed: int, training: Mapping[str, Any]
) -> Any:
    """Fit a model; a ``Run``.

    Args:
        model: The model.
        data: As ``fit`` takes it.
        backend: "pyro" or "numpyro".
        out: Folder for the runs of all models.
        seed: Seed of the fit.
        training: Settings of the fit.
    """
    from ppl_vae import fit

    letters = "".join(c if c.isalnum() else "-" for c in f"{model.name} {seed}".lower())
    # log p(x) is not looked at.
    settings: dict[str, Any] = {"products": False, "log_px_data": 20, "log_px_draws": 25, **training}
    return fit(model.variant, data, backend=backend, out=out / letters, seed=seed, **settings, **model.options)


def compare(
    models: Sequence[Model],
    law: Any,
    *,
    cut: float,
    far: float,
    size: Size,
    training: Mapping[str, Any],
    backend: Backend,
    out: Path,
    report: Any,
) -> tuple[pd.DataFrame, dict[str, NDArray[Any]]]:
    """Fit each model to draws of a law, and look at the tails of its own draws.

    Args:
        models: The models.
        law: The law of the data.
        cut: As of ``tails``.
        far: As of ``tails``.
        size: How much is fitted and drawn.
        training: Settings of the fits.
        backend: "pyro" or "numpyro".
        out: Folder for the runs.
        report: Called with a line for each fit.

    Returns:
        A row for each model, prior and seed: ``model``, ``prior``, ``seed``, and what ``tails`` and ``p_values``
        name; and of ``TEST`` data and ``FRESH`` draws. And draws by name, of the first seed and the model's own
        prior.
    """
    test = law.sample(COUNTED, seed=TEST_SEED)
    parts = [law.sample(number, seed=seed) for seed, number in ((1, size.num_train), (2, size.num_validation))]
    x = np.concatenate([*parts, test[: size.num_validation]])
    data = replace(load(x, name="draws of the law"), num_test=size.num_validation)
    settings = {**training, "validation": size.num_validation / len(x)}
    rows: list[dict[str, Any]] = []
    kept = {TEST: test}

    def add(name: str, prior: str, seed: int, draws: NDArray[Any]) -> None:
        tested = {} if draws is test else p_values(draws, test, cut=cut, size=size)
        found = {**tails(draws, test, cut=cut, far=far), **tested}
        rows.append({"model": name, "prior": prior, "seed": seed, **found})

    for seed in size.seeds:
        for model in models:
            run = fit_model(model, data, backend=backend, out=out, seed=seed, training=settings)
            for prior in model.priors:
                draws = run.sample(size.num_draws, seed=seed, noise=True, prior=prior)
                add(model.name, prior, seed, draws)
                if prior == "model":
                    kept.setdefault(model.name, draws)
                mass = rows[-1]["mass"]
                report(f"{model.name}, {prior} prior, seed {seed}: tail mass {mass:.2f} times the true")
    add(FRESH, "", FRESH_SEED, law.sample(size.num_draws, seed=FRESH_SEED))
    add(TEST, "", TEST_SEED, test)
    return pd.DataFrame(rows), kept


def versions(backend: Backend) -> str:
    """Versions of the libraries behind a backend, in words."""
    names = {"pyro": ("torch", "pyro-ppl"), "numpyro": ("jax", "numpyro")}[backend]
    return ", ".join(f"{name} {version(name)}" for name in ("numpy", *names))
