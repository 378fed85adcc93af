"""Evidence lower bound with a beta on each rate, as a loss for ``pyro.infer.SVI``."""

from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.pyro_program import PyroLoss

__all__ = ["build_loss"]


def build_loss(*, num_particles: int = 1, data_plate: str = "data") -> PyroLoss:
    """Build the loss: distortion plus weighted rates, in nats per datum.

    Rates are analytic where a closed form exists and sampled elsewhere. Betas come from
    ``poutine.scale`` around a site, in model and guide alike.

    Args:
        num_particles: Independent draws of the latent variables that a step averages over.
        data_plate: Name of the plate over data.

    Returns:
        A loss for the stock ``SVI`` class and any model and guide.
    """
    return PyroLoss(ELBO(num_particles=num_particles), data_plate=data_plate)
