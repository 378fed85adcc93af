"""The runs of a sweep as one table, with what has to be measured on each; rates and scores in nats.

A sweep folder holds ``table.csv``, a row a run. What a use needs beyond it is measured once, by opening the runs,
and kept beside it in ``metrics.csv``.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from ppl_vae.errors import InputError
from ppl_vae.files import storage_errors, strict_json, write_atomically

__all__ = ["USES", "RunReader", "SweepRuns", "Use", "add_metric", "measure_runs", "read_sweep"]

Use = Literal["reconstruction", "classification", "generation"]
USES = get_args(Use)
TABLE, METRICS = "table.csv", "metrics.csv"
SCORED_IMAGES = 1000
TERM = "site_term_"
PROBE = "RBF SVM"

Report = Callable[[str], object]


@dataclass(frozen=True, eq=False)
class SweepRuns:
    """The finished runs of a sweep.

    Attributes:
        path: The sweep's folder.
        sites: Latent sites, the top one first.
        site_terms: Sites with a site term, in the columns ``rate_<site>`` too, which is no rate.
        table: A row a run: ``run``, ``seed``, ``beta_<site>``, ``rate_<site>``, ``total_rate``, ``distortion``,
            and any metrics.
        num_left_out: Rows that are not finished, or whose rates are not finite.
    """

    path: Path
    sites: list[str]
    table: pd.DataFrame
    num_left_out: int
    site_terms: frozenset[str] = frozenset()

    @property
    def row(self) -> str:
        """What rates are nats of: a "datum", or a "group" where a row of the data is one."""
        return "group" if "members" in self.table.columns else "datum"


def read_sweep(path: str | Path, *, split: str = "test") -> SweepRuns:
    """Read the finished runs of a sweep.

    Args:
        path: The sweep's folder, with ``table.csv``: columns ``beta_<site>``, ``rate_<site>_<split>`` and
            ``distortion_<split>``, and where there are any ``run``, ``seed``, ``status`` and further metrics.
        split: The part of the data that rates and distortion are of.

    Raises:
        InputError: No such table, columns that are missing, or no finished run.
    """
    folder = Path(path)
    table = _read_table(folder)
    terms = [str(name) for name in table.columns if str(name).startswith(TERM)]
    table = table.rename(columns={name: f"rate_{name.removeprefix(TERM)}" for name in terms})
    site_terms = frozenset(name.removeprefix(TERM).removesuffix(f"_{split}") for name in terms)
    found = [re.fullmatch(rf"rate_(\w+)_{split}", str(name)) for name in table.columns]
    sites = _top_first([match[1] for match in found if match])
    needed = [f"beta_{site}" for site in sites] + [f"distortion_{split}"]
    missing = [name for name in needed if name not in table.columns] if sites else [f"rate_<site>_{split}"]
    if missing:
        raise InputError(
            f"{folder / TABLE} must have the column {missing[0]}, but it has "
            f"{', '.join(map(str, table.columns))}; pass the folder of a sweep"
        )
    suffix = f"_{split}"
    table = table.rename(columns={name: str(name).removesuffix(suffix) for name in table.columns})
    rates = [f"rate_{site}" for site in sites]
    keep = table[[*rates, "distortion"]].apply(pd.to_numeric, errors="coerce").notna().all(axis=1)
    if "status" in table.columns:
        keep &= table["status"] == "finished"
    if not keep.any():
        raise InputError(
            f"the sweep must have a finished run, but none of {len(table)} in {folder} is; continue it"
        )
    kept = table[keep].reset_index(drop=True)
    kept["total_rate"] = kept[rates].sum(axis=1)
    if "seed" not in kept.columns:
        kept["seed"] = 0
    return SweepRuns(folder, sites, kept, int((~keep).sum()), site_terms & set(sites))


def add_metric(sweep: SweepRuns, use: Use, *, site: str, report: Report | None = None) -> tuple[SweepRuns, str]:
    """The sweep with the column that a use is judged by.

    Reconstruction: ``distortion``, of the table. Classification: ``accuracy_<site>``, of an RBF SVM on samples of
    the site. Generation: ``log_score`` of generated images through the classifier of the data, in nats.

    Args:
        sweep: Runs.
        use: What the codes or images are for.
        site: The site that a classifier is to read.
        report: Gets a line for each run that is measured.

    Returns:
        The sweep, and the column's name.

    Raises:
        InputError: A run cannot be opened, or its data have no labels or are no images, as the use needs.
    """
    name = {"reconstruction": "distortion", "classification": f"accuracy_{site}", "generation": "log_score"}[use]
    if name in sweep.table.columns and sweep.table[name].notna().all():
        return sweep, name
    measure = _probe_run if use == "classification" else _score_run
    return measure_runs(sweep, [name], measure, report=report), name


def measure_runs(
    sweep: SweepRuns,
    names: Sequence[str],
    measure: Callable[[Any], Mapping[str, float]],
    *,
    data: Any = None,
    cache_name: str = METRICS,
    report: Report | None = None,
) -> SweepRuns:
    """The sweep with columns that are measured on its runs, or were before and are in the cache.

    Args:
        sweep: Runs.
        names: Columns to add.
        measure: Gives the numbers of a ``Run`` by column: of these columns, and of others that are worth keeping.
        data: The data, where they cannot be loaded by the name that the runs recorded.
        cache_name: File in the sweep's folder that keeps the numbers; one for each way of measuring.
        report: Gets a line for each run that is measured.

    Raises:
        InputError: The table does not name the runs' folders, or a run cannot be opened.
    """
    if "run" not in sweep.table.columns:
        raise InputError(
            f"{names[0]} must be measured on the runs, but {sweep.path / TABLE} has no column run that names "
            f"their folders; add a column {names[0]}"
        )
    path = sweep.path / cache_name
    cache, reader, values = _read_cache(path), RunReader(data), []
    for number, run in enumerate(sweep.table["run"].astype(str)):
        folder = sweep.path / run
        known = cache.setdefault(run, {})
        fingerprint = _fingerprint(folder)
        if known.get("record") != fingerprint:
            known.clear()
            known["record"] = fingerprint
        if any(pd.isna(known.get(name)) for name in names):
            if report is not None:
                what = names[0] if len(names) == 1 else f"{len(names)} columns"
                report(f"measuring {what} of {run} ({number + 1} of {len(sweep.table)})")
            known |= measure(reader.open(folder))
            _write_cache(path, cache)
        values.append([float(known[name]) for name in names])
    columns = pd.DataFrame(values, columns=list(names), index=sweep.table.index)
    table = sweep.table.drop(columns=list(names), errors="ignore").join(columns)
    return replace(sweep, table=table)


class RunReader:
    """Opens runs one after the other; those of one model share an engine, which compiles once.

    Only the run that was opened last may be used.

    Args:
        data: The data, where they cannot be loaded by the name that the runs recorded.
    """

    def __init__(self, data: Any = None) -> None:
        self.data = data
        self.opened: dict[str, Any] = {}
        self.prepared: dict[tuple[str, int], Any] = {}

    def open(self, path: Path) -> Any:
        """The ``Run`` of a folder, with its parameters in the shared engine.

        Args:
            path: The run folder.

        Raises:
            InputError: As of ``Run.open``.
        """
        from ppl_vae.training.reopen import FINAL, open_folder, prepare_from_record
        from ppl_vae.training.run import Run

        folder = open_folder(path)
        common = strict_json([folder.record["model"], folder.record["data"]])
        if common in self.opened:
            self.opened[common].engine.load_parameters(folder.read_checkpoint(FINAL)[0])
        else:
            self.opened[common] = Run.open(path, data=self.data)
        like, seed = self.opened[common], folder.record["settings"]["seed"]
        # The seed decides the splits.
        if (common, seed) not in self.prepared:
            self.prepared[common, seed] = prepare_from_record(folder, like.data.dataset)
        return Run(folder, like.program, like.engine, self.prepared[common, seed])


def _probe_run(run: Any) -> dict[str, float]:
    from ppl_vae.diagnostics.layers import probe_layers

    labels, train_labels = run.data.labels("test"), run.data.labels("train")
    found = probe_layers(run.engine, run.data.split("test"), labels, run.data.split("train"), train_labels)
    if isinstance(found, str):
        raise InputError(
            f"data must have labels that probes can read, but of {run.path} {found}; use another --use"
        )
    by_site = {f"accuracy_{site}": accuracies[PROBE].value for site, accuracies in found.on_samples.items()}
    means = {f"accuracy_means_{site}": accuracies[PROBE].value for site, accuracies in found.on_means.items()}
    return by_site | means


def _score_run(run: Any) -> dict[str, float]:
    found = {images.name: images for images in run.score(num_draws=SCORED_IMAGES).sets}["generated"]
    parts = ("log_score", "diversity", "sharpness")
    return {part: getattr(found, part).value for part in parts} | {
        "frechet_distance": found.frechet_distance.value
    }


def _read_table(folder: Path) -> pd.DataFrame:
    path = folder / TABLE
    with storage_errors("read", path):
        if not path.is_file():
            raise InputError(
                f"sweep must be a folder with {TABLE}, but {folder} has none; pass one that a sweep wrote"
            )
        try:
            return pd.read_csv(path)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} must be a table of comma-separated values, but {error}; restore it"
            ) from None


def _top_first(sites: list[str]) -> list[str]:
    """Sites z1 to zL by falling level; other names as they come."""
    if all(re.fullmatch(r"z\d+", site) for site in sites):
        return sorted(sites, key=lambda site: -int(site[1:]))
    return sites


def _fingerprint(folder: Path) -> str:
    path = folder / "run.json"
    with storage_errors("read", path):
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _read_cache(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    try:
        rows = pd.read_csv(path, dtype={"run": str, "record": str}).to_dict("records")
        return {row.pop("run"): row for row in rows}
    except (ValueError, KeyError):
        return {}  # what is damaged is measured again


def _write_cache(path: Path, cache: dict[str, dict[str, Any]]) -> None:
    rows = pd.DataFrame([{"run": run, **row} for run, row in cache.items()])
    write_atomically(path, lambda temporary: rows.to_csv(temporary, index=False))
