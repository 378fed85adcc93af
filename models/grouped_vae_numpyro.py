"""The grouped VAE in NumPyro: a latent u for each group and a z for each of its data, nested plates.

A row is a group, such as a class, a subject or a batch: x has shape (n, m, *datum), and c, (n, m), says which of
the m places are taken. All terms are per group; the plate ``data`` may look at some of the members in each step.
The guide of u multiplies what the members say of it, so that it takes any number of them in any order.

Source:
    Bouchacourt, Tomioka & Nowozin, "Multi-Level Variational Autoencoder", arXiv:1705.08841 (u and its guide); here
    the guide of z sees u, as exact posteriors do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers

from ppl_vae.errors import InputError
from ppl_vae.likelihoods.numpyro_likelihoods import build_likelihood
from ppl_vae.likelihoods.support import COUNTS, Likelihood, output_shape
from ppl_vae.nets.combine import combine_many
from ppl_vae.nets.condition import Condition
from ppl_vae.nets.equinox_nets import build_decoder, build_encoder, lazy_module
from ppl_vae.nets.sizes import Activation, Net

__all__ = ["GroupedVAE", "build"]

DEFAULT_LOSS = "elbo"
DATA_PLATE = "group"


@dataclass(frozen=True)
class GroupedVAE:
    """u ~ N(0, I) a group, z ~ N(0, I) a datum, x given z and u; q(u given its group), q(z given x and u).

    It holds no arrays: weights are param sites "group_encoder", "encoder" and "decoder".

    Attributes:
        make_group_encoder: Builds the map of x (n, m, *datum) to what each member says of u: loc and scale, each
            (n, m, ku).
        make_encoder: Builds the map of x joined with u to loc and scale of z, each (n, m, kz).
        make_decoder: Builds the map of z joined with u, (n, m, kz + ku), to the parameters of the likelihood.
        likelihood: Makes them a distribution of x.
        group: Joins x with u.
        latent_dim: Size of z.
        num_members: Members of each group that a step looks at, 0 for all; evaluation looks at all.
        num_groups: Groups in the whole data set, 0 for as many as the model is called with.
        seed: Seed of the initial weights, beside the random key of ``SVI.init``.
    """

    make_group_encoder: Callable[..., Any]
    make_encoder: Callable[..., Any]
    make_decoder: Callable[..., Any]
    likelihood: Callable[[Array], dist.Distribution]
    group: Condition
    latent_dim: int
    num_members: int
    num_groups: int
    seed: int = 0

    def model(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate groups x (n, m, *datum) whose members c (n, m) are there; betas weigh the rates of u and z."""
        decoder = self._module("decoder")
        num_groups, size = x.shape[:2]
        with self._groups(num_groups):
            zeros = jnp.zeros((num_groups, 1, self.group.size), x.dtype)
            with handlers.scale(scale=betas["u"]):
                u = numpyro.sample("u", dist.Normal(zeros, zeros + 1.0).to_event(1))
            with self._members(size) as some, handlers.mask(mask=self._present(x, c)[:, some]):
                u = jnp.broadcast_to(u, (num_groups, len(some), self.group.size))
                zeros = jnp.zeros((num_groups, len(some), self.latent_dim), x.dtype)
                with handlers.scale(scale=betas["z"]):
                    z = numpyro.sample("z", dist.Normal(zeros, zeros + 1.0).to_event(1))
                numpyro.sample("x", self.likelihood(decoder(jnp.concat([z, u], axis=-1))), obs=x[:, some])

    def guide(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer u from all members of the group, then z of each from x and u, with the weights of the model."""
        group_encoder, encoder = self._module("group_encoder"), self._module("encoder")
        present = self._present(x, c)
        with self._groups(len(x)):
            loc, scale = group_encoder(x)
            loc, scale = combine_many(loc, scale, present[..., None])
            with handlers.scale(scale=betas["u"]):
                u = numpyro.sample("u", dist.Normal(loc[:, None], scale[:, None]).to_event(1))
            with self._members(x.shape[1]) as some, handlers.mask(mask=present[:, some]):
                given = jnp.broadcast_to(u, (len(x), len(some), self.group.size))
                inputs = self.group.join(x[:, some], given)
                with handlers.scale(scale=betas["z"]):
                    numpyro.sample("z", dist.Normal(*encoder(inputs)).to_event(1))

    def eval(self) -> "GroupedVAE":
        """The program to evaluate and use, which looks at all members."""
        return replace(self, num_members=0)

    def _module(self, name: str) -> Any:
        return lazy_module(name, lambda key: getattr(self, f"make_{name}")(key=key), seed=self.seed)

    def _groups(self, num_groups: int) -> Any:
        # The caller chose the groups: the plate only says of how many.
        return numpyro.plate("group", max(num_groups, self.num_groups), subsample_size=num_groups, dim=-2)

    def _members(self, size: int) -> Any:
        few = self.num_members if 0 < self.num_members < size else size
        return numpyro.plate("data", size, subsample_size=few, dim=-1)

    def _present(self, x: Array, c: Array | None) -> Array:
        return jnp.ones(x.shape[:2], bool) if c is None else c > 0


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
    return GroupedVAE(
        make_group_encoder=partial(build_encoder, net, datum_shape, group_dim, log_input=log_input, **options),
        make_encoder=partial(build_encoder, net, group.joined_shape, latent_dim, **options),
        make_decoder=partial(build_decoder, net, latent_dim + group_dim, outputs, **options),
        likelihood=build_likelihood(
            likelihood, datum_shape, scale=scale, learn_scale=learn_scale, num_mixtures=num_mixtures
        ),
        group=group,
        latent_dim=latent_dim,
        num_members=num_members,
        num_groups=num_groups,
        seed=seed,
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
