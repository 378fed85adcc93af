"""Evidence lower bound with a beta on each rate, as a loss for ``numpyro.infer.SVI``."""

from typing import Literal

from ppl_vae.objective.balancing import BalancedELBO
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.numpyro_program import NumPyroLoss

__all__ = ["build_loss"]


def build_loss(
    *,
    num_particles: int = 1,
    free_bits: str = "0",
    balance: Literal["off", "nvae"] = "off",
    allow_unbounded: bool = False,
    data_plate: str = "data",
) -> NumPyroLoss:
    """Build the loss: distortion plus weighted rates, in nats per datum.

    Rates are analytic where a closed form exists and sampled elsewhere. Betas come from
    ``handlers.scale`` around a site, in model and guide alike.

    Args:
        num_particles: Independent draws of the latent variables that a step averages over.
        free_bits: Nats per datum below which a site's rate costs nothing: one number, or such as "z1=0.5,z2=2".
        balance: While betas are warmed up, charge rates in proportion to what they are, as the NVAE does.
        allow_unbounded: Take betas for which the loss may have no lower bound, where its rate does not split.
        data_plate: Name of the plate over data.

    Returns:
        A loss for the stock ``SVI`` class and any model and guide.
    """
    objective = (BalancedELBO if balance == "nvae" else ELBO)(
        num_particles=num_particles, free_bits=free_bits, allow_unbounded=allow_unbounded
    )
    return NumPyroLoss(objective, data_plate=data_plate)
