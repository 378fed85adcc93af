"""Moves a finished run to the other backend."""

from pathlib import Path
from shutil import copyfile

from ppl_vae.errors import InputError
from ppl_vae.files import storage_errors
from ppl_vae.plugins import Backend
from ppl_vae.training.reopen import FINAL, SPLITS_FILE, open_folder
from ppl_vae.training.run import Run
from ppl_vae.training.run_folder import RunFolder

__all__ = ["convert"]


def convert(path: str | Path, *, backend: Backend, out: str | Path | None = None) -> Run:
    """Write a run that holds the same parameters in the other backend.

    Args:
        path: Folder of a finished run of a variant.
        backend: The other backend.
        out: The new run folder; by default the old one's name and the backend.

    Returns:
        The new run, with the same data, settings, weights and result, the twin's model file.

    Raises:
        InputError: The run is unfinished, made from an object, or in that backend already.
    """
    source = open_folder(path)
    record = source.record
    if record["model"]["backend"] == backend:
        raise InputError(f"backend must be the other one, but {path} is in {backend} already; use it as it is")
    run = Run.open(path, backend=backend)
    plugin, place = run.program.plugin, source.path.resolve()
    files = [source.path / SPLITS_FILE, *([plugin.path] if plugin else [])]
    changed = {
        **record,
        "status": "being converted",
        "model": run.program.record,
        "converted_from": str(place),
    }
    beside = source.path if source.path.name not in ("", "..") else place
    folder = RunFolder.create(out or beside.with_name(f"{place.name}-{backend}"), changed)
    with folder.lock():
        for file in files:
            with storage_errors("copy", file):
                copyfile(file, folder.path / file.name)
        meta = source.read_checkpoint(FINAL)[1]
        folder.write_checkpoint(FINAL, run.engine.parameters(), meta)
        folder.update_record(status=record["status"])
    return Run(folder, run.program, run.engine)
