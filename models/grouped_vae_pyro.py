"""The grouped VAE in Pyro: a latent u for each group and a z for each of its data, nested plates.

A row is a group, such as a class, a subject or a batch: x has shape (n, m, *datum), and c, (n, m), says which of
the m places are taken. All terms are per group; the plate ``data`` may look at some of the members in each step.
The guide of u multiplies what the members say of it, so that it takes any number of them in any order.

Source:
    Bouchacourt, Tomioka & Nowozin, "Multi-Level Variational Autoencoder", arXiv:1705.08841 (u and its guide); here
    the guide of z sees u, as exact posteriors do.
"""

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.errors import InputError
from ppl_vae.likelihoods.pyro_likelihoods import build_likelihood
from ppl_vae.likelihoods.support import COUNTS, Likelihood, output_shape
from ppl_vae.nets.combine import combine_many
from ppl_vae.nets.condition import Condition
from ppl_vae.nets.sizes import Activation, Net
from ppl_vae.nets.torch_nets import build_decoder, build_encoder, local_module

__all__ = ["GroupedVAE", "build"]

DEFAULT_LOSS = "elbo"
DATA_PLATE = "group"


class GroupedVAE(nn.Module):
    """u ~ N(0, I) a group, z ~ N(0, I) a datum, x given z and u; q(u given its group), q(z given x and u).

    Args:
        group_encoder: Maps x (n, m, *datum) to what each member says of u: loc and scale, each (n, m, ku).
        encoder: Maps x joined with u to loc and scale of z, each (n, m, kz).
        decoder: Maps z joined with u, (n, m, kz + ku), to the parameters of the likelihood.
        likelihood: Makes them a distribution of x.
        group: Joins x with u.
        latent_dim: Size of z.
        num_members: Members of each group that a step looks at, 0 for all; evaluation looks at all.
        num_groups: Groups in the whole data set, 0 for as many as the model is called with.
    """

    def __init__(
        self,
        group_encoder: nn.Module,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: nn.Module,
        group: Condition,
        latent_dim: int,
        num_members: int,
        num_groups: int,
    ) -> None:
        super().__init__()
        self.group_encoder, self.encoder, self.decoder = group_encoder, encoder, decoder
        self.likelihood, self.group = likelihood, group
        self.dim_z, self.dim_u = latent_dim, group.size
        self.num_members, self.num_groups = num_members, num_groups

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate groups x (n, m, *datum) whose members c (n, m) are there; betas weigh the rates of u and z."""
        for name in ("decoder", "likelihood"):
            local_module(name, getattr(self, name))
        num_groups, size = x.shape[:2]
        with self._groups(num_groups):
            zeros = x.new_zeros(num_groups, 1, self.dim_u)
            with poutine.scale(scale=betas["u"]):
                u = pyro.sample("u", dist.Normal(zeros, zeros + 1.0).to_event(1))
            with self._members(size) as some, poutine.mask(mask=self._present(x, c)[:, some]):
                u = u.expand(-1, len(some), -1)
                zeros = x.new_zeros(num_groups, len(some), self.dim_z)
                with poutine.scale(scale=betas["z"]):
                    z = pyro.sample("z", dist.Normal(zeros, zeros + 1.0).to_event(1))
                pyro.sample("x", self.likelihood(self.decoder(torch.cat([z, u], -1))), obs=x[:, some])

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer u from all members of the group, then z of each from x and u, with the weights of the model."""
        for name in ("group_encoder", "encoder"):
            local_module(name, getattr(self, name))
        present = self._present(x, c)
        with self._groups(len(x)):
            loc, scale = self.group_encoder(x)
            loc, scale = combine_many(loc, scale, present[..., None])
            with poutine.scale(scale=betas["u"]):
                u = pyro.sample("u", dist.Normal(loc[:, None], scale[:, None]).to_event(1))
            with self._members(x.shape[1]) as some, poutine.mask(mask=present[:, some]):
                given = u.expand(-1, len(some), -1)
                inputs = self.group.join(x[:, some], given)
                with poutine.scale(scale=betas["z"]):
                    pyro.sample("z", dist.Normal(*self.encoder(inputs)).to_event(1))

    def _groups(self, num_groups: int) -> Any:
        # The caller chose the groups: the plate only says of how many.
        return pyro.plate("group", max(num_groups, self.num_groups), subsample_size=num_groups, dim=-2)

    def _members(self, size: int) -> Any:
        few = self.num_members if self.training and 0 < self.num_members < size else size
        return pyro.plate("data", size, subsample_size=few, dim=-1)

    def _present(self, x: Tensor, c: Tensor | None) -> Any:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if c is None else c > 0


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    condition_shape: tuple[int, ...] | None = None,
    latent_dim: int = 10,
    group_dim: int = 10,
    num_members: int = 0,
    num_groups: int = 0,
    net: Net = "mlp",
    hidden_dim: int = 128,
    num_hidden: int = 2,
    num_channels: int = 32,
    activation: Activation = "relu",
    likelihood: Likelihood = "gaussian",
    scale: float = 1.0,
    learn_scale: bool = True,
    num_mixtures: int = 10,
) -> GroupedVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one group, (m, *datum).
        seed: Seed of the initial weights.
        condition_shape: Shape of what says which members are there, (m,).
        latent_dim: Size of the latent variable z of a datum.
        group_dim: Size of the latent variable u of a group.
        num_members: Members of each group that a step looks at, drawn anew each time; 0 for all.
        num_groups: Groups in the whole data set, for losses that are sums over it; 0 for those in the batch.
        net: Networks: fully connected, or convolutions and one hidden dense layer for images.
        hidden_dim: Units of each hidden dense layer.
        num_hidden: Hidden layers of the MLPs, 0 for linear maps.
        num_channels: Channels after the first convolution; each further one has twice as many.
        activation: Nonlinearity of the hidden layers.
        likelihood: Distribution of x given z and u.
        scale: Standard deviation of the Gaussian likelihood, the initial one if it is learned.
        learn_scale: Learn the standard deviation of the Gaussian likelihood.
        num_mixtures: Components of the discretised logistic mixture.
    """
    datum_shape = _checked(data_shape, condition_shape, num_members, num_groups)
    options: dict[str, Any] = {
        "hidden_dim": hidden_dim,
        "num_hidden": num_hidden,
        "num_channels": num_channels,
        "activation": activation,
    }
    # Counts differ by orders of magnitude: on a log scale the largest do not drown the others.
    log_input = likelihood in COUNTS
    outputs = output_shape(likelihood, datum_shape, num_mixtures=num_mixtures)
    group = Condition(datum_shape, (group_dim,), net, log_input=log_input)
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return GroupedVAE(
            group_encoder=build_encoder(net, datum_shape, group_dim, log_input=log_input, **options),
            encoder=build_encoder(net, group.joined_shape, latent_dim, **options),
            decoder=build_decoder(net, latent_dim + group_dim, outputs, **options),
            likelihood=build_likelihood(
                likelihood, datum_shape, scale=scale, learn_scale=learn_scale, num_mixtures=num_mixtures
            ),
            group=group,
            latent_dim=latent_dim,
            num_members=num_members,
            num_groups=num_groups,
        )


def _checked(
    data_shape: tuple[int, ...], condition_shape: tuple[int, ...] | None, num_members: int, num_groups: int
) -> tuple[int, ...]:
    if len(data_shape) < 2 or data_shape[0] < 2 or condition_shape not in (None, data_shape[:1]):
        raise InputError(
            "data_shape must be that of a group, (m, *datum) with m of 2 or more, and condition_shape (m,), but "
            f"they are {data_shape} and {condition_shape}; make groups by data.group_data, or name them by --group"
        )
    for name, value in (("num_members", num_members), ("num_groups", num_groups)):
        if value < 0:
            raise InputError(f"{name} must be 0 or more, but it is {value}; 0 takes all")
    return data_shape[1:]
