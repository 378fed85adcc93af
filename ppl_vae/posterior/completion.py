r"""Missing entries of x drawn from p(x_mis given x_obs) of a fitted model.

Chains over the latents z and the missing entries, each step three moves of which every one leaves
p(z, x_mis given x_obs) as it is, however bad the guide, so that in the limit of many steps the draws are exact:

1. z' from the guide at x as filled, accepted with probability min(1, w(z') / w(z)), w = p(x, z) / q(z given x).
2. (z', x_mis') from the model without data, accepted with probability
   min(1, p(x_obs given z') / p(x_obs given z)).
3. x_mis from p(x_mis given z).

The first move is Metropolis-within-Gibbs. It follows the data but moves little where much is missing, for then
z and x_mis hold each other; the second is the one that helps there, and with nothing observed is always accepted.

Source:
    Mattei & Frellsen, "Leveraging the exact likelihood of deep latent variable models", arXiv:1802.04826,
    section 3.4 (move 1 with 3), after Rezende, Mohamed & Wierstra, arXiv:1401.4082, appendix F; Tierney, "Markov
    chains for exploring posterior distributions", Annals of Statistics 22(4), 1994 (independence moves).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import Conditioned, condition_of
from ppl_vae.data.checks import check_seed
from ppl_vae.diagnostics.weights import check_density
from ppl_vae.errors import InputError
from ppl_vae.posterior.chain_moments import ChainMoments
from ppl_vae.posterior.missing import check_covers_elements
from ppl_vae.training.engine import Engine, chunks

__all__ = ["MIN_STEPS", "Completion", "complete"]

MIN_STEPS = 10
MAX_ROWS = 4096  # chains that move together
MAX_ENTRIES = 2**21  # of their x, as moments of each are held in float64


@dataclass(frozen=True, eq=False)
class Completion:
    """Completions of n data by s chains each; observed entries are those given, bit by bit.

    Attributes:
        draws: Last state of each chain, (s, n, *data_shape), float32: draws of x_mis given x_obs.
        mean: Mean over the second half of all chains, (n, *data_shape), float32.
        scale: Standard deviation over the same, (n, *data_shape), float32; 0 where observed.
        missing: What was filled, (n, *data_shape).
        guide_acceptance: Share of accepted proposals from the guide in the second half, (n,).
        prior_acceptance: The same of proposals from the prior, (n,).
        rhat: Largest split R-hat of a missing entry, (n,); nan where nothing is missing. Well above 1.1 the
            chains disagree: use more steps.
        num_steps: Steps of each chain, of which the first half was left out.
    """

    draws: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    missing: NDArray[np.bool_]
    guide_acceptance: NDArray[np.float64]
    prior_acceptance: NDArray[np.float64]
    rhat: NDArray[np.float64]
    num_steps: int

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "num_steps"}

    def summary(self) -> dict[str, float]:
        """Mean acceptance, and R-hat over the data in which something is missing (nan where there are none)."""
        rhat = self.rhat[~np.isnan(self.rhat)]
        return {
            "guide_acceptance": float(self.guide_acceptance.mean()),
            "prior_acceptance": float(self.prior_acceptance.mean()),
            "median_rhat": float(np.median(rhat)) if len(rhat) else float("nan"),
            "largest_rhat": float(rhat.max()) if len(rhat) else float("nan"),
            "share_rhat_above_1.1": float((rhat > 1.1).mean()) if len(rhat) else float("nan"),
        }


def complete(
    engine: Engine,
    x: ArrayLike,
    missing: ArrayLike,
    *,
    num_draws: int = 8,
    num_steps: int = 500,
    seed: int = 0,
    report: Callable[[float], None] | None = None,
) -> Completion:
    """Draw the missing entries of data given the observed ones.

    Every draw is the end of a chain of its own, which starts from a draw of z and x from the model without data.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape); what stands at missing entries, such as nan, is not read.
        missing: True where an entry is missing, the shape of ``x``.
        num_draws: Chains per datum, s.
        num_steps: Steps of each chain, at least 10; the second half counts.
        seed: Seed of the chains.
        report: Called with the share of the work that is done.

    Raises:
        InputError: Shapes differ, a number is too small, the model gives x no density, or entries that the
            likelihood makes dependent, such as the channels of a pixel, are not missing together.
    """
    check_density(engine)
    data, holes = _checked(x, missing, num_draws=num_draws, num_steps=num_steps)
    check_seed(seed)
    size = max(1, min(MAX_ROWS, engine.max_rows, MAX_ENTRIES // data[0].size) // num_draws)
    parts = chunks(len(data), size)
    blocks = []
    num_kept = 2 * (num_steps // 4)
    for number, child in enumerate(np.random.SeedSequence(seed).spawn(len(parts))):
        part = parts[number]
        chains = _Chains(engine, data[part], holes[part], num_draws, child)
        moments = ChainMoments((num_draws, *data[part].shape), num_kept)
        accepted = []
        for step in range(num_steps):
            moves = chains.step()
            if step >= num_steps - num_kept:
                moments.add(chains.x)
                accepted.append(moves)
            if report is not None:
                report((number + (step + 1) / num_steps) / len(parts))
        blocks.append(_block(chains, moments, np.mean(accepted, axis=0)))
    joined = {name: np.concatenate([b[name] for b in blocks], axis=int(name == "draws")) for name in blocks[0]}
    return Completion(**joined, missing=holes, num_steps=num_steps)


class _Chains:
    """Chains of a block of data, (s, n) flattened to rows.

    Args:
        engine: What holds the fit.
        data: The block, (n, *data_shape), numbers everywhere.
        missing: What is missing, of the same shape.
        num_draws: Chains per datum, s.
        seed: Source of all that is random.
    """

    def __init__(
        self,
        engine: Engine,
        data: NDArray[np.float32],
        missing: NDArray[np.bool_],
        num_draws: int,
        seed: np.random.SeedSequence,
    ) -> None:
        self.engine, self.data, self.holes = engine, data, missing
        self.shape = (num_draws, *data.shape)
        self.rng = np.random.default_rng(seed)
        self.missing = np.concatenate([missing] * num_draws)
        condition = condition_of(data)
        self.condition = None if condition is None else np.concatenate([condition] * num_draws)
        start = engine.generate(len(self.missing), seed=self._seed(), condition=self.condition)
        self.latents = {site: start.latents[site] for site in engine.latents}
        self.rows = np.where(self.missing, start.x, np.concatenate([data] * num_draws)).astype(np.float32)
        elements = self._inspect(self.latents).log_elements[engine.observed]
        self.missing_elements = check_covers_elements(self.missing, elements.shape)

    @property
    def x(self) -> NDArray[np.float32]:
        """Data as they are filled now, (s, n, *data_shape)."""
        return self.rows.reshape(self.shape)

    def step(self) -> NDArray[np.float64]:
        """Take the three moves; the acceptance of the first and the second by datum, (2, n)."""
        now = self._inspect(self.latents)
        by_guide = self._inspect("draw")
        prior = self.engine.generate(len(self.rows), seed=self._seed(), condition=self.condition).latents
        by_prior = self._inspect({site: prior[site] for site in self.engine.latents})

        first = self._accept(by_guide.log_weight, now.log_weight)
        observed = np.where(first, self._log_observed(by_guide), self._log_observed(now))
        second = self._accept(self._log_observed(by_prior), observed)

        def moved(before: NDArray[Any], guided: NDArray[Any], fresh: NDArray[Any]) -> NDArray[Any]:
            after_first = np.where(_beside(first, before), guided, before)
            return np.where(_beside(second, before), fresh, after_first)

        self.latents = {
            site: moved(now.latents[site], by_guide.latents[site], by_prior.latents[site]) for site in self.latents
        }
        drawn = moved(now.x_draw, by_guide.x_draw, by_prior.x_draw)
        self.rows = np.where(self.missing, drawn, self.rows).astype(np.float32)
        return np.stack([first, second]).reshape(2, *self.shape[:2]).mean(axis=1)

    def _accept(self, new: NDArray[Any], old: NDArray[Any]) -> NDArray[np.bool_]:
        # Where both are -inf the difference is nan, and the chain stays.
        with np.errstate(invalid="ignore"):
            log_ratio = np.asarray(new, np.float64) - np.asarray(old, np.float64)
        return -self.rng.exponential(size=len(log_ratio)) < log_ratio

    def _log_observed(self, record: Any) -> NDArray[np.float64]:
        """Log p(x_obs given z) of each row in nats, other observed sites of the model included."""
        terms = dict(record.log_elements)
        terms[self.engine.observed] = np.where(self.missing_elements, 0.0, terms[self.engine.observed])
        by_site = [values.reshape(len(values), -1).sum(axis=1, dtype=np.float64) for values in terms.values()]
        total: NDArray[np.float64] = np.sum(by_site, axis=0)
        return total

    def _inspect(self, latents: Mapping[str, NDArray[Any]] | Literal["draw"]) -> Any:
        rows = self.rows if self.condition is None else Conditioned(self.rows, self.condition)
        return self.engine.inspect(rows, seed=self._seed(), latents=latents, draw_x=True)

    def _seed(self) -> int:
        return int(self.rng.integers(2**32))


def _beside(choice: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[np.bool_]:
    return choice.reshape(-1, *[1] * (values.ndim - 1))


def _block(chains: _Chains, moments: ChainMoments, acceptance: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Fields of a ``Completion`` for a block of data."""
    rhat = np.where(chains.holes, moments.rhat(), -np.inf).reshape(len(chains.data), -1).max(axis=1)
    return {
        "draws": chains.x,
        "mean": np.where(chains.holes, moments.mean(), chains.data).astype(np.float32),
        "scale": np.where(chains.holes, moments.scale(), 0.0).astype(np.float32),
        "guide_acceptance": acceptance[0],
        "prior_acceptance": acceptance[1],
        "rhat": np.where(np.isneginf(rhat), np.nan, rhat),
    }


def _checked(x: ArrayLike, missing: ArrayLike, **counts: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Data with zeros where they are missing, and what is missing."""
    data, holes = np.asanyarray(x), np.asarray(missing)
    if data.ndim < 2 or data.size == 0:
        raise InputError(f"x must have shape (n, *data_shape), none of them zero, but has shape {data.shape}")
    if holes.shape != data.shape or holes.dtype != bool:
        raise InputError(
            f"missing must be an array of True and False of shape {data.shape}, as x, but it holds {holes.dtype} "
            f"and has shape {holes.shape}; make it by missing_pattern"
        )
    for (name, value), least in zip(counts.items(), (1, MIN_STEPS), strict=True):
        if value < least:
            raise InputError(f"{name} must be at least {least}, but it is {value}; ask for more")
    filled, condition = np.where(holes, 0, data).astype(np.float32), condition_of(data)
    return filled if condition is None else Conditioned(filled, condition), holes
