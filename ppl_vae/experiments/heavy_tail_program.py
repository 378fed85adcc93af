"""What is behind the programs on the t3VAE in one and two dimensions: fits, page, table and picture."""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ppl_vae.diagnostics.tail_picture import save_tails
from ppl_vae.experiments.heavy_tail_findings import came_table, expected_table, tail_rules
from ppl_vae.experiments.heavy_tails import (
    COUNTED,
    TEST,
    Size,
    compare,
    entropy_of,
    published_models,
    t3_name,
    versions,
)
from ppl_vae.experiments.program import make_folder, say
from ppl_vae.experiments.rules import verdict_table
from ppl_vae.files import write_atomically, write_text

__all__ = ["Experiment", "Plan", "run_experiment"]


@dataclass(frozen=True)
class Plan:
    """What is fitted, and how.

    Attributes:
        size: How much is fitted and drawn.
        dfs: Degrees of freedom by kind, as ``published_models`` takes them; the first of each are judged.
        betas: Of the beta-VAEs.
        training: Settings of the fits.
    """

    size: Size
    dfs: Mapping[str, Sequence[float]]
    betas: Sequence[float]
    training: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """A law, and the models that are fitted to its draws.

    Attributes:
        name: Of the files that are written.
        title: Of page and picture.
        law: ``UNIVARIATE`` or ``BIVARIATE``.
        cut: Distance from the origin from which on a point is counted in a tail, as published.
        far: Distance from which on masses are compared, and judged.
        scale: Scale of the decoders.
        small: The default.
        full: The published size.
        expected: By model and prior for each seed what ``expected_table`` takes, of fits at the full size.
    """

    name: str
    title: str
    law: Any
    cut: float
    far: float
    scale: float
    small: Plan
    full: Plan
    expected: Mapping[tuple[str, str], Sequence[tuple[float, ...]]]


def run_experiment(experiment: Experiment, about: str | None, arguments: Sequence[str] | None) -> None:
    """Fit, measure, and write a page, its numbers and a picture.

    Args:
        experiment: What is fitted.
        about: What ``--help`` says.
        arguments: Words of the command line; see ``--help``.
    """
    options = _options(experiment, about, arguments)
    begun, plan = time.monotonic(), experiment.full if options.full else experiment.small
    plan = replace(plan, size=replace(plan.size, seeds=tuple(options.seeds or plan.size.seeds)))
    make_folder(options.out)
    entropy = entropy_of(experiment.law)
    table, draws = compare(
        published_models(scale=experiment.scale, entropy=entropy[0], dfs=plan.dfs, betas=plan.betas),
        experiment.law,
        cut=experiment.cut,
        far=experiment.far,
        size=plan.size,
        training=plan.training,
        backend=options.backend,
        out=options.out / "runs",
        report=say,
    )
    about_fits = f"{_settings(plan)}; entropy of the law {entropy[0]:.3f} ± {entropy[1]:.3f} nats"
    page = _page(
        experiment, plan, table, f"{about_fits}; {versions(options.backend)}; {time.monotonic() - begun:.0f} s."
    )
    path = options.out / f"{experiment.name}.md"
    write_text(path, page)
    write_atomically(path.with_suffix(".csv"), partial(table.to_csv, index=False))
    corrected = [t3_name(df, "corrected") for df in plan.dfs["corrected"]]
    heavy = [t3_name(plan.dfs["published"][0], "published"), *corrected]
    shown = {name: draws[name] for name in (*heavy, "VAE", "Student-t VAE")}
    write_atomically(
        path.with_suffix(".png"), partial(save_tails, data=draws[TEST], draws=shown, title=experiment.title)
    )
    print(page)


def _options(experiment: Experiment, about: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("pyro", "numpyro"), default="pyro", help="backend of the fits")
    parser.add_argument("--seeds", type=int, nargs="+", help="a fit of each model for each of these seeds")
    parser.add_argument("--full", action="store_true", help="the published sizes, and all models")
    folder = Path("runs") / f"t3vae-{experiment.name}"
    parser.add_argument("--out", type=Path, default=folder, help="folder to write")
    return parser.parse_args(arguments)


def _settings(plan: Plan) -> str:
    """Sizes and settings in words."""
    values = {**vars(plan.size), **plan.training}
    seeds = ", ".join(map(str, values.pop("seeds")))
    return ", ".join(f"{name} {value}" for name, value in values.items()) + f"; seeds {seeds}"


def _page(experiment: Experiment, plan: Plan, table: pd.DataFrame, about: str) -> str:
    rules = tail_rules(
        dfs=plan.dfs["published"],
        corrected=plan.dfs["corrected"][0],
        betas=[beta for beta in plan.betas if beta < 1.0],
        product=plan.dfs["product"][0],
    )
    sections = [
        f"# {experiment.title}",
        about,
        "## Findings",
        verdict_table([fits for seed, fits in table.groupby("seed") if seed in plan.size.seeds], rules),
        f"## Draws beside {COUNTED} test data: counts beyond {experiment.cut:g} are scaled to so many",
        came_table(table, far=experiment.far),
    ]
    if experiment.expected:
        shown = expected_table(table, experiment.expected)
        sections += ["## Fits of other code at the published size, seeds 42 and 43; came", shown]
    return "\n\n".join(sections) + "\n"
