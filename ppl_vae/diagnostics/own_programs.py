"""What a container says of a user's own model and guide, which keep to no contract; densities in nats.

A site is read without the scales of its handlers and plates: betas and subsample sizes do not enter. The axes of
its plates come first, then the others; an axis of length 1 that belongs to no plate is left out.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from ppl_vae.diagnostics.containers import DRAWS
from ppl_vae.errors import InputError

__all__ = [
    "PASS_DATA",
    "OwnProgram",
    "OwnRun",
    "OwnSite",
    "Read",
    "Weights",
    "find_weights",
    "free_size",
    "read_prior",
    "stack_runs",
]

PASS_DATA = "pass them after source, as in to_arviz((model, guide), x)"
# What is kept of a run: arrays by name.
Read = Callable[["OwnRun"], dict[str, Any]]


@dataclass(frozen=True)
class OwnSite:
    """A sample statement as it ran.

    Attributes:
        fn: Its distribution, with a mask but without scales.
        value: Its value, (batch axes, event axes).
        log_prob: Log density in nats, masked and not scaled, (batch axes).
        plates: Name of the plate of each batch axis, None for an axis of no plate.
        observed: Whether the value was given.
        auxiliary: Whether the guide says that the model has no such site.
    """

    fn: Any
    value: Any
    log_prob: Any
    plates: tuple[str | None, ...]
    observed: bool
    auxiliary: bool

    @property
    def is_factor(self) -> bool:
        """Whether it is a mere term of the density, without a value."""
        return 0 in tuple(self.fn.event_shape)

    @property
    def is_point(self) -> bool:
        """Whether its distribution is a point mass, which has no density to weigh by."""
        fn = self.fn
        while hasattr(fn, "base_dist"):
            fn = fn.base_dist
        return type(fn).__name__ == "Delta"

    @property
    def size(self) -> int:
        """How many numbers its value holds."""
        return math.prod((*self.fn.batch_shape, *self.fn.event_shape))

    @property
    def _kept(self) -> list[int]:
        sizes = zip(self.plates, tuple(self.fn.batch_shape), strict=True)
        return [axis for axis, (plate, size) in enumerate(sizes) if plate is not None or size != 1]

    def shaped(self, values: Any) -> Any:
        """Values of the site's shape without the axes of length 1 that belong to no plate.

        Args:
            values: Array that broadcasts to (batch axes, event axes).
        """
        batch, event = tuple(self.fn.batch_shape), tuple(self.fn.event_shape)
        xp = array_namespace(values)
        return xp.reshape(xp.broadcast_to(values, batch + event), tuple(batch[a] for a in self._kept) + event)

    def dims(self, name: str) -> tuple[str, ...]:
        """Names of the axes of `shaped`: of its plate, or <name>_dim, or <name>_dim_0, ... where several are left.

        Args:
            name: Name of the site.
        """
        found = [*(self.plates[axis] for axis in self._kept), *(None for _ in self.fn.event_shape)]
        number = iter(range(len(found)))
        many = found.count(None) > 1
        return tuple(p or (f"{name}_dim_{next(number)}" if many else f"{name}_dim") for p in found)

    def density(self, plates: tuple[str, ...]) -> Any:
        """Log density by cell of some of its plates, summed over all other axes.

        Args:
            plates: Names of plates that the site stands in, in the order that the axes are to have.
        """
        xp = array_namespace(self.value)
        total = xp.broadcast_to(self.log_prob, tuple(self.fn.batch_shape))
        others = tuple(axis for axis, plate in enumerate(self.plates) if plate not in plates)
        total = xp.sum(total, axis=others) if others else total
        left = [plate for plate in self.plates if plate in plates]
        return xp.permute_dims(total, tuple(left.index(plate) for plate in plates)) if left else total


class OwnRun(Protocol):
    """One run of guide and model with random numbers of its own."""

    @property
    def guide(self) -> Mapping[str, OwnSite]:
        """Sites of the guide."""

    @property
    def model(self) -> Mapping[str, OwnSite]:
        """Sites of the model on the guide's values."""

    def num_free(self, name: str) -> int:
        """Numbers that a latent of the model is made of: its entries, fewer where constrained as a simplex is."""

    def replicate(self) -> Mapping[str, OwnSite]:
        """Sites of the model on the latents of ``model``, with observations drawn."""

    def generate(self) -> Mapping[str, OwnSite]:
        """Sites of the model alone, with observations drawn."""


class OwnProgram(Protocol):
    """A user's model and guide with their arguments, in one backend.

    Attributes:
        indices: The data that a subsampling plate takes, the same in all runs, by name of the plate.
        partial: Plates of sites that take less than all of their data.
    """

    indices: Mapping[str, NDArray[np.int64]]
    partial: frozenset[str]

    def first_run(self) -> OwnRun:
        """A run to see which sites there are; its values may be placeholders."""

    def collect(self, read: Read, num_runs: int, seed: int) -> dict[str, NDArray[Any]]:
        """What is read of several runs, (num_runs, ...); the i-th run of a seed is always the same."""


@dataclass(frozen=True)
class Weights:
    """Which sites of the two programs make up a log weight, and in how many pieces it comes.

    Attributes:
        latents: Latent sites that both programs have.
        observed: Observed sites of the model that hold data.
        plates: Plates that every site stands in: there is a weight for each cell; empty for one weight in all.
        weighed: Whether there are weights at all.
        notes: What was left out, and why.
    """

    latents: tuple[str, ...]
    observed: tuple[str, ...]
    plates: tuple[str, ...]
    weighed: bool
    notes: tuple[str, ...]

    def read(self, run: OwnRun) -> dict[str, Any]:
        """Latent values of a run by site, and its log weight under ``log_weight``.

        Sites that only the model has were drawn from their own distribution, so that they weigh nothing.
        """
        latents = {f"posterior {name}": run.guide[name].shaped(run.guide[name].value) for name in self.latents}
        if not self.weighed:
            return latents
        log_p = [s.density(self.plates) for n, s in run.model.items() if s.observed or n in self.latents]
        log_q = [s.density(self.plates) for s in run.guide.values()]
        return latents | {"log_weight": sum(log_p) - sum(log_q)}

    def read_observed(self, run: OwnRun) -> dict[str, Any]:
        """Observed values of a run by site."""
        return {name: run.model[name].shaped(run.model[name].value) for name in self.observed}

    def read_predictive(self, run: OwnRun) -> dict[str, Any]:
        """Draws of the observed sites by site, and their means as <site>_mean where the family has one.

        Where an observed site depends on another one, its mean is that given the other's draw.
        """
        drawn, read = run.replicate(), {}
        for name in self.observed:
            read[name] = drawn[name].shaped(drawn[name].value)
            try:
                read[f"{name}_mean"] = drawn[name].shaped(drawn[name].fn.mean)
            except (AttributeError, NotImplementedError):
                continue
        return read


def free_size(site: OwnSite, biject_to: Callable[[Any], Any]) -> int:
    """Numbers that a site's value is made of, which are fewer than its entries where it is constrained.

    Args:
        site: The site.
        biject_to: A backend's map from the support of a law to its bijection with all real numbers.
    """
    try:
        return math.prod(biject_to(site.fn.support).inverse_shape(site.value.shape))
    except NotImplementedError:  # a discrete one
        return site.size


def read_prior(latents: tuple[str, ...]) -> Read:
    """What to read of a run for draws of latent sites from the model alone."""

    def read(run: OwnRun) -> dict[str, Any]:
        sites = run.generate()
        return {name: sites[name].shaped(sites[name].value) for name in latents}

    return read


def find_weights(run: OwnRun, partial: Collection[str] = ()) -> Weights:
    """Look through the sites of a run.

    Args:
        run: A run of the two programs.
        partial: Plates that take less than all of their data.

    Raises:
        InputError: The guide shares no latent site with the model, or has one that the model lacks, the model was
            given no data, or a plate has the name of a dim of draws.
    """
    guide, model = run.guide, run.model
    seen, by_guide = ([name for name, site in sites.items() if site.observed] for sites in (model, guide))
    if by_guide and not seen:
        raise InputError(
            f"source must be the pair (model, guide), but the first observes nothing and the second {by_guide}; "
            "swap them, or give the model its data"
        )
    latents = tuple(name for name, site in model.items() if not site.observed and name in guide)
    strange = [n for n, s in guide.items() if not (s.observed or s.auxiliary or n in latents)]
    if strange or not latents:
        own = [name for name, site in model.items() if not site.observed]
        raise InputError(
            f"guide must sample latent sites of the model, which are {own}, but it samples "
            f"{strange or list(guide)}; give both the same names, or mark a site of the guide alone by "
            "infer={'is_auxiliary': True}"
        )
    auxiliary = [name for name, site in guide.items() if site.auxiliary]
    missing = [name for name, site in model.items() if not site.observed and name not in guide]
    if missing and not seen:
        raise InputError(
            f"model must observe data, but it observes nothing and draws {', '.join(missing)} itself, which the "
            f"guide lacks, as where data are left out; {PASS_DATA}"
        )
    notes = []
    if auxiliary:
        notes.append(f"posterior of {', '.join(auxiliary)}: the guide's alone")
    if missing:
        notes.append(f"posterior of {', '.join(missing)}: not in the guide, drawn from the model for the weights")
    stacks = [[p for p in site.plates if p] for site in (*guide.values(), *model.values())]
    taken = {plate for stack in stacks for plate in stack} & set(DRAWS)
    if taken:
        raise InputError(
            f"plates must have names other than chain and draw, but there is {', '.join(taken)}; rename it"
        )
    plates = tuple(p for p in stacks[0] if all(p in stack for stack in stacks))
    apart = sorted(set(partial) - set(plates))
    unweighed = _why_no_density(run, latents, auxiliary)
    if apart and not unweighed:
        unweighed = f"plate {', '.join(apart)} takes only some of its data, and not every site is in it; take all"
    if unweighed:
        notes.append(f"log_weight: {unweighed}")
    elif not plates:
        notes.append("log_weight by datum: no plate holds every site, so there is one weight and one k in all")
    observed = tuple(name for name, site in model.items() if site.observed and not site.is_factor)
    return Weights(latents, observed, plates, not unweighed, tuple(notes))


def _why_no_density(run: OwnRun, latents: Sequence[str], auxiliary: Sequence[str]) -> str:
    """Why the guide's sites together are no density of the latents, or nothing.

    With auxiliary sites they are one if the latents are a map of these that can be inverted, as in the guides that
    the libraries make: all of them point masses, and made of as many numbers.
    """
    points = [name for name in (*latents, *auxiliary) if run.guide[name].is_point]
    if not auxiliary:
        return f"the guide has point masses at {', '.join(points)}" if points else ""
    if points != list(latents):
        spread = [name for name in latents if name not in points]
        if not spread:
            return f"the guide has point masses at {', '.join(points)}"
        return f"the guide's density of {', '.join(spread)} is an integral over {', '.join(auxiliary)}"
    num_auxiliary = sum(run.guide[name].size for name in auxiliary)
    num_free = sum(run.num_free(name) for name in latents)
    if num_free == num_auxiliary:
        return ""
    return (
        f"the guide has point masses at some of {', '.join(points)}, which are made of {num_free} numbers, and "
        f"{', '.join(auxiliary)} of {num_auxiliary}"
    )


def stack_runs(runs: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays of several runs, stacked by name.

    Args:
        runs: Arrays by name, of each run.

    Raises:
        InputError: The runs differ in names or shapes.
    """
    for run in runs:
        for name, value in runs[0].items():
            if name not in run or run[name].shape != value.shape or len(run) != len(runs[0]):
                other = f"shape {run[name].shape}" if name in run else "is missing"
                raise InputError(
                    f"every draw must have the same sites of the same shapes, but {name!r} has shape "
                    f"{value.shape} in one and {other} in another; pad it to one size and mask what is too much"
                )
    return {name: np.stack([run[name] for run in runs]) for name in runs[0]}
