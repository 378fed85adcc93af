"""What is expected of an NVAE with consistency regularisation, by rules laid down before any fit, and what came.

A fit is a row of a table: ``method``, ``seed``, ``weight``, measures of test images by the names in ``COLUMNS``,
in nats per image or bits per dimension, and ``rate_z1``, ``rate_z2``, ... in nats.

Source:
    Sinha & Dieng, NeurIPS 2021, arXiv:2105.14859, for likelihood and active units; the others are what fits of
    one-level models by other code had shown.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.experiments.program import markdown_table
from ppl_vae.experiments.rules import Rule, verdict_table

__all__ = ["COLUMNS", "PLAIN", "WEIGHT_0", "WITH", "expectations", "tables"]

PLAIN, WEIGHT_0, WITH = "x alone", "x and t(x)", "consistency"
# Columns of the tables: heading, and digits after the point.
COLUMNS = {
    "nll": ("NLL", 2),
    "nll_error": ("standard error", 2),
    "nll_bits": ("bits/dim", 3),
    "loss_bound": ("-ELBO", 2),
    "loss_bound_bits": ("bits/dim by ELBO", 3),
    "rate": ("rate", 2),
    "active_groups": ("active groups", 1),
    "active_channels": ("active channels", 1),
    "consistency": ("R", 2),
}


def expectations(num_groups: int) -> dict[str, Rule]:
    """What is expected of the fits of one seed to one data set.

    Args:
        num_groups: Groups of the model.
    """

    def change(quantity: str, after: str, before: str) -> Callable[[pd.DataFrame], float]:
        return lambda t: float(_row(t, after)[quantity] - _row(t, before)[quantity])

    nats = "change in nats"
    return {
        "every group is used by every method": Rule(
            "fewest active groups", lambda t: float(t["active_groups"].min()), least=num_groups
        ),
        "the term makes codes of x and t(x) alike": Rule(
            f"R of {WEIGHT_0} over that with the term",
            lambda t: float(_row(t, WEIGHT_0)["consistency"] / _row(t, WITH)["consistency"]),
            least=1.3,
        ),
        "its price: the rate falls": Rule(nats, change("rate", WITH, WEIGHT_0), most=0.0),
        "its price: x becomes less likely": Rule(nats, change("nll", WITH, WEIGHT_0), least=0.0),
        "the paper: x is likelier than by the model of x alone": Rule(nats, change("nll", WITH, PLAIN), most=0.0),
        "the paper: more units are active than there": Rule(
            "change in channels", change("active_channels", WITH, PLAIN), least=1.0
        ),
    }


def tables(name: str, fits: pd.DataFrame) -> list[str]:
    """Sections of the page on one data set, in Markdown.

    Args:
        name: Its name.
        fits: Its fits.
    """
    rates = sorted((c for c in fits if c.startswith("rate_")), key=lambda c: -int(c.removeprefix("rate_z")))
    groups = {column: (column.removeprefix("rate_"), 2) for column in rates}
    seeds = [group for _, group in fits.groupby("seed")]
    return [
        f"## {name}",
        verdict_table(seeds, expectations(len(rates))),
        _came(fits, COLUMNS),
        "KL of each group from its prior, the top first; nats.",
        _came(fits, groups),
    ]


def _came(fits: pd.DataFrame, columns: dict[str, tuple[str, int]]) -> str:
    """Means over seeds and their standard deviations."""
    rows = []
    for method, group in fits.groupby("method", sort=False):
        weight = group["weight"].mean()
        cells = [_spread(group[column], digits) for column, (_, digits) in columns.items()]
        rows.append([str(method), "" if np.isnan(weight) else f"{weight:.3g}", *cells])
    return markdown_table(["method", "weight", *(heading for heading, _ in columns.values())], rows)


def _spread(values: Any, digits: int) -> str:
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) < 2 else f"{mean}±{values.std(ddof=1):.{digits}f}"


def _row(table: pd.DataFrame, method: str) -> Any:
    return table[table["method"] == method].iloc[0]
