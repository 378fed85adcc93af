"""Which findings of a paper on hierarchical rates hold in a sweep over the betas of two layers.

Each finding is a number of the fits of one seed, and what is expected of it; the thresholds were laid down before
any fit. Rates and information are in nats per datum, PSNR in decibels, accuracies and shares in [0, 1].

Source:
    Xiao & Bamler, "Trading information between latents in hierarchical variational autoencoders", ICLR 2023,
    arXiv:2302.04855.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from ppl_vae.experiments.rules import Number, Rule, Verdict, judge

__all__ = ["FINDINGS", "judge_rates", "rank_correlation"]

TASKS = ["psnr", "accuracy_z2", "log_score"]
UNUSED, NEGLIGIBLE = 0.1, 0.05  # what counts as no rate: nats, and share of the total


def judge_rates(table: pd.DataFrame) -> dict[str, Verdict]:
    """Which of ``FINDINGS`` hold.

    Args:
        table: A row a fit: ``seed``, ``beta_z1``, ``beta_z2``, ``rate_z1``, ``rate_z2``, ``total_rate``, ``psnr``;
            accuracies of an RBF SVM on samples, ``accuracy_z2``, and on means, ``accuracy_means_z2``, and of a
            linear one, ``linear_means_z2``; ``information_z2``, I(y; z2), and ``known``, its share of the largest
            that can be estimated; ``excess`` of accuracies on samples over the ceiling f^-1(R(z2)) and 3 standard
            errors; ``log_score``, ``diversity`` and ``sharpness`` of generated images, in nats.
    """
    seeds = [group.reset_index(drop=True) for _, group in table.groupby("seed")]
    return judge(seeds, FINDINGS)


def rank_correlation(a: ArrayLike, b: ArrayLike, given: ArrayLike | None = None) -> float:
    """Spearman's rank correlation, nan where a column is constant.

    Args:
        a: Numbers, (n,).
        b: Numbers, (n,).
        given: Numbers, (n,), whose linear effect on the ranks is taken out.
    """
    ranks = [rankdata(column) for column in (a, b, given) if column is not None]
    if any(np.ptp(column) == 0 for column in ranks):
        return float("nan")
    r = np.corrcoef(ranks)
    if given is None:
        return float(r[0, 1])
    spare = (1.0 - r[0, 2] ** 2) * (1.0 - r[1, 2] ** 2)
    return float((r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt(spare)) if spare > 1e-12 else float("nan")


def _ranks(a: str, b: str, given: str | None = None) -> Number:
    return lambda t: rank_correlation(t[a], t[b], None if given is None else t[given])


def _share_of_z1(metric: str) -> Number:
    """Share of z1 in the total rate, where a metric is best."""
    return lambda t: float((t["rate_z1"] / t["total_rate"])[t[metric].idxmax()])


def _place_of_z2(metric: str) -> Number:
    """Rate of z2 as a share of the largest, where a metric is best."""
    return lambda t: float((t["rate_z2"] / t["rate_z2"].max())[t[metric].idxmax()])


def _least_diversity(table: pd.DataFrame) -> float:
    classes = np.exp(table["diversity"])
    return float(classes[table["total_rate"] > 0.1 * table["total_rate"].max()].min() / classes.max())


def _without(table: pd.DataFrame, site: str) -> Any:
    """Which fits spend a rate, but none in a layer."""
    return (table["total_rate"] > UNUSED) & (table[f"rate_{site}"] < NEGLIGIBLE * table["total_rate"])


def _sharper_by_z2(table: pd.DataFrame) -> float:
    sharpness = table["sharpness"]
    return float(sharpness[_without(table, "z1")].mean() - sharpness[_without(table, "z2")].mean())


def _decades_from_one(table: pd.DataFrame) -> float:
    best = table.loc[table["log_score"].idxmax()]
    return float(np.abs(np.log10([best["beta_z1"], best["beta_z2"]])).max())


def _share_on_axes(table: pd.DataFrame) -> float:
    on_axis = _without(table, "z1") | _without(table, "z2")
    return float(on_axis.sum() / (table["total_rate"] > UNUSED).sum())


def _best_compromise(table: pd.DataFrame) -> float:
    """Largest over betas of the worst task, each scaled to 0 at its worst fit and 1 at its best."""
    tasks = table[TASKS]
    return float(((tasks - tasks.min()) / (tasks.max() - tasks.min())).min(axis=1).max())


def _num_optima(table: pd.DataFrame) -> float:
    return float(len({table[metric].idxmax() for metric in TASKS}))


# A finding that only one of the paper's data sets shows names it.
FINDINGS = {
    "PSNR rises with the total rate": Rule("rank correlation", _ranks("psnr", "total_rate"), least=0.8),
    "at one total rate, PSNR falls with R(z2)": Rule(
        "rank correlation given the total rate", _ranks("psnr", "rate_z2", "total_rate"), most=0.0
    ),
    "I(y; z2) grows with R(z2)": Rule("rank correlation", _ranks("information_z2", "rate_z2"), least=0.8),
    "I(y; z2) hardly depends on R(z1 given z2)": Rule(
        "rank correlation given R(z2)", _ranks("information_z2", "rate_z1", "rate_z2"), least=-0.3, most=0.3
    ),
    "I(y; z2) is near 0 where R(z2) is": Rule(
        "largest share of H[y] at R(z2) < 0.1", lambda t: float(t["known"][t["rate_z2"] < UNUSED].max()), most=0.1
    ),
    "I(y; z2) is saturated by R(z2) of 15 to 20": Rule(
        "least share of H[y] at R(z2) from 15 on",
        lambda t: float(t["known"][t["rate_z2"] >= 15.0].min()),
        least=0.95,
    ),
    "SVHN: an RBF SVM on means of z2 is best with z1 empty": Rule(
        "share of z1 in the rate", _share_of_z1("accuracy_means_z2"), most=NEGLIGIBLE
    ),
    "CIFAR-10: it is best at an intermediate R(z2)": Rule(
        "share of the largest R(z2)", _place_of_z2("accuracy_means_z2"), most=0.5
    ),
    "it reads more than a linear SVM": Rule(
        "gain of the best", lambda t: float(t["accuracy_means_z2"].max() - t["linear_means_z2"].max()), least=0.05
    ),
    "no accuracy on samples of z2 passes the ceiling of R(z2)": Rule(
        "excess over it and 3 standard errors", lambda t: float(t["excess"].max()), most=0.0
    ),
    "generated images are diverse, except near the origin": Rule(
        "classes above 0.1 of the largest rate, share of the most", _least_diversity, least=0.7
    ),
    "they are sharper with z1 empty than with z2 empty": Rule("difference of means", _sharper_by_z2, least=0.0),
    "generation is best with z1 empty": Rule(
        "share of z1 in the rate", _share_of_z1("log_score"), most=NEGLIGIBLE
    ),
    "generation is best near betas of 1, and not there": Rule(
        "decades of the farther beta from 1", _decades_from_one, least=0.01, most=0.5
    ),
    "most fits leave a layer empty": Rule("their share", _share_on_axes, least=0.5),
    "reconstruction, classification and generation differ in their optima": Rule(
        "different best pairs of betas", _num_optima, least=3.0
    ),
    "no betas serve all three": Rule("worst share of a range at the best compromise", _best_compromise, most=0.95),
}
