"""How a model is fitted: everything beside the model, the loss and the data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ppl_vae.errors import InputError, remedy_for
from ppl_vae.options import check_options, options_of, parse_assignments
from ppl_vae.training.engine import Device
from ppl_vae.training.schedules import BetaSchedule, LearningRateKind, handler_beta, learning_rates

__all__ = ["FitSettings", "beta_by_site", "check_site", "final_betas", "settings_from"]

# Schedules hold a number for each step.
MAX_STEPS = 10**8


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit; the command line's options are made from these.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Data in a step; 0 takes 128, or all training data where there are fewer.
        learning_rate: Step size of Adam.
        learning_rate_schedule: What it does over the run.
        learning_rate_warmup: Epochs over which it rises to its value.
        clip_norm: Largest norm of the gradient; 0 sets no bound.
        beta_warmup: Epochs over which each beta rises from 0 to its value.
        beta_warmup_sites: Other epochs for the betas of single sites, such as z1=5,z2=20; also for the weight of
            the loss consistency, as consistency=20, which rises only so.
        patience: Epochs without a better validation loss after which the fit stops; 0 never stops.
        select: Whether the result is the epoch with the best validation loss, or the last one.
        binarise: How grey values become zeros and ones; sample draws training data anew for each batch.
        validation: Fraction of the data for validation.
        test: Fraction of the data for testing.
        log_px_draws: Importance draws per datum for held-out log p(x).
        log_px_data: At most so many data of each split for log p(x).
        checkpoint_seconds: Seconds between checkpoints; 0 saves after every epoch.
        capture: Replay captured tensor operations (Pyro), which is faster; off runs the program itself.
        device: Where to run; auto takes a GPU if there is one.
        seed: Seed of the weights, the noise, the order and the splits.
    """

    epochs: int = 100
    batch_size: int = 0
    learning_rate: float = 1e-3
    learning_rate_schedule: LearningRateKind = "constant"
    learning_rate_warmup: float = 0.0
    clip_norm: float = 0.0
    beta_warmup: float = 0.0
    beta_warmup_sites: str = ""
    patience: int = 0
    select: Literal["best", "last"] = "best"
    binarise: Literal["none", "threshold", "sample"] = "none"
    validation: float = 0.1
    test: float = 0.2
    log_px_draws: int = 100
    log_px_data: int = 1000
    checkpoint_seconds: float = 30.0
    capture: bool = True
    device: Device = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("epochs", "log_px_draws", "log_px_data"):
            self._check(name, 1)
        for name in ("batch_size", "patience", "clip_norm", "checkpoint_seconds", "seed"):
            self._check(name, 0)
        for name in ("beta_warmup", "learning_rate_warmup"):
            self._check(name, 0)
        if self.seed >= 2**32:
            raise InputError(f"seed must be below 2**32, but it is {self.seed}; choose a smaller number")
        self._own_warmups()

    def _check(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if not least <= value < math.inf:
            raise InputError(f"{name} must be {least} or more and finite, but it is {value}; change it")

    def batch(self, num_data: int) -> int:
        """Size of a batch.

        Args:
            num_data: Number of training data.

        Raises:
            InputError: A batch is larger than the training data.
        """
        if self.batch_size > num_data:
            raise InputError(
                f"batch_size must be at most the {num_data} training data, but it is {self.batch_size}; "
                f"use {num_data} or less"
            )
        return self.batch_size or min(128, num_data)

    def steps_per_epoch(self, num_data: int) -> int:
        """Whole batches in the training data; what is left over comes in another epoch's order."""
        return num_data // self.batch(num_data)

    def num_steps(self, num_data: int) -> int:
        """Steps of the run.

        Args:
            num_data: Number of training data.

        Raises:
            InputError: They are too many.
        """
        num_steps = self.epochs * self.steps_per_epoch(num_data)
        if num_steps > MAX_STEPS:
            raise InputError(
                f"epochs must make {MAX_STEPS} steps at most, but {self.epochs} make {num_steps}; choose fewer"
            )
        return num_steps

    def learning_rates(self, num_data: int) -> NDArray[np.float64]:
        """Learning rate of every step of the run; errors as in ``num_steps``.

        Args:
            num_data: Number of training data.
        """
        per_epoch = self.steps_per_epoch(num_data)
        if self.learning_rate_warmup >= self.epochs:
            raise InputError(
                f"learning_rate_warmup must end before the last epoch, but it takes {self.learning_rate_warmup:g} "
                f"epochs and epochs is {self.epochs}; shorten the warm-up or train longer"
            )
        return learning_rates(
            self.learning_rate_schedule,
            self.learning_rate,
            self.num_steps(num_data),
            warmup_steps=round(self.learning_rate_warmup * per_epoch),
        )

    def warmups(self, sites: Sequence[str], terms: Sequence[str] = ()) -> dict[str, float]:
        """Epochs over which the beta of each site rises, and the weights of the other terms that have a warm-up.

        Args:
            sites: The latent sites of the model.
            terms: Terms of the loss with a weight of their own; the common warm-up is not theirs.

        Raises:
            InputError: A warm-up does not end within the run, or names a site that does not exist.
        """
        own = self._own_warmups()
        for site in own:
            check_site("beta_warmup_sites", site, [*sites, *terms])
        common = {site: ("beta_warmup", self.beta_warmup) for site in sites}
        named = {**common, **{site: (f"beta_warmup_sites of {site}", epochs) for site, epochs in own.items()}}
        for name, epochs in named.values():
            if epochs >= self.epochs:
                raise InputError(
                    f"{name} must end before the last epoch, but it takes {epochs:g} epochs and epochs is "
                    f"{self.epochs}: beta would never reach its value; shorten the warm-up or train longer"
                )
        return {site: epochs for site, (_, epochs) in named.items()}

    def _own_warmups(self) -> dict[str, float]:
        texts = self.beta_warmup_sites.split(",") if self.beta_warmup_sites else []
        warmups = {}
        for site, text in parse_assignments(texts, "beta_warmup_sites").items():
            try:
                warmups[site] = float(text)
            except ValueError:
                warmups[site] = math.nan
            if not 0.0 <= warmups[site] < math.inf:
                raise InputError(
                    f"beta_warmup_sites of {site} must be a number of epochs, 0 or more and finite, but it is "
                    f"{text!r}; write for instance {site}=5"
                )
        return warmups

    def betas(
        self, targets: Mapping[str, float], num_data: int, terms: Mapping[str, float] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Beta of every step of the run by site, as the handlers take them; weights of terms with a warm-up.

        Args:
            targets: Final beta of each site.
            num_data: Number of training data.
            terms: Final weight of each term of the loss that has one, see ``Objective.term_weights``.

        Raises:
            InputError: A warm-up does not end within the run or names no site, or a beta is negative.
        """
        per_epoch = self.steps_per_epoch(num_data)
        num_steps = self.num_steps(num_data)
        terms = terms or {}
        warmups = self.warmups(list(targets), list(terms))
        schedules = {
            site: BetaSchedule(target, warmup_steps=round(warmups[site] * per_epoch))
            for site, target in {**terms, **targets}.items()
            if site in warmups
        }
        for schedule in schedules.values():
            schedule.check(num_steps)
        return {site: handler_beta(s.values(num_steps)) for site, s in schedules.items()}


def settings_from(values: Mapping[str, Any]) -> FitSettings:
    """Settings from values, or texts, by name.

    Args:
        values: Some or all of the settings.

    Raises:
        InputError: A setting does not exist, or its value breaks a rule.
    """
    return FitSettings(**check_options(options_of(FitSettings), values, "the settings of a fit"))


def final_betas(targets: Mapping[str, float]) -> dict[str, float]:
    """Final beta of each site as the handlers take it: 0 becomes tiny.

    Args:
        targets: Beta of each site.
    """
    return {site: float(handler_beta(beta)) for site, beta in targets.items()}


def beta_by_site(beta: float | Mapping[str, Any], sites: list[str]) -> dict[str, float]:
    """A beta for every latent site.

    Args:
        beta: One number for all sites, or numbers by site; sites without one have beta 1.
        sites: The latent sites of the model.

    Raises:
        InputError: A site does not exist, or a beta is no number that is 0 or more.
    """
    given = dict(beta) if isinstance(beta, Mapping) else dict.fromkeys(sites, beta)
    for site in given:
        check_site("beta", site, sites)
    return {site: _number(site, given.get(site, 1.0)) for site in sites}


def check_site(argument: str, name: str, sites: Sequence[str], *, also: Sequence[str] = ()) -> None:
    """Refuse a name that is none of the latent sites.

    Args:
        argument: The argument that names it, for the message.
        name: The name.
        sites: The latent sites of the model.
        also: What else it may be.

    Raises:
        InputError: It is none of them.
    """
    if name in (*sites, *also):
        return
    raise InputError(
        f"{argument} must name latent sites of the model, which are {', '.join(sites)}"
        f"{''.join(f', or {other}' for other in also)}, but it names {name!r}; "
        f"{remedy_for(name, [*sites, *also], 'name one of them')}"
    )


def _number(site: str, beta: Any) -> float:
    try:
        return BetaSchedule(float(beta)).target
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"beta of {site} must be a number, but it is {beta!r}; write for instance 4") from None
