"""Gamma-power divergence by Monte Carlo, as a loss for ``numpyro.infer.SVI`` and any model and guide."""

from ppl_vae.objective.gamma_power_mc import GammaPowerMC
from ppl_vae.objective.numpyro_program import NumPyroLoss

__all__ = ["build_loss"]


def build_loss(
    *, gamma: float = 0.0, num_draws: int = 16, entropy: float = 0.0, data_plate: str = "data"
) -> NumPyroLoss:
    """Build the loss: the gamma-power divergence of the guide's joint from the model's, sampled.

    For sites of a joint Student t what has a closed form takes it. Betas must be 1. The effective shares that it
    reports say whether its means are made up of few draws.

    Args:
        gamma: Order of the divergence, above -1; 0 for that of a joint t, -2 / (nu + n + m).
        num_draws: Draws of the latents per datum.
        entropy: Differential entropy of the data in nats, which makes the loss the same in any units; 0 leaves it
            out.
        data_plate: Name of the plate over data.

    Returns:
        A loss for the stock ``SVI`` class.
    """
    return NumPyroLoss(GammaPowerMC(gamma=gamma, num_draws=num_draws, entropy=entropy), data_plate=data_plate)
