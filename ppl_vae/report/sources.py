"""What a report is of: finished runs and sweeps, opened, with the answers that a diagnosis has left."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.questions.kept import FOLDER
from ppl_vae.diagnostics.questions.question import Verdict
from ppl_vae.diagnostics.sweep_metrics import SweepRuns, read_sweep
from ppl_vae.diagnostics.weights import inspect_draws, unit_means
from ppl_vae.errors import InputError
from ppl_vae.sweeps.folder import SweepFolder
from ppl_vae.training.prepared import evenly_spaced
from ppl_vae.training.run import Run

__all__ = ["RunSource", "SweepSource", "labels_of", "open_source"]

MAX_DATA = 500  # that rates and maps are measured on
MAX_RECORDS = 400  # of the training in a figure
NUM_DRAWS = 4  # of each datum, for rates


class RunSource:
    """A finished run, and what several sections read of it.

    Args:
        run: The run.
        label: What it is called on the page.
    """

    def __init__(self, run: Run, label: str) -> None:
        self.run, self.label, self.engine = run, label, run.engine

    @property
    def row(self) -> str:
        """What a row of its data is."""
        return "group" if self.engine.nested else "datum"

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """Records of the training, thinned out evenly to what a figure can show."""
        records = list(self.run.history())
        return [records[i] for i in evenly_spaced(len(records), MAX_RECORDS)]

    @cached_property
    def findings(self) -> dict[str, dict[str, Any]]:
        """Answers of ``ppl-vae diagnose`` by question; what cannot be read is left out."""
        found = {}
        for path in sorted((self.run.path / FOLDER).glob("*.json")):
            try:
                record = json.loads(path.read_bytes())
            except (OSError, ValueError):
                continue
            answer = record.get("answer") if isinstance(record, dict) else None
            if isinstance(answer, dict) and answer.get("verdict") in get_args(Verdict):
                found[path.stem] = answer
        return found

    def numbers(self, question: str) -> Mapping[str, Any]:
        """Numbers of an answer, or none."""
        numbers = self.findings.get(question, {}).get("numbers")
        return numbers if isinstance(numbers, Mapping) else {}

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Which test data are looked at."""
        return evenly_spaced(len(self.run.data.evaluated("test")), MAX_DATA)

    @cached_property
    def x(self) -> NDArray[Any]:
        """Test data that are looked at, (n, *data_shape)."""
        return self.run.data.split("test")[self.rows]

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """Their classes, (n,), or None."""
        labels = self.run.data.labels("test")
        return None if labels is None else labels[self.rows]

    def class_name(self, code: int) -> str:
        """Name of a class."""
        names = self.run.data.dataset.label_names
        return str(code) if names is None else names[code]

    @cached_property
    def inspected(self) -> dict[str, Any]:
        """Rates by site and log likelihood of the data, (s, n, ...), and how rates were computed."""
        fields = ("rates", "log_likelihood", "how")
        return inspect_draws(self.engine, self.x, fields, num_draws=NUM_DRAWS, seed=0)

    @cached_property
    def unit_rates(self) -> dict[str, NDArray[np.float64]]:
        """Rate of each unit by site, averaged over draws, (n, k)."""
        mean = {site: rate.mean(axis=0, dtype=np.float64) for site, rate in self.inspected["rates"].items()}
        return {site: np.reshape(mean[site], (len(self.x), -1)) for site in self.engine.latents}

    @cached_property
    def means(self) -> dict[str, NDArray[np.float64]]:
        """Posterior means by site, a column a unit; see ``weights.unit_means``."""
        return unit_means(self.engine, self.x)


class SweepSource:
    """A sweep.

    Args:
        path: Its folder.
        label: What it is called on the page.
    """

    def __init__(self, path: Path, label: str) -> None:
        self.label, self.path = label, path
        self.record: dict[str, Any] = SweepFolder(path).record
        self.runs: SweepRuns = read_sweep(path)


def open_source(path: str | Path | Run, label: str) -> RunSource | SweepSource:
    """Open a run or a sweep.

    Args:
        path: Its folder, or an open run.
        label: What it is called on the page.

    Raises:
        InputError: The folder holds neither, or a run that is not finished.
    """
    if isinstance(path, Run):
        return RunSource(path, label)
    folder = Path(path)
    if (folder / "sweep.json").is_file():
        return SweepSource(folder, label)
    return RunSource(Run.open(folder), label)


def labels_of(paths: Sequence[str | Path | Run]) -> list[str]:
    """Names of the folders, in full where two have the same.

    Args:
        paths: Folders or open runs.

    Raises:
        InputError: There are none, or one is named twice.
    """
    folders = [path.path if isinstance(path, Run) else Path(path) for path in paths]
    if not folders:
        raise InputError("runs must name one folder or more, but there is none; pass the folder of a run or sweep")
    resolved = Counter(folder.resolve() for folder in folders)
    if twice := [path for path, count in resolved.items() if count > 1]:
        raise InputError(f"runs must differ, but {twice[0]} is named twice; name it once")
    names = Counter(path.name for path in resolved)
    return [
        path.name if names[path.name] == 1 else str(folder) for path, folder in zip(resolved, folders, strict=True)
    ]
