"""The folder of a sweep: ``sweep.json``, the table and the run folders of its points; one writer at a time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from ppl_vae.errors import InputError
from ppl_vae.files import TEMPORARY_PREFIX, storage_errors, strict_json, write_json
from ppl_vae.sweeps.grid import Point
from ppl_vae.training.run_folder import RunFolder

__all__ = ["FAULT", "SweepFolder", "new_sweep_path"]

# Entry of a run's record where its training met a number that is not finite.
FAULT = "fault"

SCHEMA_VERSION = 1
_RECORD, _RUNS, _LOCK = "sweep.json", "runs", ".lock"
# What a sweep may record otherwise when it continues.
_INCIDENTAL = ("schema_version", "created", "command", "data.name", "data.source", "settings.checkpoint_seconds")


@dataclass(frozen=True)
class SweepFolder:
    """One sweep on disk.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def record(self) -> dict[str, Any]:
        """What ``sweep.json`` holds; ``InputError`` if there is none, or it is damaged."""
        path = self.path / _RECORD
        with storage_errors("read the sweep", path):
            content = path.read_bytes()
        try:
            record = loads(content)
        except ValueError:
            record = None
        if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
            raise InputError(
                f"{path} must be a record of a sweep with schema_version {SCHEMA_VERSION}, but it is not; restore "
                "it, or choose another --out"
            )
        return record

    def run_path(self, point: Point) -> Path:
        """Run folder of a point."""
        return self.path / _RUNS / point.name

    def open_or_create(self, record: Mapping[str, Any]) -> bool:
        """Begin a sweep in a new or empty folder, or make sure that it is this one that the folder holds.

        Args:
            record: What was asked for.

        Returns:
            Whether the folder held the sweep already.

        Raises:
            InputError: The folder holds another sweep or other files, or cannot be written.
        """
        if (self.path / _RECORD).is_file():
            self._refuse_another(record)
            return True
        with storage_errors("create the sweep folder", self.path):
            names = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
            others = [name for name in names if name != _LOCK and not name.startswith(TEMPORARY_PREFIX)]
            if others:
                raise InputError(
                    f"out must name a new folder or that of a sweep, but {self.path} holds other files, such as "
                    f"{min(others)}; choose another --out"
                )
            self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / _RECORD, {**record, "schema_version": SCHEMA_VERSION})
        return False

    def _refuse_another(self, wanted: Mapping[str, Any]) -> None:
        old, new = _flat(self.record), _flat(loads(strict_json(wanted)))
        changed = [
            f"{name} {old.get(name)} there and {new.get(name)} here"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        if changed:
            more = f" and {len(changed) - 3} more differences" if len(changed) > 3 else ""
            raise InputError(
                f"out must be the folder of this sweep, or a new one, but {self.path} holds another sweep: "
                f"{', '.join(changed[:3])}{more}; choose another --out, or ask for that sweep"
            )

    @contextmanager
    def lock(self) -> Iterator[Self]:
        """Be the only writer of the sweep inside the block.

        Raises:
            InputError: Another process is.
        """
        with storage_errors("create the sweep folder", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / _LOCK)
        with storage_errors("lock", self.path):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise InputError(
                    f"a sweep must have one writer, but another process is writing {self.path}; wait until it "
                    "ends, or choose another --out"
                ) from None
        try:
            yield self
        finally:
            lock.release()

    def state(self, point: Point) -> dict[str, Any] | None:
        """Record of a point's run, or None before it began."""
        path = self.run_path(point)
        return RunFolder.open(path).record if (path / "run.json").is_file() else None

    def is_done(self, point: Point) -> bool:
        """Whether nothing is left to do for a point: its run is finished, or met a number that is not finite."""
        record = self.state(point)
        return record is not None and (record["status"] == "finished" or FAULT in record)


def new_sweep_path(name: str) -> Path:
    """A folder under ``sweeps/`` that does not exist.

    Args:
        name: Beginning of its name.
    """
    number = 1
    while (path := Path("sweeps") / f"{name}-{number}").exists():
        number += 1
    return path


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif prefix + key not in _INCIDENTAL:
            found[prefix + key] = value
    return found
