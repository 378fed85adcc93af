"""Opens what a run folder holds: its record, its model from the kept copy of the file, its data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppl_vae.data import Splits, load
from ppl_vae.errors import InputError
from ppl_vae.files import read_arrays
from ppl_vae.plugins import Backend, Plugin
from ppl_vae.training.arrangement import arranged_again
from ppl_vae.training.prepared import SPLITS, Prepared, prepare
from ppl_vae.training.programs import Program, build_program, twin
from ppl_vae.training.run_folder import RunFolder
from ppl_vae.training.settings import settings_from

__all__ = ["FINAL", "SPLITS_FILE", "open_folder", "prepare_from_record", "rebuild_program", "recorded_plugin"]

# Checkpoint of the selected parameters, by the names that both backends share.
FINAL = "final"
SPLITS_FILE = "splits.safetensors"


def open_folder(path: str | Path) -> RunFolder:
    """Open the folder of a run that a fit wrote.

    Args:
        path: The run folder.

    Raises:
        InputError: It is no run folder, or its record is not that of a fit.
    """
    folder = RunFolder.open(path)
    missing = {"status", "model", "loss", "data", "settings", "betas", "versions"} - folder.record.keys()
    if missing:
        raise InputError(
            f"run must be a folder that `ppl-vae fit` wrote, but {folder.path}/run.json lacks "
            f"{', '.join(sorted(missing))}; pass another folder"
        )
    return folder


def rebuild_program(folder: RunFolder, *, backend: Backend | None = None, program: Any = None) -> Program:
    """Build a run's model again, from the copy of its file.

    Args:
        folder: The run folder.
        backend: Backend to build it in, or None for the run's own.
        program: The model object, for a run that was made from an object.
    """
    record = folder.record
    model, shape = record["model"], tuple(record["data"]["data_shape"])
    seed = record["settings"]["seed"]
    condition = record["data"].get("condition_shape")  # runs before version 0.2 have none
    condition_shape = None if condition is None else tuple(condition)
    if model["file"] is None:
        if program is None:
            raise InputError(
                f"program must be given, for {folder.path} was made from an object of class {model['name']}; "
                "open it in Python by Run.open(path, program=...)"
            )
        return build_program(
            program, shape, backend=model["backend"], options={}, seed=seed, condition_shape=condition_shape
        )
    plugin = recorded_plugin(folder, "models", model)
    if backend is not None:
        plugin = twin(plugin, backend, Path(model["path"]))
    return build_program(
        plugin, shape, backend=None, options=model["options"], seed=seed, condition_shape=condition_shape
    )


def recorded_plugin(folder: RunFolder, kind: Any, record: Mapping[str, Any]) -> Plugin:
    """The copy of a plug-in file that a run keeps.

    Args:
        folder: The run folder.
        kind: "models" or "inference".
        record: What the run recorded of it.

    Raises:
        InputError: The copy is missing or was changed.
    """
    backend = folder.record["model"]["backend"]
    plugin = Plugin(kind, record["name"], backend, folder.path / record["file"])
    if not plugin.path.is_file():
        raise InputError(f"{plugin.path} must exist, for the run was made with it, but it does not; restore it")
    if plugin.sha256 != record["sha256"]:
        raise InputError(
            f"{plugin.path} must be the file that the run was made with, but it was changed; restore it, "
            "or fit the changed file as a new run"
        )
    return plugin


def prepare_from_record(folder: RunFolder, data: Any = None) -> Prepared:
    """Load and prepare the data of a run again, in the splits that it was fitted with.

    Args:
        folder: The run folder.
        data: The data, where the record's source cannot be loaded.

    Raises:
        InputError: The source cannot be loaded, or holds other data than those fitted.
    """
    record = folder.record
    source = record["data"]["source"] if data is None else data
    if source is None:
        raise InputError(
            f"data must be given, for {folder.path} was made from an array; "
            "pass data=load(x, labels=...) to Run.open or resume in Python"
        )
    dataset = arranged_again(load(source), record["data"].get("arrangement", {}))
    if dataset.fingerprint != record["data"]["fingerprint"]:
        raise InputError(
            f"data must be those of the run, labels included, but {dataset.source} has other contents; restore "
            "the file, pass data=load(x, labels=...) in Python, or fit the new data as a new run"
        )
    splits = read_arrays(folder.path / SPLITS_FILE)[0]
    return prepare(
        dataset,
        settings_from(record["settings"]),
        record["model"]["options"],
        splits=Splits(**{name: splits[name] for name in SPLITS}),
    )
