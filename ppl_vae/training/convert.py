"""Moves a finished run to the other backend."""

from pathlib import Path
from shutil import copyfile

from ppl_vae.errors import InputError
from ppl_vae.plugins import Backend
from ppl_vae.training.files import storage_errors
from ppl_vae.training.run import FINAL, Run
from ppl_vae.training.run_folder import RunFolder

__all__ = ["convert"]


def convert(path: str | Path, *, backend: Backend, out: str | Path | None = None) -> Run:
    """Write a run that holds the same parameters in the other backend.

    Args:
        path: Folder of a finished run of a variant.
        backend: The other backend.
        out: The new run folder; by default the old one's name and the backend.

    Returns:
        The new run: same data, settings, weights and result, the twin's model file.

    Raises:
        InputError: The run is unfinished, made from an object, or in that backend already.
    """
    source = RunFolder.open(path)
    record = source.record
    if record["model"]["backend"] == backend:
        raise InputError(
            f"backend must be the other one, but {path} is in {backend} already; use it as it is"
        )
    run = Run.open(path, backend=backend)
    arrays = run.engine.parameters()
    plugin = run.program.plugin
    changed = {**record, "model": run.program.record, "converted_from": str(source.path.resolve())}
    folder = RunFolder.create(out or source.path.with_name(f"{source.path.name}-{backend}"), changed)
    with folder.lock():
        if plugin is not None:
            with storage_errors("copy", plugin.path):
                copyfile(plugin.path, folder.path / plugin.path.name)
        meta = source.read_checkpoint(FINAL)[1]
        folder.write_checkpoint(FINAL, arrays, meta)
    return Run(folder, run.program, run.engine)
