"""Rate targets: nats per datum are asked for, and a controller finds the betas that spend them.

At the optimum of a loss a rate falls as its own beta rises, so each beta is moved against the error of its rate,
on a log scale, once after each block of steps.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.errors import InputError
from ppl_vae.objective.terms import SITE_TERM
from ppl_vae.training.settings import check_site

__all__ = [
    "BETA_BOUNDS",
    "CONTROL_BLOCK",
    "TOLERANCE",
    "TOTAL",
    "RateController",
    "RateTarget",
    "capacity_notes",
    "check_measured",
    "check_targets",
    "is_held",
    "miss_notes",
    "reached_rates",
    "split_targets",
]

TOTAL = "total"
# A rate is held that is within so much of its target, relatively.
TOLERANCE = 0.03
BETA_BOUNDS = (1e-3, 1e3)
# Betas move after at most so many steps.
CONTROL_BLOCK = 32

# Gains on a change of the error, and on the error times the sum of a block's learning rates: Adam moves a
# parameter by about the learning rate a step, so a rate answers the sooner, the larger they are. The first is
# small because near equal betas nats move between layers at next to no cost; both were tuned on the digits.
PROPORTIONAL, INTEGRAL = 0.5, 30.0
# Beyond it Adam's running averages set the pace.
MAX_LEARNING_RATE = 1e-3
# Gain of one block, however long: a rate answers late, and a beta that moved further would overshoot.
MAX_INTEGRAL = 0.5
# Weight of the newest epoch in the ratio of validation to training rates.
SMOOTHING = 0.3


@dataclass(frozen=True)
class RateTarget:
    """A rate, and the sites that shall spend it together under one beta.

    Attributes:
        rate: Nats per datum, positive.
        sites: Latent sites.
    """

    rate: float
    sites: tuple[str, ...]

    def log_spent(self, rates: Mapping[str, float]) -> float:
        """Logarithm of what the sites spend over the target, within 1 of 0.

        Args:
            rates: Rate of each site, in nats per datum.
        """
        spent = sum(rates[site] for site in self.sites)
        return min(1.0, math.log(max(spent / self.rate, math.exp(-1.0))))


@dataclass(frozen=True)
class RateController:
    r"""Proportional-integral control of betas; a value, which each update replaces.

    With :math:`e` the log error of a target and :math:`\eta_t` the learning rates of a block, none counted above
    ``MAX_LEARNING_RATE``, after the block

    .. math:: \log \beta \leftarrow \log \beta + P (e - e') + \min(I \textstyle\sum_t \eta_t, M)\, e

    with :math:`e'` the error before, and :math:`\log \beta` is kept within its bounds. No sum is kept beside beta
    itself, so none can wind up: at a bound the first error of the other sign moves it away. The error is that of
    the block's training rate times the ratio of validation to training rate, smoothed over epochs: targets are
    held on data that the networks were not fitted to.

    Attributes:
        targets: What is held.
        log_beta: Logarithm of the beta of each target, (targets,).
        error: Last error of each target, (targets,).
        log_ratio: Logarithm of validation over training rate of each target, (targets,).

    Source:
        Astrom & Murray, "Feedback Systems", 2008, chapter 10 (control in velocity form, windup).

    Example:
        >>> controller = RateController.start([RateTarget(rate=3.0, sites=("z",))])
        >>> controller.after_block({"z": 6.0}, np.zeros(8), {"z": True}).betas  # 2 ** P
        {'z': 1.414...}
    """

    targets: tuple[RateTarget, ...]
    log_beta: NDArray[np.float64]
    error: NDArray[np.float64]
    log_ratio: NDArray[np.float64]

    @classmethod
    def start(cls, targets: Sequence[RateTarget]) -> "RateController":
        """A controller whose betas are 1.

        Args:
            targets: What to hold; none make a controller that steers nothing.
        """
        zeros = np.zeros(len(targets))
        return cls(tuple(targets), zeros, zeros, zeros)

    @property
    def betas(self) -> dict[str, float]:
        """Beta of each steered site."""
        found = zip(self.targets, np.exp(self.log_beta), strict=True)
        return {site: float(beta) for target, beta in found for site in target.sites}

    def after_block(
        self, rates: Mapping[str, float], learning_rates: NDArray[np.float64], ready: Mapping[str, bool]
    ) -> "RateController":
        """The controller after a block of steps.

        Args:
            rates: Mean training rate of each site over the block, in nats per datum.
            learning_rates: Learning rate of each of its steps, (steps,).
            ready: Whether the warm-up of each site is over; until then its target waits.
        """
        moves = np.array([all(ready[site] for site in target.sites) for target in self.targets], bool)
        error = np.clip(self._log_spent(rates) + self.log_ratio, -1.0, 1.0)
        gain = min(INTEGRAL * float(np.minimum(learning_rates, MAX_LEARNING_RATE).sum()), MAX_INTEGRAL)
        step = PROPORTIONAL * (error - self.error) + gain * error
        log_beta = np.clip(self.log_beta + step, *np.log(BETA_BOUNDS))
        return replace(
            self, log_beta=np.where(moves, log_beta, self.log_beta), error=np.where(moves, error, self.error)
        )

    def after_epoch(self, training: Mapping[str, float], validation: Mapping[str, float]) -> "RateController":
        """The controller after a validation.

        Args:
            training: Mean training rate of each site over the last block, in nats per datum.
            validation: Validation rate of each site.
        """
        ratio = self._log_spent(validation) - self._log_spent(training)
        return replace(self, log_ratio=self.log_ratio + SMOOTHING * (ratio - self.log_ratio))

    def lagrangian(self, loss: float) -> float:
        r"""The loss less what its betas charge for the targets, :math:`L - \sum_l \beta_l T_l`.

        To first order the distortion at the targets, whatever the betas, so that epochs compare.

        Args:
            loss: In nats per datum, at the controller's betas.
        """
        return loss - sum(t.rate * float(np.exp(b)) for t, b in zip(self.targets, self.log_beta, strict=True))

    def state(self) -> dict[str, NDArray[np.float64]]:
        """All that changes, by name."""
        return {name: getattr(self, name) for name in _STATE} if self.targets else {}

    def with_state(self, arrays: Mapping[str, Any]) -> "RateController":
        """The controller with another's state.

        Args:
            arrays: What ``state`` gave.
        """
        return replace(self, **arrays)

    def _log_spent(self, rates: Mapping[str, float]) -> NDArray[np.float64]:
        return np.array([target.log_spent(rates) for target in self.targets], np.float64)


_STATE = ("log_beta", "error", "log_ratio")


def check_targets(asked: Mapping[str, Any], sites: Sequence[str], *, beta: Any = 1.0) -> dict[str, float]:
    """Target rates as numbers.

    Args:
        asked: Nats per datum by latent site, or by ``total`` for the sum over all sites.
        sites: Latent sites of the model.
        beta: What was asked for the betas: a number or numbers by site.

    Raises:
        InputError: A site does not exist, a target is no positive number, targets contradict each other, or a site
            has both a target and a beta.
    """
    for name in asked:
        check_site("target_rates", name, sites, also=(TOTAL,))
    if asked and TOTAL in sites:
        raise InputError(
            f"target_rates must tell the sum from a site, but the model has a site called {TOTAL}; rename it"
        )
    targets = {name: _positive(name, rate) for name, rate in asked.items()}
    _check_sum(targets, sites)
    for site in (site for target in split_targets(targets, sites) for site in target.sites):
        given = beta.get(site) if isinstance(beta, Mapping) else None if beta in (1, "1") else beta
        if given is not None:
            raise InputError(
                f"beta must leave {site} to its target rate, but it sets {given}; give a site a beta or a target "
                f"({TOTAL} steers all sites without one)"
            )
    return targets


def _positive(name: str, rate: Any) -> float:
    try:
        value = float(rate)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 < value < math.inf:
        raise InputError(
            f"target rate of {name} must be a positive, finite number of nats per datum, but it is {rate!r}; "
            "write for instance 3.0, or leave the target out"
        )
    return value


def _check_sum(targets: Mapping[str, float], sites: Sequence[str]) -> None:
    own = {site: rate for site, rate in targets.items() if site != TOTAL}
    if TOTAL not in targets or not own:
        return
    total, spent, free = targets[TOTAL], sum(own.values()), [site for site in sites if site not in own]
    if free and total <= spent:
        raise InputError(
            f"target rate of {TOTAL} must leave something to {', '.join(free)}, but it is {total:g} and the other "
            f"targets sum to {spent:g}; raise it, or lower the others"
        )
    if not free and not math.isclose(total, spent, rel_tol=1e-6):
        raise InputError(
            f"target rate of {TOTAL} must be the sum of the others where every site has one, but it is {total:g} "
            f"and they sum to {spent:g}; leave out one of them"
        )


def check_measured(targets: Mapping[str, float], how: Mapping[str, str]) -> None:
    """Refuse targets for what the loss does not measure.

    Args:
        targets: Target rates by latent site or ``total``, as checked.
        how: How the loss computes the rate of each site; see ``Terms.how``.

    Raises:
        InputError: A site has no rate, or only a site term.
    """
    for name in targets:
        found = how.get(name, "missing")
        if name != TOTAL and found in ("missing", SITE_TERM):
            raise InputError(
                f"target_rates must name sites that have a rate under this loss, but that of {name} is "
                f"{'not measured' if found == 'missing' else 'a site term, which may fall below 0'}; ask for "
                f"{TOTAL}, or take a model whose guide goes from the top down"
            )


def split_targets(targets: Mapping[str, float], sites: Sequence[str]) -> list[RateTarget]:
    """What a controller holds: a target for each site that has one, and the rest of the total for all others.

    Args:
        targets: Target rates by latent site or ``total``, as checked.
        sites: Latent sites of the model.
    """
    own = {site: rate for site, rate in targets.items() if site != TOTAL}
    held = [RateTarget(rate, (site,)) for site, rate in own.items()]
    free = tuple(site for site in sites if site not in own)
    if TOTAL in targets and free:
        held.append(RateTarget(targets[TOTAL] - sum(own.values()), free))
    return held


def is_held(targets: Mapping[str, float], rates: Mapping[str, float]) -> bool:
    """Whether all rates are within ``TOLERANCE`` of their targets.

    Args:
        targets: Target rates by latent site or ``total``.
        rates: Rate of every latent site.
    """
    found = {**rates, TOTAL: sum(rates.values())}
    return all(abs(found[name] / rate - 1.0) <= TOLERANCE for name, rate in targets.items())


def reached_rates(records: Iterable[Mapping[str, Any]], targets: Mapping[str, float]) -> dict[str, float]:
    """Validation rates over the last tenth of a run's epochs, in nats per datum.

    Args:
        records: Records of the training.
        targets: Target rates by latent site or ``total``.
    """
    found = [record["validation"]["rates"] for record in records if "validation" in record]
    last = found[-math.ceil(len(found) / 10) :]
    rows = [{**rates, TOTAL: sum(rates.values())} for rates in last]
    return {name: float(np.mean([row[name] for row in rows])) for name in targets}


def capacity_notes(targets: Mapping[str, float], num_data: int) -> list[str]:
    """Notes on targets beyond what the training data can carry.

    A code tells at most log n nats about which of n data it belongs to. A rate may be larger, by the divergence
    of the aggregated posterior from the prior, and is on other data; so it is said, not refused.

    Args:
        targets: Target rates by latent site or ``total``.
        num_data: Number n of training data.
    """
    most = math.log(num_data)
    return [
        f"target rate {name}={rate:g} is above log n = {most:.2f} nats, the most that a latent can tell of "
        f"{num_data} training data; what is spent beyond it tells them apart no better"
        for name, rate in targets.items()
        if rate > most
    ]


def miss_notes(
    targets: Mapping[str, float], reached: Mapping[str, float], betas: Mapping[str, float]
) -> list[str]:
    """Notes on targets that a run did not hold.

    Args:
        targets: Target rates by latent site or ``total``.
        reached: What ``reached_rates`` gave.
        betas: Last beta of each steered site.
    """
    notes = [
        f"target rate {name}={rate:g} was not held: the validation rate over the last tenth of the epochs is "
        f"{reached[name]:.3g}, more than {TOLERANCE:.0%} off; train longer, or ask for another rate"
        for name, rate in targets.items()
        if not abs(reached[name] / rate - 1.0) <= TOLERANCE
    ]
    stuck = [site for site, beta in betas.items() if not BETA_BOUNDS[0] * 1.01 < beta < BETA_BOUNDS[1] / 1.01]
    return notes + [
        f"target rate of {site} is out of reach: its beta ended at its bound {betas[site]:g}; ask for a rate that "
        f"the model can {'spend' if betas[site] < 1.0 else 'do with'}"
        for site in stuck
    ]
