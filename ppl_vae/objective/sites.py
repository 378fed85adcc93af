"""What a loss reads: the sample sites of one run of guide and model, the same for both backends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from ppl_vae.errors import InputError

__all__ = ["Site", "Traces"]


@dataclass(frozen=True, slots=True)
class Site:
    """One sample statement as it ran, its handlers taken apart.

    An element is one number with a log density of its own: the batch axes, then the axes that
    ``to_event`` declared dependent, without those that belong to the core distribution itself.

    Attributes:
        name: Name of the site.
        fn: Core distribution of the backend; independent, expanded and masked wrappers are removed.
        value: Sampled or observed value.
        element_shape: Shape of the elements, (batch axes, event axes).
        event_dim: How many of the rightmost element axes belong to one event.
        plate_scale: Product over subsampled plates of size / subsample size.
        beta: What other scale handlers multiplied the site by, 1 where there is none.
        mask: Boolean array that broadcasts to ``element_shape``, or None.
        is_observed: Whether the value was given.
        num_data: Number of data behind the site, or None outside the data plate.
    """

    name: str
    fn: Any
    value: Any
    element_shape: tuple[int, ...]
    event_dim: int
    plate_scale: float
    beta: Any
    mask: Any
    is_observed: bool
    num_data: int | None

    @property
    def family(self) -> str:
        """Name of the core distribution's class, the same word in both backends."""
        return type(self.fn).__name__

    def log_prob(self) -> Any:
        """Log density of each element, in nats; neither scaled nor masked."""
        return self.fn.log_prob(self.value)

    def total(self, elements: Any) -> Any:
        """Sum of a quantity over the unmasked elements, scaled up to the full plates.

        Args:
            elements: Array that broadcasts to ``element_shape``.

        Returns:
            Scalar: an unbiased estimate of the sum over all data.
        """
        total = self._masked(elements).sum()
        return total if self.plate_scale == 1.0 else total * self.plate_scale

    def per_datum(self, elements: Any) -> Any:
        """Sum of a quantity over each event, masked, not scaled.

        Args:
            elements: Array that broadcasts to ``element_shape``.

        Returns:
            Array of the batch shape, (n,) in a single plate.
        """
        masked = self._masked(elements)
        if not self.event_dim:
            return masked
        return masked.sum(tuple(range(-self.event_dim, 0)))

    def _masked(self, elements: Any) -> Any:
        if tuple(elements.shape) == self.element_shape and self.mask is None:
            return elements  # the hot path: no look-up of the array namespace
        xp = array_namespace(elements)
        elements = xp.broadcast_to(elements, self.element_shape)
        if self.mask is None:
            return elements
        return xp.where(self.mask, elements, xp.zeros_like(elements))


@dataclass(frozen=True, slots=True)
class Traces:
    """Sites of one run: the guide's, and the model's on the guide's values, in order of execution.

    Attributes:
        guide: Latent sites of the guide by name.
        model: Latent and observed sites of the model by name.
        raw: The backend's own guide trace, for replaying it.
    """

    guide: Mapping[str, Site]
    model: Mapping[str, Site]
    raw: Any

    @property
    def num_data(self) -> int:
        """Number of data that the observed sites stand for; 1 without a data plate."""
        return max((s.num_data or 1 for s in self.observed), default=1)

    @property
    def latents(self) -> list[str]:
        """Names of the latent sites, in the model's order."""
        return [name for name, site in self.model.items() if not site.is_observed]

    @property
    def observed(self) -> list[Site]:
        """Observed sites of the model."""
        return [site for site in self.model.values() if site.is_observed]

    def has_topological_parents(self, name: str) -> bool:
        """Whether the guide draws all that may be a parent of the site in the model before it.

        Only then is the expectation over the site, its parents given, a KL divergence, and the rate
        splits by site (Xiao & Bamler, arXiv:2302.04855, class of top-down guides).

        Args:
            name: A latent site.
        """
        parents = self.latents[: self.latents.index(name)]
        drawn = list(self.guide)
        return set(parents) <= set(drawn[: drawn.index(name)])

    def check(self) -> None:
        """Refuse a pair of programs whose loss would be wrong without a warning.

        Raises:
            InputError: Nothing is observed, a latent site stands on one side only, its shapes or its
                betas differ between model and guide, or it has no reparameterised sampler.
        """
        if not self.observed:
            raise InputError("model must observe data, but no site has obs=; observe x in the data plate")
        for name in self.latents:
            if name not in self.guide:
                raise InputError(
                    f"guide must sample every latent site of the model, but lacks {name!r} "
                    f"(it samples {sorted(self.guide)}); add the site to the guide"
                )
        for name, q in self.guide.items():
            if name not in self.model or self.model[name].is_observed:
                raise InputError(
                    f"guide may sample latent sites of the model only, but {name!r} is not one "
                    f"(the model has {self.latents}); rename or remove it"
                )
            _check_pair(q, self.model[name])


def _check_pair(q: Site, p: Site) -> None:
    if q.element_shape != p.element_shape or q.event_dim != p.event_dim:
        raise InputError(
            f"site {q.name!r} must have one shape in model and guide, but it is {p.element_shape} with "
            f"{p.event_dim} event axes in the model and {q.element_shape} with {q.event_dim} in the guide; "
            "use the same plates and to_event on both sides"
        )
    if not q.fn.has_rsample:
        raise InputError(
            f"site {q.name!r} of the guide must have a reparameterised sampler, but {q.family} has none; "
            "use a continuous family, or one of the library's losses for discrete latents"
        )
    if _known(q.beta) and _known(p.beta) and abs(q.beta - p.beta) > 1e-6 * abs(p.beta):
        raise InputError(
            f"site {q.name!r} must be scaled alike in model and guide, but beta is {float(p.beta):g} in the "
            f"model and {float(q.beta):g} in the guide; wrap the site in the scale handler on both sides"
        )


def _known(beta: Any) -> bool:
    # Under jit or capture a beta is a placeholder without a value; the first, eager step has checked it.
    return isinstance(beta, (int, float))
