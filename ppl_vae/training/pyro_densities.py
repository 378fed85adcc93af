"""Log weights and paths of densities of a Pyro model and guide; in nats per datum."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import Bernoulli, constraints
from torch.nn import functional

from ppl_vae.objective.densities import CACHED_ENTRIES, path_density, sum_densities
from ppl_vae.objective.objective import LatentRule, given_latents
from ppl_vae.objective.pyro_program import PyroProgram
from ppl_vae.objective.sites import Site
from ppl_vae.training.engine import Base, PathDensity, UnitBetas, chunks

__all__ = ["draw_log_weights", "path_gradient"]


@torch.no_grad()
def draw_log_weights(program: Any, batch: Sequence[Tensor], num_draws: int) -> Tensor:
    """Log p(x, z) - log q(z given x) of draws of the guide, (num_draws, n).

    Args:
        program: Has ``model`` and ``guide``.
        batch: Data, and their conditions for a conditional program.
        num_draws: Draws per datum.
    """
    program.eval()
    num_data = len(batch[0])
    latents, log_guide = _draw(program.guide, batch, num_draws)
    at_once = max(1, min(num_draws, CACHED_ENTRIES // batch[0].numel()))
    rows = _repeated(batch, at_once)
    log_joint = []
    for part in chunks(num_draws, at_once):
        values = {name: value[part].flatten(0, 1) for name, value in latents.items()}
        some = [array[: (part.stop - part.start) * num_data] for array in rows]
        sites = _run(program.model, some, given_latents(values))
        log_joint.append(sum_densities(sites, partial(_log_prob, num_data=num_data)))
    return torch.cat(log_joint).reshape(num_draws, num_data) - log_guide


def _draw(guide: Callable[..., Any], batch: Sequence[Tensor], num_draws: int) -> tuple[dict[str, Tensor], Tensor]:
    """Draws of the latents by site, (num_draws, n, *event), and their log density, (num_draws, n)."""

    def draw(_: Any, some: Sequence[Tensor] = batch, rule: LatentRule | None = None) -> tuple[Any, Tensor]:
        sites = _run(guide, some, rule or (lambda name, fn: fn.sample()))
        return {name: site.value for name, site in sites.items()}, sum_densities(sites)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # torch warns where it vectorises by a loop
            # The encoder, which no draw enters, runs once.
            every = torch.vmap(draw, randomness="different")
            found: tuple[dict[str, Tensor], Tensor] = every(torch.arange(num_draws))
        return found
    except (
        RuntimeError,
        UserWarning,
    ):  # a sampler that torch cannot vectorise, or a choice that depends on values
        latents, density = draw(None, _repeated(batch, num_draws))
        shape = (num_draws, len(batch[0]))
        return {name: value.unflatten(0, shape) for name, value in latents.items()}, density.reshape(shape)


def path_gradient(
    program: Any, batch: Sequence[Tensor], values: Mapping[str, Tensor], share: float, base: Base
) -> PathDensity:
    """Densities and gradient on a path to the joint density; see ``engine.Engine.log_joint_gradient``.

    Args:
        program: Has ``model`` and ``guide``.
        batch: Data, and their conditions for a conditional program.
        values: Latent values by site, (n, *event), that ask for gradients.
        share: How far on the path the gradient is.
        base: Where the path begins.
    """
    program.eval()
    rule = given_latents(values)
    guide = _run(program.guide, batch, rule) if base == "guide" else None
    log_base, log_ratio = path_density(_run(program.model, batch, rule), guide, constraints.real)
    total = (log_base + share * log_ratio).sum()
    gradient = torch.autograd.grad(total, list(values.values()), allow_unused=True, materialize_grads=True)
    by_site = {name: found.cpu().numpy() for name, found in zip(values, gradient, strict=True)}
    return PathDensity(log_base.detach().cpu().numpy(), log_ratio.detach().cpu().numpy(), by_site)


def _run(method: Callable[..., Any], batch: Sequence[Tensor], latents: LatentRule) -> Mapping[str, Site]:
    """Sites of model or guide, run without the other: it takes the guide's place beside an empty model."""
    named = {"betas": UnitBetas()}
    with pyro.validation_enabled(False):
        return PyroProgram(lambda *args, **kwargs: None, method, tuple(batch), named, latents=latents).run().guide


def _log_prob(site: Site, num_data: int) -> Tensor:
    if not isinstance(site.fn, Bernoulli):
        return site.log_prob()
    # Torch's own takes eight passes and as many temporaries, which costs as much as half of a decoder.
    log_prob = _bernoulli(site.fn.logits, site.value)
    if log_prob.sum().isnan():  # clamping always would take half as long again
        limit = torch.finfo(log_prob.dtype).max
        log_prob = _bernoulli(site.fn.logits.clamp(-limit, limit), site.value)
    # All other rows repeat these; as in NumPyro, what is neither 0 nor 1 has no density.
    some = site.value[:num_data]
    if ((some != 0) & (some != 1)).any():
        log_prob.masked_fill_((site.value != 0) & (site.value != 1), -torch.inf)
    return log_prob


def _bernoulli(logits: Tensor, value: Tensor) -> Tensor:
    return functional.softplus(logits).neg_().addcmul_(logits, value)


def _repeated(batch: Sequence[Tensor], times: int) -> list[Tensor]:
    return [array.repeat(times, *[1] * (array.ndim - 1)) for array in batch]
