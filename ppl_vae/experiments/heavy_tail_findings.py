"""What is expected of models of heavy-tailed data, and what came: tables, and rules laid down before any fit.

The rules are those of one dimension; in two, only the distance beyond which masses are compared is another.

Tables have a row for each model, prior and seed, as ``heavy_tails.compare`` makes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.experiments.heavy_tails import QUANTILES, TEST, t3_name
from ppl_vae.experiments.program import markdown_table
from ppl_vae.experiments.rules import Rule

__all__ = ["came_table", "expected_table", "log_distance", "tail_rules"]

LEVEL, LEAST = 0.05, 1e-6  # of the tests; of what is divided by, or has its log taken
P_VALUES = ["p_full", "p_left", "p_right"]


def tail_rules(
    *, dfs: Sequence[float], corrected: float, betas: Sequence[float], product: float
) -> dict[str, Rule]:
    """What fits at the published size showed in one dimension, as rules.

    Args:
        dfs: Degrees of freedom nu of the published t3VAE, rising.
        corrected: One of them, which is fitted with the entropy of the data in its loss too.
        betas: Of the beta-VAEs, below 1.
        product: Degrees of freedom of the prior of the DE-VAE.

    Returns:
        By finding a rule for the fits of one seed; a mass is over the true one.
    """
    light = ["VAE", *(f"beta-VAE {beta:g}" for beta in betas)]
    heavy = [t3_name(df, "published") for df in dfs]
    heaviest, mended = heavy[0], t3_name(corrected, "corrected")
    other = ["Student-t VAE", f"DE-VAE nu={product:g}"]
    named = t3_name(corrected, "published")

    def excess(table: pd.DataFrame) -> float:
        return abs(_mass(table, mended) - 1.0) / max(abs(_mass(table, named) - 1.0), LEAST)

    def off(table: pd.DataFrame, name: str) -> float:
        return log_distance(_mass(table, name))

    return {
        "VAE and beta-VAEs generate less than two thirds of the true tail mass": Rule(
            "largest mass", lambda t: max(_mass(t, name) for name in light), most=2.0 / 3.0
        ),
        f"published {heaviest} overshoots": Rule("mass", lambda t: _mass(t, heaviest), least=2.0),
        "the larger nu, the less": Rule(
            "largest mass over that of the next smaller nu",
            lambda t: max(_mass(t, b) / max(_mass(t, a), LEAST) for a, b in pairwise(heavy)),
            most=1.0,
        ),
        f"the entropy in the loss removes most of the excess of {named}": Rule(
            "share of the excess that remains", excess, most=0.25
        ),
        "Student-t VAE and DE-VAE are nearer to the true mass than the published one": Rule(
            "their largest distance of log mass from 0, over its",
            lambda t: max(off(t, name) for name in other) / off(t, heaviest),
            most=1.0,
        ),
        "the alternative prior takes t3VAEs farther from the data": Rule(
            "least difference of KS", _alternative_ks, least=0.0
        ),
        f"the tests on the tails do not see that {heaviest} overshoots": Rule(
            "least p-value", lambda t: float(_row(t, heaviest)[P_VALUES[1:]].min()), least=LEVEL
        ),
        "they reject the VAE in both": Rule(
            "largest p-value", lambda t: float(_row(t, "VAE")[P_VALUES[1:]].max()), most=LEVEL
        ),
    }


def log_distance(mass: float) -> float:
    """Distance from 0 of the log of a mass over the true one; from 1e-6 on, and finite where there is no mass."""
    return max(float(abs(np.log(max(mass, LEAST)))), LEAST)


def _row(table: pd.DataFrame, model: str, prior: str = "model") -> Any:
    return table[(table["model"] == model) & (table["prior"] == prior)].iloc[0]


def _mass(table: pd.DataFrame, model: str) -> float:
    return float(_row(table, model)["mass"])


def _alternative_ks(table: pd.DataFrame) -> float:
    other = table[table["prior"] == "alternative"]
    return float(min(row["ks"] - _row(table, row["model"])["ks"] for _, row in other.iterrows()))


def came_table(table: pd.DataFrame, *, far: float) -> str:
    """Everything that was measured, in Markdown.

    Args:
        table: The fits.
        far: Distance from which on masses were compared.
    """
    rows = []
    for one in table.to_dict("records"):
        quantiles = ", ".join(f"{one[f'q{number}']:.1f}" for number in range(1, len(QUANTILES) + 1))
        cells = [one["model"], one["prior"], str(one["seed"]), f"{one['ks']:.4f}", f"{one['left']:.0f}"]
        ps = ["" if one["model"] == TEST else _p(one[name]) for name in P_VALUES]
        rows.append([*cells, f"{one['right']:.0f}", f"{one['mass']:.2f}", quantiles, *ps])
    levels = ", ".join(f"{level:g}" for level in QUANTILES)
    heads = ["model", "z from prior", "seed", "KS", "left", "right", f"mass beyond {far:g} / true"]
    heads += [f"quantiles {levels}", "p full", "p left", "p right"]
    return markdown_table(heads, rows)


def _p(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "too few"


def expected_table(table: pd.DataFrame, expected: Mapping[tuple[str, str], Sequence[tuple[float, ...]]]) -> str:
    """Distances, tail counts, p-values and quantiles beside those of other fits, in Markdown.

    Args:
        table: The fits.
        expected: By model and prior for each seed KS, left and right count, the p-values of all points and of the
            left and right tail, and the quantiles.
    """
    quantiles = {f"q{number}": f"quantile {level:g}" for number, level in enumerate(QUANTILES, 1)}
    heads = {"ks": "KS", "left": "left", "right": "right"} | {p: p.replace("_", " ") for p in P_VALUES} | quantiles
    forms = [".4f", ".0f", ".0f", *[".3f"] * len(P_VALUES), *[".1f"] * len(quantiles)]
    rows = []
    for (model, prior), known in expected.items():
        ours = table[(table["model"] == model) & (table["prior"] == prior)]
        if len(ours):
            columns = zip(heads, forms, zip(*known, strict=True), strict=True)
            cells = [f"{_join(values, form)}; {_join(ours[name], form)}" for name, form, values in columns]
            rows.append([model, prior, *cells])
    return markdown_table(["model", "z from prior", *heads.values()], rows)


def _join(values: Iterable[float], form: str) -> str:
    return ", ".join("too few" if np.isnan(value) else f"{value:{form}}" for value in values)
