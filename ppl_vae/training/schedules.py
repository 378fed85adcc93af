"""Schedules: the beta and the learning rate of every step, as arrays made before the training starts.

Step 0 is the first update. A schedule is a function of the step alone, so that a resumed run reads the
same values.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError

__all__ = [
    "SMALLEST_BETA",
    "BetaSchedule",
    "LearningRateKind",
    "handler_beta",
    "learning_rates",
]

SMALLEST_BETA = 1e-30
LearningRateKind = Literal["constant", "cosine", "linear"]


@dataclass(frozen=True)
class BetaSchedule:
    """A beta that goes linearly from ``start`` to ``target``, then stays.

    Args:
        target: Beta at step ``warmup_steps`` and after it, 0 or more.
        warmup_steps: The step at which the target is reached; 0 for the target from the first step on.
        start: Beta at step 0, 0 or more; without a warm-up it plays no part.

    Raises:
        InputError: A value breaks its rule.

    Example:
        >>> BetaSchedule(target=4.0, warmup_steps=2).values(4)
        array([0., 2., 4., 4.])
    """

    target: float
    warmup_steps: int = 0
    start: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name, beta in (("beta", self.target), ("the start of beta", self.start)):
            if not 0.0 <= beta < math.inf:
                raise InputError(f"{name} must be 0 or more and finite, but it is {beta}; 1 is the plain VAE")
        if self.warmup_steps < 0:
            raise InputError(
                f"beta warmup_steps must be 0 or more, but it is {self.warmup_steps}; 0 is no warm-up"
            )

    def check(self, num_steps: int) -> None:
        """Refuse a warm-up that a run would not finish: its beta would stay below the target, unnoticed.

        Args:
            num_steps: Length of the run.

        Raises:
            InputError: The target is not reached by the last step, ``num_steps - 1``.
        """
        _check_num_steps(num_steps)
        if self.warmup_steps >= num_steps:
            raise InputError(
                f"beta warmup_steps must be less than num_steps, but it is {self.warmup_steps} and num_steps "
                f"is {num_steps}: beta would not reach {self.target}; shorten the warm-up or train longer"
            )

    def values(self, num_steps: int) -> NDArray[np.float64]:
        """Beta of each step, shape (num_steps,); an unfinished warm-up is cut off, see `check`.

        Args:
            num_steps: Length of the run, 1 or more.

        Returns:
            Exactly ``start`` first and exactly ``target`` from step ``warmup_steps`` on.

        Raises:
            InputError: ``num_steps`` is not positive.
        """
        _check_num_steps(num_steps)
        if self.warmup_steps == 0:
            return np.full(num_steps, self.target, np.float64)
        return np.interp(np.arange(num_steps), [0, self.warmup_steps], [self.start, self.target])


def handler_beta(values: ArrayLike) -> NDArray[np.float64]:
    """Betas as the effect handlers take them: 0 becomes `SMALLEST_BETA`.

    The scale handlers of Pyro and NumPyro refuse 0. A mask would hide the rate, which has to be measured
    whatever its weight. A scale of 1e-30 shows it, is a normal number in float32 too, keeps gradients finite,
    and adds less to a loss than rounding does.

    Args:
        values: Betas, any shape.

    Returns:
        The same shape; only zeros differ.
    """
    betas = np.asarray(values, np.float64)
    return np.where(betas == 0.0, SMALLEST_BETA, betas)


def learning_rates(
    kind: LearningRateKind,
    learning_rate: float,
    num_steps: int,
    *,
    warmup_steps: int = 0,
    final_fraction: float = 0.0,
) -> NDArray[np.float64]:
    r"""Learning rate of each step: an optional linear warm-up, then constant, cosine or linear.

    With :math:`w` warm-up steps of :math:`T`, base rate :math:`\eta` and final fraction :math:`f`:

    .. math::
        \eta_t = \eta (t + 1) / w \ (t < w), \qquad
        \eta_t = \eta (f + (1 - f) d(p)),\ p = (t - w) / (T - w) \ (t \ge w)

    where :math:`d(p)` is 1, :math:`(1 + \cos \pi p) / 2` or :math:`1 - p`. The final value belongs to step
    :math:`T`, one after the last, so that no step is lost to a learning rate of 0.

    Args:
        kind: What follows the warm-up: "constant", "cosine" or "linear".
        learning_rate: The base rate, positive; the highest of all steps.
        num_steps: Length of the run, 1 or more.
        warmup_steps: Steps of the warm-up, which ends at the base rate; less than ``num_steps``.
        final_fraction: What the decay leaves of the base rate, from 0 to 1; "constant" does not use it.

    Returns:
        Learning rates, shape (num_steps,), all positive.

    Raises:
        InputError: An argument breaks its rule.

    Source:
        Loshchilov & Hutter, arXiv:1608.03983, eq. 5, for the cosine, one cycle.
    """
    _check_num_steps(num_steps)
    _check_learning_rate(kind, learning_rate, final_fraction)
    if not 0 <= warmup_steps < num_steps:
        raise InputError(
            "learning rate warmup_steps must be 0 or more and less than num_steps, but it is "
            f"{warmup_steps} and num_steps is {num_steps}; shorten the warm-up or train longer"
        )
    steps = np.arange(num_steps)
    progress = np.maximum(steps - warmup_steps, 0) / (num_steps - warmup_steps)
    left = {
        "constant": np.ones(num_steps),
        "cosine": np.cos(0.5 * np.pi * progress) ** 2,  # (1 + cos) / 2 would round to 0 at the end of long runs
        "linear": 1.0 - progress,
    }
    fraction = final_fraction + (1.0 - final_fraction) * left[kind]
    if warmup_steps:
        fraction *= np.minimum((steps + 1) / warmup_steps, 1.0)
    return learning_rate * fraction


def _check_learning_rate(kind: str, learning_rate: float, final_fraction: float) -> None:
    kinds = get_args(LearningRateKind)
    if kind not in kinds:
        raise InputError(
            f"the learning rate schedule must be one of {', '.join(kinds)}, but it is {kind!r}; choose one"
        )
    if not 0.0 < learning_rate < math.inf:
        raise InputError(f"learning_rate must be positive and finite, but it is {learning_rate}; try 0.001")
    if not 0.0 <= final_fraction <= 1.0:
        raise InputError(
            f"final_fraction must be from 0 to 1, but it is {final_fraction}; "
            "pass the part of learning_rate to end at"
        )


def _check_num_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise InputError(f"num_steps must be 1 or more, but it is {num_steps}; train for at least one step")
