"""The points of a sweep: betas by latent site, and a seed."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_vae.data.checks import check_seed
from ppl_vae.errors import InputError
from ppl_vae.training.settings import beta_by_site

__all__ = ["DIGITS", "Point", "make_points", "paths", "read_axis"]

# Betas of a range are rounded to so many significant digits, so that folder names and tables say them exactly.
DIGITS = 6
MAX_VALUES = 10_000
_RANGE = re.compile(r"([^:]+):([^:]+):(lin|log)(\d+)")
_REMEDY = "write 2, 0.5,1,2 or 0.1:10:log7 (from:to:log or lin, and how many)"


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        betas: Beta of every latent site.
        seed: Seed of the run.
    """

    betas: Mapping[str, float]
    seed: int

    @property
    def name(self) -> str:
        """Name of its run folder.

        Example:
            >>> Point({"z1": 0.1, "z2": 10.0}, 2).name
            'z1=0.1_z2=10_seed=2'
        """
        words = [f"{site}={repr(float(beta)).removesuffix('.0')}" for site, beta in self.betas.items()]
        return re.sub(r"[^\w.=+-]", "-", "_".join([*words, f"seed={self.seed}"]))


def read_axis(values: Any) -> tuple[float, ...]:
    """The betas that a text, a number or a sequence of numbers stands for.

    Args:
        values: ``"2"``, ``"0.5,1,2"``, ``"0.1:10:log7"`` (equal ratios) or ``"0:2:lin5"`` (equal differences), a
            number, or numbers.

    Raises:
        InputError: It is none of these, a beta is below 0, or one comes twice.

    Example:
        >>> read_axis("0.1:10:log3")
        (0.1, 1.0, 10.0)
    """
    if isinstance(values, str):
        found = _RANGE.fullmatch(values)
        words = values.split(",")
        numbers = _span(values, *found.groups()) if found else [_number(word, values) for word in words]
    elif isinstance(values, Iterable):
        numbers = [_number(value, values) for value in values]
    else:
        numbers = [_number(values, values)]
    for beta in numbers:
        if not 0 <= beta < math.inf:
            raise InputError(f"betas must be 0 or more and finite, but {values} has {beta}; {_REMEDY}")
    if len(set(numbers)) < len(numbers) or not numbers:
        raise InputError(f"betas must be one or more different numbers, but they are {values}; {_REMEDY}")
    return tuple(numbers)


def _span(text: str, first: str, last: str, kind: str, count: str) -> list[float]:
    start, stop, number = _number(first, text), _number(last, text), int(count)
    if not 2 <= number <= MAX_VALUES:
        raise InputError(f"a range of betas must have 2 to {MAX_VALUES} values, but {text} has {count}; {_REMEDY}")
    if not (0 <= start < stop < math.inf) or (kind == "log" and start == 0):
        least = "more than 0" if kind == "log" else "0 or more"
        raise InputError(f"a range of betas must rise from {least} to a larger number, but is {text}; {_REMEDY}")
    spaced = np.geomspace if kind == "log" else np.linspace
    return [float(f"{beta:.{DIGITS}g}") for beta in spaced(start, stop, number)]


def _number(value: Any, given: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"betas must be numbers or a range, but they are {given!r}; {_REMEDY}") from None


def make_points(beta: Any, seeds: Sequence[int], sites: list[str], *, max_runs: int) -> list[Point]:
    """Every combination of the betas of the sites, for every seed; the first seed's come first.

    Args:
        beta: By site what ``read_axis`` takes, and 1 for sites that are not named; or for all sites together
            one such thing, so that at each point all have the same beta.
        seeds: Seeds.
        sites: Latent sites of the model.
        max_runs: Largest number of points.

    Raises:
        InputError: A site does not exist, betas cannot be read, or there are too many points.
    """
    if isinstance(beta, Mapping):
        beta_by_site(dict.fromkeys(beta, 1.0), sites)
        axes = [read_axis(beta.get(site, 1.0)) for site in sites]
        num_grid = math.prod(map(len, axes))
        grid: Iterable[tuple[float, ...]] = itertools.product(*axes)
    else:
        shared = read_axis(beta)
        num_grid, grid = len(shared), ((value,) * len(sites) for value in shared)
    if num_grid * len(seeds) > max_runs:
        raise InputError(
            f"a sweep must have at most {max_runs} runs, but {num_grid} points of the grid and {len(seeds)} seeds "
            f"make {num_grid * len(seeds)}; choose fewer, or allow them by --max-runs"
        )
    for seed in seeds:
        check_seed(seed)
    rows = list(grid)
    return [Point(dict(zip(sites, row, strict=True)), seed) for seed in seeds for row in rows]


def paths(points: Sequence[Point]) -> list[list[Point]]:
    """The points in paths, along which each run can start from the parameters of the one before.

    A path has one seed and rising betas: of the first site whose beta varies, the others' being fixed, or of all
    sites where they vary together.

    Args:
        points: Points of a sweep.
    """
    varying = [site for site in points[0].betas if len({point.betas[site] for point in points}) > 1]
    together = all(len(set(point.betas.values())) == 1 for point in points)
    moving = varying if together else varying[:1]
    found: dict[Any, list[Point]] = {}
    for point in points:
        fixed = tuple(beta for site, beta in point.betas.items() if site not in moving)
        found.setdefault((point.seed, fixed), []).append(point)
    return [sorted(path, key=lambda point: [point.betas[site] for site in moving]) for path in found.values()]
