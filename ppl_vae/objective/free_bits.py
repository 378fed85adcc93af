"""Free bits: a floor under each rate of a loss, so that a rate below it costs nothing more; nats per datum."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from array_api_compat import array_namespace

from ppl_vae.errors import InputError
from ppl_vae.objective.sites import Traces
from ppl_vae.options import parse_assignments

__all__ = ["FreeBits"]


@dataclass(frozen=True)
class FreeBits:
    r"""Floors :math:`\lambda_l` in nats per datum: a loss holds :math:`\max(\lambda_l, R_l)` in place of a rate.

    The rate is the mean over the batch, all units of the site together. Below its floor it has no gradient.

    Attributes:
        everywhere: Floor of the sites that are not named.
        by_site: Floors by latent site.

    Source:
        Kingma et al., arXiv:1606.04934, with the sites as the groups of latent variables.
    """

    everywhere: float = 0.0
    by_site: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "FreeBits":
        """Read floors from text.

        Args:
            text: A number for every latent site, or numbers by site.

        Raises:
            InputError: The text reads otherwise, or a floor is negative or not finite.

        Example:
            >>> FreeBits.parse("z1=0.5,z2=2").by_site
            {'z1': 0.5, 'z2': 2.0}
        """
        if "=" not in text:
            return cls(_floor(text))
        parts = [part.strip() for part in text.split(",")]
        return cls(by_site={site: _floor(value) for site, value in parse_assignments(parts, "free_bits").items()})

    def check(self, traces: Traces) -> None:
        """Refuse floors that a run has no rates for.

        Args:
            traces: The run.

        Raises:
            InputError: A named site does not exist, or a site with a floor has no rate.
        """
        for name in self.by_site:
            if name not in traces.guide:
                raise InputError(
                    f"free_bits must name latent sites, but {name!r} is none; the program has "
                    f"{', '.join(traces.latents)}"
                )
        for name in traces.guide:
            if self._of(name) and traces.late_parents(name):
                raise InputError(
                    f"free_bits must be floors of rates, but {name!r} has none: the guide draws it before "
                    f"{traces.late_parents(name)[0]!r}, its parent in the model; leave {name!r} out, or draw the "
                    "latents in the model's order"
                )

    def raised(self, name: str, rate: Any) -> Any:
        """The larger of a site's rate and its floor.

        Args:
            name: The site.
            rate: Its rate, a scalar.
        """
        floor = self._of(name)
        if not floor:
            return rate
        xp = array_namespace(rate)
        return xp.where(rate > floor, rate, xp.full_like(rate, floor))

    def _of(self, name: str) -> float:
        return self.by_site.get(name, self.everywhere)


def _floor(text: str) -> float:
    try:
        floor = float(text)
    except ValueError:
        floor = inf
    if not 0.0 <= floor < inf:
        raise InputError(
            f"free_bits must be 0 or more nats, one number or numbers by site, but it has {text!r}; write 0.5, or "
            "z1=0.5,z2=2"
        )
    return floor
