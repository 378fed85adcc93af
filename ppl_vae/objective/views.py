"""The two views of data that a loss compares: as they are, and transformed; each in the likelihood's support."""

from collections.abc import Mapping
from typing import Any

from array_api_compat import array_namespace

from ppl_vae.errors import InputError
from ppl_vae.objective.objective import Program
from ppl_vae.objective.sites import Site, Traces
from ppl_vae.transforms import Binarise, CallTransform, Transform, find_transform
from ppl_vae.transforms.step import data_kind

__all__ = ["Views"]

# Names of likelihoods by family of the observed site, for families that do not have a density everywhere.
LIKELIHOODS = {
    "Bernoulli": "bernoulli",
    "DiscretisedLogisticMixture": "discretised-logistic-mixture",
    "Poisson": "poisson",
    "NegativeBinomial": "negative-binomial",
    "GammaPoisson": "negative-binomial",
}
# The values that have one are the whole multiples of these within bounds.
STEPS: Mapping[str, tuple[float, float]] = {
    "bernoulli": (1.0, 1.0),
    "discretised-logistic-mixture": (1.0 / 255.0, 1.0),
    "poisson": (1.0, float("inf")),
    "negative-binomial": (1.0, float("inf")),
}


class Views:
    """Makes the programs' arguments of either view; a named transformation is found once data have a shape.

    Args:
        transform: A name, a ``Transform``, or a function of the arguments.
        binarise: ``threshold`` or ``sample`` where the data are grey and the likelihood wants zeros and ones.
    """

    def __init__(self, transform: str | Transform | CallTransform, binarise: str | None) -> None:
        if not (isinstance(transform, str | Transform) or callable(transform)):
            raise InputError(
                "transform must be a name, a Transform or a function (args, kwargs) -> (args, kwargs), but it is "
                f"of type {type(transform).__name__}; 'simple' is the usual one"
            )
        self.transform, self.binarise = transform, binarise

    def clean(self, program: Program) -> Program:
        """The program on data as they are.

        Args:
            program: Programs and the arguments as given.
        """
        return program if self.binarise is None else program.transformed(_binary(program, self.binarise))

    def transformed(self, here: Traces, program: Program) -> Program:
        """The program on transformed data.

        Args:
            here: A run on data as they are.
            program: Programs and the arguments as given.

        Raises:
            InputError: A named transformation does not fit the data or the likelihood.
        """
        found = self._find(here, program)
        changed = program.transformed(found)
        if isinstance(self.transform, str) or self.binarise is None:
            return changed
        return changed.transformed(_binary(program, self.binarise))

    def notes(self, here: Traces, program: Program) -> list[str]:
        """What a user should know of the transformation."""
        found = self._find(here, program)
        notes = list(found.notes) if isinstance(found, Transform) else []
        if self.binarise is None and isinstance(self.transform, str) and here.x.family == "Bernoulli":
            notes.append(
                "zeros and ones were transformed, and made zeros and ones again by a threshold; grey values that "
                "the fit binarises are transformed first"
            )
        return notes

    def deviations(self, there: Traces, program: Program) -> dict[str, Any]:
        """How far images are outside [0, 1], and transformed values from any with a density.

        Args:
            there: A run on transformed data.
            program: Programs and the arguments as given.
        """
        found = {}
        transform = self._find(there, program)
        if isinstance(transform, Transform) and data_kind(transform.data_shape) == "images":
            found[f"range/{transform.name}"] = abs(program.args[0] - 0.5).max() - 0.5
        if there.x.family in LIKELIHOODS:
            found[f"support/{there.x.name}"] = _distance(there.x)
        return found

    def _find(self, traces: Traces, program: Program) -> Transform | CallTransform:
        if not isinstance(self.transform, str):
            return self.transform
        likelihood = LIKELIHOODS.get(traces.x.family)
        return find_transform(self.transform, _data_shape(program), likelihood=likelihood, binarise=self.binarise)


def _binary(program: Program, how: str) -> Transform:
    return Transform("binary", _data_shape(program), (Binarise(how),))


def _data_shape(program: Program) -> tuple[int, ...]:
    return tuple(program.args[0].shape[1:]) if program.args else ()


def _distance(site: Site) -> Any:
    """Largest distance of an observed value from the nearest one with a density."""
    xp, (step, high) = array_namespace(site.value), STEPS[LIKELIHOODS[site.family]]
    nearest = xp.round(site.value / step) * step
    nearest = xp.where(nearest > 0.0, nearest, xp.zeros_like(nearest))
    nearest = xp.where(nearest < high, nearest, xp.full_like(nearest, min(high, 1e30)))
    return xp.max(xp.abs(site.value - nearest))
