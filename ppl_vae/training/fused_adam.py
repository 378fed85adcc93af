"""Adam as one fused operation over all parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

__all__ = ["FusedAdam"]


class FusedAdam:
    """Adam with the usual constants: 0.9, 0.999 and 1e-8.

    The arithmetic is torch's. Its optimiser class adds hooks and look-ups that take several times as long as
    the step itself on a small network.

    Args:
        parameters: Parameters by position; the state is kept in the same order.

    Attributes:
        state: Lists "exp_avg", "exp_avg_sq" and "step", an entry for each parameter.

    Source:
        Kingma & Ba, arXiv:1412.6980.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self.state = {
            "exp_avg": [torch.zeros_like(p) for p in self.parameters],
            "exp_avg_sq": [torch.zeros_like(p) for p in self.parameters],
            "step": [torch.zeros((), device=p.device) for p in self.parameters],
        }

    @torch.no_grad()
    def step(self, gradients: list[Tensor], learning_rate: float) -> None:
        """Change the parameters in place.

        Args:
            gradients: Gradient of each parameter.
            learning_rate: Step size.
        """
        # The fused operation walks through memory: a gradient that lies there in another order, as those of
        # convolutions do, would move the wrong weights.
        pairs = zip(gradients, self.parameters, strict=True)
        aligned = [g if g.stride() == p.stride() else torch.empty_like(p).copy_(g) for g, p in pairs]
        adam(
            self.parameters,
            aligned,
            self.state["exp_avg"],
            self.state["exp_avg_sq"],
            [],
            self.state["step"],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
