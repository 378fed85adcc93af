"""Log weights and paths of densities of a NumPyro model and guide, as pure functions; in nats per datum."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import BernoulliLogits, constraints

from ppl_vae.objective.densities import CACHED_ENTRIES, path_density, sum_densities
from ppl_vae.objective.numpyro_program import NumPyroProgram
from ppl_vae.objective.objective import given_latents
from ppl_vae.objective.sites import Site
from ppl_vae.training.engine import Base

__all__ = ["draw_log_weights", "path_gradient"]

# From a batch, a random key and params to the programs on them.
Build = Callable[..., NumPyroProgram]


def draw_log_weights(build: Build, params: Any, key: Array, batch: Any, *, num_draws: int) -> Array:
    """Log p(x, z) - log q(z given x) of draws of the guide, (num_draws, n).

    Args:
        build: Makes the programs.
        params: Values of the param sites.
        key: Random key.
        batch: Data, and their conditions for a conditional program.
        num_draws: Draws per datum.
    """

    def weigh(key: Array) -> Array:
        traces = build(batch, key, params).run()
        return sum_densities(traces.model, _log_prob) - sum_densities(traces.guide)

    num_pieces = -(-num_draws // max(1, CACHED_ENTRIES // batch[0].size))
    keys = jax.random.split(key, (num_pieces, -(-num_draws // num_pieces)))
    # Under vmap what no draw enters, such as the encoder, runs once for a piece.
    found = jax.lax.map(jax.vmap(weigh), keys)
    return found.reshape(-1, len(batch[0]))[:num_draws]


def path_gradient(
    build: Build, params: Any, batch: Any, values: Mapping[str, Array], share: Any, *, base: Base
) -> tuple[Array, Array, Mapping[str, Array]]:
    """Fields of an ``engine.PathDensity``.

    Args:
        build: Makes the programs.
        params: Values of the param sites.
        batch: Data, and their conditions for a conditional program.
        values: Latent values by site, (n, *event).
        share: How far on the path the gradient is.
        base: Where the path begins.
    """

    def total(values: Mapping[str, Array]) -> Any:
        # Nothing is drawn, so that any key serves; where the base is the prior, no encoder is left to run.
        traces = build(batch, jax.random.key(0), params, latents=given_latents(values)).run()
        guide = traces.guide if base == "guide" else None
        log_base, log_ratio = path_density(traces.model, guide, constraints.real)
        return (log_base + share * log_ratio).sum(), (log_base, log_ratio)

    gradient, (log_base, log_ratio) = jax.grad(total, has_aux=True)(values)
    return log_base, log_ratio, gradient


def _log_prob(site: Site) -> Array:
    if not isinstance(site.fn, BernoulliLogits):
        return site.log_prob()
    # NumPyro's own takes infinite logits apart, which takes as long as a third of the decoder.
    limit = jnp.finfo(site.fn.logits.dtype).max
    logits = jnp.clip(site.fn.logits, -limit, limit)
    log_prob = site.value * logits - jnp.maximum(logits, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(logits)))
    # Added, not chosen: a choice for every draw takes as long as the decoder.
    return log_prob + jnp.where(site.fn.support(site.value), 0.0, -jnp.inf)
