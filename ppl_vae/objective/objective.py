"""The base that losses extend, and what a backend must offer them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from ppl_vae.errors import InputError
from ppl_vae.objective.sites import Site, Traces
from ppl_vae.objective.terms import Terms
from ppl_vae.transforms import CallTransform, Transform

__all__ = ["LatentRule", "Objective", "Program", "given_latents", "never_trained_notes"]

# From a latent site's name and the distribution it has in the guide to its value, or None for a draw.
LatentRule = Callable[[str, Any], Any]


class Program(Protocol):
    """A model and a guide with their arguments, as a backend runs them.

    ``PyroProgram`` and ``NumPyroProgram`` are the two implementations.
    """

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments of both programs."""

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments of both programs."""

    @property
    def validates(self) -> bool:
        """Whether what a loss needs of a run is to be checked."""

    @property
    def log_gamma(self) -> Callable[[Any], Any]:
        """Log-gamma function of the backend."""

    @property
    def digamma(self) -> Callable[[Any], Any]:
        """Digamma function of the backend."""

    def constant(self, value: Any) -> Any:
        """A value, or a distribution, without its gradients."""

    def run(self, *, indices_of: Traces | None = None) -> Traces:
        """Run the guide, then the model on its values; share the subsample indices of other traces."""

    def replay_guide(self, traces: Traces) -> Mapping[str, Site]:
        """Run the guide on these arguments with the latent values and indices of other traces."""

    def generate(self, given: Mapping[str, Any] | None = None) -> Mapping[str, Site]:
        """Run the model with its observed sites drawn; the arguments only give shapes.

        Latent sites with a value in ``given`` have it, the others are drawn given it.
        """

    def draw(self, site: Site) -> Any:
        """A fresh draw from a site's distribution, in the shape of its value."""

    def on(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, latents: LatentRule | None = None
    ) -> "Program":
        """The same programs on other arguments, with latent values by a rule of their own if one is given."""

    def transformed(self, transform: Transform | CallTransform) -> "Program":
        """The same programs on transformed arguments."""

    def kl(self, q: Site, p: Site) -> Any | None:
        """KL divergence per element in nats where it has a closed form, otherwise None."""

    def learned_spreads(self, traces: Traces) -> frozenset[str]:
        """Latent sites of a run whose spread depends on parameters in guide or model, or may do so."""

    def largest_gradient(self, traces: Traces, function: Callable[[Mapping[str, Site]], Any]) -> Any:
        """Largest derivative by a parameter, in absolute value, of a function of the model's sites.

        The latent values are given; 0.0 where the function is seen to have no other parameters.
        """

    def map(self, evaluate: Callable[["Program"], Mapping[str, Any]], num: int) -> Mapping[str, Any]:
        """Independent evaluations, arrays by name, stacked on a new first axis."""

    def average(self, evaluate: Callable[["Program"], Terms], num_particles: int) -> Terms:
        """Mean of the terms over independent evaluations."""


def given_latents(values: Mapping[str, Any]) -> LatentRule:
    """Set the latent sites that have a value, (n, *event), to it.

    Args:
        values: Values by site; they get the axis of length 1 that a plate within theirs needs.
    """

    def rule(name: str, fn: Any) -> Any:
        if name not in values:
            return None
        value, shape = values[name], (*fn.batch_shape, *fn.event_shape)
        outer = shape[1:2] == (1,) and tuple(value.shape) == (*shape[:1], *shape[2:])
        return value.reshape(shape) if outer else value

    return rule


def never_trained_notes(names: Sequence[str]) -> list[str]:
    """What a run notes of parameters that its loss does not depend on.

    Args:
        names: Their names.
    """
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return [f"never trained, for the loss does not depend on them: {', '.join(names[:4])}{more}"] if names else []


class Objective(ABC):
    """A loss as a function of what guide and model did; it knows no model and no backend.

    Every loss overrides ``read`` alone. A loss of single sites or of several sites at once reads the run
    that it is given. A loss that needs more runs takes them from the program; a wrapper hands each run to
    its base's ``read``, so that any two losses compose, and the outermost one averages over particles.

    Args:
        num_particles: Independent runs that a step averages over, at least 1.

    Raises:
        InputError: ``num_particles`` is below 1.

    Attributes:
        allow_unbounded: Whether betas are taken that ``split`` refuses; a wrapper does what its base does.
        has_betas: Whether rates can be weighed; a wrapper's can where its base's can.
        binarises: Whether the loss makes zeros and ones of the grey values that it is given, in ``prepare``.
        term_weights: Weights of terms beside the rates by name; an entry of that name among the programs' betas
            is the weight of a call, so that a fit can give it a warm-up.
    """

    allow_unbounded, has_betas = False, True
    binarises = False
    term_weights: Mapping[str, float] = MappingProxyType({})

    def __init__(self, *, num_particles: int = 1) -> None:
        if num_particles < 1:
            raise InputError(f"num_particles must be at least 1, but it is {num_particles}; use 1 for one run")
        self.num_particles = num_particles

    def measure(self, program: Program) -> Terms:
        """Terms of a program, averaged over the particles.

        Args:
            program: Model, guide and arguments.
        """
        if self.num_particles == 1:
            return self.read(program.run(), program)
        return program.average(lambda p: self.read(p.run(), p), self.num_particles)

    def prepare(self, program: Program) -> Program:
        """The program on the data that ``measure`` runs it on first.

        Args:
            program: Model, guide and arguments as given.
        """
        return program

    def notes(self, traces: Traces, program: Program) -> list[str]:
        """What the record of a fit with this loss is to say of it.

        Args:
            traces: A run with values.
            program: The programs that were run.
        """
        return []

    @abstractmethod
    def read(self, traces: Traces, program: Program) -> Terms:
        """Terms of one run.

        Args:
            traces: Sites of the guide and of the model on its values.
            program: Where the closed forms of the backend are looked up.
        """

    def deviations(self, traces: Traces, program: Program) -> Mapping[str, Any]:
        """What ``check`` is to see of a run, scalars by name, where the loss asks more of values than of shapes.

        Compiled programs have no values where a loss reads them; an engine computes these once.

        Args:
            traces: A run.
            program: The programs that were run.
        """
        return {}

    def check(self, deviations: Mapping[str, float]) -> None:
        """Refuse a run that the loss would be wrong for; a loss with deviations overrides it.

        Args:
            deviations: What ``deviations`` gave, as numbers.

        Raises:
            InputError: It would.
        """
        if deviations:
            raise NotImplementedError(f"{type(self).__name__} has deviations, but does not check them")
