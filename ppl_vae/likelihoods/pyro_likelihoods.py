"""Observation models for Pyro programs: a decoder's output becomes a distribution of x."""

from math import inf, log

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.distributions import pyro_counts as counts
from ppl_vae.distributions.pyro_discretised_logistic import DiscretisedLogisticMixture
from ppl_vae.errors import InputError
from ppl_vae.likelihoods.support import DF_FLOOR, MEAN_FLOOR, SCALE_FLOOR, Likelihood, output_shape

__all__ = ["Likelihood", "build_likelihood"]


class Bernoulli(nn.Module):
    """Independent Bernoulli observations; the decoder gives their logits.

    Args:
        data_dim: Number of axes of one datum.
    """

    def __init__(self, data_dim: int) -> None:
        super().__init__()
        self.data_dim = data_dim

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Distribution of x with event shape ``data_shape`` from outputs (..., *data_shape)."""
        return dist.Bernoulli(logits=outputs).to_event(self.data_dim)


class Gaussian(nn.Module):
    """Independent Gaussian observations of one scale; the decoder gives their locations.

    Args:
        data_dim: Number of axes of one datum.
        scale: Standard deviation, the initial one if it is learned.
        learn_scale: Whether the scale is a parameter.
    """

    def __init__(self, data_dim: int, scale: float, learn_scale: bool) -> None:
        super().__init__()
        self.data_dim = data_dim
        log_scale = torch.tensor(log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Distribution of x with event shape ``data_shape`` from outputs (..., *data_shape)."""
        return dist.Normal(outputs, self.log_scale.exp()).to_event(self.data_dim)


class StudentT(nn.Module):
    """Independent Student t observations; the decoder gives location, log precision and what sets the df of each.

    The scale is exp(-log precision / 2) and the df a softplus, each plus its floor in ``support``, so that mean
    and variance exist. In a beta-VAE this is the model of Takahashi et al., "Student-t variational autoencoder for
    robust density estimation", IJCAI 2018.

    Args:
        data_shape: Shape of one datum.
    """

    def __init__(self, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.data_shape = data_shape
        self.output_dim = len(output_shape("student-t", data_shape))

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Distribution of x with event shape ``data_shape`` from outputs (..., *output_shape)."""
        batch_shape = outputs.shape[: outputs.ndim - self.output_dim]
        loc, log_precision, raw_df = outputs.reshape(*batch_shape, *self.data_shape, 3).unbind(-1)
        scale = torch.exp(-0.5 * log_precision) + SCALE_FLOOR
        return dist.StudentT(_softplus(raw_df) + DF_FLOOR, loc, scale).to_event(len(self.data_shape))


class Poisson(nn.Module):
    """Independent Poisson counts; the decoder gives their means before a softplus.

    Args:
        data_dim: Number of axes of one datum.
    """

    def __init__(self, data_dim: int) -> None:
        super().__init__()
        self.data_dim = data_dim

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Distribution of x with event shape ``data_shape`` from outputs (..., *data_shape)."""
        return counts.Poisson(_mean_of_counts(outputs)).to_event(self.data_dim)


class NegativeBinomial(nn.Module):
    """Independent negative binomial counts; the decoder gives their means before a softplus.

    The variance is mean + mean^2 / concentration, with one learned concentration, 1 at first, per feature.

    Args:
        data_shape: Shape of one datum.
    """

    def __init__(self, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.data_dim = len(data_shape)
        self.log_concentration = nn.Parameter(torch.zeros(data_shape))

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Distribution of x with event shape ``data_shape`` from outputs (..., *data_shape)."""
        concentration = self.log_concentration.exp()
        rate = concentration / _mean_of_counts(outputs)
        return counts.NegativeBinomial(concentration, rate).to_event(self.data_dim)


class GreyLevels(nn.Module):
    """Pixels of 256 grey levels, independent, their channels dependent; the decoder gives mixture parameters.

    Args:
        data_shape: Shape of one image, (h, w) or (h, w, c).
    """

    def __init__(self, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.num_channels = data_shape[2] if len(data_shape) == 3 else None

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Distribution of x with event shape ``data_shape`` from outputs (..., h, w, p)."""
        return DiscretisedLogisticMixture(outputs, self.num_channels).to_event(2)


def build_likelihood(
    name: Likelihood,
    data_shape: tuple[int, ...],
    *,
    scale: float = 1.0,
    learn_scale: bool = False,
    num_mixtures: int = 10,
) -> nn.Module:
    """Observation model by name: a module from the decoder's output to p(x | z).

    Outputs (..., *output_shape) are logits of "bernoulli", locations of "gaussian", means before a softplus
    of "poisson" and "negative-binomial", mixture parameters of "discretised-logistic-mixture", and for "student-t"
    location, log precision and degrees of freedom before a softplus.

    Args:
        name: A key of ``support.LIKELIHOODS``.
        data_shape: Shape of one datum.
        scale: Standard deviation of "gaussian", positive.
        learn_scale: Whether the scale is learned, from ``scale`` on.
        num_mixtures: Components of "discretised-logistic-mixture".

    Raises:
        InputError: The scale is not positive; or as ``support.output_shape``.
    """
    if not 0 < scale < inf:
        raise InputError(f"scale must be positive and finite, but it is {scale}; pass a standard deviation")
    output_shape(name, data_shape, num_mixtures=num_mixtures)  # raises
    if name == "bernoulli":
        return Bernoulli(len(data_shape))
    if name == "gaussian":
        return Gaussian(len(data_shape), scale, learn_scale)
    if name == "student-t":
        return StudentT(data_shape)
    if name == "poisson":
        return Poisson(len(data_shape))
    if name == "negative-binomial":
        return NegativeBinomial(data_shape)
    return GreyLevels(data_shape)


def _mean_of_counts(outputs: Tensor) -> Tensor:
    # Not exp: from raw counts an untrained network may put out 100, whose exponential overflows float32.
    return _softplus(outputs) + MEAN_FLOOR


def _softplus(outputs: Tensor) -> Tensor:
    # The threshold is where torch replaces softplus by its limit; at its default float64 would notice.
    return nn.functional.softplus(outputs, threshold=40.0)
