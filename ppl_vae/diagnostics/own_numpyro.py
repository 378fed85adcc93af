"""Runs of a user's own NumPyro model and guide."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from numpyro import handlers
from numpyro.distributions import biject_to

from ppl_vae.diagnostics.own_programs import OwnSite, Read, free_size
from ppl_vae.errors import InputError

__all__ = ["NumPyroOwnProgram", "to_arrays"]


def to_arrays(values: Any) -> Any:
    """An argument of a program with JAX arrays in place of NumPy's, which placeholders cannot index.

    Args:
        values: The argument.
    """
    return jnp.asarray(values) if isinstance(values, np.ndarray) else values


class NumPyroOwnProgram:
    """A NumPyro model and guide with their arguments; see ``own_programs.OwnProgram``.

    Args:
        model: Generative program.
        guide: Variational program with the same signature.
        args: Positional arguments of both.
        kwargs: Keyword arguments of both.
        params: Constrained values of the param sites, and values of the mutable ones.

    Raises:
        InputError: A param site has no value, or JAX cannot trace the programs.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        params: Mapping[str, Any] | None,
    ) -> None:
        self.model, self.guide, self.params = model, guide, dict(params or {})
        self.args = tuple(map(to_arrays, args))
        self.kwargs = {name: to_arrays(value) for name, value in kwargs.items()}
        self.indices: Mapping[str, NDArray[np.int64]] = {}
        run = self.first_run()
        traced = {**run.guide_trace, **run.model_trace}
        missing = [n for n, s in traced.items() if s["type"] in ("param", "mutable") and n not in self.params]
        if missing:
            raise InputError(
                f"params must have a value for every param site, but {', '.join(missing)} "
                f"{'has' if len(missing) == 1 else 'have'} none; pass params=svi_result.params"
            )
        rng = np.random.default_rng(0)
        plates = {name: site["args"] for name, site in traced.items() if site["type"] == "plate"}
        partial = {name for name, (size, num) in plates.items() if num not in (None, size)}
        self.indices = {
            name: np.sort(rng.choice(size, num, replace=False)) if name in partial else np.arange(size)
            for name, (size, num) in plates.items()
        }
        frames = [frame for site in traced.values() for frame in site.get("cond_indep_stack", ())]
        self.partial = frozenset(frame.name for frame in frames) & partial

    def first_run(self) -> "NumPyroRun":
        """A run to see which sites there are, of placeholders."""
        found: list[NumPyroRun] = []

        def run(key: jax.Array) -> None:
            found.append(NumPyroRun(self, key))
            _ = found[0].guide, found[0].model

        with _traceable():
            jax.eval_shape(run, jax.random.key(0))
        return found[0]

    def collect(self, read: Read, num_runs: int, seed: int) -> dict[str, NDArray[Any]]:
        """What is read of several runs; see ``own_programs.OwnProgram``."""

        def run(number: jax.Array) -> dict[str, Any]:
            return read(NumPyroRun(self, jax.random.fold_in(jax.random.key(seed), number)))

        with _traceable():
            found = jax.jit(lambda numbers: jax.lax.map(run, numbers))(jnp.arange(num_runs))
        return {name: np.asarray(value) for name, value in found.items()}

    def trace(self, program: Callable[..., Any], values: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
        """A run of a program on the values of another trace and the pinned subsamples."""
        latents = {name: site for name, site in values.items() if site["type"] == "sample"}
        indices = {name: jnp.asarray(value) for name, value in self.indices.items()}
        fixed = handlers.substitute(handlers.replay(program, latents), {**self.params, **indices})
        return handlers.trace(handlers.seed(fixed, key)).get_trace(*self.args, **self.kwargs)


class NumPyroRun:
    """One run; see ``own_programs.OwnRun``.

    Args:
        program: What is run.
        key: JAX random key.
    """

    def __init__(self, program: NumPyroOwnProgram, key: jax.Array) -> None:
        self.program = program
        self.keys = jax.random.split(key, 4)

    @cached_property
    def guide_trace(self) -> dict[str, Any]:
        """Trace of the guide."""
        return self.program.trace(self.program.guide, {}, self.keys[0])

    @cached_property
    def model_trace(self) -> dict[str, Any]:
        """Trace of the model on the guide's values."""
        return self.program.trace(self.program.model, self.guide_trace, self.keys[1])

    @cached_property
    def guide(self) -> Mapping[str, OwnSite]:
        """Sites of the guide."""
        return _sites(self.guide_trace)

    @cached_property
    def model(self) -> Mapping[str, OwnSite]:
        """Sites of the model on the guide's values."""
        return _sites(self.model_trace)

    def num_free(self, name: str) -> int:
        """Numbers that a latent of the model is made of; see ``own_programs.OwnRun``."""
        return free_size(self.model[name], biject_to)

    def replicate(self) -> Mapping[str, OwnSite]:
        """Sites of the model on the latents of ``model``, with observations drawn."""
        free = handlers.uncondition(self.program.model)
        latents = {name: site for name, site in self.model_trace.items() if not site.get("is_observed")}
        return _sites(self.program.trace(free, latents, self.keys[2]))

    def generate(self) -> Mapping[str, OwnSite]:
        """Sites of the model alone, with observations drawn."""
        return _sites(self.program.trace(handlers.uncondition(self.program.model), {}, self.keys[3]))


@contextmanager
def _traceable() -> Iterator[None]:
    """Refuse what JAX cannot compile."""
    try:
        yield
    except jax.errors.JAXTypeError as error:
        raise InputError(
            "model and guide must be programs that JAX can compile, as SVI does, but a size or a branch depends "
            f"on drawn values ({str(error).splitlines()[0]}); mask what is too much"
        ) from error


def _sites(trace: Mapping[str, Any]) -> dict[str, OwnSite]:
    return {name: _site(site) for name, site in trace.items() if site["type"] == "sample"}


def _site(site: Mapping[str, Any]) -> OwnSite:
    fn = site["fn"]
    frames = {frame.dim: frame.name for frame in site["cond_indep_stack"]}
    return OwnSite(
        fn=fn,
        value=jnp.asarray(site["value"]),
        log_prob=fn.log_prob(site["value"]),
        plates=tuple(frames.get(axis) for axis in range(-len(fn.batch_shape), 0)),
        observed=site["is_observed"],
        auxiliary=bool(site["infer"].get("is_auxiliary")),
    )
