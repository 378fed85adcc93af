"""Gamma-power divergence by Monte Carlo, as a loss for ``numpyro.infer.SVI`` and any model and guide."""

from ppl_vae.objective.gamma_power_mc import GammaPowerMC
from ppl_vae.objective.numpyro_program import NumPyroLoss
from ppl_vae.training.entropy_option import entropy_in_nats, resolve_options

# A fit calls ``resolve_options`` with its training data, before ``build_loss``.
__all__ = ["build_loss", "resolve_options"]


def build_loss(
    *, gamma: float = 0.0, num_draws: int = 16, entropy: str = "off", data_plate: str = "data"
) -> NumPyroLoss:
    """Build the loss: the gamma-power divergence of the guide's joint from the model's, sampled.

    Betas must be 1. Without ``gamma`` the sites must be those of a joint Student t, and what has a closed form
    takes it. The effective shares that it reports say whether its means are made up of few draws.

    Args:
        gamma: Order of the divergence, above -1; 0 for that of a joint t, -2 / (nu + n + m).
        num_draws: Draws of the latents per datum.
        entropy: Differential entropy of the data, with which the loss is the same in any units: off, a number of
            nats, or, in a fit, gaussian or nearest-neighbours, which estimate it from training data.
        data_plate: Name of the plate over data.

    Returns:
        A loss for the stock ``SVI`` class.
    """
    return NumPyroLoss(
        GammaPowerMC(gamma=gamma, num_draws=num_draws, entropy=entropy_in_nats(entropy)), data_plate=data_plate
    )
