"""Consistency regularisation of any loss, as a loss for ``pyro.infer.SVI`` and any model and guide."""

from typing import Any, Literal

from ppl_vae.objective.consistency import Consistency, Mode, Stop
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.pyro_program import PyroLoss
from ppl_vae.objective.site_divergence import Divergence

__all__ = ["build_loss"]


def build_loss(
    *,
    transform: str = "simple",
    weight: float = 1.0,
    site_weights: str = "",
    mode: Mode = "replay",
    reverse: bool = False,
    stop: Stop = "none",
    divergence: Divergence = "kl",
    student_t_bound: bool = False,
    binarise: Literal["none", "threshold", "sample"] = "none",
    base: Any = None,
    data_plate: str = "data",
) -> PyroLoss:
    """Build the loss: the base on data and on transformed data, plus a divergence of the guides on the two.

    All in nats per datum. The divergence, KL(q(z given t(x)), q(z given x)) by site, has no betas.

    Args:
        transform: Name of a transformation, such as "simple" or "simple+horizontal-flip"; in Python also a
            ``Transform``, or a function of the programs' arguments, (args, kwargs) -> (args, kwargs).
        weight: Weight of the divergence; 0 for augmented data alone.
        site_weights: Factors of the weight by site, such as "z1=0.5,z2=2"; 1 where none is given.
        mode: Values of a site's parents in the two guides: those of the first in both, or their own (surrogates).
        reverse: Exchange the two guides in the divergence.
        stop: The guide that gets no gradient from the divergence.
        divergence: kl, or gamma_power for Student t sites: in closed form, but not on the scale of the KL.
        student_t_bound: For Student t sites of full scale matrices take an upper bound, not a draw.
        binarise: How grey data become zeros and ones, after they are transformed; a fit sets it to its own.
        base: Loss that is wrapped; the evidence lower bound by default.
        data_plate: Name of the plate over data.

    Returns:
        A loss for the stock ``SVI`` class.
    """
    objective = Consistency(
        ELBO() if base is None else base.objective,
        transform,
        weight=weight,
        site_weights=site_weights,
        mode=mode,
        reverse=reverse,
        stop=stop,
        divergence=divergence,
        student_t_bound=student_t_bound,
        binarise=binarise,
    )
    return PyroLoss(objective, data_plate=data_plate)
