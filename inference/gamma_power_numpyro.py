"""Gamma-power loss of the t3VAE, as a loss for ``numpyro.infer.SVI``."""

from ppl_vae.objective.gamma_power import GammaPower
from ppl_vae.objective.numpyro_program import NumPyroLoss
from ppl_vae.training.entropy_option import entropy_in_nats, resolve_options

# A fit calls ``resolve_options`` with its training data, before ``build_loss``.
__all__ = ["build_loss", "resolve_options"]


def build_loss(*, entropy: str = "off", num_particles: int = 1, data_plate: str = "data") -> NumPyroLoss:
    """Build the loss: squared error over sigma^2, halved, plus weighted regularisers, in nats per datum.

    It is for programs whose sites are all multivariate Student t, conditionals of one joint: one or two latents,
    the data, and conditions. Betas come from a scale handler around a site, in model and guide alike.

    Args:
        entropy: Differential entropy of the data, with which the loss is the same in any units: off, as published;
            a number of nats; or, in a fit, gaussian or nearest-neighbours, which estimate it from training data.
        num_particles: Independent draws of the latent variables that a step averages over.
        data_plate: Name of the plate over data.

    Returns:
        A loss for the stock ``SVI`` class.
    """
    objective = GammaPower(entropy=entropy_in_nats(entropy), num_particles=num_particles)
    return NumPyroLoss(objective, data_plate=data_plate)
