"""Fits a variant at every point of a grid of betas, for several seeds."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ppl_vae.data import Conditioned, condition_of, load
from ppl_vae.data.checks import check_seed
from ppl_vae.errors import InputError
from ppl_vae.objective.split import check_betas
from ppl_vae.plugins import Backend, find
from ppl_vae.sweeps.folder import SweepFolder, new_sweep_path
from ppl_vae.sweeps.grid import Point, make_points, paths
from ppl_vae.sweeps.setup import Asked, Ready
from ppl_vae.sweeps.table import TABLE, row, write_table
from ppl_vae.training.arrangement import arrange
from ppl_vae.training.loss_options import ResolvedOptions
from ppl_vae.training.programs import Loss
from ppl_vae.training.records import num_cores
from ppl_vae.training.settings import FitSettings, settings_from

__all__ = ["DEFAULTS", "MAX_RUNS", "Report", "Sweep", "sweep"]

MAX_RUNS = 1000
# Settings with another default than in a single fit: log p(x) of more data would take longer than training.
DEFAULTS = {"log_px_data": 200}

# Called with what there is to say, and the share of the sweep that is done.
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Sweep:
    """A sweep that has ended.

    Attributes:
        path: Its folder.
        rows: The rows of its table, by point; see ``table.row``.
    """

    path: Path
    rows: list[dict[str, Any]]

    @property
    def table(self) -> Path:
        """The table as a file."""
        return self.path / TABLE


def sweep(
    program: str | Path,
    data: Any,
    *,
    beta: Any,
    seeds: int = 1,
    labels: Any = None,
    condition: Any = None,
    group: Any = None,
    max_members: int = 0,
    backend: Backend | None = None,
    loss: str | Path | None = None,
    base_loss: str | Path | None = None,
    loss_options: Mapping[str, Any] | None = None,
    base_options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    max_runs: int = MAX_RUNS,
    jobs: int = 0,
    runs_at_once: int = 0,
    warm_start: bool = False,
    products: bool = False,
    report: Report | None = None,
    **options: Any,
) -> Sweep:
    """Fit a variant at every point of a grid of betas, for several seeds.

    Each point is the run that ``fit`` makes of its betas and its seed: in Pyro that run itself, one in a process;
    in NumPyro the same but for rounding, for there the runs of a chunk take their steps together. The seed also
    decides the splits, so that runs of one seed share their data. A sweep that was cut off continues when it is
    asked for again with its folder as ``out``.

    Args:
        program: Name of a variant, or path of a model file.
        data: Data, as ``fit`` takes them.
        beta: By latent site what ``grid.read_axis`` takes, as ``{"z1": "0.1:10:log7", "z2": [0.5, 1]}``, with 1
            for sites that are not named; or one such thing, the same beta for all sites.
        seeds: Number of seeds; they count up from the setting ``seed``.
        labels: Class labels of an array, (n,).
        condition: As in ``fit``.
        group: As in ``fit``.
        max_members: As in ``fit``.
        backend: "pyro" or "numpyro"; None takes the file's, and "pyro" for a name.
        loss: Name or path of a loss; None takes the variant's default.
        base_loss: Loss that a wrapping loss wraps.
        loss_options: Options of ``build_loss`` by name; what a loss finds from the training data is found once,
            from those of the first seed.
        base_options: Options of the base loss's ``build_loss`` by name, found in the same way.
        out: Folder of the sweep, a new one or this sweep's; None makes a new one under ``sweeps/``.
        max_runs: Largest number of runs.
        jobs: Processes of a Pyro sweep; 0 takes one for each core.
        runs_at_once: Most runs of a NumPyro sweep that are trained together; 0 takes what fits in 2 GiB.
        warm_start: Let each run start from the parameters of the one before it on its path, see ``grid.paths``.
        products: Let each run write ``posterior.nc`` and ``overview.png`` too.
        report: Called as the sweep proceeds.
        options: Settings and options of the variant's ``build``, as ``fit`` takes them, but that ``log_px_data``
            is 200 by default.

    Returns:
        The sweep. Runs that met a number that is not finite have a row with the status "failed".

    Raises:
        InputError: An argument is wrong, or the folder holds another sweep.
        KeyboardInterrupt: The user interrupted; the message says how to continue.
    """
    _check(seeds=(seeds, 1), max_runs=(max_runs, 1), jobs=(jobs, 0), runs_at_once=(runs_at_once, 0))
    if targets := options.pop("target_rates", None):
        raise InputError(
            f"target_rates must be left out of a sweep, whose betas are those of its grid, but it is {targets}; "
            "ask fit for the rates, once for each seed, or sweep over betas and let advise name their rates"
        )
    program = _as_text(program, "program")
    condition = condition_of(data) if condition is None and isinstance(data, Conditioned) else condition
    arranged = {"condition": condition, "group": group, "max_members": max_members}
    dataset = arrange(load(data, labels=labels), find("models", program, backend), **arranged)
    chosen = {"loss": _as_text(loss, "loss"), "base_loss": _as_text(base_loss, "base_loss")}
    chosen |= {"loss_options": dict(loss_options or {}), "base_options": dict(base_options or {})}
    asked = _ask(options, program=program, dataset=dataset, backend=backend, **chosen)
    settings = asked.settings
    check_seed(settings.seed + seeds - 1)
    first = asked.ready(settings.seed)
    asked = _with_one_loss(asked, first.loss)
    points = make_points(
        beta, range(settings.seed, settings.seed + seeds), first.engine.latents, max_runs=max_runs
    )
    _check_betas(first, points)
    record = _record(first, points, seeds, warm_start=warm_start, products=products)
    folder = SweepFolder(Path(out or new_sweep_path(f"{first.program.name}-{first.program.backend}")))
    with folder.lock():
        folder.open_or_create(record)
        try:
            if first.program.backend == "pyro":
                runner: Any = _pyro_runner(folder, asked, jobs, products)
            else:
                runner = _numpyro_runner(folder, asked, first, points, runs_at_once, products)
            return _proceed(folder, points, runner, warm_start, report or (lambda text, share: None))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"continue the sweep by the same command with --out {folder.path}") from None


def _ask(options: Mapping[str, Any], **chosen: Any) -> Asked:
    """What is asked for, with options that are settings of the fits or the variant's own."""
    names, given = {field.name for field in fields(FitSettings)}, {**DEFAULTS, **options}
    return Asked(
        settings=settings_from({name: value for name, value in given.items() if name in names}),
        options={name: value for name, value in given.items() if name not in names},
        **chosen,
    )


def _with_one_loss(asked: Asked, loss: Loss) -> Asked:
    """What is asked for, with the loss that was built: the runs train side by side."""
    base = loss.record["base"] or {"options": {}}
    base_options = ResolvedOptions(base["options"], base.get("notes", ()))
    return replace(asked, loss_options=loss.options, base_options=base_options)


def _check(**values: tuple[Any, int]) -> None:
    for name, (value, least) in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} must be a whole number from {least} on, but it is {value!r}; change it")


def _check_betas(first: Ready, points: list[Point]) -> None:
    """What a single fit would refuse of its betas, before any run begins."""
    for point in points:
        schedules = first.schedules(point.betas)
        betas = {site: schedules[site] for site in point.betas}
        check_betas(first.loss.object.objective, first.engine.split, betas)


def _as_text(value: Any, name: str) -> Any:
    if value is None or isinstance(value, str | Path):
        return None if value is None else str(value)
    raise InputError(
        f"{name} must be a name or the path of a file in a sweep, which builds it anew for every run, but it is a "
        f"{type(value).__name__}; put it in a file"
    )


def _record(first: Ready, points: list[Point], seeds: int, *, warm_start: bool, products: bool) -> dict[str, Any]:
    """What makes the sweep this one and no other, and when and how it was begun."""
    model = {name: value for name, value in first.program.record.items() if name != "path"}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "num_runs": len(points),
        "betas": {site: sorted({point.betas[site] for point in points}) for site in points[0].betas},
        "seeds": seeds,
        "warm_start": warm_start,
        "products": products,
        "model": model,
        "loss": first.loss.record,
        "data": first.data.record,
        "settings": asdict(first.settings),
    }


def _pyro_runner(folder: SweepFolder, asked: Asked, jobs: int, products: bool) -> Any:
    from ppl_vae.sweeps.pyro_sweep import PyroSweep

    return PyroSweep(folder, asked, jobs=jobs or num_cores(), products=products)


def _numpyro_runner(
    folder: SweepFolder, asked: Asked, first: Ready, points: list[Point], runs_at_once: int, products: bool
) -> Any:
    from ppl_vae.sweeps.numpyro_sweep import NumPyroSweep

    return NumPyroSweep(folder, asked, first, points, runs_at_once=runs_at_once, products=products)


def _proceed(folder: SweepFolder, points: list[Point], runner: Any, warm_start: bool, report: Report) -> Sweep:
    rows = {point.name: row(point, folder.state(point)) for point in points}

    def done(point: Point) -> None:
        rows[point.name] = row(point, folder.state(point))
        write_table(folder.path / TABLE, list(rows.values()))

    def tell(in_progress: float) -> None:
        number = sum(r["status"] != "waiting" for r in rows.values())
        report(f"{number} of {len(points)} runs", (number + in_progress) / len(points))

    write_table(folder.path / TABLE, list(rows.values()))
    for stage in _stages(points, warm_start):
        left = [(point, before) for point, before in stage if rows[point.name]["status"] == "waiting"]
        finished = {
            point.name: [p for p in before if rows[p.name]["status"] == "finished"] for point, before in left
        }
        starts = {name: folder.run_path(before[-1]) for name, before in finished.items() if before}
        if left:
            tell(0.0)
            runner.run([point for point, _ in left], starts, done, tell)
    return Sweep(folder.path, list(rows.values()))


def _stages(points: list[Point], warm_start: bool) -> list[list[tuple[Point, list[Point]]]]:
    """Points that can be run at the same time, each with those of its path before it."""
    if not warm_start:
        return [[(point, []) for point in points]]
    found = paths(points)
    longest = max(map(len, found))
    return [[(path[n], path[:n]) for path in found if len(path) > n] for n in range(longest)]
