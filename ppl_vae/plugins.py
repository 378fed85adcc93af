"""Finds and loads the files of ``models/`` and ``inference/``, by name or by path.

A name is looked up in the checkout that the package lies in, then in the copies bundled with an installed
package. Files run under a flat module name of their own, so they never shadow each other. A file is whole: it
imports installed packages only, because a run keeps a copy and the digest of that one file.
"""

import ast
import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from ppl_vae.errors import InputError, remedy_for

__all__ = ["Backend", "Kind", "Plugin", "at_fault", "available", "build", "build_loss", "explain_missing", "find"]

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
# Under this name a file's module, and so each frame of its code, knows its plug-in.
_MARK = "__ppl_vae_plugin__"


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
        return hashlib.sha256(self.read()).hexdigest()

    def read(self) -> bytes:
        """Content of the file; ``InputError`` if it cannot be read."""
        try:
            return self.path.read_bytes()
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
        module.__dict__[_MARK] = self
        sys.modules[module_name] = module
        try:
            tree = ast.parse(self.read(), str(self.path))
            self._refuse_helpers(tree)
            # Not by the loader, which would leave a __pycache__ in the user's folder and in each run folder.
            exec(compile(tree, str(self.path), "exec"), module.__dict__)
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
        reason = (str(error).splitlines() or [""])[0].rstrip(":")
        return InputError(
            f"{_WORD[self.kind]} {self.path} must {what}, but {where} raises {type(error).__name__}: {reason}; "
            "correct the file, or what it is given"
        )

    def line_of(self, error: BaseException) -> int | None:
        """Line of the file that an error passed through last, or None."""
        frames = traceback.extract_tb(error.__traceback__)
        own = self.path.resolve()
        return next((f.lineno for f in reversed(frames) if Path(f.filename).resolve() == own), None)

    def located(self, error: InputError) -> InputError:
        """The same error with the lines of the file that it is about, where these are known.

        They are the line that the error passed through, or else those of the statements, such as
        ``sample("z", ...)``, whose name the message quotes.

        Args:
            error: What running the file's code raised.
        """
        line = self.line_of(error)
        lines = self._lines_about(str(error)) if line is None else [line]
        if not lines:
            return error
        word = "line" if len(lines) == 1 else "lines"
        return InputError(f"{error} ({self.path}, {word} {', '.join(map(str, lines))})")

    def _lines_about(self, message: str) -> list[int]:
        calls = [node for node in ast.walk(ast.parse(self.read())) if isinstance(node, ast.Call) and node.args]
        first = [(call.lineno, call.args[0]) for call in calls]
        named = [(n, a.value) for n, a in first if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        return sorted(n for n, name in named if repr(name) in message)

    def _refuse_helpers(self, tree: ast.Module) -> None:
        for line, name in _imports(tree):
            if self._is_beside(name):
                raise InputError(
                    f"{_WORD[self.kind]} {self.path} must be whole, for a run keeps a copy of this one file, but "
                    f"line {line} imports {name}, which lies beside it; move that code into the file, or "
                    "install it as a package"
                )

    def _is_beside(self, name: str) -> bool:
        helpers = [self.path.with_name(f"{name}.py"), self.path.with_name(name) / "__init__.py"]
        found = [str(helper) for helper in helpers if helper.is_file()]
        if name.startswith(".") or not found:
            return name.startswith(".")
        spec = importlib.util.find_spec(name)  # an installed module of that name is what would be imported
        return spec is None or spec.origin in found

    def _check(self, module: ModuleType) -> None:
        if not inspect.isfunction(getattr(module, _ENTRY[self.kind], None)):
            raise InputError(
                f"{_WORD[self.kind]} {self.path} must define {_ENTRY[self.kind]}(...), but it does not; "
                "copy the function from a file of the suite"
            )


def at_fault(error: BaseException) -> Plugin | None:
    """The plug-in through whose code an error passed last, or None.

    Args:
        error: What was raised.
    """
    frames = [frame.f_globals for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((names[_MARK] for names in reversed(frames) if _MARK in names), None)


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
    raise InputError(
        f"{_WORD[kind]} must be one of {', '.join(names)} or the path of a .py file, but it is "
        f"{str(name_or_path)!r}; {remedy_for(str(name_or_path), names, 'choose one of them')}"
    )


def _from_path(kind: Kind, path: Path, backend: Backend | None) -> Plugin:
    # os.path, because pathlib raises at names that the file system refuses, such as one too long.
    if not os.path.isfile(path):
        raise InputError(f"{_WORD[kind]} must name a file that exists, but {path} does not; check the path")
    name, named = _split(path.stem)
    if named and backend and named != backend:
        other, remedy = {
            "models": (f"--backend says {backend}", "leave --backend out"),
            "inference": (f"the model is in {backend}", f"pass --backend {named}, or a loss for {backend}"),
        }[kind]
        raise InputError(
            f"backend must be the one of the file, but {path.name} is for {named} and {other}; {remedy}"
        )
    if not (named or backend):
        raise InputError(
            f"backend must be known, but {path.name} ends in neither _pyro.py nor _numpyro.py; pass --backend"
        )
    return Plugin(kind, name, named or backend, path.resolve())  # type: ignore[arg-type]


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and top-level name of each import; relative ones begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            level, module = (node.level, node.module) if isinstance(node, ast.ImportFrom) else (0, None)
            for name in [module] if module else [alias.name for alias in node.names]:
                yield node.lineno, "." * level + name.partition(".")[0]


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
