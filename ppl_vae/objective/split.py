"""Whether the rate of guide and model splits into a rate of each latent site, and which betas it bears if not.

Let the guide draw a site j before i, which may be its parent in the model. What belongs to j in
KL(q(z | x), p(z)), E log q(z_j) - log p(z_j), is then no KL divergence: it may be negative, and is called a
site term. With equal betas only the sum matters. With beta_j above beta_i the loss has no lower bound where the
spreads of both can be learned: guide and model make z_i a copy of z_j, which lowers the term of j without limit,
and pay the same less dearly at i. With beta_j at most beta_i for every such pair the sum of weighted terms is
not negative.

Source:
    Top-down guides: Xiao & Bamler, arXiv:2302.04855. A bottom-up pair: Dang et al., arXiv:2306.05023.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_vae.errors import InputError
from ppl_vae.objective.objective import Objective, Program
from ppl_vae.objective.sites import Traces, as_number

__all__ = ["Split", "check_betas", "check_split", "find_split"]


@dataclass(frozen=True)
class Split:
    """What keeps the rate of guide and model from splitting by site.

    Attributes:
        late: For each site without a rate, what may be its parents in the model but is drawn after it.
        learned: Sites whose spread is learned, in guide or model.
    """

    late: Mapping[str, list[str]]
    learned: frozenset[str]

    def check(self, betas: Mapping[str, Any]) -> None:
        """Refuse betas with which the loss may have no lower bound.

        Args:
            betas: Beta of each site, or its betas of all steps, (steps,).

        Raises:
            InputError: A site outweighs one of its late parents, and the spreads of both are learned.
        """
        for site, parents in self.late.items():
            for parent in parents:
                if {site, parent} <= self.learned:
                    _check_pair(site, parent, betas)


def _check_pair(site: str, parent: str, betas: Mapping[str, Any]) -> None:
    own, other = np.broadcast_arrays(*(np.atleast_1d(betas[name]) for name in (site, parent)))
    # Betas are read off scales that were multiplied by the size of a plate.
    (steps,) = np.nonzero(own > other * (1 + 1e-6))
    if len(steps):
        found = f"{own[steps[0]]:g} and {other[steps[0]]:g}" + (f" at step {steps[0]}" if len(own) > 1 else "")
        raise InputError(
            f"beta of {site!r} must be at most that of {parent!r}, but they are {found}: the guide draws {site!r} "
            f"before {parent!r}, which may be its parent in the model, so that the rate does not split by site, "
            "and as the spreads of both are learned, the loss may have no lower bound; use equal betas, fix a "
            "spread, draw the latents in the model's order, or insist by the loss option allow_unbounded"
        )


def find_split(traces: Traces, program: Program) -> Split:
    """See whether the rate of a run splits by site.

    Args:
        traces: The run; in Pyro with gradients, or nothing counts as learned.
        program: The programs that were run.
    """
    late = {name: parents for name in traces.latents if (parents := traces.late_parents(name))}
    return Split(late, program.learned_spreads(traces) if late else frozenset())


def check_split(traces: Traces, program: Program) -> None:
    """Refuse a run with betas that its programs do not bear; under jit, where betas have no value, do nothing.

    Args:
        traces: The run.
        program: The programs that were run.

    Raises:
        InputError: See ``Split.check``.
    """
    if not any(map(traces.late_parents, traces.latents)):
        return
    betas = {name: as_number(site.beta) for name, site in traces.guide.items()}
    if None not in betas.values():
        find_split(traces, program).check(betas)


def check_betas(objective: Objective, split: Split, betas: Mapping[str, Any]) -> None:
    """Refuse betas that a loss has no place for, or may have no lower bound with.

    Args:
        objective: The loss.
        split: Of the programs.
        betas: Beta of each site, or its betas of all steps, (steps,).

    Raises:
        InputError: It does not bear them.
    """
    if objective.has_betas:
        if not objective.allow_unbounded:
            split.check(betas)
        return
    for site, values in betas.items():
        others = [beta for beta in np.unique(values) if beta != 1.0]
        if others:
            raise InputError(
                f"beta of {site!r} must be 1 with this loss, but it is {others[0]:g}: the loss holds the joint "
                "density as a whole, which has no parts to weigh; leave betas and their warm-up out, or use elbo"
            )
