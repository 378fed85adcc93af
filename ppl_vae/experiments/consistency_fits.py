"""Fits with and without consistency regularisation: losses by method, and what a fit is worth.

Measures are in nats per datum, by the names of ``consistency_findings.COLUMNS``; accuracies are shares.
"""

from dataclasses import replace
from typing import Any

from ppl_vae.diagnostics.activity import active_units_by_variance
from ppl_vae.diagnostics.information import gaussian_aggregate_information
from ppl_vae.diagnostics.invariance import invariance_of_run
from ppl_vae.diagnostics.weights import inspect_draws, unit_means
from ppl_vae.experiments.consistency_findings import AUGMENTED, OF_SITE, PLAIN
from ppl_vae.objective.consistency import Consistency
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.iwae import IWAE
from ppl_vae.objective.objective import Program
from ppl_vae.objective.terms import Terms

__all__ = ["Augmented", "loss_of", "measure"]

BASES = {"elbo": ELBO, "iwae": IWAE}


class Augmented(Consistency):
    """The loss on t(x) alone, which leaves x to measures; arguments as of ``Consistency``."""

    def measure(self, program: Program) -> Terms:
        """Terms of x, with the loss of t(x)."""
        terms = super().measure(program)
        return replace(terms, loss=terms.extras["transformed/loss"])


def loss_of(
    method: str, weight: float, transform: str, backend: str, *, base: str = "elbo", binarise: str = "none"
) -> dict[str, Any]:
    """Arguments of ``fit`` for a method.

    Args:
        method: ``PLAIN``, ``AUGMENTED``, or anything else for the consistency loss.
        weight: Its weight.
        transform: Name of the transformation.
        backend: "pyro" or "numpyro".
        base: Loss that it wraps, "elbo" or "iwae".
        binarise: How ``AUGMENTED`` makes zeros and ones of what it transformed.
    """
    if method == PLAIN:
        return {"loss": base}
    if method != AUGMENTED:
        options = {"transform": transform, "weight": weight}
        return {"loss": "consistency", "base_loss": base, "loss_options": options}
    objective = Augmented(BASES[base](), transform, weight=0.0, binarise=binarise)
    if backend == "pyro":
        from ppl_vae.objective.pyro_program import PyroLoss

        return {"loss": PyroLoss(objective)}
    from ppl_vae.objective.numpyro_program import NumPyroLoss

    return {"loss": NumPyroLoss(objective)}


def measure(run: Any, transform: str, *, num_draws: int, num_data: int) -> dict[str, float]:
    """What a run is worth on its test data.

    Args:
        run: A ``Run``.
        transform: Name of the transformation.
        num_draws: Importance draws for the likelihood.
        num_data: Test data for the likelihood.
    """
    x = run.data.split("test")
    found = inspect_draws(run.engine, x, ("loc", "scale"), num_draws=1, seed=0)
    # Of the top site, whose guide depends on x alone.
    top = (found[field][run.engine.latents[0]].reshape(len(x), -1) for field in ("loc", "scale"))
    invariance = invariance_of_run(run, transform)
    probes = invariance.probe, invariance.probe_transformed
    rates, sites = run.metrics["rates"], invariance.sites if len(invariance.sites) > 1 else []
    return {
        "nll": -run.log_px(x[:num_data], num_draws=num_draws).mean[0],
        "elbo": run.metrics["elbo"]["test"],
        "rate": float(sum(rates["test"].values())),
        "information": gaussian_aggregate_information(*top, num_draws=1, seed=0).mutual_information,
        "active": float(sum(active_units_by_variance(m)[0].sum() for m in unit_means(run.engine, x).values())),
        "consistency": invariance.consistency.value,
        "probe": float("nan") if probes[0] is None else probes[0].accuracy,
        "probe_transformed": float("nan") if probes[1] is None else probes[1].value,
        "least": invariance.information.value,
        "most": invariance.information_at_most.value,
        "num_test": float(len(x)),
        **{f"{OF_SITE}{site.name}": site.kl.value for site in sites},
    }
