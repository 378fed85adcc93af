"""The weight of a term by latent site: one number, times factors by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from ppl_vae.errors import InputError
from ppl_vae.objective.sites import Traces
from ppl_vae.options import parse_assignments

__all__ = ["SiteWeights", "check_weight"]


@dataclass(frozen=True)
class SiteWeights:
    """Weights of a term.

    Attributes:
        everywhere: Weight of all sites.
        factors: What it is multiplied by at some.
    """

    everywhere: float
    factors: Mapping[str, float]

    @classmethod
    def parse(cls, weight: float, factors: str) -> "SiteWeights":
        """Read weights.

        Args:
            weight: Weight of all sites.
            factors: Factors by site, or nothing.

        Raises:
            InputError: A number is negative or not finite, or the text reads otherwise.

        Example:
            >>> SiteWeights.parse(2.0, "z1=0.5,z2=0").of("z1")
            1.0
        """
        check_weight(weight, "weight")
        parts = [part.strip() for part in factors.split(",") if part.strip()]
        return cls(
            weight, {name: _factor(text) for name, text in parse_assignments(parts, "site_weights").items()}
        )

    def of(self, site: str) -> float:
        """Weight of a site.

        Args:
            site: Its name.
        """
        return self.everywhere * self.factors.get(site, 1.0)

    def check(self, traces: Traces) -> None:
        """Refuse names that are no latent sites of a run.

        Raises:
            InputError: One is none.
        """
        for name in self.factors:
            if name not in traces.guide:
                raise InputError(
                    f"site_weights must name latent sites, but {name!r} is none; the program has "
                    f"{', '.join(traces.latents)}"
                )


def check_weight(weight: float, argument: str) -> float:
    """The weight, if it is one.

    Args:
        weight: A number.
        argument: What it is the value of, for the message.

    Raises:
        InputError: It is negative or not finite.
    """
    if not 0.0 <= weight < inf:
        raise InputError(
            f"{argument} must be 0 or more, but it is {weight}; a term of negative weight would drive codes apart"
        )
    return weight


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = inf
    if not 0.0 <= factor < inf:
        raise InputError(
            f"site_weights must be numbers of 0 or more by site, but there is {text!r}; write z1=0.5,z2=2"
        )
    return factor
