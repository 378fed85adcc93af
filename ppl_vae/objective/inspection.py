"""Per-datum quantities of one run of guide and model: what diagnostics read, the same for both backends.

Everything is unscaled: betas and plate sizes do not enter (a scaled plate makes bad fits look good). Where a row
of the data is a group with a plate of m members, a datum is the group: densities and rates are summed over its
members, those that a mask leaves out apart, and values have an axis of members before the event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from array_api_compat import array_namespace

from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import rate_elements
from ppl_vae.objective.objective import Program
from ppl_vae.objective.sites import Site, aligned

__all__ = ["Generation", "Inspection", "inspect", "read_generation"]


@dataclass(frozen=True)
class Inspection:
    """What guide and model say of n data on one draw of the latents; densities in nats.

    Attributes:
        latents: Latent values by site, (n, *event).
        loc: Means of the guide's distributions by site, (n, *event).
        scale: Their standard deviations by site, (n, *event).
        log_guide: log q of the latents by site, (n,).
        log_prior: log p of the latents by site, (n,).
        log_likelihood: log p(x given latents), (n,).
        rates: KL of guide from model per latent unit by site, (n, *event), or (n,) where a family makes
            the units of a site dependent.
        mean: Mean of x given the latents, (n, *data_shape).
        how: Pairs of a site and how its rate was computed.
        x_draw: A draw of x given the latents, (n, *data_shape), where one was asked for, otherwise None.
        log_elements: With it log p of each element given the latents by observed site, (n, *elements); an
            element is an entry of x, or several that the likelihood makes dependent, such as a pixel's channels.
    """

    latents: Mapping[str, Any]
    loc: Mapping[str, Any]
    scale: Mapping[str, Any]
    log_guide: Mapping[str, Any]
    log_prior: Mapping[str, Any]
    log_likelihood: Any
    rates: Mapping[str, Any]
    mean: Any
    how: tuple[tuple[str, str], ...]
    x_draw: Any = None
    log_elements: Any = None

    @property
    def log_weight(self) -> Any:
        """Per datum log p(x, z) - log q(z given x), in nats, (n,)."""
        return self.log_likelihood + sum(self.log_prior.values()) - sum(self.log_guide.values())


@dataclass(frozen=True)
class Generation:
    """Draws from the model.

    Attributes:
        latents: Latent values by site, (n, *event).
        mean: Mean of x given the latents, (n, *data_shape).
        x: Drawn observations, (n, *data_shape).
    """

    latents: Mapping[str, Any]
    mean: Any
    x: Any


DATA_FIELDS = {cls: [f.name for f in fields(cls) if f.name != "how"] for cls in (Inspection, Generation)}


def inspect(program: Program, *, draw_x: bool = False) -> Inspection:
    """Run guide and model once and read them per datum.

    Args:
        program: Model, guide and arguments.
        draw_x: Also draw x given the latents, and give the log likelihood by element.
    """
    traces = program.run()
    rates, how = {}, []
    for name, q in traces.guide.items():
        elements, method = rate_elements(q, traces.model[name], traces, program)
        pair = aligned(q, traces.model[name])[0]
        rates[name] = _over_members(pair, pair.filled(elements))
        how.append((name, method))
    guide, model = traces.guide, traces.model
    return Inspection(
        latents={name: _rows(site, site.value) for name, site in guide.items()},
        loc={name: _moments(site, _moment(site, "mean")) for name, site in guide.items()},
        scale={name: _moments(site, _moment(site, "variance") ** 0.5) for name, site in guide.items()},
        log_guide={name: _log_density(site) for name, site in guide.items()},
        log_prior={name: _log_density(model[name]) for name in guide},
        log_likelihood=sum(_log_density(site) for site in traces.observed),
        rates=rates,
        mean=_moments(traces.x, _moment(traces.x, "mean")),
        how=tuple(how),
        x_draw=_members_only(traces.x, program.draw(traces.x)) if draw_x else None,
        log_elements={site.name: site.filled(site.log_prob()) for site in traces.observed} if draw_x else None,
    )


def read_generation(sites: Mapping[str, Site], observed: str, latents: Sequence[str]) -> Generation:
    """Read a run of the model with its observations drawn.

    Args:
        sites: The model's sites.
        observed: Name of the observed site that holds the data.
        latents: Names of the latent sites; what else the model observes, such as a condition, is left out.
    """
    x = sites[observed]
    return Generation(
        latents={name: _rows(sites[name], sites[name].value) for name in latents},
        mean=_moments(x, _moment(x, "mean")),
        x=_members_only(x, x.value),
    )


def _over_members(site: Site, elements: Any) -> Any:
    """Elements of each row of the data, (n, *event): the sum over the members of a group."""
    axes = tuple(range(1, len(site.batch_shape)))
    return elements.sum(axes) if axes else elements


def _log_density(site: Site) -> Any:
    return _over_members(site, site.per_datum(site.log_prob()))


def _rows(site: Site, values: Any) -> Any:
    """Values by row of the data, (n, *event), or (n, m, *event) of a site in a plate of m members."""
    values = _fill(site.shape, values)
    return values[:, 0] if site.batch_shape[1:] == (1,) else values


def _moments(site: Site, values: Any) -> Any:
    return _members_only(site, _rows(site, values))


def _members_only(site: Site, values: Any) -> Any:
    """Values with zeros where a group has no member."""
    if site.mask is None or len(site.batch_shape) == 1:
        return values
    mask = site.mask[(...,) + (None,) * (values.ndim - site.mask.ndim)]
    return array_namespace(values).where(mask, values, array_namespace(values).zeros_like(values))


def _moment(site: Site, name: str) -> Any:
    try:
        return getattr(site.fn, name)
    except (AttributeError, NotImplementedError) as error:
        raise InputError(
            f"site {site.name!r} must have a distribution with a {name}, which diagnostics and pictures read, but "
            f"{site.family} has none; give its class a property {name}"
        ) from error


def _fill(shape: tuple[int, ...], values: Any) -> Any:
    return array_namespace(values).broadcast_to(values, shape)
