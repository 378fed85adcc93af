"""Trains and inspects a NumPyro model and guide."""

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray
from numpyro.infer import SVI
from numpyro.infer.svi import SVIState

from ppl_vae.data import Rows
from ppl_vae.errors import InputError
from ppl_vae.nets.bridge import flatten_params, unflatten_params
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.inspection import DATA_FIELDS, Generation, Inspection, inspect
from ppl_vae.objective.numpyro_dependence import never_trained
from ppl_vae.objective.numpyro_program import TERMS, NumPyroLoss, NumPyroProgram
from ppl_vae.objective.objective import LatentRule, given_latents, never_trained_notes
from ppl_vae.objective.sites import Traces
from ppl_vae.objective.split import find_split
from ppl_vae.objective.terms import Terms
from ppl_vae.training.engine import (
    MAX_ROWS,
    Arrays,
    Base,
    Device,
    PathDensity,
    Prior,
    StepOptions,
    UnitBetas,
    chunks,
    conditions_for,
    generative_model,
    probe_betas,
    program_arguments,
    read_draws,
)
from ppl_vae.training.numpyro_densities import draw_log_weights, path_gradient
from ppl_vae.training.seeds import child_seed

__all__ = ["NumPyroEngine"]

# Data, and their conditions for a conditional program.
Batch = tuple[Array, ...]
# For a CPU the default level compiles up to three times as long, for programs as fast as these.
QUICK = {"xla_backend_optimization_level": 2}
# Entries of x whose rows take less time than compiling anew, and the most rows that are added for it.
SMALL, MOST_ADDED = 2**18, 4096

for record in (Inspection, Generation):
    meta = ["how"] if record is Inspection else []
    jax.tree_util.register_dataclass(record, data_fields=DATA_FIELDS[record], meta_fields=meta)


class NumPyroEngine:
    """Trains and inspects a NumPyro model and guide; see ``engine.Engine``.

    Args:
        program: Object with methods ``model`` and ``guide``, without arrays of its own.
        data_shape: Shape of one datum.
        seed: Seed of the initial weights and of the training noise.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        condition_shape: Shape of the condition of one datum, or None for programs without one.

    Raises:
        InputError: CUDA is asked for and not there, or the model has no parameters.
    """

    def __init__(
        self,
        program: Any,
        data_shape: tuple[int, ...],
        *,
        seed: int = 0,
        device: Device = "auto",
        condition_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.device = _find_device(device)
        self.compiler_options = QUICK if self.device.platform == "cpu" else None
        compiled = partial(jax.jit, compiler_options=self.compiler_options)
        self.program, self.data_shape, self.seed = program, data_shape, seed
        self.condition_shape = condition_shape
        # Programs that look at less in training, such as at some members of a group, have a method for the rest.
        self.evaluated = program.eval() if hasattr(program, "eval") else program
        self.notes: list[str] = []
        # Any optimiser and loss serve until training is prepared.
        self.svi = SVI(program.model, program.guide, optax.identity(), NumPyroLoss(ELBO()))
        shapes = [data_shape, *([] if condition_shape is None else [condition_shape])]
        blank = tuple(self._on_device(np.zeros((2, *shape))) for shape in shapes)
        with jax.default_device(self.device):
            init = compiled(lambda key, batch: self.svi.init(key, *batch, betas=UnitBetas()))
            self.svi_state = init(jax.random.key(seed), blank)
        if not self._unconstrained():
            raise InputError("the model must have parameters to train, but it has none; add a network")
        traces = self._trial(blank)
        self.latents, self.observed = traces.latents, traces.x.name
        self.nested = [name for name, site in traces.guide.items() if site.has_members]
        self.has_density, self.max_rows = traces.has_density, getattr(program, "max_rows", MAX_ROWS)
        self._inspect = {
            mode: compiled(partial(self._inspect_as, mode), static_argnames="draw_x")
            for mode in ("draw", "mean", "given")
        }
        self._generate = compiled(self._generate_like, static_argnames=("prior", "entropy"))
        self._weigh = compiled(partial(draw_log_weights, self._program), static_argnames="num_draws")
        self._path = compiled(partial(path_gradient, self._program), static_argnames="base")
        self._all_finite = jax.jit(_all_finite)
        self._evaluate: dict[int, Any] = {}

    @property
    def device_name(self) -> Literal["cpu", "cuda"]:
        """Where it runs."""
        return "cpu" if self.device.platform == "cpu" else "cuda"

    def prepare_training(
        self, loss: NumPyroLoss, x: Rows, options: StepOptions, betas: Mapping[str, float]
    ) -> None:
        """Make the optimiser, and check the loss on two data; see ``engine.Engine``."""
        rates = jnp.asarray(options.learning_rates, jnp.result_type(float))
        clip = [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm else []
        optimiser = optax.chain(
            *clip, optax.scale_by_adam(), optax.scale_by_learning_rate(lambda count: rates[count])
        )
        params, state = self._unconstrained(), self.svi_state
        constrained, constrain_fn = self._params(), self.svi.constrain_fn
        self.svi = SVI(self.program.model, self.program.guide, optimiser, loss)
        self.svi.constrain_fn = constrain_fn
        self.rows: Any = self._arguments(x) if isinstance(x, np.ndarray) else x
        self.options = options
        some = self._arguments(x[:2])
        # Abstract evaluation: it checks the programs and finds the terms, and compiles nothing.
        terms = jax.eval_shape(partial(self._terms, loss, betas=betas), state.rng_key, constrained, some)
        self.term_names, self.how = terms.names, dict(terms.how)
        probe = probe_betas(self.latents)
        traces = self._trial(some, betas=probe, data_plate=loss.data_plate)
        self.split = find_split(traces, self._program(some, state.rng_key, constrained, betas=probe))
        traces.check_data_plate(loss.data_plate)
        traces.check_betas(probe)
        self._check_values(loss, some)
        self.notes += loss.objective.notes(traces, self._program(some, state.rng_key, constrained, betas=probe))
        self.notes += self._untrained(traces, partial(self._terms, loss, state.rng_key, batch=some, betas=betas))
        # The terms of each step ride beside the programs' own mutable sites.
        blank = np.zeros(len(self.term_names), terms.loss.dtype)
        mutable = {**(state.mutable_state or {}), TERMS: blank}
        self.svi_state = SVIState(jax.jit(self.svi.optim.init)(params), mutable, state.rng_key)
        self._scan = jax.jit(self.scan_block)

    def _untrained(self, traces: Traces, terms: Any) -> list[str]:
        """Notes on what no step will train."""
        params = self._params()
        own = {name: params[name] for name in self._unconstrained()}
        names = never_trained(lambda new: terms(params={**params, **new}).loss, own)
        of_guide = {name for name, site in traces.raw.items() if site["type"] == "param"}
        # Weights that are made without a param site are constants to JAX, and cannot be told from others.
        bare = [side for side, some in (("model", own.keys() - of_guide), ("guide", of_guide)) if not some]
        notes = [f"the {side} declares no parameters of its own; make a network by lazy_module" for side in bare]
        return [*notes, *never_trained_notes(names)]

    def run_block(self, first_step: int, indices: NDArray[np.int64], betas: Arrays) -> Arrays:
        """Take a step per row of ``indices``, all in one scan; see ``engine.Engine``."""
        data, indices = self._rows(indices)
        weights = {name: values.astype(data[0].dtype) for name, values in betas.items()}
        steps = np.arange(first_step, first_step + len(indices), dtype=np.int32)
        inputs = (indices.astype(np.int32), steps, weights)
        self.svi_state, terms = self._scan(self.svi_state, data, self.batch_noise, inputs)
        return dict(zip(self.term_names, np.asarray(terms, np.float64).T, strict=True))

    def _rows(self, indices: NDArray[np.int64]) -> tuple[Batch, NDArray[np.int64]]:
        """Data that contain the indexed ones, on the device, and the indices into them."""
        if isinstance(self.rows, tuple):
            return self.rows, indices
        return self._arguments(self.rows[indices.ravel()]), np.arange(indices.size).reshape(indices.shape)

    @property
    def batch_noise(self) -> Array:
        """Random key that batches are binarised with."""
        return jax.random.key(child_seed(self.seed, "binarise batches"))

    def scan_block(self, state: SVIState, data: Batch, noise: Array, inputs: Any) -> Any:
        """A block of steps as a pure function, which a sweep vectorises over runs.

        Args:
            state: The state before.
            data: Training data, and their conditions for a conditional program.
            noise: See ``batch_noise``.
            inputs: Of each step the rows of its batch (steps, batch), its number, its betas by site.

        Returns:
            The state after, and the terms of each step, (steps, terms).
        """

        def step(state: SVIState, row: Any) -> tuple[SVIState, Any]:
            index, number, betas = row
            x, *conditions = (array[index] for array in data)
            if self.options.binarise_batches:
                key = jax.random.fold_in(noise, number)
                x = jax.random.bernoulli(key, x).astype(x.dtype)
            state, _ = self.svi.update(state, x, *conditions, betas=betas)
            return state, state.mutable_state[TERMS]

        return jax.lax.scan(step, state, inputs)

    def evaluate(
        self, loss: NumPyroLoss, x: NDArray[np.float32], betas: Mapping[str, float], seed: int
    ) -> dict[str, float]:
        """Terms of a loss on data; see ``engine.Engine``."""
        if id(loss) not in self._evaluate:
            self._evaluate[id(loss)] = jax.jit(partial(self._terms, loss))
        compiled = self._evaluate[id(loss)]
        total: dict[str, float] = {}
        for number, part in enumerate(chunks(len(x), min(4096, self.max_rows))):
            key = jax.random.fold_in(jax.random.key(seed), number)
            terms = compiled(key, self._params(), self._arguments(x[part]), betas=dict(betas))
            for name, value in terms.flat().items():
                total[name] = total.get(name, 0.0) + float(value) * len(x[part]) / len(x)
        return total

    def _terms(self, loss: NumPyroLoss, key: Array, params: Any, batch: Batch, *, betas: Any) -> Terms:
        used = self.evaluated
        return loss.terms(key, params, used.model, used.guide, *batch, betas=betas)

    def parameters(self) -> Arrays:
        """Unconstrained parameters and mutable sites by dotted name; see ``engine.Engine``."""
        return flatten_params({**self._unconstrained(), **self._mutable()})

    def load_parameters(self, arrays: Arrays) -> None:
        """Set the parameters and mutable sites; the optimiser starts afresh."""
        own, mutable = self._unconstrained(), self._mutable()
        new = unflatten_params(arrays, {**own, **mutable})
        state = jax.jit(self.svi.optim.init)({name: new[name] for name in own})
        kept = {**(self.svi_state.mutable_state or {}), **{name: new[name] for name in mutable}} or None
        self.svi_state = self.svi_state._replace(optim_state=state, mutable_state=kept)

    def state(self) -> Arrays:
        """Parameters, optimiser, mutable sites and random key; see ``engine.Engine``."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(_plain_keys(self.svi_state))
        return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves}

    def load_state(self, arrays: Arrays) -> None:
        """Set parameters, optimiser, mutable sites and random key."""
        leaves, structure = jax.tree_util.tree_flatten_with_path(_plain_keys(self.svi_state))
        new = [jnp.asarray(arrays[jax.tree_util.keystr(path)], leaf.dtype) for path, leaf in leaves]
        state = jax.tree_util.tree_unflatten(structure, new)
        self.svi_state = state._replace(rng_key=jax.random.wrap_key_data(state.rng_key))

    def is_finite(self) -> bool:
        """Whether parameters and optimiser are finite; see ``engine.Engine``."""
        return bool(self._all_finite(self.svi_state.optim_state))

    def snapshot(self) -> SVIState:
        """The state, which is never changed in place; see ``engine.Engine``."""
        return self.svi_state

    def restore(self, snapshot: SVIState) -> None:
        """Go back to a snapshot."""
        self.svi_state = snapshot

    def inspect(
        self,
        x: NDArray[np.float32],
        *,
        seed: int,
        latents: Mapping[str, NDArray[Any]] | Literal["draw", "mean"] = "draw",
        draw_x: bool = False,
    ) -> Inspection:
        """Guide and model on data; see ``engine.Engine``."""
        mode = latents if isinstance(latents, str) else "given"
        rows = self._padded(len(x))
        given = {} if isinstance(latents, str) else {n: self._on_device(v[rows]) for n, v in latents.items()}
        key = jax.random.key(seed)
        record = self._inspect[mode](self._params(), key, self._arguments(x[rows]), given, draw_x=draw_x)
        return jax.tree.map(lambda value: np.asarray(value)[: len(x)], record)

    def _inspect_as(
        self, mode: str, params: Any, key: Array, batch: Batch, given: Mapping[str, Array], *, draw_x: bool
    ) -> Inspection:
        rules: dict[str, LatentRule | None] = {"draw": None, "mean": lambda name, fn: fn.mean}
        rule = given_latents(given) if mode == "given" else rules[mode]
        return inspect(self._program(batch, key, params, latents=rule), draw_x=draw_x)

    def generate(
        self,
        num_draws: int,
        *,
        seed: int,
        latents: Mapping[str, NDArray[Any]] | None = None,
        condition: NDArray[Any] | None = None,
        prior: Prior = "model",
        entropy: float = 0.0,
    ) -> Generation:
        """Draws from the model or its alternative; see ``engine.Engine``."""
        rows = self._padded(num_draws)
        blank = np.zeros((len(rows), *self.data_shape))
        conditions = conditions_for(num_draws, condition, self.condition_shape)
        shapes = tuple(map(self._on_device, (blank, *(array[rows] for array in conditions))))
        given = {name: self._on_device(value[rows]) for name, value in (latents or {}).items()}
        options = {"prior": prior, "entropy": entropy}
        drawn = self._generate(self._params(), jax.random.key(seed), shapes, given, **options)
        return jax.tree.map(lambda value: np.asarray(value)[:num_draws], drawn)

    def _generate_like(
        self, params: Any, key: Array, batch: Batch, given: Mapping[str, Array], *, prior: Prior, entropy: float
    ) -> Generation:
        program = self._program(batch, key, params)
        program.model = generative_model(self.evaluated, prior, entropy)
        return read_draws(program.generate(given), self.observed, self.latents)

    def log_weights(self, x: NDArray[Any], *, num_draws: int, seed: int) -> NDArray[Any]:
        """Log weights of draws of the guide; see ``engine.Engine``."""
        arguments = (self._params(), jax.random.key(seed), self._arguments(x))
        return np.asarray(self._weigh(*arguments, num_draws=num_draws))

    def log_joint_gradient(
        self, x: NDArray[Any], latents: Mapping[str, NDArray[Any]], *, share: float = 1.0, base: Base = "prior"
    ) -> PathDensity:
        """Densities and gradient on a path to the joint density; see ``engine.Engine``."""
        values = {name: self._on_device(value) for name, value in latents.items()}
        found = self._path(self._params(), self._arguments(x), values, share, base=base)
        return PathDensity(*jax.tree.map(np.asarray, found))

    def _program(
        self, batch: Batch, key: Array, params: Any, *, betas: Mapping[str, float] | None = None, **options: Any
    ) -> NumPyroProgram:
        named = {"betas": UnitBetas() if betas is None else betas}
        used = self.evaluated
        return NumPyroProgram(used.model, used.guide, batch, named, rng_key=key, params=params, **options)

    def _padded(self, num_rows: int) -> NDArray[np.int64]:
        """Rows, the first ones again at the end, so that numbers of rows that are compiled for are few."""
        added = min(MOST_ADDED, max(1, SMALL // prod(self.data_shape)))
        block = 1 << added.bit_length() - 1
        power = 1 << (max(num_rows, block // 8) - 1).bit_length()
        size = power if num_rows <= block else -(-num_rows // block) * block
        return np.arange(max(num_rows, min(size, self.max_rows))) % max(1, num_rows)

    def _arguments(self, x: NDArray[Any]) -> Batch:
        return tuple(map(self._on_device, program_arguments(x, self.condition_shape)))

    def _params(self) -> dict[str, Any]:
        """Values of param and mutable sites, as programs take them."""
        return {**self.svi.get_params(self.svi_state), **self._mutable()}

    def _unconstrained(self) -> dict[str, Any]:
        return dict(self.svi.optim.get_params(self.svi_state.optim_state))

    def _mutable(self) -> dict[str, Any]:
        state = self.svi_state.mutable_state or {}
        return {name: value for name, value in state.items() if name != TERMS}

    def _check_values(self, loss: NumPyroLoss, batch: Batch) -> None:
        """Let a loss check what only a run with values shows."""

        def deviations(key: Array, params: Any) -> Mapping[str, Array]:
            program = self._program(batch, key, params, data_plate=loss.data_plate)
            return loss.objective.deviations(program.run(), program)

        arguments = (self.svi_state.rng_key, self._params())
        if jax.eval_shape(deviations, *arguments):
            loss.objective.check({name: float(v) for name, v in jax.jit(deviations)(*arguments).items()})

    def _trial(self, batch: Batch, **options: Any) -> Traces:
        """Names and shapes of a run by abstract evaluation; what diagnostics need is checked with it."""
        found: list[Traces] = []

        def run(key: Array, params: Any) -> None:
            found.append(self._program(batch, key, params, **options).run())
            inspect(self._program(batch, key, params, **options))

        jax.eval_shape(run, self.svi_state.rng_key, self._params())
        return found[0]

    def _on_device(self, array: NDArray[Any]) -> Array:
        return jax.device_put(np.asarray(array, jnp.result_type(float)), self.device)


def _all_finite(tree: Any) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _find_device(device: Device) -> jax.Device:
    if device == "cpu":
        return jax.devices("cpu")[0]
    try:
        return jax.devices("cuda")[0]
    except RuntimeError:
        if device == "auto":
            return jax.devices("cpu")[0]
        raise InputError("device cuda needs a CUDA device that JAX can use, but there is none; use cpu") from None


def _plain_keys(state: SVIState) -> SVIState:
    # Typed random keys cannot be stored: their integers can.
    return state._replace(rng_key=jax.random.key_data(state.rng_key))
