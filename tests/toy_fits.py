"""Small data, small settings and small model files for tests of training; the same for both backends."""

import textwrap

# Small enough that a fit takes seconds; compiling and importing take most of it.
TOY = {"hidden_dim": 16, "latent_dim": 3, "num_hidden": 1, "log_px_draws": 30, "device": "cpu"}


def toy_data(num_data=200):
    """The first digits and their labels; not shuffled, so nearly every class occurs equally often."""
    from ppl_vae.data import load

    digits = load("digits")
    return digits.x[:num_data], digits.labels[:num_data]


def write_model(folder, backend, *, name="small", model="", guide="", init="", options="", program=""):
    """A linear VAE as a model file; what is given is inserted at the place of its name.

    ``model`` comes between the decoder's output ``loc`` and the observation, ``guide`` before the encoder.
    """
    path = folder / f"{name}_{backend}.py"
    places = {"model": (model, 12), "guide": (guide, 8), "init": (init, 8), "program": (program, 0)}
    text = SOURCES[backend]
    for place, (code, indent) in places.items():
        text = text.replace(f"# <{place}>", textwrap.indent(code, " " * indent).lstrip() or "pass")
    path.write_text(text.replace("# <options>", options))
    return path


SOURCES = {
    "pyro": """
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import nn
from ppl_vae.nets.torch_nets import MLP
# <program>


class Small(nn.Module):
    def __init__(self, size):
        super().__init__()
        options = {"hidden_dim": 1, "num_hidden": 0, "activation": "relu"}
        self.encoder, self.decoder = MLP(size, 4, **options), MLP(2, size, **options)
        # <init>

    def model(self, x, c=None, *, betas):
        with pyro.plate("data", len(x)):
            zeros = x.new_zeros(len(x), 2)
            with poutine.scale(scale=betas["z"]):
                z = pyro.sample("z", dist.Normal(zeros, zeros + 1.0).to_event(1))
            loc = self.decoder(z)
            # <model>
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x, c=None, *, betas):
        # <guide>
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)), poutine.scale(scale=betas["z"]):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def build(data_shape, *, seed=0, # <options>
          ):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small(data_shape[0])
""",
    "numpyro": """
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from ppl_vae.nets.equinox_nets import MLP, lazy_module
# <program>


class Small:
    def __init__(self, size, seed):
        self.size, self.seed = size, seed
        # <init>

    def linear(self, name, num_inputs, num_outputs):
        options = {"hidden_dim": 1, "num_hidden": 0, "activation": "relu"}
        return lazy_module(name, lambda key: MLP(num_inputs, num_outputs, key=key, **options), seed=self.seed)

    def model(self, x, c=None, *, betas):
        decoder = self.linear("decoder", 2, self.size)
        with numpyro.plate("data", len(x)):
            zeros = jnp.zeros((len(x), 2), x.dtype)
            with handlers.scale(scale=betas["z"]):
                z = numpyro.sample("z", dist.Normal(zeros, zeros + 1.0).to_event(1))
            loc = decoder(z)
            # <model>
            numpyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x, c=None, *, betas):
        # <guide>
        loc, log_scale = jnp.split(self.linear("encoder", self.size, 4)(x), 2, -1)
        with numpyro.plate("data", len(x)), handlers.scale(scale=betas["z"]):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))


def build(data_shape, *, seed=0, # <options>
          ):
    return Small(data_shape[0], seed)
""",
}
