r"""Log p(x) by annealed importance sampling, in nats per datum: what importance sampling is checked against.

Chains go from the prior p(z), or from the guide, along :math:`f_t = f_0^{1-t} p(x, z)^t` by Hamiltonian moves on
all latents of a datum together, and each has the weight :math:`\prod_j f_{t_j}(z_{j-1}) / f_{t_{j-1}}(z_{j-1})`,
whose expectation is p(x) however badly the chains mix. Step sizes, one per datum and temperature, are found by
chains of their own first: the moves of the chains that count then do not depend on these chains' past, and the
weights stay unbiased. Where rows are groups, a datum is the group: its latent and those of its members.

A leading ``c`` is chains, then ``n`` data; a row is a chain of a datum.

Source:
    Neal, "Annealed importance sampling", Statistics and Computing 11, 2001; Wu, Burda, Salakhutdinov & Grosse,
    arXiv:1611.04273 (latents of a decoder, sigmoid schedule); Grosse, Ghahramani & Adams, arXiv:1511.02543 (bounds
    from both sides).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ppl_vae.data import Conditioned, condition_of
from ppl_vae.data.checks import check_choice, check_seed
from ppl_vae.diagnostics.importance import importance_log_px
from ppl_vae.diagnostics.members import taken_units
from ppl_vae.diagnostics.weights import MAX_ENTRIES, check_density
from ppl_vae.errors import InputError
from ppl_vae.training.engine import MAX_ROWS, Arrays, Base, Engine, chunks, conditions_for

__all__ = ["AnnealedLogPx", "Sandwich", "annealed_log_px", "bidirectional"]

ACCEPTANCE = 0.65  # where Hamiltonian moves of this kind are cheapest
FIRST_STEP, GAIN = 0.1, 0.5
STEEPNESS = 4.0  # of the sigmoid schedule, as in arXiv:1611.04273
Report = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class AnnealedLogPx:
    """Log weights of annealed chains and what became of them.

    Attributes:
        log_weight: Log weights of the chains in nats, (c, n).
        acceptance: Share of accepted moves, (n,); far below 0.65 the chains hardly moved.
    """

    log_weight: NDArray[np.float64]
    acceptance: NDArray[np.float64]

    @property
    def value(self) -> NDArray[np.float64]:
        """Log mean weight, (n,): a lower bound of log p(x) in expectation."""
        return importance_log_px(self.log_weight)[0]

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Its standard error over chains, (n,); nan for one chain."""
        return importance_log_px(self.log_weight)[1]

    @property
    def effective_chains(self) -> NDArray[np.float64]:
        """Effective number of chains, from 1 to c, (n,); near 1 one chain carries the estimate.

        Source:
            Kong, "A note on importance sampling using standardized weights" (1992).
        """
        weight = np.exp(self.log_weight - self.log_weight.max(axis=0))
        share: NDArray[np.float64] = weight.sum(axis=0) ** 2 / (weight**2).sum(axis=0)
        return share


@dataclass(frozen=True, eq=False)
class Sandwich:
    """Log p(x) of simulated data from both sides, in nats.

    Attributes:
        x: The data, (n, *data_shape).
        lower: Chains from the prior; their value is a lower bound in expectation.
        upper: An upper bound in expectation, (n,), by chains back from the latents that made the data.
    """

    x: NDArray[Any]
    lower: AnnealedLogPx
    upper: NDArray[np.float64]


def annealed_log_px(
    engine: Engine,
    x: NDArray[Any],
    *,
    num_chains: int = 16,
    num_temperatures: int = 100,
    num_leapfrog: int = 10,
    base: Base = "prior",
    seed: int = 0,
    report: Report | None = None,
) -> AnnealedLogPx:
    """Estimate log p(x) per datum by annealed importance sampling.

    It passes 2 n c num_temperatures (num_leapfrog + 1) rows through the model with gradients, half of them to
    find step sizes.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        num_chains: Chains per datum, c.
        num_temperatures: Temperatures between base and joint density, at least 2.
        num_leapfrog: Leapfrog steps of a move.
        base: "prior", which owes nothing to the guide, or "guide".
        seed: Seed of the chains.
        report: Called with the share of the work that is done.

    Raises:
        InputError: ``x`` is empty or has no density, a number is too small, the base is neither, or a latent site
            does not range over all real numbers.
    """
    data = _checked(engine, x, seed, num_chains=num_chains, num_temperatures=num_temperatures)
    check_choice(base, get_args(Base), "base")
    _at_least("num_leapfrog", num_leapfrog, 1)
    parts = chunks(len(data), max(1, min(MAX_ROWS, engine.max_rows, MAX_ENTRIES // data[0].size) // num_chains))
    blocks = []
    for number, child in enumerate(np.random.SeedSequence(seed).spawn(len(parts))):
        path = _Path(engine, data[parts[number]], num_chains, num_leapfrog, base, child)
        shares = _schedule(num_temperatures)
        tell = _within(report, number, len(parts))
        steps = path.find_steps(path.draw(), shares, tell(0.0, 0.5))
        blocks.append(path.anneal(path.draw(), shares, steps, tell(0.5, 0.5)))
    return AnnealedLogPx(*(np.concatenate(columns, axis=-1) for columns in zip(*blocks, strict=True)))


def bidirectional(
    engine: Engine,
    num_data: int,
    *,
    condition: NDArray[Any] | None = None,
    num_chains: int = 16,
    num_temperatures: int = 100,
    num_leapfrog: int = 10,
    seed: int = 0,
) -> Sandwich:
    """Bound log p(x) of data that the model makes from both sides: how well chains of this length do on it.

    The latents that made a datum are a draw of its exact posterior; chains back from there to the prior bound
    log p(x) from above. All chains of a datum start at the one draw.

    Args:
        engine: What holds the fit.
        num_data: Data to make, n; the engine gets the chains of all of them at once.
        condition: Conditions of the data, for a conditional program.
        num_chains: Chains per datum and direction, c.
        num_temperatures: Temperatures, at least 2.
        num_leapfrog: Leapfrog steps of a move.
        seed: Seed of data and chains.

    Raises:
        InputError: As `annealed_log_px`, or ``num_data`` is below 1.
    """
    _at_least("num_data", num_data, 1)
    _at_least("num_leapfrog", num_leapfrog, 1)
    check_seed(seed)
    first, child = np.random.SeedSequence(seed).spawn(2)
    made = engine.generate(num_data, seed=int(first.generate_state(1)[0]), condition=condition)
    given = conditions_for(num_data, condition, engine.condition_shape)
    made_x = Conditioned(made.x, given[0]) if given else made.x
    data = _checked(engine, made_x, seed, num_chains=num_chains, num_temperatures=num_temperatures)
    path = _Path(engine, data, num_chains, num_leapfrog, "prior", child)
    shares = _schedule(num_temperatures)
    steps = path.find_steps(path.draw(), shares)
    lower = AnnealedLogPx(*path.anneal(path.draw(), shares, steps))
    latents = np.concatenate([path.flat(made.latents)] * num_chains)
    back, _ = path.anneal(latents, shares[::-1], steps[::-1])
    return Sandwich(made.x, lower, -importance_log_px(back)[0])


class _Path:
    """Chains of a block of data along the path, all latents of a row in one vector of length k.

    Args:
        engine: What holds the fit.
        data: The block, (n, *data_shape).
        num_chains: Chains per datum, c.
        num_leapfrog: Leapfrog steps of a move.
        base: Where the path begins.
        seed: Source of all that is random.
    """

    def __init__(
        self,
        engine: Engine,
        data: NDArray[Any],
        num_chains: int,
        num_leapfrog: int,
        base: Base,
        seed: np.random.SeedSequence,
    ) -> None:
        self.engine, self.base, self.num_leapfrog = engine, base, num_leapfrog
        self.shape = (num_chains, len(data))
        self.x = data[np.arange(num_chains * len(data)) % len(data)]
        self.rng = np.random.default_rng(seed)

    def draw(self) -> NDArray[np.float64]:
        """Draws of the base, (c n, k)."""
        seed = int(self.rng.integers(2**32))
        if self.base == "guide":
            return self.flat(self.engine.inspect(self.x, seed=seed).latents)
        return self.flat(self.engine.generate(len(self.x), seed=seed, condition=condition_of(self.x)).latents)

    def flat(self, latents: Any) -> NDArray[np.float64]:
        """Latent values by site as vectors, (rows, k)."""
        self.events = {site: latents[site].shape[1:] for site in self.engine.latents}
        rows = [np.asarray(latents[site], np.float64).reshape(len(latents[site]), -1) for site in self.events]
        return np.concatenate(rows, axis=1)

    @cached_property
    def taken(self) -> NDArray[np.bool_]:
        """Latent numbers that move, (c n, k)."""
        return taken_units(self.engine, self.x, self.events)

    def find_steps(
        self, z: NDArray[np.float64], shares: NDArray[np.float64], report: Report | None = None
    ) -> NDArray[np.float64]:
        """Step size of each temperature between the ends and each datum, (temperatures - 2, n)."""
        log_step, found = np.full(self.shape[1], np.log(FIRST_STEP)), []
        for number, share in enumerate(shares[1:-1]):
            z, accepted, _ = self._move(z, share, np.exp(log_step))
            log_step = log_step + GAIN * (accepted - ACCEPTANCE)
            found.append(np.exp(log_step))
            if report is not None:
                report((number + 1) / len(shares))
        return np.reshape(found, (-1, self.shape[1]))

    def anneal(
        self,
        z: NDArray[np.float64],
        shares: NDArray[np.float64],
        steps: NDArray[np.float64],
        report: Report | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log weights, (c, n), and acceptance, (n,), of chains from ``z`` through the temperatures in order."""
        ratio = self._density(z, shares[0])[1]
        log_weight, acceptance = (shares[1] - shares[0]) * ratio, []
        for number, step in enumerate(steps):
            z, accepted, ratio = self._move(z, shares[number + 1], step)
            log_weight = log_weight + (shares[number + 2] - shares[number + 1]) * ratio
            acceptance.append(accepted)
            if report is not None:
                report((number + 1) / len(steps))
        mean = np.mean(acceptance, axis=0) if acceptance else np.full(self.shape[1], np.nan)
        return log_weight.reshape(self.shape), mean

    def _move(
        self, z: NDArray[np.float64], share: float, step: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """One Hamiltonian move of all rows: where they are, acceptance by datum (n,), and log ratios there."""
        size = np.tile(step, self.shape[0])[:, None]
        # Latents of no member have no gradient: they would drift to where a decoder overflows.
        momentum = self.rng.standard_normal(z.shape) * self.taken
        target, ratio, gradient = self._density(z, share)
        energy = target - 0.5 * (momentum**2).sum(axis=1)
        moved, new_ratio = z, ratio
        for _ in range(self.num_leapfrog):
            momentum = momentum + 0.5 * size * gradient
            moved = moved + size * momentum
            target, new_ratio, gradient = self._density(moved, share)
            momentum = momentum + 0.5 * size * gradient
        gain = target - 0.5 * (momentum**2).sum(axis=1) - energy
        # A move that ends where there is no density, or leaves the numbers, is not taken.
        gain = np.where(np.isfinite(gain) & np.isfinite(moved).all(axis=1), gain, -np.inf)
        taken = -self.rng.exponential(size=len(z)) < gain
        accepted = np.exp(np.minimum(gain, 0.0)).reshape(self.shape).mean(axis=0)
        return np.where(taken[:, None], moved, z), accepted, np.where(taken, new_ratio, ratio)

    def _density(
        self, z: NDArray[np.float64], share: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Log density of the path, log ratio of joint to base, and gradient of the first, of all rows."""
        found = self.engine.log_joint_gradient(self.x, self._by_site(z), share=float(share), base=self.base)
        base, ratio = (np.asarray(values, np.float64) for values in (found.log_base, found.log_ratio))
        return base + share * ratio, ratio, self.flat(found.gradient)

    def _by_site(self, z: NDArray[np.float64]) -> Arrays:
        ends = np.cumsum([int(np.prod(event)) for event in self.events.values()])[:-1]
        pieces = np.split(z, ends, axis=1)
        return {
            site: piece.reshape(len(z), *event)
            for (site, event), piece in zip(self.events.items(), pieces, strict=True)
        }


def _schedule(num_temperatures: int) -> NDArray[np.float64]:
    """Temperatures from 0 to 1, dense at both ends (arXiv:1611.04273)."""
    raw = expit(STEEPNESS * np.linspace(-1.0, 1.0, num_temperatures))
    schedule: NDArray[np.float64] = (raw - raw[0]) / (raw[-1] - raw[0])
    return schedule


def _within(report: Report | None, part: int, num_parts: int) -> Callable[[float, float], Report | None]:
    """What a stage of a block of data reports to, from where the stage begins and its length in the block."""
    if report is None:
        return lambda begin, length: None
    return lambda begin, length: lambda done: report((part + begin + length * done) / num_parts)


def _checked(
    engine: Engine, x: NDArray[Any], seed: int, *, num_chains: int, num_temperatures: int
) -> NDArray[Any]:
    check_density(engine)
    check_seed(seed)
    _at_least("num_chains", num_chains, 1)
    _at_least("num_temperatures", num_temperatures, 2)
    data = np.asanyarray(x)
    if data.ndim < 2 or data.size == 0:
        raise InputError(
            f"x must have shape (num_data, *data_shape), none of them zero, but has shape {data.shape}; "
            "pass one row per datum"
        )
    return data


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} must be at least {least}, but it is {value}; ask for more")
