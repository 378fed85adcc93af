"""Reference posteriors of single data: NUTS chains with the decoder frozen, judged by rules and kept in a file.

Where rows are groups, a datum is the group, and its posterior that of its latent and those of its members. Unlike
draws of a guide these are Markov chains, of which R-hat and effective sample size mean something. Shapes:
c chains, s draws of each, n data; energies are in nats.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import Conditioned, condition_of
from ppl_vae.data.checks import check_seed
from ppl_vae.diagnostics.containers import DRAWS, Variables, event_dims, make_container
from ppl_vae.diagnostics.members import taken_latents
from ppl_vae.diagnostics.reference_chains import Chains, Plan, is_pyro, join_chains, run_chains
from ppl_vae.diagnostics.store import read_store, write_store
from ppl_vae.diagnostics.weights import check_density, inspect_draws
from ppl_vae.errors import InputError
from ppl_vae.files import strict_json, write_atomically
from ppl_vae.training.engine import Engine, chunks
from ppl_vae.training.run import Run

__all__ = [
    "ReferencePosterior",
    "Rules",
    "read_reference",
    "reference_posterior",
    "sampling_engine",
    "write_reference",
]

BLOCK = 16  # data whose chains move together
MOST_DENSE = 64  # latent numbers of a datum up to which a chain adapts to their full covariance
FIGURES = ("rhat", "ess", "lag1", "ebfmi", "num_divergences")


@dataclass(frozen=True)
class Rules:
    """What the chains of a datum must do to be accepted; they must not diverge either.

    Attributes:
        max_rhat: Bound of the split R-hat of every latent number.
        min_ess: Least effective sample size of every latent number.
        max_lag1: Bound of the lag-1 autocorrelation of every latent number after thinning, of either sign. What
            exceeds it by less than 4 / sqrt(c s), which so few draws cannot tell from nothing, passes.
        min_ebfmi: Bound of the energy Bayesian fraction of missing information of every chain, from below.

    Source:
        posteriordb (Magnusson et al., arXiv:2407.04967); E-BFMI: Betancourt, arXiv:1604.00695.
    """

    max_rhat: float = 1.01
    min_ess: float = 400.0
    max_lag1: float = 0.05
    min_ebfmi: float = 0.2


@dataclass(frozen=True, eq=False)
class ReferencePosterior:
    """Posterior draws of n data, and what their chains are worth.

    Attributes:
        x: The data, (n, *data_shape).
        draws: Latents by site, (c, s, n, *event); nan in places that no member of a group takes.
        rhat: Largest split R-hat of a datum's latent numbers, (n,).
        ess: Smallest effective sample size of them, (n,).
        lag1: Lag-1 autocorrelation of them that is largest in size, (n,).
        ebfmi: Smallest E-BFMI of a datum's chains, (n,).
        num_divergences: Steps after the warm-up that diverged, (n,).
        why: Why a datum is not accepted, empty where it is, (n,).
        energy: Hamiltonian of each draw, (c, s, n).
        diverging: Whether a step on the way to the draw diverged, (c, s, n).
        attrs: Whose posterior it is, the rules, lengths, seed and versions.
    """

    x: NDArray[Any]
    draws: Mapping[str, NDArray[Any]]
    rhat: NDArray[np.float64]
    ess: NDArray[np.float64]
    lag1: NDArray[np.float64]
    ebfmi: NDArray[np.float64]
    num_divergences: NDArray[np.int64]
    why: tuple[str, ...]
    energy: NDArray[np.float64]
    diverging: NDArray[np.bool_]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """Whether a datum's chains keep all rules, (n,)."""
        return np.array([not reason for reason in self.why])

    def moments(self, site: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Posterior means and standard deviations of a site, (n, *event) each.

        Args:
            site: A latent site.
        """
        draws = np.asarray(self.draws[site], np.float64)
        return draws.mean(axis=(0, 1)), draws.std(axis=(0, 1), ddof=1)


def reference_posterior(
    source: Run | Engine,
    x: NDArray[Any],
    *,
    num_chains: int = 4,
    num_draws: int = 500,
    num_warmup: int = 500,
    thinning: int = 4,
    rules: Rules | None = None,
    seed: int = 0,
    report: Callable[[float], None] | None = None,
) -> ReferencePosterior:
    """Draw all latents of each datum from their posterior by NUTS.

    A run of the Pyro backend is opened in NumPyro, whose chains run together. Where its model has no twin there,
    and for a Pyro engine, Pyro's NUTS runs them one by one, which may take minutes a datum. Even chains start at a
    draw of the guide and odd ones at a draw of the prior, so that a mode that the guide misses shows in R-hat.

    Args:
        source: A run, or an engine that holds a fit.
        x: Data, (n, *data_shape).
        num_chains: Chains of each datum, c, at least 2.
        num_draws: Draws that a chain keeps, s, at least 4.
        num_warmup: Steps in which a chain adapts, which are left out.
        thinning: Steps for each draw that is kept.
        rules: When a datum is accepted; by default ``Rules()``.
        seed: Seed of the chains.
        report: Called with the share of the work that is done.

    Returns:
        All draws. A datum that breaks a rule is kept, and ``why`` says which.

    Raises:
        InputError: ``x`` has no data or another shape, a number is too small, or the model gives x no density.

    Source:
        Hoffman & Gelman, arXiv:1111.4246 (NUTS); Wu et al., arXiv:1611.04273 (chains on a frozen decoder).
    """
    plan, rules = Plan(num_chains, num_draws, num_warmup, thinning), rules or Rules()
    data = np.asanyarray(x)
    _check(source, data, plan)
    check_seed(seed)
    engine = sampling_engine(source)
    check_density(engine)
    starts = _starts(engine, data, num_chains, seed)
    dense = sum(prod(value.shape[2:]) for value in starts.values()) <= MOST_DENSE
    parts, blocks = chunks(len(data), BLOCK), []
    for part, child in zip(parts, np.random.SeedSequence(seed).spawn(len(parts)), strict=True):
        some = {name: value[part] for name, value in starts.items()}
        # JAX keys take 32 bits.
        state = int(child.generate_state(1)[0])
        blocks.append(run_chains(engine, data[part], some, plan, dense=dense, seed=state))
        if report is not None:
            report(part.stop / len(data))
    attrs = {**_describe(source, engine), **asdict(plan), "rules": asdict(rules), "seed": seed}
    taken = taken_latents(engine, data, {name: value.shape[2:] for name, value in starts.items()})
    return _judge(data, join_chains(blocks), taken, rules, attrs)


def sampling_engine(source: Run | Engine) -> Engine:
    """The engine that draws the reference posteriors of a run: NumPyro's where its model has a twin there.

    Args:
        source: A run, or an engine, which is returned.
    """
    if not isinstance(source, Run):
        return source
    if source.program.backend == "numpyro" or source.program.plugin is None:
        return source.engine
    try:
        return Run.open(source.path, backend="numpyro", device=source.engine.device_name).engine
    except InputError:  # the user's own file has no twin
        return source.engine


def write_reference(path: str | Path, reference: ReferencePosterior) -> None:
    """Write reference posteriors as an ArviZ file, which appears whole or not at all.

    Groups: ``posterior``, the latents (chain, draw, datum, <site>_dim); ``sample_stats``, energy and diverging;
    ``observed_data``; ``constant_data``, by datum accepted, why and the figures that were judged.

    Args:
        path: The netCDF file.
        reference: What to write.

    Raises:
        InputError: The operating system refused.
    """
    dims, condition = (*DRAWS, "datum"), condition_of(reference.x)
    constant: Variables = {name: (("datum",), getattr(reference, name)) for name in (*FIGURES, "accepted")}
    constant["why"] = (("datum",), np.array(reference.why, np.str_))
    if condition is not None:
        constant["condition"] = (("datum", *event_dims("condition", condition.ndim - 1)), condition)
    x = np.asarray(reference.x)
    groups: dict[str, Variables] = {
        "posterior": {n: ((*dims, *event_dims(n, v.ndim - 3)), v) for n, v in reference.draws.items()},
        "sample_stats": {"energy": (dims, reference.energy), "diverging": (dims, reference.diverging)},
        "observed_data": {"x": (("datum", *event_dims("x", x.ndim - 1, number=True)), x)},
        "constant_data": constant,
    }
    store = make_container(groups, {"reference": strict_json(reference.attrs)})
    write_atomically(Path(path), lambda temporary: write_store(temporary, store))


def read_reference(path: str | Path) -> ReferencePosterior:
    """Read what `write_reference` wrote.

    Args:
        path: The netCDF file.

    Raises:
        InputError: The file is missing, is no netCDF, or holds no reference posteriors.
    """
    store = read_store(path)
    try:
        constant, stats = store["constant_data"], store["sample_stats"]
        attrs = json.loads(constant.attrs["reference"])
        x = store["observed_data"]["x"].values
        return ReferencePosterior(
            x=Conditioned(x, constant["condition"].values) if "condition" in constant else x,
            draws={str(name): draws.values for name, draws in store["posterior"].data_vars.items()},
            **{name: constant[name].values for name in FIGURES},
            why=tuple(map(str, constant["why"].values)),
            energy=stats["energy"].values,
            diverging=stats["diverging"].values.astype(bool),
            attrs=attrs,
        )
    except KeyError as error:
        raise InputError(
            f"{path} must be a file that write_reference wrote, but it lacks {error}; pass such a file, or draw "
            "the posteriors anew"
        ) from None


def _check(source: Run | Engine, data: NDArray[Any], plan: Plan) -> None:
    least = {"num_chains": 2, "num_draws": 4, "num_warmup": 20, "thinning": 1}
    for name, value in asdict(plan).items():
        if value < least[name]:
            raise InputError(f"{name} must be at least {least[name]}, but it is {value}; ask for more")
    shape = tuple(source.record["data"]["data_shape"]) if isinstance(source, Run) else data.shape[1:]
    if data.shape[1:] != shape:
        raise InputError(
            f"x must have shape (n, {', '.join(map(str, shape))}), but it is {data.shape}; reshape it"
        )


def _starts(engine: Engine, data: NDArray[Any], num_chains: int, seed: int) -> dict[str, NDArray[Any]]:
    """Where chains start, by site (n, c, *event)."""
    guide_seed, prior_seed = (int(state) for state in np.random.SeedSequence([seed, 1]).generate_state(2))
    guide = inspect_draws(engine, data, ("latents",), num_draws=num_chains, seed=guide_seed)["latents"]
    prior = engine.generate(num_chains * len(data), seed=prior_seed, condition=condition_of(data)).latents
    is_odd = np.arange(num_chains) % 2 == 1
    return {
        name: np.where(
            is_odd.reshape(-1, *[1] * (value.ndim - 1)), prior[name].reshape(value.shape), value
        ).swapaxes(0, 1)
        for name, value in guide.items()
    }


def _judge(
    x: NDArray[Any],
    chains: Chains,
    taken: Mapping[str, NDArray[np.bool_]],
    rules: Rules,
    attrs: Mapping[str, Any],
) -> ReferencePosterior:
    draws = {name: np.where(taken[name][:, None, None], value, np.nan) for name, value in chains.draws.items()}
    units = np.concatenate([value.reshape(*value.shape[:3], -1) for value in draws.values()], axis=-1)
    there = np.concatenate([taken[name].reshape(len(x), -1) for name in draws], axis=-1)
    mixing = [_mixing(datum[..., own].astype(np.float64)) for datum, own in zip(units, there, strict=True)]
    energy = chains.energy.reshape(*units.shape[:2], -1).astype(np.float64)
    figures = {
        **{name: np.array([found[name] for found in mixing]) for name in mixing[0]},
        "ebfmi": (np.square(np.diff(energy)).mean(axis=-1) / energy.var(axis=-1)).min(axis=1),
        "num_divergences": chains.diverging.sum(axis=(1, 2, 3)),
    }
    slack = 4.0 / np.sqrt(prod(units.shape[1:3]))
    return ReferencePosterior(
        x=x,
        draws={name: np.moveaxis(value, 0, 2) for name, value in draws.items()},
        **figures,
        why=tuple(_why([figures[name][datum] for name in FIGURES], rules, slack) for datum in range(len(x))),
        energy=np.moveaxis(chains.energy[..., -1], 0, 2).astype(np.float64),
        diverging=np.moveaxis(np.asarray(chains.diverging.any(axis=-1)), 0, 2),
        attrs=attrs,
    )


def _mixing(units: NDArray[np.float64]) -> dict[str, float]:
    """Worst figures of latent numbers (c, s, k); nan where all chains stand still."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    centred = units - units.mean(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        lag1 = (centred[:, 1:] * centred[:, :-1]).sum(axis=(0, 1)) / np.square(centred).sum(axis=(0, 1))
        rhat, ess = split_gelman_rubin(units), effective_sample_size(units)
    return {"rhat": rhat.max(), "ess": ess.min(), "lag1": lag1[np.argmax(np.abs(lag1))]}


def _why(figures: list[float], rules: Rules, slack: float) -> str:
    rhat, ess, lag1, ebfmi, num_divergences = figures
    # So that nan breaks a rule.
    broken = {
        f"R-hat {rhat:.3f} is not below {rules.max_rhat:g}": not rhat < rules.max_rhat,
        f"effective sample size {ess:.0f} is not {rules.min_ess:g} or more": not ess >= rules.min_ess,
        f"lag-1 autocorrelation {lag1:.2f} is not within {rules.max_lag1:g}": not abs(lag1)
        < rules.max_lag1 + slack,
        f"E-BFMI {ebfmi:.2f} is not above {rules.min_ebfmi:g}": not ebfmi > rules.min_ebfmi,
        f"{num_divergences:.0f} steps diverged": num_divergences > 0,
    }
    return "; ".join(reason for reason, is_broken in broken.items() if is_broken)


def _describe(source: Run | Engine, engine: Engine) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, value in sorted(engine.parameters().items()):
        digest.update(name.encode() + np.asarray(value, np.float32).tobytes())
    libraries = ("pyro-ppl", "torch") if is_pyro(engine) else ("numpyro", "jax")
    found: dict[str, Any] = {"weights_sha256": digest.hexdigest(), "sampler": f"NUTS of {libraries[0]}"}
    found["versions"] = {name: version(name) for name in (*libraries, "numpy")}
    if isinstance(source, Run):
        program = source.program
        found |= {"run": source.path.name, "variant": program.name, "backend": program.backend}
    return found
