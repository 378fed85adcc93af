"""What the training loop asks of a backend: steps in blocks, evaluations, state as named arrays."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import Rows, condition_of
from ppl_vae.data.checks import check_choice
from ppl_vae.errors import InputError
from ppl_vae.objective.inspection import Generation, Inspection, read_generation
from ppl_vae.objective.sites import Site
from ppl_vae.objective.split import Split

__all__ = [
    "MAX_ROWS",
    "Arrays",
    "Base",
    "Device",
    "Engine",
    "PathDensity",
    "Prior",
    "StepOptions",
    "UnitBetas",
    "chunks",
    "conditions_for",
    "generative_model",
    "probe_betas",
    "program_arguments",
    "read_draws",
]

Arrays = dict[str, NDArray[Any]]
Device = Literal["auto", "cpu", "cuda"]
# What draws come from: the program's model, or its ``alternative_model``.
Prior = Literal["model", "alternative"]
# Where a path of densities to the joint one begins: at p(z) or at q(z given x).
Base = Literal["prior", "guide"]
MAX_ROWS = 16384


@dataclass(frozen=True)
class StepOptions:
    """What a training step does beside the loss.

    Attributes:
        learning_rates: Learning rate of each step of the whole run.
        clip_norm: Largest norm of the gradient, 0 for no bound.
        binarise_batches: Draw binary pixels anew from the grey values of each batch.
        capture: Whether the Pyro engine may replay captured tensor operations.
    """

    learning_rates: NDArray[np.float64]
    clip_norm: float = 0.0
    binarise_batches: bool = False
    capture: bool = True


@dataclass(frozen=True)
class PathDensity:
    """Log densities at n points of the path f_t = base + t (joint - base), in nats.

    Attributes:
        log_base: log density of the latents at the path's beginning, (n,).
        log_ratio: log p(x, latents) less ``log_base``, (n,).
        gradient: Gradient of ``log_base`` + t ``log_ratio`` by latent site, (n, *event).
    """

    log_base: NDArray[Any]
    log_ratio: NDArray[Any]
    gradient: Arrays


class Engine(Protocol):
    """Training and inspection of one model and guide in one backend.

    Data of a conditional program are ``data.Conditioned``, which know what each datum is conditioned on.

    Attributes:
        latents: Names of the latent sites.
        observed: Name of the observed site that holds the data.
        condition_shape: Shape of the condition of one datum, or None for programs without one.
        nested: Latent sites with a value for each member of a row, where the rows are groups.
        has_density: Whether the model gives the data a density, so that there is a log p(x).
        max_rows: How many data it is to be given at once where nothing is trained: ``max_rows`` of a program that
            takes much memory for each, else ``MAX_ROWS``.
        how: How the rate of each site is computed, once training is prepared; see ``Terms.how``.
        split: What keeps the rate from splitting by site, once training is prepared.
        notes: What a reader of the run should know, such as why a step was not captured.
    """

    latents: list[str]
    observed: str
    condition_shape: tuple[int, ...] | None
    nested: list[str]
    has_density: bool
    max_rows: int
    how: dict[str, str]
    split: Split

    @property
    def device_name(self) -> Literal["cpu", "cuda"]:
        """Where it runs."""

    notes: list[str]

    def prepare_training(self, loss: Any, x: Rows, options: StepOptions, betas: Mapping[str, float]) -> None:
        """Make the optimiser, and check the loss on a first batch.

        The training data x stay on the device if they are an array; other rows are read block by block.
        """

    def run_block(self, first_step: int, indices: NDArray[np.int64], betas: Arrays) -> Arrays:
        """Take a step per row of ``indices`` (steps, batch); terms per step by name, (steps,).

        ``betas`` has those of all latents, and maybe weights of other terms of the loss; see
        ``Objective.term_weights``.
        """

    def evaluate(
        self, loss: Any, x: NDArray[np.float32], betas: Mapping[str, float], seed: int
    ) -> dict[str, float]:
        """Terms of a loss on data, with noise of its own seed; nothing is trained."""

    def parameters(self) -> Arrays:
        """Unconstrained parameters by name, the same names and shapes in both backends."""

    def load_parameters(self, arrays: Arrays) -> None:
        """Set the parameters."""

    def state(self) -> Arrays:
        """All that the next step depends on: parameters, optimiser, generators."""

    def load_state(self, arrays: Arrays) -> None:
        """Set the state, so that the next block is bit for bit the one that would have followed."""

    def is_finite(self) -> bool:
        """Whether parameters and optimiser hold finite numbers only."""

    def snapshot(self) -> Any:
        """The state in whatever form is cheapest to keep."""

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""

    def inspect(
        self,
        x: NDArray[np.float32],
        *,
        seed: int,
        latents: Mapping[str, NDArray[Any]] | Literal["draw", "mean"] = "draw",
        draw_x: bool = False,
    ) -> Inspection:
        """Guide and model on data, betas 1, latents drawn, at their means, or given; NumPy arrays.

        With ``draw_x`` x is drawn too, given the latents.
        """

    def generate(
        self,
        num_draws: int,
        *,
        seed: int,
        latents: Mapping[str, NDArray[Any]] | None = None,
        condition: NDArray[Any] | None = None,
        prior: Prior = "model",
        entropy: float = 0.0,
    ) -> Generation:
        """Draws from the model, or from the program's ``alternative_model``; NumPy arrays.

        Sites in ``latents``, (num_draws, *event), have these values; the others are drawn given them. A
        conditional program needs a condition for each draw, (num_draws, *condition_shape); fewer are repeated.
        ``entropy`` is what the alternative model is given: that of the data in nats, in the loss of the fit.
        """

    def log_weights(self, x: NDArray[Any], *, num_draws: int, seed: int) -> NDArray[Any]:
        """Per datum log p(x, z) - log q(z given x) of draws of the guide, betas 1, in nats, (num_draws, n).

        The guide's network sees each datum once where it can, and of the model only densities are computed.
        """

    def log_joint_gradient(
        self, x: NDArray[Any], latents: Mapping[str, NDArray[Any]], *, share: float = 1.0, base: Base = "prior"
    ) -> PathDensity:
        """Densities of given values of all latent sites, (n, *event), on a path to p(x, z), betas 1.

        ``share`` is how far on the path the gradient is: 0 is the base, 1 the joint density. A latent site that
        does not range over all real numbers is refused.
        """


def probe_betas(latents: list[str]) -> dict[str, float]:
    """Betas that no program uses by itself, to see whether they reach their sites.

    Args:
        latents: Names of the latent sites.
    """
    return {site: 1.5 + number for number, site in enumerate(latents)}


class UnitBetas(dict[str, float]):
    """Betas of 1 for any site: what diagnostics run programs with, and how sites are discovered."""

    def __missing__(self, site: str) -> float:
        """Beta of any site."""
        return 1.0


def program_arguments(x: Any, condition_shape: tuple[int, ...] | None) -> tuple[Any, ...]:
    """What model and guide are called with: the data, and their conditions for a conditional program.

    Args:
        x: Data.
        condition_shape: Shape of the condition of one datum that the program was built for, or None.

    Raises:
        InputError: Conditions are missing, or of another shape.
    """
    if condition_shape is None:
        return (x,)
    condition = condition_of(x)
    if condition is None or condition.shape[1:] != condition_shape:
        # Not the number of rows, which an engine may have filled up.
        found = "there is none" if condition is None else f"it has shape {_shape_of_rows(condition.shape[1:])}"
        raise InputError(
            f"condition must have shape {_shape_of_rows(condition_shape)}, as the model was built for, but "
            f"{found}; pass data with their conditions, such as data.Conditioned(x, condition)"
        )
    return np.asarray(x), condition


def _shape_of_rows(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['n', *map(str, shape)])})"


def conditions_for(
    num_draws: int, condition: NDArray[Any] | None, condition_shape: tuple[int, ...] | None
) -> tuple[NDArray[Any], ...]:
    """Conditions of draws from a model: those given, repeated as often as needed; empty where it takes none.

    Args:
        num_draws: Number of draws.
        condition: Conditions, (m, *condition_shape), m >= 1.
        condition_shape: Shape of one that the program was built for, or None.

    Raises:
        InputError: The program needs conditions and there are none, or they have another shape.
    """
    if condition_shape is None:
        if condition is not None:
            raise InputError("condition is for conditional models, but this one takes none; leave it out")
        return ()
    found = None if condition is None else np.asarray(condition)
    if found is not None and not np.isfinite(found).all():
        raise InputError("condition must be finite, but it holds nan or infinity; fill it, or leave such rows out")
    if found is None or found.shape[1:] != condition_shape or not len(found):
        raise InputError(
            f"condition must have shape (n, {', '.join(map(str, condition_shape))}) for draws from this "
            f"conditional model, but it is {'missing' if found is None else found.shape}; pass conditions"
        )
    return (found[np.arange(num_draws) % len(found)],)


def generative_model(program: Any, prior: Prior, entropy: float) -> Callable[..., None]:
    """What draws come from: a program's model, or its alternative model.

    Args:
        program: Has ``model``, and maybe ``alternative_model(x, c=None, *, betas, entropy=0.0)``.
        prior: Which of the two.
        entropy: Differential entropy of the data in nats that the alternative model is given.

    Raises:
        InputError: There is no such method, or it takes other arguments.
    """
    check_choice(prior, get_args(Prior), "prior")
    if prior == "model":
        model: Callable[..., None] = program.model
        return model
    method: Any = getattr(program, "alternative_model", None)
    try:
        inspect.signature(method).bind(None, betas={}, entropy=entropy)
    except (TypeError, ValueError) as error:
        raise InputError(
            "prior alternative needs a program with a method alternative_model(x, c=None, *, betas, entropy=0.0), "
            f"as t3vae, t3hvae and t3cvae have, but {type(program).__name__} has none that fits ({error}); take "
            "the prior model, fit one of these, or add the method"
        ) from None
    return partial(method, entropy=entropy)


def read_draws(sites: Mapping[str, Site], observed: str, latents: Sequence[str]) -> Generation:
    """Draws by the sites that a program's model has; see ``inspection.read_generation``.

    Args:
        sites: Sites of the model that was run.
        observed: Name of the observed site that holds the data.
        latents: Names of the latent sites.

    Raises:
        InputError: A site is missing, as it may be of an alternative model.
    """
    missing = [name for name in (*latents, observed) if name not in sites]
    if missing:
        raise InputError(
            f"alternative_model must have the sites of model, but it lacks {', '.join(missing)}; give it the same"
        )
    return read_generation(sites, observed, latents)


def chunks(num_data: int, size: int = 4096) -> list[slice]:
    """Slices of bounded length over data.

    Args:
        num_data: Number of data.
        size: Largest length of a slice.
    """
    return [slice(start, min(start + size, num_data)) for start in range(0, num_data, size)]
