"""Consistency of codes of point clouds: rules laid down before the fits.

Columns of a table of fits are those of ``consistency_findings.COLUMNS``, in nats per cloud; accuracies are shares.

Source:
    Sinha & Dieng, NeurIPS 2021, arXiv:2105.14859: codes of three-dimensional data are judged by a classifier.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.experiments.consistency_findings import AUGMENTED, PLAIN
from ppl_vae.experiments.rules import Rule

__all__ = ["expectations"]


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
