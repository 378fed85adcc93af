"""Makes model, loss and engine from what a user or a run's record names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ppl_vae.errors import InputError
from ppl_vae.options import check_options, options_of
from ppl_vae.plugins import Backend, Plugin, find
from ppl_vae.training.engine import Device, Engine

__all__ = ["FIXED", "Loss", "Program", "build_loss", "build_program", "make_engine", "twin"]

# Parameters of ``build`` that follow from the data and the run.
FIXED = ("data_shape", "seed", "condition_shape")


@dataclass(frozen=True)
class Program:
    """A built model and guide, and where they come from.

    Attributes:
        object: Has ``model`` and ``guide``.
        backend: Its backend.
        name: Name of the variant, or of the object's class.
        plugin: The file, or None for an object.
        options: Every option of ``build`` with its value.
        default_loss: Loss that the variant names.
    """

    object: Any
    backend: Backend
    name: str
    plugin: Plugin | None
    options: Mapping[str, Any]
    default_loss: str

    @property
    def record(self) -> dict[str, Any]:
        """What a run keeps of it."""
        source = (
            {"file": self.plugin.path.name, "sha256": self.plugin.sha256} if self.plugin else {"file": None}
        )
        return {"name": self.name, "backend": self.backend, **source, "options": dict(self.options)}


@dataclass(frozen=True)
class Loss:
    """A built loss, and where it comes from.

    Attributes:
        object: The loss of the backend's library.
        name: Its name, or its class.
        plugins: Its file, then its base's; empty for an object.
        record: What a run keeps of it.
    """

    object: Any
    name: str
    plugins: tuple[Plugin, ...]
    record: Mapping[str, Any]


def build_program(
    program: Any,
    data_shape: tuple[int, ...],
    *,
    backend: Backend | None,
    options: Mapping[str, Any],
    seed: int,
) -> Program:
    """Build a variant, or take an object as it is.

    Args:
        program: Name of a variant, path of a model file, a ``Plugin``, or an object with ``model`` and ``guide``.
        data_shape: Shape of one datum.
        backend: Backend, or None to take the file's, or "pyro".
        options: Options of ``build`` by name.
        seed: Seed of the weights.

    Raises:
        InputError: The variant, the file or an option is wrong.
    """
    if not isinstance(program, (str, Path, Plugin)):
        return _from_object(program, backend, options)
    plugin = program if isinstance(program, Plugin) else find("models", program, backend)
    build = plugin.entry()
    declared = options_of(build, without=FIXED)
    values = {option.name: option.default for option in declared}
    values |= check_options(declared, options, f"variant {plugin.name}")
    built = build(tuple(data_shape), seed=seed, **values)
    _check_contract(built, str(plugin.path))
    default = getattr(plugin.load(), "DEFAULT_LOSS", "elbo")
    return Program(built, plugin.backend, plugin.name, plugin, values, default)


def _from_object(program: Any, backend: Backend | None, options: Mapping[str, Any]) -> Program:
    _check_contract(program, f"the object of class {type(program).__name__}")
    if options:
        raise InputError(
            f"options must be empty for an object that is built already, but they are {', '.join(options)}; "
            "pass them to its build"
        )
    name = type(program).__name__
    return Program(program, backend or _backend_of(program), name, None, {}, "elbo")


def _backend_of(program: Any) -> Backend:
    # Named by its base classes, so that finding out imports no backend.
    is_torch = any(cls.__module__.startswith("torch.nn") for cls in type(program).__mro__)
    return "pyro" if is_torch else "numpyro"


def _check_contract(program: Any, owner: str) -> None:
    for method in ("model", "guide"):
        if not callable(getattr(program, method, None)):
            raise InputError(
                f"{owner} must give an object with methods model and guide, but it has no {method}; "
                "add the method, with arguments (x, c=None, *, betas)"
            )


def build_loss(loss: Any, backend: Backend, options: Mapping[str, Any], *, base: Any = None) -> Loss:
    """Build a loss, or take an object as it is.

    Args:
        loss: Name of a loss, path of a loss file, a ``Plugin``, or a loss object of the backend's library.
        backend: Backend of the program.
        options: Options of ``build_loss`` by name.
        base: Name of the loss that is wrapped, where the loss wraps one.

    Raises:
        InputError: The loss, an option or the base is wrong.
    """
    if not isinstance(loss, (str, Path, Plugin)):
        name = type(loss).__name__
        return Loss(loss, name, (), {"name": name, "file": None, "options": {}, "base": None})
    plugin = loss if isinstance(loss, Plugin) else find("inference", loss, backend)
    entry = plugin.entry()
    declared = options_of(entry, without=("base",))
    values = {option.name: option.default for option in declared}
    values |= check_options(declared, options, f"loss {plugin.name}")
    record = {
        "name": plugin.name,
        "file": plugin.path.name,
        "sha256": plugin.sha256,
        "options": dict(values),
        "base": None,
    }
    if base is None:
        return Loss(entry(**values), plugin.name, (plugin,), record)
    if "base" not in entry.__kwdefaults__:
        raise InputError(
            f"base loss must go with a loss that wraps one, but {plugin.name} wraps none; leave --base-loss out"
        )
    inner = build_loss(base, backend, {})
    wrapped = entry(**values, base=inner.object)
    return Loss(wrapped, plugin.name, (plugin, *inner.plugins), {**record, "base": dict(inner.record)})


def make_engine(program: Program, data_shape: tuple[int, ...], *, seed: int, device: Device) -> Engine:
    """Engine of a program's backend.

    Args:
        program: What to train or inspect.
        data_shape: Shape of one datum.
        seed: Seed of the training noise.
        device: Where to run.
    """
    if program.backend == "pyro":
        from ppl_vae.training.pyro_engine import PyroEngine

        return PyroEngine(program.object, data_shape, seed=seed, device=device)
    from ppl_vae.training.numpyro_engine import NumPyroEngine

    return NumPyroEngine(program.object, data_shape, seed=seed, device=device)


def twin(plugin: Plugin, backend: Backend) -> Plugin:
    """The same variant's file for a backend: beside the file, or the suite's.

    Args:
        plugin: A model file.
        backend: The wanted backend.

    Raises:
        InputError: There is no such file.
    """
    if plugin.backend == backend:
        return plugin
    beside = plugin.path.with_name(f"{plugin.name}_{backend}.py")
    if beside.is_file():
        return replace(plugin, backend=backend, path=beside)
    return find("models", plugin.name, backend)
