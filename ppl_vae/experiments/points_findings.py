"""Consistency of codes of point clouds: losses by method, measures of a fit, and rules laid down beforehand.

Measures are in nats per cloud, by the names of ``consistency_findings.COLUMNS``; accuracies are shares.

Source:
    Sinha & Dieng, NeurIPS 2021, arXiv:2105.14859: codes of three-dimensional data are judged by a classifier.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.diagnostics.activity import active_units_by_variance
from ppl_vae.diagnostics.information import gaussian_aggregate_information
from ppl_vae.diagnostics.invariance import invariance_of_run
from ppl_vae.diagnostics.weights import inspect_draws, unit_means
from ppl_vae.experiments.consistency_findings import AUGMENTED, PLAIN
from ppl_vae.experiments.rules import Rule
from ppl_vae.objective.consistency import Consistency
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.objective import Program
from ppl_vae.objective.terms import Terms

__all__ = ["Augmented", "expectations", "loss_of", "measure"]


class Augmented(Consistency):
    """The loss on t(x) alone, which leaves x to measures; arguments as of ``Consistency``."""

    def measure(self, program: Program) -> Terms:
        """Terms of x, with the loss of t(x)."""
        terms = super().measure(program)
        return replace(terms, loss=terms.extras["transformed/loss"])


def loss_of(method: str, weight: float, transform: str, backend: str) -> dict[str, Any]:
    """Arguments of ``fit`` for a method.

    Args:
        method: ``PLAIN``, ``AUGMENTED``, or anything else for the consistency loss.
        weight: Its weight.
        transform: Name of the transformation.
        backend: "pyro" or "numpyro".
    """
    if method == PLAIN:
        return {"loss": "elbo"}
    if method != AUGMENTED:
        return {"loss": "consistency", "loss_options": {"transform": transform, "weight": weight}}
    objective = Augmented(ELBO(), transform, weight=0.0)
    if backend == "pyro":
        from ppl_vae.objective.pyro_program import PyroLoss

        return {"loss": PyroLoss(objective)}
    from ppl_vae.objective.numpyro_program import NumPyroLoss

    return {"loss": NumPyroLoss(objective)}


def measure(run: Any, transform: str, *, num_draws: int, num_data: int) -> dict[str, float]:
    """What a run with one latent site is worth on its test data.

    Args:
        run: A ``Run`` of labelled data.
        transform: Name of the transformation.
        num_draws: Importance draws for the likelihood.
        num_data: Test data for the likelihood.
    """
    x, (site,) = run.data.split("test"), run.engine.latents
    found = inspect_draws(run.engine, x, ("loc", "scale"), num_draws=1, seed=0)
    moments = (found[field][site][0] for field in ("loc", "scale"))
    invariance = invariance_of_run(run, transform)
    return {
        "nll": -run.log_px(x[:num_data], num_draws=num_draws).mean[0],
        "elbo": run.metrics["elbo"]["test"],
        "rate": run.metrics["rates"]["test"][site],
        "information": gaussian_aggregate_information(*moments, num_draws=1, seed=0).mutual_information,
        "active": float(active_units_by_variance(unit_means(run.engine, x)[site])[0].sum()),
        "consistency": invariance.consistency.value,
        "probe": float("nan") if invariance.probe is None else invariance.probe.accuracy,
        "probe_transformed": (
            float("nan") if invariance.probe_transformed is None else invariance.probe_transformed.value
        ),
        "least": invariance.information.value,
        "most": invariance.information_at_most.value,
        "num_test": float(len(x)),
    }


def expectations() -> dict[str, Rule]:
    """What is expected of a classifier of codes in the fits of one seed; laid down before those with the term."""

    def errors(quantity: str, after: str, before: str) -> Callable[[pd.DataFrame], float]:
        def number(t: pd.DataFrame) -> float:
            new, old = _row(t, after), _row(t, before)
            variance = sum(row[quantity] * (1.0 - row[quantity]) / row["num_test"] for row in (new, old))
            return float((new[quantity] - old[quantity]) / np.sqrt(variance))

        return number

    def lost(row: Any) -> float:
        return float(row["probe"] - row["probe_transformed"])

    gain = "gain in standard errors"
    return {
        "transformed data alone teach the codes of transformed shapes": Rule(
            gain, errors("probe_transformed", AUGMENTED, PLAIN), least=2.0
        ),
        "weight 1 reads transformed shapes better than codes of x alone": Rule(
            gain, errors("probe_transformed", "weight 1", PLAIN), least=2.0
        ),
        "and no worse than augmentation only": Rule(
            gain, errors("probe_transformed", "weight 1", AUGMENTED), least=-2.0
        ),
        "a transformation costs it less of the accuracy": Rule(
            "loss of accuracy over that of codes of x alone",
            lambda t: lost(_row(t, "weight 1")) / lost(_row(t, PLAIN)),
            most=0.5,
        ),
        "the paper: it reads shapes as they are better than codes of x alone": Rule(
            gain, errors("probe", "weight 1", PLAIN), least=0.0
        ),
    }


def _row(table: pd.DataFrame, method: str) -> Any:
    return table[table["method"] == method].iloc[0]
