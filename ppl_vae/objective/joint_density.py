"""What losses of whole joint densities share: the density of each datum, and that nothing is weighed."""

from collections.abc import Mapping
from typing import Any

from ppl_vae.errors import InputError
from ppl_vae.objective.sites import Site, Traces, as_number

__all__ = ["check_unweighted", "log_joint"]


def log_joint(sites: Mapping[str, Site]) -> Any:
    """Joint log density of all sites of a program, (n,), in nats.

    Args:
        sites: Sites by name.
    """
    return sum(site.per_datum(site.log_prob()) for site in sites.values())


def check_unweighted(traces: Traces, loss: str) -> None:
    """Refuse betas; under jit, where they have no value, ``split.check_betas`` does.

    Args:
        traces: The run.
        loss: Name of the loss, for the message.

    Raises:
        InputError: A site is scaled by another number than 1.
    """
    for site in (*traces.guide.values(), *traces.observed):
        beta = as_number(site.beta)
        if beta not in (None, 1.0):
            raise InputError(
                f"beta of {site.name!r} must be 1 for {loss}, but it is {beta:g}: the loss holds the joint "
                "density as a whole, of which no part can be weighed; use elbo"
            )
