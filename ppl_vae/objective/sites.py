"""What a loss reads: the sample sites of one run of guide and model, the same for both backends."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from array_api_compat import array_namespace, is_numpy_array

from ppl_vae.errors import InputError

__all__ = ["Site", "Traces", "aligned", "as_number"]


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
        """Name of the core distribution, the same word in both backends."""
        # NumPyro has a class for each parameterisation of a discrete family.
        return type(self.fn).__name__.removesuffix("Logits").removesuffix("Probs")

    @property
    def spread(self) -> Any | None:
        """Standard deviations of the core distribution, or their matrix; None for families with neither."""
        return getattr(self.fn, "scale", getattr(self.fn, "scale_tril", None))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a value: the elements, then the axes of the core distribution's own event."""
        return self.element_shape + tuple(self.fn.event_shape)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the independent axes, (n,) in a single plate."""
        return self.element_shape[: len(self.element_shape) - self.event_dim]

    @property
    def has_members(self) -> bool:
        """Whether a row of the data is a group, and the site stands in the plate of its members too."""
        return self.batch_shape[1:] not in ((), (1,))

    def log_prob(self) -> Any:
        """Log density of each element, in nats; neither scaled nor masked."""
        return self.fn.log_prob(self.value)

    def total(self, elements: Any, weight: float = 1.0) -> Any:
        """Sum of a quantity over the unmasked elements, scaled up to the full plates.

        Args:
            elements: Array or number that broadcasts to ``element_shape``, such as a parameter of ``fn``.
            weight: What the sum is multiplied by, such as one over the number of data.

        Returns:
            Scalar: ``weight`` times an unbiased estimate of the sum over all data.
        """
        return self.filled(elements).sum() * (self.plate_scale * weight)

    def per_datum(self, elements: Any) -> Any:
        """Sum of a quantity over each event, masked, not scaled.

        Args:
            elements: Array or number that broadcasts to ``element_shape``, such as a parameter of ``fn``.

        Returns:
            Array of the batch shape, (n,) in a single plate.
        """
        masked = self.filled(elements)
        if not self.event_dim:
            return masked
        return masked.sum(self._event_axes)

    def total_of_events(self, values: Any) -> Any:
        """Sum of a quantity of each event, scaled up to the full plates; for losses of joint densities.

        Args:
            values: Array of the batch shape, such as a function of ``per_datum``.

        Returns:
            Scalar; an event counts unless all its elements are masked.
        """
        if self.mask is not None:
            xp = array_namespace(values)
            mask = xp.broadcast_to(self.mask, self.element_shape)
            values = xp.where(mask.any(self._event_axes), values, xp.zeros_like(values))
        return values.sum() * self.plate_scale

    @property
    def _event_axes(self) -> tuple[int, ...]:
        return tuple(range(-self.event_dim, 0))

    def filled(self, elements: Any) -> Any:
        """A quantity on all elements, zero where they are masked.

        Args:
            elements: Array that broadcasts to ``element_shape``, or a number.
        """
        if self.mask is None and getattr(elements, "shape", None) == self.element_shape:
            return elements  # the hot path: no look-up of the array namespace
        xp = array_namespace(self.value)
        if isinstance(elements, int | float) or is_numpy_array(elements):
            elements = xp.asarray(elements)  # a parameter that the program gave as a number
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

    @property
    def x(self) -> Site:
        """The data: the observed site called x, or the first one."""
        return next((site for site in self.observed if site.name == "x"), self.observed[0])

    @property
    def has_density(self) -> bool:
        """Whether the model gives the data a density; not where a distribution says ``is_density = False``."""
        return all(getattr(site.fn, "is_density", True) for site in self.observed)

    def check_data_plate(self, name: str) -> None:
        """Refuse programs with a site in no plate over data: its terms would be sums, not per datum.

        Args:
            name: Name of the plate over data.

        Raises:
            InputError: The data are observed or a latent site is sampled outside that plate.
        """
        if self.x.num_data is None:
            raise InputError(
                f"model must observe {self.x.name!r} in the plate {name!r}, but does so outside: the loss would "
                "not be per datum; name the plate so, or name yours by the loss option data_plate"
            )
        for side, sites in (("model", self.model), ("guide", self.guide)):
            outside = [site.name for site in sites.values() if site.num_data is None]
            if outside:
                raise InputError(
                    f"{side} must sample {outside[0]!r} in the plate {name!r}, but does so outside: its rate "
                    "would not be per datum; move the statement into the plate"
                )

    def check_betas(self, betas: Mapping[str, float]) -> None:
        """Refuse programs that leave out a beta that they were given: it would have no effect.

        Args:
            betas: Betas that the programs were run with, by latent site.

        Raises:
            InputError: A latent site is scaled by another number.
        """
        for name, site in self.guide.items():
            found = as_number(site.beta)
            if found is None or abs(found - betas[name]) > 1e-6 * betas[name]:
                raise InputError(
                    f"site {name!r} must be scaled by betas[{name!r}], but with {betas[name]:g} there it is "
                    f"scaled by {_show(found)}; put the site into the scale handler, in model and guide"
                )

    def late_parents(self, name: str) -> list[str]:
        """What may be a parent of the site in the model, but the guide does not draw before it.

        Only where there is nothing, the expectation over the site, its parents given, is a KL divergence,
        and the site has a rate (Xiao & Bamler, arXiv:2302.04855, class of top-down guides).

        Args:
            name: A latent site.
        """
        drawn = list(self.guide)
        before = drawn[: drawn.index(name)]
        return [parent for parent in self.latents[: self.latents.index(name)] if parent not in before]

    def check(self) -> None:
        """Refuse a pair of programs whose loss would be wrong without a warning.

        Raises:
            InputError: Nothing is observed, a latent site stands on one side only, its shapes or its
                betas differ between model and guide, or it has no reparameterised sampler.
        """
        if not self.observed:
            raise InputError(
                f"model must observe data, but no site has obs= (it has {list(self.model)}); "
                "observe x in the data plate"
            )
        for site in self.observed:
            _check_observation(site)
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


def aligned(q: Site, p: Site) -> tuple[Site, Site]:
    """The same pair with elements of one kind, so that quantities of the two may be combined.

    Where one family makes an event's axes dependent and the other leaves them independent, such as a full
    covariance beside a diagonal one, the whole event becomes the element of both.

    Args:
        q: A site.
        p: The site of the same name and shape in another trace.
    """
    return (q, p) if q.event_dim == p.event_dim else (_by_event(q), _by_event(p))


def _by_event(site: Site) -> Site:
    if not site.event_dim:
        return site
    mask = site.mask
    if mask is not None:
        if any(size != 1 for size in mask.shape[-site.event_dim :]):
            raise InputError(
                f"mask of site {site.name!r} must cover whole events, since its axes are dependent in the "
                f"other program, but it has shape {tuple(mask.shape)}; mask outside to_event"
            )
        mask = mask.reshape(mask.shape[: max(mask.ndim - site.event_dim, 0)])
    fn = site.fn.expand(site.element_shape).to_event(site.event_dim)
    return replace(site, fn=fn, element_shape=site.batch_shape, event_dim=0, mask=mask)


def _check_observation(site: Site) -> None:
    shape = tuple(site.value.shape)
    axes = zip(reversed(shape), reversed(site.shape), strict=False)
    if len(shape) > len(site.shape) or any(size not in (1, wanted) for size, wanted in axes):
        raise InputError(
            f"site {site.name!r} must have the shape of what it observes, {shape}, but its distribution has "
            f"{site.shape}; correct the decoder's output or the distribution"
        )


def _check_pair(q: Site, p: Site) -> None:
    if q.shape != p.shape or q.batch_shape != p.batch_shape:
        raise InputError(
            f"site {q.name!r} must have one shape in model and guide, but it is {_shapes(p)} in the model "
            f"and {_shapes(q)} in the guide; use the same plates and to_event on both sides"
        )
    if not q.fn.has_rsample:
        raise InputError(
            f"site {q.name!r} of the guide must have a reparameterised sampler, but {q.family} has none; "
            "use a continuous family, or one of the library's losses for discrete latents"
        )
    if abs(q.plate_scale - p.plate_scale) > 1e-6 * p.plate_scale:
        raise InputError(
            f"site {q.name!r} must stand in the same plates in model and guide, but these scale it by "
            f"{p.plate_scale:g} in the model and {q.plate_scale:g} in the guide; give them the same sizes"
        )
    if (q.mask is None) != (p.mask is None):
        raise InputError(
            f"site {q.name!r} must be masked alike in model and guide, but only the "
            f"{'model' if q.mask is None else 'guide'} masks it; wrap the site in the mask on both sides"
        )
    _check_betas(q, p)


def _shapes(site: Site) -> str:
    return f"{site.batch_shape} with event {site.shape[len(site.batch_shape) :]}"


def _check_betas(q: Site, p: Site) -> None:
    for site, side in ((p, "model"), (q, "guide")):
        if getattr(site.beta, "shape", ()) != ():
            raise InputError(
                f"beta of site {site.name!r} must be one number, but in the {side} it has shape "
                f"{tuple(site.beta.shape)}; weigh data by a mask or by a plate"
            )
    model, guide = as_number(p.beta), as_number(q.beta)
    if model is None or guide is None:
        alike = 1.0 not in (model, guide)  # a side without a handler is seen under jit, too
    else:
        alike = abs(guide - model) <= 1e-6 * abs(model)
    if not alike:
        raise InputError(
            f"site {q.name!r} must be scaled alike in model and guide, but beta is {_show(model)} in the "
            f"model and {_show(guide)} in the guide; wrap the site in the scale handler on both sides"
        )


def as_number(beta: Any) -> float | None:
    """A beta as a Python number, or None where it is a placeholder of jit, vmap or capture.

    Args:
        beta: A number or a scalar array.
    """
    try:
        return float(beta.item() if hasattr(beta, "item") else beta)
    except (TypeError, RuntimeError):
        return None


def _show(beta: float | None) -> str:
    return "traced" if beta is None else f"{beta:g}"
