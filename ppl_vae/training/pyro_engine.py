"""Trains and inspects a Pyro model and guide."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.data import Rows
from ppl_vae.errors import InputError
from ppl_vae.nets.parameters import check_names
from ppl_vae.objective.inspection import DATA_FIELDS, Generation, Inspection, inspect
from ppl_vae.objective.objective import LatentRule, given_latents, never_trained_notes
from ppl_vae.objective.pyro_program import PyroLoss, PyroProgram, never_trained
from ppl_vae.objective.split import find_split
from ppl_vae.objective.terms import Terms
from ppl_vae.training.capture import Step, capture, forked
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
from ppl_vae.training.fused_adam import FusedAdam
from ppl_vae.training.pyro_densities import draw_log_weights, path_gradient
from ppl_vae.training.seeds import child_seed

__all__ = ["PyroEngine"]


class PyroEngine:
    """Trains and inspects a Pyro model and guide; see ``engine.Engine``.

    Args:
        program: Torch module with methods ``model`` and ``guide``.
        data_shape: Shape of one datum.
        seed: Seed of the training noise.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        condition_shape: Shape of the condition of one datum, or None for programs without one.

    Raises:
        InputError: CUDA is asked for and not there, or parameters are not those of the module.
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
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("device cuda needs a CUDA device that torch can use, but there is none; use cpu")
        use_cuda = device != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if use_cuda else "cpu")
        self.program = program.to(self.device)
        self.data_shape, self.condition_shape = data_shape, condition_shape
        self.parameters_by_name: dict[str, Tensor] = {
            name: p for name, p in program.named_parameters() if p.requires_grad
        }
        if not self.parameters_by_name:
            raise InputError("the model must have parameters to train, but its module has none; add a network")
        self.notes: list[str] = []
        with forked(self.device, child_seed(seed, "noise")):
            self.generators = self._generators()
        with self._on_trial(seed), torch.no_grad():
            run = self._program(self._blank(2))
            with poutine.trace(param_only=True) as declared:
                traces = run.run()
            inspect(run)  # what diagnostics need must be there before hours of training, not after
        self._check_declared(declared.trace)
        self.latents, self.observed = traces.latents, traces.x.name
        self.nested = [name for name, site in traces.guide.items() if site.has_members]
        self.has_density, self.max_rows = traces.has_density, getattr(program, "max_rows", MAX_ROWS)

    def _check_declared(self, trace: Any) -> None:
        own = {id(parameter) for parameter in self.program.parameters()}
        for name, site in trace.nodes.items():
            # `pyro.module` writes the module's own tensors under names with $$$.
            if site["type"] == "param" and "$$$" not in name and id(site["value"].unconstrained()) not in own:
                raise InputError(
                    f"parameters must belong to the model's module, but {name!r} is in Pyro's global store, where "
                    "it would not be trained; make it an nn.Parameter of the module"
                )

    @property
    def device_name(self) -> Literal["cpu", "cuda"]:
        """Where it runs."""
        return "cuda" if self.device.type == "cuda" else "cpu"

    def prepare_training(self, loss: PyroLoss, x: Rows, options: StepOptions, betas: Mapping[str, float]) -> None:
        """Make the optimiser, and check the loss on two data; see ``engine.Engine``."""
        self.loss, self.options = loss, options
        self.rows: Any = self._arguments(x) if isinstance(x, np.ndarray) else x
        self.tensors: list[Tensor] = list(self.parameters_by_name.values())
        self.optimiser = FusedAdam(self.tensors)
        self.captured: Step | None = None
        self.may_capture = options.capture and getattr(self.program, "capture", True)
        with self._on_trial(0):
            batch = self._batch(self._arguments(x[:2]))
            probe = probe_betas(self.latents)
            run = loss.objective.prepare(self._program(batch, betas=probe, data_plate=loss.data_plate))
            traces = run.run()
            self.split = find_split(traces, run)
            traces.check_data_plate(loss.data_plate)
            traces.check_betas(probe)
            terms = loss.terms(self.program.model, self.program.guide, *batch, betas=betas)
            self.notes += loss.objective.notes(traces, run)
            self.notes += never_trained_notes(never_trained(terms.loss, self.parameters_by_name))
            self.loss_step(self.tensors, batch, betas)

    def loss_step(
        self, parameters: Sequence[Tensor], batch: Sequence[Tensor], betas: Mapping[str, Any]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Terms (loss first) and gradients of one eager step on the module's own parameters."""
        terms = self.loss.terms(self.program.model, self.program.guide, *batch, betas=betas)
        gradients = torch.autograd.grad(terms.loss, parameters, allow_unused=True, materialize_grads=True)
        self.site_names, self.how = (list(terms.rates), list(terms.extras)), dict(terms.how)
        values = (terms.loss, terms.distortion, *terms.rates.values(), *terms.extras.values())
        return [value.detach() for value in values], list(gradients)

    def _named(self, columns: list[NDArray[np.float64]]) -> Arrays:
        """Columns of what ``loss_step`` returns, as terms by name."""
        loss, distortion, *others = columns
        rates, extras = self.site_names
        split = len(rates)
        return Terms(
            loss,
            distortion,
            dict(zip(rates, others[:split], strict=True)),
            dict(zip(extras, others[split:], strict=True)),
        ).flat()

    def run_block(self, first_step: int, indices: NDArray[np.int64], betas: Arrays) -> Arrays:
        """Take a step per row of ``indices``; see ``engine.Engine``. Losses are read once, at its end."""
        self.program.train()
        data, indices = self._rows(indices)
        rows = torch.as_tensor(indices, device=self.device).unbind()
        self.weighed, dtype = list(betas), data[0].dtype
        weights = [torch.as_tensor(v, dtype=dtype, device=self.device).unbind() for v in betas.values()]
        by_step = list(zip(*weights, strict=True))
        numbers = list(zip(*(values.tolist() for values in betas.values()), strict=True))
        rates, history = self.options.learning_rates[first_step : first_step + len(indices)].tolist(), []
        with self._training_mode():
            for index, beta, number, rate in zip(rows, by_step, numbers, rates, strict=True):
                batch = self._batch([array[index] for array in data])
                terms, gradients = self._step(batch, list(beta), number)
                if self.options.clip_norm:
                    gradients = self._clip(gradients)
                self.optimiser.step(gradients, rate)
                history.append(terms)
        return self._named([torch.stack(c).double().cpu().numpy() for c in zip(*history, strict=True)])

    def _step(
        self, batch: list[Tensor], betas: list[Tensor], numbers: tuple[float, ...]
    ) -> tuple[list[Tensor], list[Tensor]]:
        if self.may_capture and self.captured is None:
            self._capture(batch, betas)
        if self.captured is None:  # as numbers, which the programs' handlers multiply faster
            return self.loss_step(self.tensors, batch, dict(zip(self.weighed, numbers, strict=True)))
        with torch.no_grad():
            return self.captured(self.tensors, batch, betas)

    def _clip(self, gradients: list[Tensor]) -> list[Tensor]:
        norm = nn.utils.get_total_norm(gradients)
        factor = (self.options.clip_norm / norm).clamp(max=1.0)
        return [gradient * factor for gradient in gradients]

    def _capture(self, batch: list[Tensor], betas: list[Tensor]) -> None:
        harness = _Harness(self)

        def step(
            parameters: list[Tensor], batch: list[Tensor], betas: list[Tensor]
        ) -> tuple[list[Tensor], list[Tensor]]:
            named = {f"program.{name}": p for name, p in zip(self.parameters_by_name, parameters, strict=True)}
            return torch.func.functional_call(harness, named, (parameters, batch, betas))

        self.may_capture = False
        copies = [p.detach().requires_grad_() for p in self.tensors]
        with self._unchanged():
            size = len(batch[0])
            other = self._batch([array[:size].flip(0) for array in self._rows(np.arange(size))[0]])
            try:
                self.captured = capture(step, copies, [batch, other], betas)
            except RuntimeError as error:
                self.notes.append(f"steps run eagerly: {error}")

    def evaluate(
        self, loss: PyroLoss, x: NDArray[np.float32], betas: Mapping[str, float], seed: int
    ) -> dict[str, float]:
        """Terms of a loss on data; see ``engine.Engine``."""
        self.program.eval()
        total: dict[str, float] = {}
        with forked(self.device, seed), torch.no_grad(), pyro.validation_enabled(False):
            for part in chunks(len(x), min(4096, self.max_rows)):
                batch = self._arguments(x[part])
                terms = loss.terms(self.program.model, self.program.guide, *batch, betas=betas)
                for name, value in terms.flat().items():
                    total[name] = total.get(name, 0.0) + float(value) * len(batch[0]) / len(x)
        return total

    def parameters(self) -> Arrays:
        """Parameters and persistent buffers by name; see ``engine.Engine``."""
        return {name: _numpy(value) for name, value in self.program.state_dict().items()}

    @torch.no_grad()
    def load_parameters(self, arrays: Arrays) -> None:
        """Set the parameters and persistent buffers."""
        own = self.program.state_dict()
        check_names(arrays, {name: tuple(value.shape) for name, value in own.items()})
        for name, value in own.items():
            value.copy_(torch.as_tensor(arrays[name]))

    def state(self) -> Arrays:
        """Parameters, buffers, optimiser and generators; see ``engine.Engine``."""
        arrays = {f"program/{name}": _numpy(value) for name, value in self.program.state_dict().items()}
        for slot, values in self.optimiser.state.items():
            for name, value in zip(self.parameters_by_name, values, strict=True):
                arrays[f"optimiser/{slot}/{name}"] = _numpy(value)
        return arrays | {f"generator/{name}": _numpy(value) for name, value in self.generators.items()}

    def load_state(self, arrays: Arrays) -> None:
        """Set parameters, buffers, optimiser and generators."""
        parts: dict[str, dict[str, Tensor]] = {"program": {}, "optimiser": {}, "generator": {}}
        for key, value in arrays.items():
            part, name = key.split("/", 1)
            parts[part][name] = torch.as_tensor(np.array(value))
        self.program.load_state_dict(parts["program"])
        self.generators = parts["generator"]
        for slot, tensors in self.optimiser.state.items():
            for name, tensor in zip(self.parameters_by_name, tensors, strict=True):
                tensor.copy_(parts["optimiser"][f"{slot}/{name}"])

    def is_finite(self) -> bool:
        """Whether parameters and optimiser are finite; see ``engine.Engine``."""
        tensors = [*self.tensors, *self.optimiser.state["exp_avg"], *self.optimiser.state["exp_avg_sq"]]
        return bool(torch.stack([t.isfinite().all() for t in tensors]).all())

    def snapshot(self) -> Arrays:
        """The state; see ``engine.Engine``."""
        return self.state()

    def restore(self, snapshot: Arrays) -> None:
        """Go back to a snapshot."""
        self.load_state(snapshot)

    @torch.no_grad()
    def inspect(
        self,
        x: NDArray[np.float32],
        *,
        seed: int,
        latents: Mapping[str, NDArray[Any]] | Literal["draw", "mean"] = "draw",
        draw_x: bool = False,
    ) -> Inspection:
        """Guide and model on data; see ``engine.Engine``."""
        self.program.eval()
        rule: LatentRule | None = None
        if latents == "mean":
            rule = lambda name, fn: fn.mean  # noqa: E731
        elif not isinstance(latents, str):
            rule = given_latents({name: self._on_device(value) for name, value in latents.items()})
        with forked(self.device, seed), pyro.validation_enabled(False):
            return _to_numpy(inspect(self._program(self._arguments(x), latents=rule), draw_x=draw_x))

    @torch.no_grad()
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
        self.program.eval()
        shapes = self._on_device(np.zeros((num_draws, *self.data_shape), np.float32))
        conditions = map(self._on_device, conditions_for(num_draws, condition, self.condition_shape))
        given = {name: self._on_device(value) for name, value in (latents or {}).items()}
        with forked(self.device, seed), pyro.validation_enabled(False):
            program = self._program([shapes, *conditions])
            program.model = generative_model(self.program, prior, entropy)
            return _to_numpy(read_draws(program.generate(given), self.observed, self.latents))

    def log_weights(self, x: NDArray[Any], *, num_draws: int, seed: int) -> NDArray[Any]:
        """Log weights of draws of the guide; see ``engine.Engine``."""
        with forked(self.device, seed):
            return _numpy(draw_log_weights(self.program, self._arguments(x), num_draws))

    def log_joint_gradient(
        self, x: NDArray[Any], latents: Mapping[str, NDArray[Any]], *, share: float = 1.0, base: Base = "prior"
    ) -> PathDensity:
        """Densities and gradient on a path to the joint density; see ``engine.Engine``."""
        values = {name: self._on_device(value).requires_grad_() for name, value in latents.items()}
        return path_gradient(self.program, self._arguments(x), values, share, base)

    def _program(
        self, batch: Sequence[Tensor], *, betas: Mapping[str, float] | None = None, **options: Any
    ) -> PyroProgram:
        named = {"betas": UnitBetas() if betas is None else betas}
        return PyroProgram(self.program.model, self.program.guide, tuple(batch), named, **options)

    def _arguments(self, x: NDArray[Any]) -> list[Tensor]:
        return [self._on_device(array) for array in program_arguments(x, self.condition_shape)]

    def _blank(self, num_data: int) -> list[Tensor]:
        shapes = [self.data_shape, *([] if self.condition_shape is None else [self.condition_shape])]
        return [self._on_device(np.zeros((num_data, *shape), np.float32)) for shape in shapes]

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        reference = next(iter(self.parameters_by_name.values()))
        return torch.as_tensor(np.asarray(array), dtype=reference.dtype, device=self.device)

    def _rows(self, indices: NDArray[np.int64]) -> tuple[list[Tensor], NDArray[np.int64]]:
        """Data that contain the indexed ones, on the device, and the indices into them."""
        if isinstance(self.rows, list):
            return self.rows, indices
        return self._arguments(self.rows[indices.ravel()]), np.arange(indices.size).reshape(indices.shape)

    def _batch(self, arguments: list[Tensor]) -> list[Tensor]:
        x, *conditions = arguments
        return [torch.bernoulli(x) if self.options.binarise_batches else x, *conditions]

    @contextmanager
    def _on_trial(self, seed: int) -> Iterator[None]:
        """Run programs to see what they do, with validation."""
        with forked(self.device, seed), self._unchanged(), pyro.validation_enabled(True):
            yield

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Leave the training noise and the module's buffers, such as running means, as they were."""
        buffers = {name: buffer.clone() for name, buffer in self.program.named_buffers()}
        with forked(self.device):
            yield
        with torch.no_grad():
            for name, buffer in self.program.named_buffers():
                buffer.copy_(buffers[name])

    @contextmanager
    def _training_mode(self) -> Iterator[None]:
        """Continue the training noise where the last block ended, without validation."""
        with forked(self.device), pyro.validation_enabled(False):
            torch.set_rng_state(self.generators["cpu"])
            if "cuda" in self.generators:
                torch.cuda.set_rng_state(self.generators["cuda"], self.device)
            yield
            self.generators = self._generators()

    def _generators(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states


class _Harness(nn.Module):
    """Makes the program a submodule, so that ``functional_call`` can swap its parameters."""

    def __init__(self, engine: PyroEngine) -> None:
        super().__init__()
        self.program = engine.program
        self.engine = engine

    def forward(self, parameters: list[Tensor], batch: list[Tensor], betas: list[Tensor]) -> Any:
        return self.engine.loss_step(parameters, batch, dict(zip(self.engine.weighed, betas, strict=True)))


def _numpy(tensor: Tensor) -> NDArray[Any]:
    # A copy: the tensor goes on changing while the array is kept.
    return np.array(tensor.detach().cpu().numpy())


def _to_numpy(record: Any) -> Any:
    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: convert(v) for name, v in value.items()}
        return None if value is None else value.cpu().numpy()

    values = {name: convert(getattr(record, name)) for name in DATA_FIELDS[type(record)]}
    return type(record)(**values, **({"how": record.how} if hasattr(record, "how") else {}))
