"""Models as Markov chains need them: each row counts once, and every latent has a density.

Two things that are right in a loss would be wrong in a chain. A plate that stands for more rows than it is given
scales densities, which sharpens the posterior. A mask takes the density of the latent of a place that no member of
a group takes, and a chain drifts away where the density is flat; nothing is drawn from such a latent, so that with
its prior instead it is independent of all others, whose posterior is what it was.
"""

from collections.abc import Callable, Collection
from typing import Any

__all__ = ["numpyro_target", "pyro_target"]

Model = Callable[..., Any]


def numpyro_target(model: Model, nested: Collection[str]) -> Model:
    """A NumPyro model with no scales, and no masks of members' latents.

    Args:
        model: The model.
        nested: Latent sites that each member of a group has.
    """
    from numpyro.primitives import Messenger

    class Target(Messenger):
        def process_message(self, msg: Any) -> None:
            if msg["type"] != "sample":
                return
            msg["scale"] = None
            if msg["name"] in nested:
                msg["fn"] = _without_masks(msg["fn"])

    target: Model = Target(model)
    return target


def pyro_target(model: Model, nested: Collection[str]) -> Model:
    """A Pyro model with no scales, no masks of members' latents, and no draws of plates, which its NUTS refuses.

    Args:
        model: The model.
        nested: Latent sites that each member of a group has.
    """
    from pyro.poutine.messenger import Messenger
    from pyro.poutine.util import site_is_subsample

    class Target(Messenger):
        def _pyro_sample(self, msg: Any) -> None:
            if site_is_subsample(msg):
                msg["stop"] = True
                return
            msg["scale"] = 1.0
            if msg["name"] in nested:
                msg["mask"], msg["fn"] = None, _without_masks(msg["fn"])

    target: Model = Target()(model)
    return target


def _without_masks(fn: Any) -> Any:
    """A distribution of either backend, whose wrappers have these names in both, without its masks."""
    kind = type(fn).__name__
    if kind == "MaskedDistribution":
        return _without_masks(fn.base_dist)
    if kind == "Independent":
        return _without_masks(fn.base_dist).to_event(fn.reinterpreted_batch_ndims)
    if kind == "ExpandedDistribution":
        return _without_masks(fn.base_dist).expand(fn.batch_shape)
    return fn
