"""One test body for both backends: words to write tiny programs in, and what evaluates them.

Programs are functions of a backend ``ppl``: ``ppl.plate``, ``ppl.sample``, ``ppl.dist``, ``ppl.scale`` and
``ppl.mask`` have one meaning in both. Noise is NumPy's and the same for both; it enters a run as the rule of
``latent_rule``. Libraries are imported when a backend is made, so that tests of one run without the other.
JAX compiles whole evaluations: operation by operation it would compile each of them, which takes longer.
"""

from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from tests.helpers import load_file


class Backend:
    """What the two have in common; ``PyroBackend`` and ``NumPyroBackend`` add the rest."""

    def terms(self, objective, pair, *args, noise=None, **options):
        """Terms of one evaluation; arguments as in ``program``."""

        def measure(args, noise):
            return objective.measure(self.program(pair, *args, noise=noise, **options))

        return self.compile(measure)(args, noise)

    def numbers(self, terms):
        """Terms by name as NumPy arrays."""
        return {name: self.numpy(value) for name, value in terms.flat().items()}

    def read_run(self, read, pair, *args, noise=None, **options):
        """What a function of traces and program returns of one run, as NumPy arrays by name."""

        def run(args, noise):
            program = self.program(pair, *args, noise=noise, **options)
            return read(program.run(), program)

        return {name: self.numpy(value) for name, value in self.compile(run)(args, noise).items()}

    def latent_rule(self, noise):
        """Sets each latent to loc + scale * noise, or to the noise itself in families without them."""

        def latents(name, fn):
            core, value = self.core_distribution(fn)[0], self.array(noise[name])
            if hasattr(core, "scale_tril"):
                return core.loc + (core.scale_tril @ value[..., None])[..., 0]
            if hasattr(core, "loc") and not hasattr(core, "transforms"):
                return core.loc + core.scale * value
            return value

        return None if noise is None else latents

    def build(self, variant, data_shape, **options):
        """A program of ``models/``; torch modules have their weights in them."""
        return load_file(f"models/{variant}_{self.name}.py").build(data_shape, **options)

    def build_loss(self, name, **options):
        """A loss of ``inference/``."""
        return load_file(f"inference/{name}_{self.name}.py").build_loss(**options)

    def arguments(self, data):
        """Positional arguments of model and guide: data, or a pair of data and conditions."""
        return tuple(map(self.array, data if isinstance(data, tuple) else (data,)))

    def evaluate(self, program, weights, data, *, objective, **options):
        """Terms, log densities by site, and gradients of the loss by weight; for an objective of one particle.

        ``program`` is what ``build`` returned, ``weights`` are arrays by dotted name, ``data`` as in
        ``arguments``, here and below.
        """

        def values(weights):
            run = self.program((program.model, program.guide), *self.arguments(data), **weights, **options)
            traces = run.run()
            densities = {
                f"{side}/{name}": site.log_prob()
                for side in ("guide", "model")
                for name, site in getattr(traces, side).items()
            }
            return objective.read(traces, run).flat(), densities

        return self.loss_gradients(values, program, weights, data)


class PyroBackend(Backend):
    """Pyro: weights are leaf tensors, seeds torch's."""

    name = "pyro"

    def __init__(self):
        import pyro
        import torch
        from pyro import poutine

        from ppl_vae.objective.pyro_program import PyroLoss, core_distribution

        self.dist, self.infer, self.torch = pyro.distributions, pyro.infer, torch
        self.sample, self.plate, self.param = pyro.sample, pyro.plate, pyro.param
        self.get_params = pyro.get_param_store
        self.deterministic, self.factor = pyro.deterministic, pyro.factor
        self.scale, self.mask = poutine.scale, poutine.mask
        self.loss, self.core_distribution = PyroLoss, core_distribution

    @contextmanager
    def float64(self):
        before = self.torch.get_default_dtype()
        self.torch.set_default_dtype(self.torch.float64)
        try:
            yield
        finally:
            self.torch.set_default_dtype(before)

    def array(self, values):
        tensor = self.torch.as_tensor(values)
        return tensor.to(self.torch.get_default_dtype()) if tensor.is_floating_point() else tensor

    def numpy(self, value):
        return self.torch.as_tensor(value).detach().cpu().numpy()

    def compile(self, function):
        return function

    def program(self, pair, *args, seed=0, noise=None, data_plate="data", **kwargs):
        from ppl_vae.objective.pyro_program import PyroProgram

        self.torch.manual_seed(seed)
        return PyroProgram(*pair, args, kwargs, data_plate=data_plate, latents=self.latent_rule(noise))

    def stock(self, name, pair, *args, seed=0, noise=None, **kwargs):
        """Loss of one of the library's own classes, summed over data, at the same noise."""
        self.torch.manual_seed(seed)
        loss = getattr(self.infer, name)(strict_enumeration_warning=False)
        return loss.differentiable_loss(*self.on_noise(pair, noise), *args, **kwargs)

    def svi_step(self, loss, pair, *args, noise=None, learning_rate):
        """Loss before a step of the stock SVI class with plain gradient descent, and parameters after it."""
        from pyro.optim import SGD

        step = self.infer.SVI(*self.on_noise(pair, noise), SGD({"lr": learning_rate}), loss).step
        value = step(*args)
        return value, {name: self.numpy(p) for name, p in self.get_params().items()}

    def on_noise(self, pair, noise):
        """The pair with the guide's draws replaced by the library's handlers, not ours."""
        model, guide = pair
        return pair if noise is None else (model, _with_values(guide, self.latent_rule(noise)))

    def pin(self, pair, **indices):
        """The pair with given subsample indices."""
        data = {name: self.torch.as_tensor(value) for name, value in indices.items()}
        return tuple(_with_values(p, lambda name, _: data.get(name), subsamples=True) for p in pair)

    def derivatives(self, function, weights):
        """Values of a dict-valued function of weights, and of each its gradients by weight."""
        leaves = {name: self.array(value).clone().requires_grad_() for name, value in weights.items()}
        values = function(leaves)
        rows = {name: self._gradients(value, leaves) for name, value in values.items()}
        return {name: self.numpy(value) for name, value in values.items()}, rows

    def _gradients(self, value, leaves):
        found = self.torch.autograd.grad(
            value, list(leaves.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return {name: self.numpy(gradient) for name, gradient in zip(leaves, found, strict=True)}

    def initial_weights(self, program, data):
        """Weights of a program as it was built, by dotted name."""
        return {name: self.numpy(value).copy() for name, value in program.state_dict().items()}

    def set_weights(self, program, weights, data):
        """Give a program weights by dotted name; what it returns are options of ``program``."""
        program.load_state_dict({name: self.torch.as_tensor(value) for name, value in weights.items()})
        return {}

    def loss_gradients(self, values, program, weights, data):
        terms, densities = values(self.set_weights(program, weights, data))
        gradients = self._gradients(terms["loss"], dict(program.named_parameters()))
        return *({k: self.numpy(v) for k, v in part.items()} for part in (terms, densities)), gradients

    def fit(self, program, loss, data, betas, *, num_steps, learning_rate):
        """Losses of each step of the stock SVI class with Adam, and the weights after them."""
        from pyro.optim import Adam

        self.torch.manual_seed(0)
        svi = self.infer.SVI(program.model, program.guide, Adam({"lr": learning_rate}), loss)
        losses = [svi.step(*self.arguments(data), betas=betas) for _ in range(num_steps)]
        return losses, self.initial_weights(program, data)

    def on_gpu(self):
        return self.torch.device("cuda")


def _with_values(program, rule, *, subsamples=False):
    """The program with the values of its latent sites, or of its subsamples, set by a rule."""
    from pyro.poutine.messenger import Messenger
    from pyro.poutine.subsample_messenger import _Subsample

    class Values(Messenger):
        def _pyro_sample(self, msg):
            if not msg["is_observed"] and isinstance(msg["fn"], _Subsample) == subsamples:
                value = rule(msg["name"], msg["fn"])
                if value is not None:
                    msg["value"], msg["done"] = value, True

    def run(*args, **kwargs):
        with Values():
            return program(*args, **kwargs)

    return run


class NumPyroBackend(Backend):
    """NumPyro: weights are arrays, seeds random keys."""

    name = "numpyro"

    def __init__(self):
        import jax
        import numpyro
        from numpyro import handlers

        from ppl_vae.objective.numpyro_program import NumPyroLoss, core_distribution

        self.dist, self.infer, self.jax, self.handlers = numpyro.distributions, numpyro.infer, jax, handlers
        self.sample, self.plate, self.param = numpyro.sample, numpyro.plate, numpyro.param
        self.deterministic, self.factor = numpyro.deterministic, numpyro.factor
        self.scale, self.mask = handlers.scale, handlers.mask
        self.loss, self.core_distribution = NumPyroLoss, core_distribution

    @contextmanager
    def float64(self):
        # Each program runs once or twice, so that optimising it costs more than it saves.
        before = self.jax.config.read("jax_disable_most_optimizations")
        self.jax.config.update("jax_disable_most_optimizations", True)
        try:
            with self.jax.enable_x64(True):
                yield
        finally:
            self.jax.config.update("jax_disable_most_optimizations", before)

    def array(self, values):
        array = self.jax.numpy.asarray(values)
        floating = self.jax.numpy.issubdtype(array.dtype, self.jax.numpy.floating)
        return array.astype(self.jax.numpy.result_type(float)) if floating else array

    def numpy(self, value):
        return np.asarray(value)

    def compile(self, function):
        return self.jax.jit(function)

    def program(self, pair, *args, seed=0, noise=None, data_plate="data", params=None, **kwargs):
        from ppl_vae.objective.numpyro_program import NumPyroProgram

        options = {"params": params, "data_plate": data_plate, "latents": self.latent_rule(noise)}
        return NumPyroProgram(*pair, args, kwargs, rng_key=self.jax.random.key(seed), **options)

    def stock(self, name, pair, *args, seed=0, noise=None, **kwargs):
        """Loss of one of the library's own classes, summed over data, at the same noise."""
        loss = getattr(self.infer, name)()

        def measure(args, noise):
            key = self.jax.random.key(seed)
            return loss.loss(key, {}, *self.on_noise(pair, noise), *args, **kwargs)

        return self.jax.jit(measure)(args, noise)

    def svi_step(self, loss, pair, *args, noise=None, learning_rate):
        """Loss before a step of the stock SVI class with plain gradient descent, and parameters after it."""
        from numpyro.optim import SGD

        svi = self.infer.SVI(*self.on_noise(pair, noise), SGD(learning_rate), loss)
        state, value = self.jax.jit(svi.update)(svi.init(self.jax.random.key(0), *args), *args)
        return float(value), {name: self.numpy(p) for name, p in svi.get_params(state).items()}

    def on_noise(self, pair, noise):
        """The pair with the guide's draws replaced by the library's handlers, not ours."""
        model, guide = pair
        rule = self.latent_rule(noise)

        def value_of(site):
            is_latent = site["type"] == "sample" and not site["is_observed"]
            return rule(site["name"], site["fn"]) if is_latent else None

        return pair if noise is None else (model, self.handlers.substitute(guide, substitute_fn=value_of))

    def pin(self, pair, **indices):
        """The pair with given subsample indices."""
        data = {name: self.jax.numpy.asarray(value) for name, value in indices.items()}
        return tuple(self.handlers.substitute(program, data=data) for program in pair)

    def derivatives(self, function, weights):
        """Values of a dict-valued function of weights, and of each its gradients by weight."""

        def twice(leaves):
            values = function(leaves)
            return values, values

        leaves = {name: self.array(value) for name, value in weights.items()}
        rows, values = self.jax.jit(self.jax.jacrev(twice, has_aux=True))(leaves)
        return self.jax.tree.map(np.asarray, (values, rows))

    def initial_weights(self, program, data):
        """Weights of a program as the stock SVI class initialises it, by dotted name."""
        from ppl_vae.nets.bridge import flatten_params

        return flatten_params(self.initial_params(program, data, self.jax.random.key(0)))

    def initial_params(self, program, data, key):
        """The same as param sites, from a random key."""
        import optax

        from ppl_vae.training.engine import UnitBetas

        svi = self.infer.SVI(program.model, program.guide, optax.identity(), self.infer.Trace_ELBO())
        return svi.get_params(svi.init(key, *self.arguments(data), betas=UnitBetas()))

    def set_weights(self, program, weights, data):
        """Give a program weights by dotted name; what it returns are options of ``program``."""
        from ppl_vae.nets.bridge import unflatten_params

        like = self.jax.eval_shape(partial(self.initial_params, program, data), self.jax.random.key(0))
        return {"params": unflatten_params(weights, like)}

    def loss_gradients(self, values, program, weights, data):
        from ppl_vae.nets.bridge import flatten_params

        def loss_and_all(weights):
            terms, densities = values(weights)
            return terms["loss"], (terms, densities)

        evaluate = self.jax.jit(self.jax.value_and_grad(loss_and_all, has_aux=True))
        (_, (terms, densities)), gradients = evaluate(self.set_weights(program, weights, data))
        terms, densities = self.jax.tree.map(np.asarray, (terms, densities))
        return terms, densities, flatten_params(gradients["params"])

    def fit(self, program, loss, data, betas, *, num_steps, learning_rate):
        """Losses of each step of the stock SVI class with Adam, and the weights after them."""
        import optax

        from ppl_vae.nets.bridge import flatten_params

        svi = self.infer.SVI(program.model, program.guide, optax.adam(learning_rate), loss)
        key = self.jax.random.key(0)
        result = svi.run(key, num_steps, *self.arguments(data), betas=betas, progress_bar=False)
        return np.asarray(result.losses), flatten_params(result.params)

    def on_gpu(self):
        return self.jax.default_device(self.jax.devices("cuda")[0])


CLASSES: dict[str, Any] = {"pyro": PyroBackend, "numpyro": NumPyroBackend}
