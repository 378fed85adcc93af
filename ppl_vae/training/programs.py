"""Makes model, loss and engine from what a user or a run's record names."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ppl_vae.errors import InputError
from ppl_vae.options import Option, check_options, options_of
from ppl_vae.plugins import Backend, Plugin, at_fault, available, explain_missing, find
from ppl_vae.training.engine import Device, Engine
from ppl_vae.training.loss_options import Configured, ResolvedOptions
from ppl_vae.training.settings import FitSettings

__all__ = [
    "FIXED",
    "Loss",
    "Program",
    "build_loss",
    "build_program",
    "data_plate_of",
    "make_engine",
    "program_errors",
    "takes_condition",
    "twin",
    "variant_options",
]

# Parameters of ``build`` that follow from the data and the run.
FIXED = ("data_shape", "seed", "condition_shape")
SETTINGS = tuple(field.name for field in fields(FitSettings))
# Names that mean something else in ``fit`` and in its command.
TAKEN = (
    *("program", "variant", "data", "labels", "backend", "loss", "base_loss", "loss_options", "loss_option"),
    *("base_options", "base_option"),
    *("beta", "target_rate", "target_rates", "out", "report", "products", "start", "init"),
    *("as_json", "json", "help"),
    *("condition", "group", "max_members", "seeds", "max_runs", "jobs", "runs_at_once", "warm_start"),
    *SETTINGS,
)


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
        condition_shape: Shape of the condition of one datum, or None for programs without one.
        data_plate: Name of the plate that a row of the data belongs to.
    """

    object: Any
    backend: Backend
    name: str
    plugin: Plugin | None
    options: Mapping[str, Any]
    default_loss: str
    condition_shape: tuple[int, ...] | None = None
    data_plate: str = "data"

    @property
    def record(self) -> dict[str, Any]:
        """What a run keeps of it."""
        plugin = self.plugin
        source = (
            {"file": plugin.path.name, "sha256": plugin.sha256, "path": str(plugin.path)}
            if plugin
            else {"file": None}
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
        notes: What a reader of the run should know of how its options, and its base's, were found.
    """

    object: Any
    name: str
    plugins: tuple[Plugin, ...]
    record: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def options(self) -> ResolvedOptions:
        """Every option of ``build_loss`` with its value, to build the loss again."""
        return ResolvedOptions(self.record["options"], self.record.get("notes", ()))


def build_program(
    program: Any,
    data_shape: tuple[int, ...],
    *,
    backend: Backend | None,
    options: Mapping[str, Any],
    seed: int,
    condition_shape: tuple[int, ...] | None = None,
) -> Program:
    """Build a variant, or take an object as it is.

    Args:
        program: Name of a variant, path of a model file, a ``Plugin``, or an object with ``model`` and ``guide``.
        data_shape: Shape of one datum.
        backend: Backend, or None to take the file's, or "pyro".
        options: Options of ``build`` by name.
        seed: Seed of the weights.
        condition_shape: Shape of the condition of one datum, or None for data without.

    Raises:
        InputError: The variant, the file or an option is wrong, or a condition is missing.
    """
    if not isinstance(program, (str, Path, Plugin)):
        return replace(_from_object(program, backend, options), condition_shape=condition_shape)
    plugin = program if isinstance(program, Plugin) else find("models", program, backend)
    declared = variant_options(plugin)
    values = {option.name: option.default for option in declared}
    values |= check_options(declared, options, f"variant {plugin.name}", elsewhere=SETTINGS)
    fixed: dict[str, Any] = {"seed": seed}
    if takes_condition(plugin):
        if condition_shape is None:
            raise InputError(
                f"variant {plugin.name} needs a condition for each datum, but the data have none; pass condition"
            )
        fixed["condition_shape"] = condition_shape
    with program_errors(plugin, "build with its options", locate=False):
        built = plugin.entry()(tuple(data_shape), **fixed, **values)
    _check_contract(built, str(plugin.path), plugin.backend)
    default = getattr(plugin.load(), "DEFAULT_LOSS", "elbo")
    return Program(
        *(built, plugin.backend, plugin.name, plugin, values, default),
        condition_shape=fixed.get("condition_shape"),
        data_plate=data_plate_of(plugin),
    )


def takes_condition(plugin: Plugin) -> bool:
    """Whether a variant's ``build`` takes the shape of a condition.

    Args:
        plugin: A model file.
    """
    return "condition_shape" in inspect.signature(plugin.entry()).parameters


def data_plate_of(plugin: Plugin) -> str:
    """Name of the plate that a row of the data belongs to: what the file says under ``DATA_PLATE``, or "data".

    Args:
        plugin: A model file.
    """
    return getattr(plugin.load(), "DATA_PLATE", "data")


def variant_options(plugin: Plugin) -> list[Option]:
    """Options of a variant.

    Args:
        plugin: A model file.

    Raises:
        InputError: ``build`` lacks a parameter that every variant has, or uses the name of a setting of the fit.
    """
    build = plugin.entry()
    missing = [name for name in ("data_shape", "seed") if name not in inspect.signature(build).parameters]
    if missing:
        raise InputError(
            f"build of {plugin.path} must take data_shape and seed, but it lacks {', '.join(missing)}; "
            "begin it with build(data_shape, *, seed=0, ...)"
        )
    declared = options_of(build, without=FIXED)
    for option in declared:
        if option.name in TAKEN:
            raise InputError(
                f"option {option.name} of {plugin.path} must have a name of its own, but fit has an argument "
                "of that name; rename it"
            )
    note = f"not described yet: add it to the Args of build in {plugin.path.name}"
    return [option if option.help else replace(option, help=note) for option in declared]


@contextmanager
def program_errors(plugin: Plugin | None, what: str, *, locate: bool = True) -> Iterator[None]:
    """Turn what a plug-in file raises inside the block into a user's error that names the line.

    A user's error gets the lines it is about; other errors that passed through no plug-in file stay as they are.

    Args:
        plugin: The model file, or None for an object.
        what: What the model file must do, for the message.
        locate: Whether a user's error is about the file; that of an option is not.
    """
    try:
        yield
    except InputError as error:
        owner = at_fault(error) or plugin
        if owner is None or not locate:
            raise
        raise owner.located(error) from error
    except Exception as error:
        owner = at_fault(error)
        if owner is None:
            raise
        raise owner.explain(error, what if owner == plugin else "run") from error


def _from_object(program: Any, backend: Backend | None, options: Mapping[str, Any]) -> Program:
    backend = backend or _backend_of(program)
    _check_contract(program, f"the object of class {type(program).__name__}", backend)
    if options:
        raise InputError(
            f"options must be settings of the fit for an object that is built already, but {', '.join(options)} "
            "are none; pass options of the model to its build"
        )
    return Program(program, backend, type(program).__name__, None, {}, "elbo")


def _backend_of(program: Any) -> Backend:
    # Named by its base classes, so that finding out imports no backend.
    is_torch = any(cls.__module__.startswith("torch.nn") for cls in type(program).__mro__)
    return "pyro" if is_torch else "numpyro"


def _check_contract(program: Any, owner: str, backend: Backend) -> None:
    for method in ("model", "guide"):
        function = getattr(program, method, None)
        try:
            inspect.signature(function).bind(None, betas={})  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{owner} must give an object with methods model and guide that take (x, c=None, *, betas), but "
                f"its {method} does not ({error}); add or correct the method"
            ) from None
    if backend == "pyro" and not hasattr(program, "named_parameters"):
        raise InputError(
            f"{owner} must give a torch module for the backend pyro, but it gives a {type(program).__name__}; "
            "make the class a subclass of torch.nn.Module"
        )


def build_loss(
    loss: Any,
    backend: Backend,
    options: Mapping[str, Any],
    *,
    base: Any = None,
    data_plate: str = "data",
    binarise: str = "none",
) -> Loss:
    """Build a loss, or take an object as it is.

    Args:
        loss: Name of a loss, path of a loss file, a ``Plugin``, or a loss object of the backend's library.
        backend: Backend of the program.
        options: Options of ``build_loss`` by name.
        base: Name of the loss that is wrapped, where the loss wraps one; with options of its own a ``Configured``.
        data_plate: Plate that terms are per element of, for losses with that option; ``options`` come first.
        binarise: How a fit binarises its data, for losses with that option, which then do so themselves.

    Raises:
        InputError: The loss, an option or the base is wrong.
    """
    if not isinstance(loss, (str, Path, Plugin)):
        return _loss_from_object(loss, backend, {**options, **({} if base is None else {"base": base})})
    plugin = loss if isinstance(loss, Plugin) else find("inference", loss, backend)
    entry = plugin.entry()
    declared = options_of(entry, without=("base",))
    values = {option.name: option.default for option in declared}
    if data_plate != "data" and "data_plate" in values:
        values["data_plate"] = data_plate
    if "binarise" in values:
        values["binarise"] = binarise
    values |= check_options(declared, options, f"loss {plugin.name}")
    wraps = inspect.signature(entry).parameters.get("base")
    notes = options.notes if isinstance(options, ResolvedOptions) else ()
    record = {
        "name": plugin.name,
        "file": plugin.path.name,
        "sha256": plugin.sha256,
        "options": dict(values),
        "base": None,
        **({"notes": list(notes)} if notes else {}),
    }
    if base is None:
        if wraps and wraps.default is inspect.Parameter.empty:
            raise InputError(f"loss {plugin.name} wraps another one, but none is named; pass --base-loss")
        with program_errors(plugin, "build with its options", locate=False):
            built = entry(**values)
        _checked_loss(built, backend, f"{plugin.path} must build")
        return Loss(built, plugin.name, (plugin,), record, notes)
    if not wraps:
        raise InputError(
            f"base loss must go with a loss that wraps one, but {plugin.name} wraps none; leave --base-loss out"
        )
    if not isinstance(base, (str, Path, Plugin)):
        raise InputError(
            f"base loss must be a name or a path, but it is a {type(base).__name__}; wrap the object in the loss "
            "yourself and pass that as loss"
        )
    inner = build_loss(base, backend, base.options if isinstance(base, Configured) else {}, data_plate=data_plate)
    with program_errors(plugin, "build with its options", locate=False):
        wrapped = entry(**values, base=inner.object)
    _checked_loss(wrapped, backend, f"{plugin.path} must build")
    record |= {"base": dict(inner.record)}
    return Loss(wrapped, plugin.name, (plugin, *inner.plugins), record, (*notes, *inner.notes))


def _loss_from_object(loss: Any, backend: Backend, options: Mapping[str, Any]) -> Loss:
    name = type(loss).__name__
    if options:
        raise InputError(
            f"loss options and base loss must be left out for a loss that is built already, but they are "
            f"{', '.join(options)}; pass them to its build_loss"
        )
    _checked_loss(loss, backend, "loss must be a name, a path or")
    return Loss(loss, name, (), {"name": name, "file": None, "options": {}, "base": None})


def _checked_loss(loss: Any, backend: Backend, rule: str) -> Any:
    if backend == "pyro":
        from ppl_vae.objective.pyro_program import PyroLoss as Wanted
    else:
        from ppl_vae.objective.numpyro_program import NumPyroLoss as Wanted
    if not isinstance(loss, Wanted):
        raise InputError(
            f"{rule} a {Wanted.__name__}, which reports its terms, but it is a {type(loss).__name__}; "
            "wrap your objective in that class"
        )
    return loss


def make_engine(program: Program, data_shape: tuple[int, ...], *, seed: int, device: Device) -> Engine:
    """Engine of a program's backend.

    Args:
        program: What to train or inspect.
        data_shape: Shape of one datum.
        seed: Seed of the training noise.
        device: Where to run.
    """
    try:
        engine: Any
        if program.backend == "pyro":
            from ppl_vae.training.pyro_engine import PyroEngine as engine  # noqa: N813
        else:
            from ppl_vae.training.numpyro_engine import NumPyroEngine as engine  # noqa: N813
    except ModuleNotFoundError as error:
        raise explain_missing(error, program.backend) or error from error
    with program_errors(program.plugin, "run on data of this shape"):
        shape = program.condition_shape
        return engine(program.object, data_shape, seed=seed, device=device, condition_shape=shape)


def twin(plugin: Plugin, backend: Backend, original: Path) -> Plugin:
    """The same variant's file for a backend: beside the original file, or the suite's for a file of the suite.

    Args:
        plugin: A model file, maybe a run's copy.
        backend: The wanted backend.
        original: Where that file came from.

    Raises:
        InputError: There is no such file.
    """
    if plugin.backend == backend:
        return plugin
    beside = original.with_name(f"{plugin.name}_{backend}.py")
    if beside.is_file():
        return replace(plugin, backend=backend, path=beside)
    suite = [p.sha256 for p in available("models") if (p.name, p.backend) == (plugin.name, plugin.backend)]
    if plugin.sha256 not in suite:
        raise InputError(
            f"variant {plugin.name} must have a file for {backend}, but it was fitted with a file of your own "
            f"and {beside} does not exist; put its twin there"
        )
    return find("models", plugin.name, backend)
