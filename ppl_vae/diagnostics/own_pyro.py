"""Runs of a user's own Pyro model and guide."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import biject_to

from ppl_vae.diagnostics.own_programs import OwnSite, Read, free_size, stack_runs
from ppl_vae.training.capture import forked

__all__ = ["PyroOwnProgram", "to_tensors"]


def to_tensors(values: Any) -> Any:
    """An argument of a program with tensors in place of arrays, floats in torch's default precision.

    Args:
        values: The argument.
    """
    if not isinstance(values, np.ndarray):
        return values
    tensor = torch.as_tensor(np.asarray(values, order="C"))
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


class PyroOwnProgram:
    """A Pyro model and guide with their arguments; see ``own_programs.OwnProgram``.

    Args:
        model: Generative program.
        guide: Variational program with the same signature.
        args: Positional arguments of both.
        kwargs: Keyword arguments of both.
        params: Constrained values that go before those of Pyro's parameter store.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        params: Mapping[str, Any] | None,
    ) -> None:
        self.args = tuple(map(to_tensors, args))
        self.kwargs = {name: to_tensors(value) for name, value in kwargs.items()}
        values = _Params({name: torch.as_tensor(value) for name, value in (params or {}).items()})
        self.model, self.guide = values(model), values(guide)
        devices = [v.device for v in (*self.args, *self.kwargs.values()) if isinstance(v, torch.Tensor)]
        self.device = next((d for d in devices if d.type == "cuda"), torch.device("cpu"))
        self.pinned = poutine.Trace()
        run = self.first_run()
        nodes = {**run.guide_trace.nodes, **run.model_trace.nodes}
        for name, node in nodes.items():
            if isinstance(node.get("fn"), _Subsample):
                self.pinned.add_node(name, **node)
        frames = [frame for node in nodes.values() for frame in node.get("cond_indep_stack", ())]
        self.partial = frozenset(frame.name for frame in frames if frame.full_size not in (None, frame.size))
        self.indices: Mapping[str, NDArray[np.int64]] = {
            name: _numpy(torch.as_tensor(node["value"])) for name, node in self.pinned.nodes.items()
        }

    def first_run(self) -> "PyroRun":
        """A run to see which sites there are."""
        with self._quiet(0):
            run = PyroRun(self)
            _ = run.model
        return run

    def collect(self, read: Read, num_runs: int, seed: int) -> dict[str, NDArray[Any]]:
        """What is read of several runs; see ``own_programs.OwnProgram``."""
        runs = []
        for state in np.random.SeedSequence(seed).spawn(num_runs):
            with self._quiet(int(state.generate_state(1)[0])):
                runs.append({name: _numpy(value) for name, value in read(PyroRun(self)).items()})
        return stack_runs(runs)

    @contextmanager
    def _quiet(self, seed: int) -> Iterator[None]:
        """Leave the generators as they are; no gradients."""
        with forked(self.device, seed), torch.no_grad():
            yield

    def trace(self, program: Callable[..., Any], values: poutine.Trace) -> poutine.Trace:
        """A run of a program on the values of another trace and the pinned subsamples."""
        fixed = poutine.replay(poutine.replay(program, trace=values), trace=self.pinned)
        trace: poutine.Trace = poutine.trace(fixed).get_trace(*self.args, **self.kwargs)
        return trace


class PyroRun:
    """One run; see ``own_programs.OwnRun``.

    Args:
        program: What is run.
    """

    def __init__(self, program: PyroOwnProgram) -> None:
        self.program = program

    @cached_property
    def guide_trace(self) -> poutine.Trace:
        """Trace of the guide."""
        return self.program.trace(self.program.guide, poutine.Trace())

    @cached_property
    def model_trace(self) -> poutine.Trace:
        """Trace of the model on the guide's values."""
        return self.program.trace(self.program.model, self.guide_trace)

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
        latents = poutine.Trace()
        for name, node in self.model_trace.nodes.items():
            if node["type"] == "sample" and not node["is_observed"]:
                latents.add_node(name, **node)
        return _sites(self.program.trace(poutine.uncondition(self.program.model), latents))

    def generate(self) -> Mapping[str, OwnSite]:
        """Sites of the model alone, with observations drawn."""
        return _sites(self.program.trace(poutine.uncondition(self.program.model), poutine.Trace()))


class _Params(Messenger):
    """Sets param sites; Pyro's own handler warns of those that only one of the two programs has."""

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_param(self, msg: Any) -> None:
        msg["value"] = self.values.get(msg["name"], msg["value"])


def _sites(trace: poutine.Trace) -> dict[str, OwnSite]:
    return {
        name: _site(node)
        for name, node in trace.nodes.items()
        if node["type"] == "sample"
        and not isinstance(node["fn"], _Subsample)
        and not (node["infer"] or {}).get("_deterministic")
    }


def _site(node: Mapping[str, Any]) -> OwnSite:
    fn, infer = node["fn"], node["infer"] or {}
    frames = {frame.dim: frame.name for frame in node["cond_indep_stack"] if frame.vectorized}
    log_prob = fn.log_prob(node["value"], *node["args"], **node["kwargs"])
    return OwnSite(
        fn=fn,
        value=node["value"],
        log_prob=scale_and_mask(log_prob, 1.0, node["mask"]),
        plates=tuple(frames.get(axis) for axis in range(-len(fn.batch_shape), 0)),
        observed=node["is_observed"],
        auxiliary=bool(infer.get("is_auxiliary")),
    )


def _numpy(value: torch.Tensor) -> NDArray[Any]:
    return value.detach().cpu().numpy()
