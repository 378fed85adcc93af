"""NumPyro fits side by side: steps in one scan, vectorised over runs, sharded over the devices.

A leading ``r`` is runs. Each run has the batches, the noise and the betas of its single fit, so that it is that
fit but for rounding.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray
from numpyro.infer.svi import SVIState

from ppl_vae.nets.bridge import flatten_params
from ppl_vae.objective.numpyro_program import TERMS
from ppl_vae.sweeps.setup import Ready
from ppl_vae.training.engine import Arrays, chunks, program_arguments

__all__ = ["Vectorised", "bytes_per_run", "plain_state"]

RUNS, ALL = PartitionSpec("runs"), PartitionSpec()


def plain_state(engine: Any) -> SVIState:
    """An engine's state with its random key as integers, which can be stacked and stored.

    Args:
        engine: A NumPyro engine.
    """
    return engine.svi_state._replace(rng_key=jax.random.key_data(engine.svi_state.rng_key))


def bytes_per_run(ready: Ready) -> int:
    """Bound of the memory that one more run needs: its state four times, and every array that one step makes.

    The state is there before and after a block, in the best epoch, and as the scan's carry. XLA frees and reuses
    most of what a step makes, so that the bound is generous.

    Args:
        ready: One of the runs.
    """
    engine, num_data = ready.engine, len(ready.data.splits.train)
    shapes = [shape for shape in (engine.data_shape, engine.condition_shape) if shape is not None]
    batch = [jnp.zeros((ready.settings.batch(num_data), *shape)) for shape in shapes]
    betas = dict.fromkeys(engine.latents, 1.0)
    step = jax.make_jaxpr(lambda state, x: engine.svi.update(state, *x, betas=betas))(engine.svi_state, batch)
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(plain_state(engine)))
    return int(4 * state + sum(array.nbytes for array in batch) + _bytes(step.jaxpr))


def _bytes(jaxpr: Any) -> int:
    total = 0
    for step in jaxpr.eqns:
        inner = list(jax.extend.core.jaxprs_in_params(step.params))
        total += sum(map(_bytes, inner)) if inner else sum(_size(v.aval) for v in step.outvars)
    return total


def _size(aval: Any) -> int:
    # Random keys have a dtype without a size; they are small.
    return math.prod(getattr(aval, "shape", ())) * getattr(getattr(aval, "dtype", None), "itemsize", 8)


class Vectorised:
    """The compiled programs of a sweep, for chunks of any one number of runs.

    Args:
        runs: A run of each seed by seed; all have the same program, and data that differ in their splits only.
        num_runs: Number r of runs in a chunk.
    """

    def __init__(self, runs: Mapping[int, Ready], num_runs: int) -> None:
        self.first = next(iter(runs.values()))
        self.engine: Any = self.first.engine
        devices = jax.devices(self.engine.device.platform)
        shards = max(n for n in range(1, min(len(devices), num_runs) + 1) if num_runs % n == 0)
        self.mesh = Mesh(np.array(devices[:shards]), ("runs",))
        data = self.first.data
        grey = self.engine.options.binarise_batches or self.first.loss.object.objective.binarises
        every = data.rows(np.arange(data.dataset.num_data), grey=grey)
        self.rows = tuple(self._put(a, ALL) for a in program_arguments(every, self.engine.condition_shape))
        self.numbers = {seed: number for number, seed in enumerate(runs)}
        splits = [
            program_arguments(r.data.split("validation"), self.engine.condition_shape) for r in runs.values()
        ]
        self.validation = tuple(self._put(np.stack(arrays), ALL) for arrays in zip(*splits, strict=True))
        self.noise = {s: np.asarray(jax.random.key_data(r.engine.batch_noise)) for s, r in runs.items()}
        shard = partial(jax.shard_map, mesh=self.mesh, check_vma=False)
        block = jax.vmap(self._block, (0, None, 0, None, 0))
        self._train = jax.jit(shard(block, in_specs=(RUNS, ALL, RUNS, ALL, RUNS), out_specs=RUNS))
        self._validate = jax.jit(shard(self._validate_shard, in_specs=(RUNS, ALL, RUNS), out_specs=RUNS))

    def _put(self, array: Any, spec: PartitionSpec) -> Array:
        values = np.asarray(array)
        if np.issubdtype(values.dtype, np.floating):
            values = values.astype(jnp.result_type(float))
        return jax.device_put(values, NamedSharding(self.mesh, spec))

    def put(self, tree: Any) -> Any:
        """Put arrays with a leading axis of runs on the devices.

        Args:
            tree: Arrays (r, ...).
        """
        return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(self.mesh, RUNS)), tree)

    def train(
        self,
        state: SVIState,
        seeds: Sequence[int],
        first_step: int,
        rows: NDArray[np.int64],
        betas: Mapping[str, NDArray[np.float64]],
    ) -> tuple[SVIState, NDArray[np.float64], NDArray[np.bool_]]:
        """Take a block of steps in every run.

        Args:
            state: States of the runs.
            seeds: Seed of each run.
            first_step: Number of the first step.
            rows: Rows of the data in each step, (r, steps, batch).
            betas: Beta of each step by site, and weights of terms with a warm-up, (r, steps).

        Returns:
            The states after; the terms of each step, (r, steps, terms); whether each state is finite, (r,).
        """
        steps = np.arange(first_step, first_step + rows.shape[1], dtype=np.int32)
        noise = self._put(np.stack([self.noise[seed] for seed in seeds]), RUNS)
        weights = {site: self._put(values, RUNS) for site, values in betas.items()}
        inputs = (self._put(rows.astype(np.int32), RUNS), weights)
        state, terms, finite = self._train(state, self.rows, noise, self._put(steps, ALL), inputs)
        return state, np.asarray(terms, np.float64), np.asarray(finite)

    def _block(self, state: SVIState, data: Any, noise: Array, steps: Array, inputs: Any) -> Any:
        rows, betas = inputs
        state = state._replace(rng_key=jax.random.wrap_key_data(state.rng_key))
        new, terms = self.engine.scan_block(state, data, jax.random.wrap_key_data(noise), (rows, steps, betas))
        leaves = [leaf for leaf in jax.tree.leaves(new.optim_state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
        return new._replace(rng_key=jax.random.key_data(new.rng_key)), terms, finite

    def validate(
        self, state: SVIState, seeds: Sequence[int], keys: Sequence[int], betas: Mapping[str, NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Terms on the validation data of every run, (r, terms); the same as of ``Engine.evaluate``.

        Args:
            state: States of the runs.
            seeds: Seed of each run.
            keys: Seed of the noise of each run.
            betas: Final betas by site, and final weights of terms with a warm-up, (r,).
        """
        numbers = np.array([self.numbers[seed] for seed in seeds], np.int32)
        noise = np.stack([jax.random.key_data(jax.random.key(key)) for key in keys])
        inputs = jax.tree.map(lambda array: self._put(array, RUNS), (numbers, noise, dict(betas)))
        return np.asarray(self._validate(state, self.validation, inputs), np.float64)

    def _validate_shard(self, state: SVIState, data: Any, inputs: Any) -> Array:
        # One run after the other: a batch of validation data is large enough by itself.
        return jax.lax.map(lambda run: self._validate_run(run[0], data, *run[1]), (state, inputs))

    def _validate_run(self, state: SVIState, data: Any, number: Array, noise: Array, betas: Any) -> Array:
        engine, batch = self.engine, [array[number] for array in data]
        num_data = len(batch[0])
        params = {**engine.svi.get_params(state), **_mutable(state)}
        total = jnp.zeros(len(engine.term_names))
        for position, part in enumerate(chunks(num_data)):
            key = jax.random.fold_in(jax.random.wrap_key_data(noise), position)
            program, loss = engine.evaluated, self.first.loss.object
            some = [array[part] for array in batch]
            terms = loss.terms(key, params, program.model, program.guide, *some, betas=betas)
            total += jnp.stack(list(terms.flat().values())) * (len(some[0]) / num_data)
        return total

    def parameters(self, state: SVIState) -> Arrays:
        """Parameters and mutable sites of the runs by the names of the engine, each (r, ...).

        Args:
            state: States of the runs.
        """
        return flatten_params({**self.engine.svi.optim.get_params(state.optim_state), **_mutable(state)})


def _mutable(state: SVIState) -> dict[str, Any]:
    return {name: value for name, value in state.mutable_state.items() if name != TERMS}
