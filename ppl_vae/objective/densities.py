"""Log densities of all sites of a program by datum, in nats: what weights and paths of densities are made of."""

from collections.abc import Callable, Mapping
from typing import Any

from ppl_vae.errors import InputError
from ppl_vae.objective.sites import Site

__all__ = ["CACHED_ENTRIES", "path_density", "sum_densities"]

# Entries of x that are weighed at once: of more, what a decoder makes leaves the processor's caches.
CACHED_ENTRIES = 2**19


def sum_densities(sites: Mapping[str, Site], log_prob: Callable[[Site], Any] = Site.log_prob) -> Any:
    """Log density of all sites by row of the data, (n,), in nats; over the members of a row that is a group.

    Args:
        sites: Sites by name, neither their betas nor their plates entering.
        log_prob: Log density of each element of a site.
    """
    densities = [site.per_datum(log_prob(site)) for site in sites.values()]
    return sum(density.reshape(len(density), -1).sum(-1) for density in densities)


def path_density(model: Mapping[str, Site], guide: Mapping[str, Site] | None, real: Any) -> tuple[Any, Any]:
    """Log density of a path's base, and of the joint density less it, each (n,), in nats.

    Args:
        model: Sites of the model on the latents.
        guide: Sites of the guide on them, where it is the base; None for the prior.
        real: The backend's constraint of all real numbers.

    Raises:
        InputError: A latent site has another support.
    """
    latents = {name: site for name, site in model.items() if not site.is_observed}
    for name, site in latents.items():
        support = getattr(site.fn.support, "base_constraint", site.fn.support)
        if support is not real:
            raise InputError(
                f"site {name!r} must range over all real numbers for a gradient by its values, but {site.family} "
                f"has the support {support}; make it a function of a real latent, or leave this estimate out"
            )
    base = sum_densities(latents if guide is None else guide)
    return base, sum_densities(model) - base
