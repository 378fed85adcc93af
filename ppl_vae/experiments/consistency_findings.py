"""What is expected of consistency regularisation, and what came: rules laid down before any fit, and tables.

A fit is a row of a table: ``model``, ``method``, ``seed``, ``weight``, ``num_test``, and measures of test images
by the names in ``COLUMNS``, in nats per datum, accuracies as shares. A model with several latent sites has
a column for R of each; R is their sum.

Source:
    Sinha & Dieng, NeurIPS 2021, arXiv:2105.14859, for what more is expected of the codes.
"""

from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.experiments.program import markdown_table
from ppl_vae.experiments.rules import Rule, verdict_table

__all__ = ["AUGMENTED", "COLUMNS", "OF_SITE", "PLAIN", "expectations", "tables"]

PLAIN, AUGMENTED = "plain", "augmentation only"
# What the columns of sites begin with.
OF_SITE = "R of "
# Columns of the tables: heading, digits after the point, and what a value is multiplied by.
COLUMNS = {
    "nll": ("NLL", 2, 1.0),
    "elbo": ("ELBO", 2, 1.0),
    "rate": ("rate", 2, 1.0),
    "information": ("I(x; z)", 2, 1.0),
    "active": ("active units", 1, 1.0),
    "consistency": ("R", 2, 1.0),
    "probe": ("probe %", 1, 100.0),
    "probe_transformed": ("probe of t(x) %", 1, 100.0),
    "least": ("I(z; t), least", 2, 1.0),
    "most": ("I(z; t), most", 2, 1.0),
}
# Fits of the VAE by other code: mean and standard deviation over three seeds of the first eight columns.
EXPECTED = {
    "digits": """
plain | 17.32±0.07 | -18.42±0.17 | 5.88±0.19 | 4.98±0.21 | 6.0±1.0 | 7.82±0.36 | 86.2±0.4 | 70.0±2.0
augmentation only | 19.31±0.22 | -19.97±0.18 | 5.78±0.28 | 4.64±0.19 | 7.0±1.7 | 7.37±0.16 | 88.1±1.6 | 73.1±0.8
weight 0 | 17.44±0.05 | -18.12±0.04 | 6.19±0.07 | 5.10±0.05 | 8.3±1.5 | 7.73±0.14 | 89.3±0.7 | 73.5±0.8
weight 0.01 | 17.45±0.10 | -18.11±0.09 | 6.11±0.20 | 5.06±0.12 | 8.0±1.0 | 7.56±0.17 | 89.3±1.4 | 73.9±1.8
weight 0.1 | 17.55±0.07 | -18.20±0.00 | 5.56±0.15 | 4.69±0.09 | 7.7±1.5 | 5.68±0.20 | 89.1±1.2 | 74.6±1.7
weight 1 | 18.22±0.03 | -18.95±0.09 | 3.84±0.06 | 3.38±0.05 | 5.7±1.2 | 1.87±0.04 | 90.1±1.4 | 80.2±1.3
""",
    "fashion-mnist": """
plain | 145.5±0.6 | -152.3±1.0 | 15.6±0.8 | 7.49±0.00 | 20.0±0.0 | 78.4±7.5 | 72.6±0.4 | 61.2±0.9
augmentation only | 160.9±1.5 | -169.6±1.8 | 17.4±0.4 | 7.46±0.02 | 20.0±0.0 | 79.7±10.1 | 72.1±0.4 | 63.5±1.3
weight 0 | 144.3±0.8 | -150.6±0.8 | 17.2±0.7 | 7.52±0.01 | 19.7±0.6 | 88.2±5.2 | 73.6±1.0 | 60.2±1.3
weight 0.01 | 144.2±1.2 | -151.0±1.0 | 16.6±0.7 | 7.49±0.02 | 19.7±0.6 | 70.5±5.1 | 73.9±0.2 | 62.1±1.5
weight 0.1 | 144.5±0.5 | -152.1±0.3 | 15.4±0.4 | 7.39±0.01 | 20.0±0.0 | 38.3±1.3 | 73.1±0.5 | 61.6±1.8
weight 1 | 146.7±1.5 | -158.5±1.1 | 12.6±0.3 | 6.84±0.06 | 20.0±0.0 | 13.9±0.6 | 73.4±0.2 | 63.8±1.0
""",
}


def expectations() -> dict[str, Rule]:
    """What is expected of one model, as rules for the fits of one seed, laid down before any fit."""

    def change(quantity: str, after: str, before: str) -> Any:
        return lambda t: float(_row(t, after)[quantity] - _row(t, before)[quantity])

    def probe_errors(t: pd.DataFrame) -> float:
        share = _row(t, "weight 0")["probe"]
        error = np.sqrt(2.0 * share * (1.0 - share) / _row(t, "weight 0")["num_test"])
        return float(change("probe", "weight 1", "weight 0")(t) / error)

    ratio = "R of weight 0 over that of weight 1"
    loss, nats = "change of the share", "change in nats"
    return {
        "weight 1 makes codes of x and t(x) alike": Rule(
            ratio,
            lambda t: float(_row(t, "weight 0")["consistency"] / _row(t, "weight 1")["consistency"]),
            least=2.0,
        ),
        "they tell less of t": Rule(nats, change("most", "weight 1", "weight 0"), most=0.0),
        "the probe reads more of t(x)": Rule(loss, change("probe_transformed", "weight 1", "weight 0"), least=0.0),
        "it reads as much of x": Rule("change in standard errors", probe_errors, least=-2.0, most=2.0),
        "codes tell less of x than with weight 0": Rule(
            nats, change("information", "weight 1", "weight 0"), most=0.0
        ),
        "their rate falls": Rule(nats, change("rate", "weight 1", "weight 0"), most=0.0),
        "x becomes less likely": Rule(nats, change("nll", "weight 1", "weight 0"), least=0.0),
        "t(x) alone makes x less likely than x alone": Rule(nats, change("nll", AUGMENTED, PLAIN), least=0.0),
        "beside x it does not": Rule(nats, change("nll", "weight 0", AUGMENTED), most=0.0),
        "the paper: codes tell more of x than without the term and t": Rule(
            nats, change("information", "weight 1", PLAIN), least=0.0
        ),
        "the paper: more units are active": Rule("change", change("active", "weight 1", PLAIN), least=1.0),
    }


def tables(name: str, found: pd.DataFrame) -> list[str]:
    """Sections of the page on one data set, in Markdown.

    Args:
        name: Its name.
        found: Its fits, as ``fit_all`` gives them.
    """
    sections = [f"## {name}"]
    for model, fits in found.groupby("model", sort=False):
        seeds = [fit for _, fit in fits.groupby("seed")]
        sections += [f"### {model}", verdict_table(seeds, expectations()), _came(fits)]
    if name in EXPECTED and "VAE" in set(found["model"]):
        known = [line.split(" | ") for line in EXPECTED[name].strip().splitlines()]
        heads = [heading for heading, _, _ in COLUMNS.values()][: len(known[0]) - 1]
        sections += ["### VAE, fits of other code at the default size", markdown_table(["method", *heads], known)]
    return sections


def _came(fits: pd.DataFrame) -> str:
    """Means over seeds and their standard deviations."""
    columns = COLUMNS | {
        name: (name, 2, 1.0) for name in fits if name.startswith(OF_SITE) and fits[name].notna().all()
    }
    rows = []
    for method, group in fits.groupby("method", sort=False):
        cells = [_spread(factor * group[column], digits) for column, (_, digits, factor) in columns.items()]
        weight = group["weight"].mean()
        rows.append([str(method), "" if np.isnan(weight) else f"{weight:.3g}", *cells])
    return markdown_table(["method", "weight", *(heading for heading, _, _ in columns.values())], rows)


def _spread(values: Any, digits: int) -> str:
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) < 2 else f"{mean}±{values.std(ddof=1):.{digits}f}"


def _row(table: pd.DataFrame, method: str) -> Any:
    return table[table["method"] == method].iloc[0]
