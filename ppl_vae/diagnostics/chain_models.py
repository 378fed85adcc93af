"""Models as Markov chains need them: each row counts once, and every latent has a density.

Two things that are right in a loss would be wrong in a chain. A plate that stands for more rows than it is given
scales densities, which sharpens the posterior. A mask takes the density of what it leaves out, such as the latent
of a place that no member of a group takes, and a chain drifts away where the density is flat; with its prior
instead the latent is independent of all others, whose posterior is what it was.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["numpyro_target", "pyro_target"]

Model = Callable[..., Any]


def numpyro_target(model: Model) -> Model:
    """A NumPyro model with no scales, and no masks of latents.

    Args:
        model: The model.
    """
    from numpyro.distributions import MaskedDistribution
    from numpyro.primitives import Messenger

    class Target(Messenger):
        def process_message(self, msg: Any) -> None:
            if msg["type"] != "sample":
                return
            msg["scale"] = None
            if not msg["is_observed"] and isinstance(msg["fn"], MaskedDistribution):
                msg["fn"] = msg["fn"].base_dist

    target: Model = Target(model)
    return target


def pyro_target(model: Model) -> Model:
    """A Pyro model with no scales, no masks of latents, and no draws of plates, which its NUTS refuses.

    Args:
        model: The model.
    """
    from pyro.poutine.messenger import Messenger
    from pyro.poutine.util import site_is_subsample

    class Target(Messenger):
        def _pyro_sample(self, msg: Any) -> None:
            if site_is_subsample(msg):
                msg["stop"] = True
                return
            msg["scale"] = 1.0
            if not msg["is_observed"]:
                msg["mask"] = None

    target: Model = Target()(model)
    return target
