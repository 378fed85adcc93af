"""What a run records of itself: model, loss, data, settings, environment, and copies of the files it needs."""

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ppl_vae.errors import InputError
from ppl_vae.files import storage_errors, write_arrays
from ppl_vae.plugins import Plugin
from ppl_vae.training.prepared import SPLITS, Prepared
from ppl_vae.training.programs import Loss, Program
from ppl_vae.training.reopen import SPLITS_FILE
from ppl_vae.training.run_folder import RunFolder
from ppl_vae.training.settings import FitSettings

__all__ = ["changed_environment", "check_files", "keep_files", "num_cores", "run_record"]

PACKAGES = ("ppl-vae", "torch", "pyro-ppl", "jax", "numpyro", "equinox", "optax", "numpy", "arviz")


def run_record(
    program: Program,
    loss: Loss,
    data: Prepared,
    settings: FitSettings,
    betas: Mapping[str, float],
    engine: Any,
) -> dict[str, Any]:
    """What a run records of itself when it begins.

    Args:
        program: The built model and guide.
        loss: The loss.
        data: The data of the fit.
        settings: Settings of the fit.
        betas: Final beta of each site.
        engine: Knows where it runs.
    """
    return {
        "status": "running",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "model": program.record,
        "loss": loss.record,
        "data": data.record,
        "settings": asdict(settings),
        "betas": dict(betas),
        "versions": _versions(),
        "python": sys.version.split()[0],
        "device": engine.device_name,
        "cores": num_cores(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def changed_environment(record: Mapping[str, Any]) -> list[str]:
    """A note on what differs from the environment that a run began in; none if nothing does.

    Args:
        record: The run's record.
    """
    # XLA and torch split sums by the number of cores.
    now = {**_versions(), "cores": num_cores()}
    recorded = {**record["versions"], "cores": record["cores"]}
    changed = [f"{name} {old} -> {now.get(name)}" for name, old in recorded.items() if now.get(name) != old]
    if not changed:
        return []
    return [f"continued in another environment, so not bit for bit an unbroken run: {', '.join(changed)}"]


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_files(program: Program, loss: Loss) -> None:
    """Refuse files of one name, for a run keeps a copy of each.

    Args:
        program: The built model and guide.
        loss: The loss.

    Raises:
        InputError: Two files have one name.
    """
    paths = [plugin.path for plugin in _plugins(program, loss)]
    for path in paths:
        if [other.name for other in paths].count(path.name) > 1:
            raise InputError(
                f"model and loss files must have different names, for a run keeps a copy of each, but two are "
                f"called {path.name}; rename one"
            )


def keep_files(folder: RunFolder, program: Program, loss: Loss, data: Prepared) -> None:
    """Copy model, loss and splits into the folder: the run stays whole when the user goes on editing a file.

    Args:
        folder: The run folder; its lock is held.
        program: The built model and guide.
        loss: The loss.
        data: The data of the fit.
    """
    for plugin in _plugins(program, loss):
        with storage_errors("copy", plugin.path):
            shutil.copyfile(plugin.path, folder.path / plugin.path.name)
    write_arrays(folder.path / SPLITS_FILE, {name: data.indices(name) for name in SPLITS}, {})


def _plugins(program: Program, loss: Loss) -> list[Plugin]:
    return [*loss.plugins, *([program.plugin] if program.plugin else [])]
