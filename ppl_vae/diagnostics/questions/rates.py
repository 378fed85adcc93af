"""What did each nat buy? Rates by layer, what they tell of data and labels, and bounds.

All is in nats per datum and unscaled: betas do not enter.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.layer_page import LayersSummary
from ppl_vae.diagnostics.questions.question import Case, Finding, Question
from ppl_vae.diagnostics.summary_page import Estimate, SiteSummary, Summary
from ppl_vae.diagnostics.weights import inspect_draws
from ppl_vae.objective.terms import SITE_TERM

__all__ = ["QUESTION"]

NUM_DRAWS = 8
ALLOWED = 4.0  # standard errors
# A factor this near a beta of the run is taken for it.
NEAR = 0.1
WASTED = 0.5  # share of the rate that goes into the marginal KL
BOTTOM_UP = (
    "the guide is bottom-up: it draws {} before its parents in the model, so that what belongs to it may be "
    "negative and bounds nothing; where rates by layer matter take a guide that draws the top layer first, and "
    "each given those above, as in lvae"
)


def _answer(case: Case) -> Finding:
    checks = _checked_rates(case)
    case.report("rates by layer", 0.2)
    summary = case.summary
    layers = summary.layers
    broken, causes = _broken(checks, case)
    broken += [] if layers is None else layers.errors
    evidence = [_paid(site, case.row) for site in summary.sites]
    evidence += _information(summary) + ([] if layers is None else _by_layer(layers))
    numbers = {"checks": checks, "layers": None if layers is None else asdict(layers)}
    information = summary.information
    numbers["information"] = None if information is None else asdict(information)
    if broken:
        causes = causes or [
            "densities that are not those of the draws, or a guide of another order than the model"
        ]
        return Finding("bad", f"no: {'; '.join(broken)}", tuple(evidence), "; ".join(causes), numbers)
    return _priced(summary, evidence, numbers)


def _checked_rates(case: Case) -> dict[str, Any]:
    """By site the rate as it is computed beside log q - log p of the draws, which must agree."""
    fields = ("rates", "log_guide", "log_prior", "how")
    (seed,) = case.seeds("rates", 1)
    found = inspect_draws(case.engine, case.x, fields, num_draws=NUM_DRAWS, seed=seed)
    how, checks = dict(found["how"]), {}
    for name in case.engine.latents:
        rate, drawn = (_per_datum(value) for value in (found["rates"][name], _log_ratio(found, name)))
        difference, error = mean_and_standard_error(drawn - rate)
        checks[name] = {
            "how": how[name],
            "rate": float(rate.mean()),
            "drawn": float(drawn.mean()),
            "difference": difference,
            "standard_error": error,
        }
    return checks


def _log_ratio(found: dict[str, Any], name: str) -> Any:
    guide, prior = (np.asarray(found[field][name], np.float64) for field in ("log_guide", "log_prior"))
    return guide - prior


def _per_datum(values: Any) -> Any:
    """Sums over units and means over draws, (n,)."""
    array = np.asarray(values, np.float64)
    return array.reshape(*array.shape[:2], -1).sum(axis=2).mean(axis=0)


def _broken(checks: dict[str, Any], case: Case) -> tuple[list[str], list[str]]:
    broken, causes = [], []
    betas = case.run.record.get("final_betas", case.run.record["betas"])
    for name, check in checks.items():
        if not abs(check["difference"]) > ALLOWED * check["standard_error"] + 1e-3 * abs(check["rate"]):
            continue
        broken.append(
            f"the rate of {name} is {check['rate']:.3f}, but that of its draws {check['drawn']:.3f} "
            f"(difference {check['difference']:.3f} +- {check['standard_error']:.3f})"
        )
        factor, beta = check["rate"] / check["drawn"] if check["drawn"] else np.inf, betas.get(name, 1.0)
        is_scaled = beta != 1.0 and abs(factor / beta - 1.0) < NEAR if beta else False
        causes.append(
            f"the rate of {name} is measured with its beta {beta:.3g} on: a scale that is not the program's "
            "argument betas; take betas[site] in model and guide"
            if is_scaled
            else f"the closed form of the rate of {name} does not belong to the densities that are drawn from"
        )
    return broken, causes


def _paid(site: SiteSummary, row: str) -> str:
    if site.how == SITE_TERM:
        return f"{SITE_TERM} of {site.name}, no rate: {_show(site.rate)} nats per {row}"
    return f"rate of {site.name}: {_show(site.rate)} nats per {row}, {site.how}"


def _information(summary: Summary) -> list[str]:
    found, top = summary.information, summary.sites[0].name
    if found is None:
        return [f"mutual information of {top}: not estimated, {summary.not_estimated['information']}"]
    mutual = Estimate(found.mutual_information, found.mutual_information_standard_error)
    marginal = Estimate(found.marginal_kl, found.marginal_kl_standard_error)
    return [
        f"{top} tells {_show(mutual)} nats of which datum it is (at most {found.ceiling:.3f} can be seen); "
        f"{_show(marginal)} go into the divergence of all codes from the prior"
    ]


def _by_layer(layers: LayersSummary) -> list[str]:
    above = ["", *[" and those above"] * (len(layers.layers) - 1)]
    lines = [
        f"from draws of {layer.name}{told}: PSNR {layer.psnr.value:.2f} dB"
        for layer, told in zip(layers.layers, above, strict=True)
    ]
    for number, layer in enumerate(layers.layers):
        best = max(layer.accuracy_on_samples.items(), key=lambda pair: pair[1].value, default=None)
        if best is not None:
            lines[number] += f"; the best probe, {best[0]}, reads {_show(best[1])} of the labels from its draws"
        if layer.accuracy_ceiling is not None and best is not None:
            lines[number] += f", and {layer.accuracy_ceiling:.3f} is the most that the rates allow"
    if layers.label_information is not None:
        lines.append(
            f"{layers.layers[0].name} knows {_show(layers.label_information)} of the {layers.label_entropy:.3f} "
            "nats of the labels"
        )
    return lines


def _priced(summary: Summary, evidence: Sequence[str], numbers: dict[str, Any]) -> Finding:
    """Answer of rates that break no bound."""
    total = sum(site.rate.value for site in summary.sites)
    parts = ", ".join(f"{site.name} {site.rate.value:.2f}" for site in summary.sites)
    information, top = summary.information, summary.sites[0]
    told = f"{total:.2f} nats a {summary.row}" + (f" ({parts})" if len(summary.sites) > 1 else "")
    late = [site.name for site in summary.sites if site.how == SITE_TERM]
    causes = [BOTTOM_UP.format(" and ".join(late))] if late else []
    told += ", of which only the sum is a rate" if late else ""
    if information is not None:
        told += f", of which {top.name} tells {information.mutual_information:.2f} about the data"
        share = information.marginal_kl / top.rate.value if top.rate.value > 0 else 0.0
        if share > WASTED and information.marginal_kl > ALLOWED * information.marginal_kl_standard_error:
            causes.append(
                f"{share:.0%} of the rate of {top.name} pays for codes that are not where the prior is, and is "
                "lost on the data: a larger beta, or more data than the "
                f"{np.exp(information.ceiling):.0f} here"
            )
    return Finding("warning" if causes else "good", told, tuple(evidence), "; ".join(causes), numbers)


def _show(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} +- {estimate.standard_error:.3f}"


QUESTION = Question(
    "rates",
    "What did each nat buy?",
    cost=lambda case: NUM_DRAWS * len(case.x) + case.summary_cost,
    answer=_answer,
)
