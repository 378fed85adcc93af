"""NUTS chains on the latents of single data, the decoder frozen: of NumPyro all at once, of Pyro one by one.

Each chain of each datum adapts a step size and a metric of its own. Shapes: n data, c chains of each, s draws of a
chain, t steps for each draw. Energies are in nats.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.chain_models import numpyro_target, pyro_target
from ppl_vae.training.engine import UnitBetas, program_arguments

__all__ = ["Chains", "Plan", "is_pyro", "join_chains", "run_chains"]

TARGET_ACCEPTANCE = 0.9  # of the step size's adaptation: posteriors of decoders are curved


@dataclass(frozen=True)
class Plan:
    """How long the chains of a datum are.

    Attributes:
        num_chains: Chains of each datum, c.
        num_draws: Draws that a chain keeps, s.
        num_warmup: Least number of steps in which a chain adapts.
        thinning: Steps for each draw, t.
    """

    num_chains: int
    num_draws: int
    num_warmup: int
    thinning: int


@dataclass(frozen=True, eq=False)
class Chains:
    """Chains after their warm-up.

    Attributes:
        draws: Latents by site, (n, c, s, *event).
        energy: Hamiltonian of every step, (n, c, s, t).
        diverging: Whether the step diverged, (n, c, s, t).
    """

    draws: Mapping[str, NDArray[Any]]
    energy: NDArray[Any]
    diverging: NDArray[np.bool_]


def run_chains(
    engine: Any, x: NDArray[Any], starts: Mapping[str, NDArray[Any]], plan: Plan, *, dense: bool, seed: int
) -> Chains:
    """Run the chains of data by the sampler of the engine's backend.

    Args:
        engine: A ``PyroEngine`` or a ``NumPyroEngine``.
        x: Data, (n, *data_shape).
        starts: Where the chains start by site, (n, c, *event).
        plan: Their length.
        dense: Whether a chain adapts to a full covariance, and not to variances alone.
        seed: Seed of the chains.
    """
    run = _pyro_chains if is_pyro(engine) else _numpyro_chains
    return run(engine, x, starts, plan, dense, seed)


def is_pyro(engine: Any) -> bool:
    """Whether an engine is of the Pyro backend.

    Args:
        engine: A ``PyroEngine`` or a ``NumPyroEngine``.
    """
    return hasattr(engine.program, "named_parameters")


def join_chains(blocks: Sequence[Chains]) -> Chains:
    """Chains of blocks of data, as one.

    Args:
        blocks: One or more.
    """
    return Chains(
        draws={name: np.concatenate([block.draws[name] for block in blocks]) for name in blocks[0].draws},
        energy=np.concatenate([block.energy for block in blocks]),
        diverging=np.concatenate([block.diverging for block in blocks]),
    )


def _numpyro_chains(
    engine: Any, x: NDArray[Any], starts: Mapping[str, NDArray[Any]], plan: Plan, dense: bool, seed: int
) -> Chains:
    import jax

    weights = {**engine.svi.get_params(engine.svi_state), **(engine.svi_state.mutable_state or {})}
    shape = (len(x), plan.num_chains)
    with jax.default_device(engine.device):
        dtype = jax.numpy.result_type(float)
        arrays = [
            jax.numpy.asarray(np.repeat(array, shape[1], axis=0), dtype)
            for array in program_arguments(x, engine.condition_shape)
        ]
        points = {n: jax.numpy.asarray(v.reshape(-1, *v.shape[2:]), dtype) for n, v in starts.items()}
        keys = jax.random.split(jax.random.key(seed), prod(shape))
        # One vmap: each one more doubles the time to trace the loops, which is a third of all.
        chain = partial(_numpyro_chain, numpyro_target(engine.evaluated.model, engine.nested), plan, dense)
        run = jax.vmap(chain, in_axes=(None, *[0] * (2 + len(arrays))))
        found = jax.jit(run, compiler_options=engine.compiler_options)(weights, keys, points, *arrays)
    found = jax.tree.map(lambda values: np.asarray(values).reshape(*shape, *values.shape[1:]), found)
    return Chains(*found)


def _numpyro_chain(
    model: Any, plan: Plan, dense: bool, weights: Any, key: Any, start: Mapping[str, Any], *datum: Any
) -> Any:
    """Draws by site, energies and divergences of one chain, as a pure function."""
    import jax
    from jax import lax
    from numpyro import handlers
    from numpyro.infer.hmc import hmc
    from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

    skipped = -(-plan.num_warmup // plan.thinning)
    betas, options = {"betas": UnitBetas()}, {"dense_mass": dense, "target_accept_prob": TARGET_ACCEPTANCE}
    model = handlers.substitute(handlers.seed(model, jax.random.key(0)), data=weights)
    args = tuple(array[None] for array in datum)
    points = _in_plates(start, handlers.trace(model).get_trace(*args, **betas))
    begin, step = hmc(partial(potential_energy, model, args, betas))
    state = begin(unconstrain_fn(model, args, betas, points), skipped * plan.thinning, rng_key=key, **options)

    def advance(state: Any, _: Any) -> Any:
        state = step(state)
        return state, (state.energy, state.diverging)

    def draw(state: Any, _: Any) -> Any:
        state, stats = lax.scan(advance, state, length=plan.thinning)
        latents = constrain_fn(model, args, betas, state.z)
        return state, ({name: latents[name].reshape(value.shape) for name, value in start.items()}, *stats)

    # One loop for warm-up and draws, as a step takes seconds to compile.
    draws = lax.scan(draw, state, length=skipped + plan.num_draws)[1]
    return jax.tree.map(lambda values: values[skipped:], draws)


def _in_plates(start: Mapping[str, Any], sites: Mapping[str, Any]) -> dict[str, Any]:
    """Latents of a datum with the axes of length 1 that plates give them: a group's has one beside its row's."""
    return {name: value.reshape(sites[name]["value"].shape) for name, value in start.items()}


def _pyro_chains(
    engine: Any, x: NDArray[Any], starts: Mapping[str, NDArray[Any]], plan: Plan, dense: bool, seed: int
) -> Chains:
    import pyro
    import torch

    program = copy.deepcopy(engine.program).eval().requires_grad_(False)
    like = next(program.parameters())
    found = []
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        for datum in range(len(x)):
            some = program_arguments(x[datum : datum + 1], engine.condition_shape)
            args = [torch.as_tensor(np.asarray(array)).to(like) for array in some]
            for chain in range(plan.num_chains):
                point = {name: torch.as_tensor(v[datum, chain]).to(like) for name, v in starts.items()}
                found.append(_pyro_chain(pyro_target(program.model, engine.nested), args, point, plan, dense))
    joined = join_chains(found)
    shape = (len(x), plan.num_chains)
    return Chains(
        draws={name: value.reshape(*shape, *value.shape[1:]) for name, value in joined.draws.items()},
        energy=joined.energy.reshape(*shape, *joined.energy.shape[1:]),
        diverging=joined.diverging.reshape(*shape, *joined.diverging.shape[1:]),
    )


def _pyro_chain(model: Any, args: Sequence[Any], start: Mapping[str, Any], plan: Plan, dense: bool) -> Chains:
    """One chain, n = 1 in place of the axes n and c."""
    import pyro
    from pyro.infer import MCMC
    from torch.distributions import biject_to

    betas = {"betas": UnitBetas()}
    nodes = pyro.poutine.trace(model).get_trace(*args, **betas).nodes
    points = _in_plates(start, nodes)
    kernel = _pyro_kernel(model, dense)
    num_steps = plan.num_draws * plan.thinning
    chain = MCMC(
        kernel,
        num_samples=num_steps,
        warmup_steps=plan.num_warmup,
        initial_params={name: biject_to(nodes[name]["fn"].support).inv(value) for name, value in points.items()},
        disable_progbar=True,
    )
    chain.run(*args, **betas)
    diverging = np.zeros(num_steps, bool)
    diverging[chain.diagnostics()["divergences"]["chain 0"]] = True
    kept = slice(plan.thinning - 1, None, plan.thinning)
    samples, shape = chain.get_samples(), (1, plan.num_draws, plan.thinning)
    return Chains(
        draws={n: samples[n][kept].reshape(*shape[:2], *v.shape).cpu().numpy() for n, v in start.items()},
        energy=np.array(kernel.energies[-num_steps:]).reshape(shape),
        diverging=diverging.reshape(shape),
    )


def _pyro_kernel(model: Any, dense: bool) -> Any:
    from pyro.infer import NUTS

    class Kernel(NUTS):
        """NUTS that keeps its energies, which Pyro tells nobody."""

        def __init__(self, **options: Any) -> None:
            super().__init__(model, **options)
            self.energies: list[float] = []

        def _sample_r(self, name: str) -> Any:
            momenta = super()._sample_r(name)
            self.energies.append(float(self._kinetic_energy(momenta[1]) + self._potential_energy_last))
            return momenta

    return Kernel(full_mass=dense, target_accept_prob=TARGET_ACCEPTANCE)
