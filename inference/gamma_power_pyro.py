"""Gamma-power loss of the t3VAE, as a loss for ``pyro.infer.SVI``."""

from ppl_vae.objective.gamma_power import GammaPower
from ppl_vae.objective.pyro_program import PyroLoss

__all__ = ["build_loss"]


def build_loss(*, entropy: float = 0.0, num_particles: int = 1, data_plate: str = "data") -> PyroLoss:
    """Build the loss: squared error over sigma^2, halved, plus weighted regularisers, in nats per datum.

    It is for programs whose sites are all multivariate Student t, conditionals of one joint: one or two latents,
    the data, and conditions. Betas come from a scale handler around a site, in model and guide alike.

    Args:
        entropy: Differential entropy of the data in nats, which the published loss leaves out (0): with it the
            loss is the same in any units; ``ppl-vae theory entropy`` estimates it.
        num_particles: Independent draws of the latent variables that a step averages over.
        data_plate: Name of the plate over data.

    Returns:
        A loss for the stock ``SVI`` class.
    """
    return PyroLoss(GammaPower(entropy=entropy, num_particles=num_particles), data_plate=data_plate)
