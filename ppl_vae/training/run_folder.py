"""The folder of one run: its record, its metrics and its checkpoints, with one writer at a time.

``run.json`` says what was run, ``metrics.jsonl`` holds one JSON object a line, and each
``checkpoint-<name>.safetensors`` holds arrays. Nothing here knows a model or a backend: arrays are NumPy.
Whoever writes holds `RunFolder.lock`.
"""

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ppl_vae.errors import InputError
from ppl_vae.files import (
    TEMPORARY_PREFIX,
    read_arrays,
    read_meta,
    storage_errors,
    strict_json,
    write_arrays,
    write_bytes,
    write_json,
)

__all__ = ["SCHEMA_VERSION", "RunFolder", "checkpoint_name"]

SCHEMA_VERSION = 1
_RECORD, _METRICS, _LOCK = "run.json", "metrics.jsonl", ".lock"


def checkpoint_name(step: int) -> str:
    """Name of the checkpoint after ``step`` steps: the number, padded so that listings sort.

    Example:
        >>> checkpoint_name(120)
        '000120'
    """
    return f"{step:06d}"


@dataclass(frozen=True)
class RunFolder:
    """One run on disk; make it by `create` or `open`, not directly.

    Args:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path, record: Mapping[str, Any]) -> Self:
        """Start a run in a new or empty folder.

        Args:
            path: The folder; it and its parents are made.
            record: What to keep about the run, as `strict_json` takes it; ``schema_version`` is added.

        Returns:
            The run, unlocked.

        Raises:
            InputError: The path is a file, holds a run or other files, cannot be written, or another process
                is starting a run there.
        """
        folder = cls(Path(path))
        _refuse_occupied(folder.path)
        with storage_errors("create the run folder", folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
        with folder.lock():
            _refuse_occupied(folder.path)  # again: another process may have been faster
            folder._write_record(record)
        return folder

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run that `create` made.

        Args:
            path: The folder.

        Returns:
            The run, unlocked.

        Raises:
            InputError: The folder is missing or no run, or its record is damaged or of another version.
        """
        folder = cls(Path(path))
        remedy = "pass a folder that `ppl-vae fit` wrote"
        with storage_errors("read", folder.path):
            if not folder.path.is_dir():
                state = "is a file" if folder.path.exists() else "does not exist"
                raise InputError(f"run must be the folder of a run, but {path} {state}; {remedy}")
            if not (folder.path / _RECORD).is_file():
                raise InputError(f"run must be a folder with {_RECORD}, but {path} has none; {remedy}")
        _ = folder.record
        return folder

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.json`` holds now; raises `InputError` if it is damaged or of another schema version."""
        path = self.path / _RECORD
        with storage_errors("read", path):
            content = path.read_bytes()
        try:
            record = json.loads(content)
        except ValueError as error:
            raise InputError(
                f"{path} must be valid JSON, but it is damaged ({error}); copy the folder again, "
                "or start a new run"
            ) from error
        if not isinstance(record, dict):
            raise InputError(f"{path} must hold a JSON object, but it holds {record!r}; start a new run")
        version = record.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path} must have the schema_version that this ppl-vae knows, {SCHEMA_VERSION}, but it has "
                f"{version}; use the ppl-vae that wrote it"
            )
        return record

    def update_record(self, **changes: Any) -> None:
        """Set entries of ``run.json``, atomically; the schema version stays."""
        self._write_record({**self.record, **changes})

    def _write_record(self, record: Mapping[str, Any]) -> None:
        write_json(self.path / _RECORD, {**record, "schema_version": SCHEMA_VERSION})

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer of this run inside the block; the lock ends with the process, however it ends.

        Raises:
            InputError: Another process holds the lock, or its file cannot be written.
        """
        lock = FileLock(self.path / _LOCK)
        with storage_errors("lock", self.path):
            try:
                lock.acquire(blocking=False)
            except Timeout as error:
                raise InputError(
                    f"a run must have one writer, but another process is writing this run ({self.path}); "
                    "wait until it ends, or choose another --out"
                ) from error
        try:
            self._remove_leftovers()
            yield
        finally:
            lock.release()

    def _remove_leftovers(self) -> None:
        """Remove the half-written checkpoints that a killed writer left behind."""
        for leftover in self.path.glob(f"{TEMPORARY_PREFIX}*-checkpoint-*"):
            with storage_errors("remove", leftover):
                leftover.unlink()

    def append_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add records to ``metrics.jsonl``, all or none, and bring them to the disk.

        A torn last line, left by a killed writer, is dropped.

        Args:
            records: Each becomes one line by `strict_json`: a NaN is read back as None.

        Raises:
            InputError: The operating system refused; the records before are untouched.
        """
        data = "".join(f"{strict_json(record)}\n" for record in records).encode()
        path = self.path / _METRICS
        # Unbuffered: a buffer that could not be written would be written again when the file closes.
        with storage_errors("write", path), FileIO(path, "a+") as file:
            length = _whole_length(file)
            try:
                file.truncate(length)
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(length)
                raise

    def read_metrics(self) -> Iterator[dict[str, Any]]:
        """The records of ``metrics.jsonl`` in order; none if there is no such file.

        Yields:
            One dict a record. A last line without its newline is torn, and left out.

        Raises:
            InputError: Another line is damaged; the message names its number, counted from 1.
        """
        path = self.path / _METRICS
        for number, line in enumerate(self._metric_lines(), start=1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise InputError(
                    f"{path} must hold one JSON object a line, but line {number} is damaged; "
                    "restore that line, or resume from a checkpoint before it"
                )
            yield record

    def truncate_metrics(self, num_lines: int) -> None:
        """Keep the first ``num_lines`` records of ``metrics.jsonl``, atomically.

        Args:
            num_lines: How many to keep, from 0 to as many as there are.

        Raises:
            InputError: There are fewer, ``num_lines`` is negative, or the operating system refused.
        """
        path = self.path / _METRICS
        if num_lines < 0:
            raise InputError(f"num_lines must be 0 or more, but it is {num_lines}; pass how many records to keep")
        kept = list(itertools.islice(self._metric_lines(), num_lines))
        if len(kept) < num_lines:
            raise InputError(
                f"num_lines must not exceed the records of {path}, but it is {num_lines} and there are "
                f"{len(kept)}; resume from an older checkpoint"
            )
        write_bytes(path, b"".join(kept))

    def _metric_lines(self) -> Iterator[bytes]:
        path = self.path / _METRICS
        if not path.exists():
            return
        with storage_errors("read", path), path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))

    def write_checkpoint(self, name: str, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
        """Write ``checkpoint-<name>.safetensors``, atomically.

        Args:
            name: Letters, digits, dots, dashes and underscores; `checkpoint_name` for a step.
            arrays: Arrays by name, as `write_arrays` takes them.
            meta: Small values that JSON holds, as `write_arrays` takes them.

        Raises:
            InputError: A name, a dtype or a write was refused.
        """
        write_arrays(self._checkpoint_path(name), arrays, meta)

    def read_checkpoint(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and meta of a checkpoint.

        Args:
            name: As `checkpoints` lists it.

        Returns:
            Writable arrays by name, and the meta.

        Raises:
            InputError: It is missing, truncated, or not written by ppl-vae.
        """
        return read_arrays(self._existing_checkpoint(name))

    def remove_checkpoint(self, name: str) -> None:
        """Remove a checkpoint; `InputError` if it is missing or the operating system refuses."""
        path = self._existing_checkpoint(name)
        with storage_errors("remove", path):
            path.unlink()

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints, whole or damaged: the numeric ones by step, then the others by name."""
        names = (path.stem.removeprefix("checkpoint-") for path in self.path.glob("checkpoint-*.safetensors"))
        return sorted(names, key=lambda name: (0, int(name), name) if _is_numeric(name) else (1, 0, name))

    def latest_checkpoint(self) -> str | None:
        """Name of the newest numeric checkpoint that can be read.

        Returns:
            The name; a damaged newer one is passed over, which a caller sees by comparing with `checkpoints`.
            None if no numeric one can be read.
        """
        for name in reversed([name for name in self.checkpoints() if _is_numeric(name)]):
            try:
                read_meta(self._checkpoint_path(name))
            except InputError:
                continue
            return name
        return None

    def _checkpoint_path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise InputError(
                "checkpoint names must consist of letters, digits, dots, dashes and underscores, "
                f"but {name!r} does not; rename it"
            )
        return self.path / f"checkpoint-{name}.safetensors"

    def _existing_checkpoint(self, name: str) -> Path:
        path = self._checkpoint_path(name)
        if not path.is_file():
            there = ", ".join(self.checkpoints()) or "none"
            raise InputError(
                f"checkpoint must be one of this run's, but {path} does not exist; choose from: {there}"
            )
        return path


def _is_numeric(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _refuse_occupied(path: Path) -> None:
    """Raise `InputError` unless ``path`` is free or a folder with nothing of the user's."""
    with storage_errors("read", path):
        if not path.exists():
            return
        if not path.is_dir():
            raise InputError(f"out must name a folder, but {path} is a file; choose another --out")
        # What a run that was killed while it began leaves behind does not count.
        names = [name for name in os.listdir(path) if name != _LOCK and not name.startswith(TEMPORARY_PREFIX)]
    if _RECORD in names:
        raise InputError(
            f"out must name a new or empty folder, but {path} holds a run already; choose another --out, "
            f"or continue that run by `ppl-vae resume {path}`"
        )
    if names:
        raise InputError(
            f"out must name a new or empty folder, but {path} holds other files, such as {min(names)}; "
            "choose another --out"
        )


def _whole_length(file: FileIO) -> int:
    """Length in bytes up to the last newline."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - 1, 0))
    if file.read(1) in (b"", b"\n"):
        return end
    file.seek(0)
    return file.readall().rfind(b"\n") + 1
