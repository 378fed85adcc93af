"""Importance-weighted bound, as a loss for ``pyro.infer.SVI`` and any model and guide."""

from ppl_vae.objective.iwae import IWAE
from ppl_vae.objective.pyro_program import PyroLoss

__all__ = ["build_loss"]


def build_loss(*, num_draws: int = 8, doubly_reparameterised: bool = False, data_plate: str = "data") -> PyroLoss:
    """Build the loss: minus the importance-weighted bound, in nats per datum.

    Betas must be 1.

    Args:
        num_draws: Draws of the latents per datum; with 1 the bound is the ELBO.
        doubly_reparameterised: Take the doubly reparameterised gradient of the guide, which is less noisy with
            many draws and costs one more run a draw.
        data_plate: Name of the plate over data.

    Returns:
        A loss for the stock ``SVI`` class.
    """
    objective = IWAE(num_draws=num_draws, doubly_reparameterised=doubly_reparameterised)
    return PyroLoss(objective, data_plate=data_plate)
