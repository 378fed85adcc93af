"""Finds and loads the files of ``models/`` and ``inference/``, by name or by path.

A name is looked up in the checkout that the package lies in, then in the copies bundled with an installed
package. Files run under a flat module name of their own, so they never shadow each other.
"""

import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from ppl_vae.errors import InputError

__all__ = ["Backend", "Kind", "Plugin", "available", "build", "build_loss", "explain_missing", "find"]

Backend = Literal["pyro", "numpyro"]
Kind = Literal["models", "inference"]

_PACKAGE = Path(__file__).resolve().parent
_ENTRY = {"models": "build", "inference": "build_loss"}
_WORD = {"models": "variant", "inference": "loss"}
# What a backend imports, and under which name it is installed.
_MODULES = {
    "pyro": {"torch": "torch", "pyro": "pyro-ppl"},
    "numpyro": {name: name for name in ("jax", "jaxlib", "numpyro", "equinox", "optax")},
}


@dataclass(frozen=True)
class Plugin:
    """One file of a plug-in folder.

    Attributes:
        kind: Which folder it belongs to.
        name: Name without backend and suffix.
        backend: Its backend.
        path: The file.
    """

    kind: Kind
    name: str
    backend: Backend
    path: Path

    @property
    def sha256(self) -> str:
        """Digest of the file, in hex: a run records with which file it was made."""
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(
                f"{_WORD[self.kind]} must be a file that can be read, but {self.path} cannot "
                f"({error.strerror}); check the path and its permissions"
            ) from error

    def load(self) -> ModuleType:
        """Run the file.

        Returns:
            The module; it has ``build`` (models) or ``build_loss`` (inference).

        Raises:
            InputError: The file cannot be run, or lacks its entry point.
        """
        # The digest keeps an edited file from being served from an earlier load.
        module_name = f"ppl_vae_{self.kind}_{self.path.stem}_{self.sha256[:8]}"
        if module_name in sys.modules:
            return sys.modules[module_name]
        spec = importlib.util.spec_from_file_location(module_name, self.path)
        if spec is None or spec.loader is None:
            raise InputError(f"{_WORD[self.kind]} must be a Python file, but {self.path} is none; pass a .py file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            # Not by the loader, which would leave a __pycache__ in the user's folder and in each run folder.
            exec(compile(self.path.read_bytes(), str(self.path), "exec"), module.__dict__)
            self._check(module)
        except BaseException as error:
            del sys.modules[module_name]
            if isinstance(error, Exception) and not isinstance(error, InputError):
                raise self.explain(error, "run") from error
            raise
        return module

    def entry(self) -> Any:
        """The function ``build`` or ``build_loss`` of the file; errors as in ``load``."""
        return getattr(self.load(), _ENTRY[self.kind])

    def explain(self, error: Exception, what: str) -> InputError:
        """A user's error for what the file raised.

        Args:
            error: What was raised.
            what: What the file must do, as in "must run".
        """
        missing = explain_missing(error, self.backend)
        if missing is not None:
            return missing
        line = error.lineno if isinstance(error, SyntaxError) else self.line_of(error)
        where = "it" if line is None else f"line {line}"
        reason = (str(error).splitlines() or [""])[0]
        return InputError(
            f"{_WORD[self.kind]} {self.path} must {what}, but {where} raises {type(error).__name__}: {reason}; "
            "correct the file, or what it is given"
        )

    def line_of(self, error: BaseException) -> int | None:
        """Line of the file that an error passed through last, or None."""
        frames = traceback.extract_tb(error.__traceback__)
        own = self.path.resolve()
        return next((f.lineno for f in reversed(frames) if Path(f.filename).resolve() == own), None)

    def _check(self, module: ModuleType) -> None:
        if not inspect.isfunction(getattr(module, _ENTRY[self.kind], None)):
            raise InputError(
                f"{_WORD[self.kind]} {self.path} must define {_ENTRY[self.kind]}(...), but it does not; "
                "copy the function from a file of the suite"
            )


def explain_missing(error: Exception, backend: Backend) -> InputError | None:
    """A user's error where a package of the backend is not installed, otherwise None.

    Args:
        error: What was raised.
        backend: The backend that was imported.
    """
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing not in _MODULES[backend]:
        return None
    return InputError(
        f"backend {backend} needs the package {_MODULES[backend][missing]}, which is not installed; "
        "install ppl-vae with its dependencies, or choose the other --backend"
    )


def build(
    variant: str | Path, data_shape: tuple[int, ...], *, backend: Backend | None = None, **options: Any
) -> Any:
    """Build a variant's model and guide, for use with the stock ``SVI`` class.

    Args:
        variant: Name of a variant, or path of a model file.
        data_shape: Shape of one datum.
        backend: "pyro" or "numpyro"; None takes the file's, and "pyro" for a name.
        options: ``seed`` and the options of the variant's ``build``.

    Returns:
        An object with ``model(x, c=None, *, betas)`` and ``guide(x, c=None, *, betas)``.
    """
    return find("models", variant, backend).entry()(tuple(data_shape), **options)


def build_loss(loss: str | Path, *, backend: Backend | None = None, **options: Any) -> Any:
    """Build a loss, for use with the stock ``SVI`` class and any model and guide.

    Args:
        loss: Name of a loss, or path of a loss file.
        backend: "pyro" or "numpyro"; None takes the file's, and "pyro" for a name.
        options: Options of the loss's ``build_loss``.
    """
    return find("inference", loss, backend).entry()(**options)


def available(kind: Kind) -> list[Plugin]:
    """Files of a plug-in folder that have an entry point, sorted by name and backend.

    Args:
        kind: "models" or "inference".
    """
    found: dict[tuple[str, str], Plugin] = {}
    for folder in _folders(kind):
        for path in sorted(folder.glob("*.py")):
            name, backend = _split(path.stem)
            # A training program beside the losses has a main, and no entry point of a loss.
            if backend and f"def {_ENTRY[kind]}(" in path.read_text(encoding="utf-8", errors="replace"):
                found.setdefault((name, backend), Plugin(kind, name, backend, path))
    return [found[key] for key in sorted(found)]


def find(kind: Kind, name_or_path: str | Path, backend: Backend | None = None) -> Plugin:
    """Find a variant or a loss.

    Args:
        kind: "models" or "inference".
        name_or_path: A name such as "beta_vae", or the path of a file such as "./beta_vae_pyro.py".
        backend: "pyro" or "numpyro"; None takes what the file's name says, and "pyro" for a name.

    Raises:
        InputError: No such name or file, or the file belongs to the other backend.
    """
    if backend is not None and backend not in get_args(Backend):
        raise InputError(f"backend must be pyro or numpyro, but it is {backend!r}; choose one of the two")
    if _is_path(name_or_path):
        return _from_path(kind, Path(name_or_path), backend)
    plugins = available(kind)
    for plugin in plugins:
        if (plugin.name, plugin.backend) == (str(name_or_path), backend or "pyro"):
            return plugin
    names = sorted({plugin.name for plugin in plugins})
    if name_or_path in names:
        raise InputError(
            f"{_WORD[kind]} {name_or_path!r} has no {backend or 'pyro'} file; choose the other --backend"
        )
    close = get_close_matches(str(name_or_path), names, n=1)
    raise InputError(
        f"{_WORD[kind]} must be one of {', '.join(names)} or the path of a .py file, but it is "
        f"{str(name_or_path)!r}; {f'did you mean {close[0]}?' if close else 'choose one of them'}"
    )


def _from_path(kind: Kind, path: Path, backend: Backend | None) -> Plugin:
    # os.path, because pathlib raises at names that the file system refuses, such as one too long.
    if not os.path.isfile(path):
        raise InputError(f"{_WORD[kind]} must name a file that exists, but {path} does not; check the path")
    name, named = _split(path.stem)
    if named and backend and named != backend:
        raise InputError(
            f"backend must be the one of the file, but {path.name} is for {named} and --backend says {backend}; "
            "leave --backend out"
        )
    if not (named or backend):
        raise InputError(
            f"backend must be known, but {path.name} ends in neither _pyro.py nor _numpyro.py; pass --backend"
        )
    return Plugin(kind, name, named or backend, path.resolve())  # type: ignore[arg-type]


def _is_path(name_or_path: str | Path) -> bool:
    text = str(name_or_path)
    return isinstance(name_or_path, Path) or text.endswith(".py") or "/" in text or "\\" in text


def _split(stem: str) -> tuple[str, Any]:
    for backend in ("numpyro", "pyro"):
        if stem.endswith(f"_{backend}"):
            return stem.removesuffix(f"_{backend}"), backend
    return stem, None


def _folders(kind: Kind) -> list[Path]:
    checkout = _PACKAGE.parent
    folders = [checkout / kind] if (checkout / "pyproject.toml").is_file() else []
    return [f for f in (*folders, _PACKAGE / "_bundled" / kind) if f.is_dir()]
