"""Runs the points of a sweep in Pyro: single fits in processes, one thread each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from joblib import Parallel, delayed

from ppl_vae.sweeps.folder import FAULT, SweepFolder
from ppl_vae.sweeps.grid import Point
from ppl_vae.sweeps.setup import Asked
from ppl_vae.training.loop import Fault
from ppl_vae.training.run_folder import RunFolder

__all__ = ["PyroSweep"]


class PyroSweep:
    """The points of a sweep, as they are run.

    Args:
        folder: The sweep's folder; its lock is held.
        asked: What was asked for.
        jobs: Number of processes; 1 uses this one.
        products: Whether each run writes its posterior and its picture too.
    """

    def __init__(self, folder: SweepFolder, asked: Asked, *, jobs: int, products: bool) -> None:
        self.folder, self.asked, self.jobs, self.products = folder, asked, jobs, products

    def run(
        self,
        points: Sequence[Point],
        starts: Mapping[str, Path],
        done: Callable[[Point], None],
        report: Callable[[float], None],
    ) -> None:
        """Fit points, each in its run folder.

        Args:
            points: Points that are not done.
            starts: By name of a point the folder of the run whose parameters it starts from.
            done: Called when a point is done.
            report: Called with 0 after each run: how many runs' work is done beside the runs that are done.
        """
        jobs = min(self.jobs, len(points))
        run = Parallel(n_jobs=jobs, return_as="generator_unordered", **_threads(jobs))
        tasks = (
            delayed(_fit)(self.asked, point, self.folder.run_path(point), starts.get(point.name), self.products, n)
            for n, point in enumerate(points)
        )
        for finished in run(tasks):
            done(points[finished])
            report(0.0)


def _threads(jobs: int) -> dict[str, int]:
    return {"inner_max_num_threads": 1} if jobs > 1 else {}


def _fit(asked: Asked, point: Point, path: Path, start: Path | None, products: bool, number: int) -> int:
    """Fit or continue one run; what is not finite is recorded, and the sweep goes on."""
    from ppl_vae.training.fit import fit, resume

    try:
        if (path / "run.json").is_file():
            resume(path, data=asked.dataset, products=products)
        else:
            fit(
                asked.program,
                asked.dataset,
                backend=asked.backend,
                loss=asked.loss,
                base_loss=asked.base_loss,
                loss_options=asked.loss_options,
                base_options=asked.base_options,
                beta=point.betas,
                out=path,
                products=products,
                start=start,
                **{**asdict(asked.settings), "seed": point.seed},
                **asked.options,
            )
    except Fault as fault:
        RunFolder.open(path).update_record(**{FAULT: str(fault)})
    return number
