"""What is known of a linear variant on its training data: the best parameters, and the exact loss of any others.

Losses are in nats per datum, distortion plus weighted rates; scales are standard deviations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ppl_vae.data import Rows, condition_of
from ppl_vae.errors import InputError
from ppl_vae.theory._linear import nats_per_datum
from ppl_vae.theory.linear_conditional import cvae_objective, cvae_optimum
from ppl_vae.theory.linear_encoder import LinearOptimum, learned_scale, vae_objective, vae_optimum
from ppl_vae.theory.linear_markov import MHVAEOptimum, mhvae_objective, mhvae_optimum
from ppl_vae.theory.second_moments import ConditionalMoments, Moments, conditional_moments, second_moments
from ppl_vae.training.engine import Arrays
from ppl_vae.training.linear_layout import LINEAR_VARIANTS, LinearFit, LinearLayout
from ppl_vae.training.prepared import Prepared
from ppl_vae.training.programs import Program
from ppl_vae.training.settings import FitSettings, final_betas

__all__ = ["LinearProblem", "linear_problem", "optimal_parameters", "training_moments"]


@dataclass(frozen=True, eq=False)
class LinearProblem:
    """What a linear variant minimises on its training data.

    Attributes:
        layout: The variant, its options and sizes.
        betas: Weights of the latent sites, positive.
        moments: Moments of the training data, centred where the variant has biases.
        rows: The training data.
    """

    layout: LinearLayout
    betas: Mapping[str, float]
    moments: Moments | ConditionalMoments
    rows: Rows

    @cached_property
    def latent_moments(self) -> Moments:
        """Moments of what the latents are for: the data, or what the condition leaves of them."""
        if isinstance(self.moments, Moments):
            return self.moments
        residual = self.moments.residual
        return Moments.of(residual.vectors * residual.values @ residual.vectors.T)

    def best_scale(self) -> float:
        """Standard deviation of the likelihood at the optimum.

        Raises:
            InputError: It is learned, and the best one is not known, or there is none.
        """
        options, layout = self.layout.options, self.layout
        if not options["learn_scale"]:
            return float(options["scale"])
        if layout.name == "linear_mhvae" or layout.fixed["z"] is not None:
            raise InputError(
                f"learn_scale must be off for {layout.name} with these posterior scales, but it is on: the best "
                "scale is known only where there is one level and its posterior scale is learned; fix it by "
                "--no-learn-scale"
            )
        return learned_scale(self.latent_moments, latent_dim=options["latent_dim"], beta=self.betas["z"])

    def optimum(self, scale: float) -> LinearOptimum[Any] | MHVAEOptimum:
        """The global minimum at a standard deviation of the likelihood.

        Args:
            scale: The standard deviation.

        Raises:
            InputError: There is none; see ``mhvae_optimum``.
        """
        options, fixed, moments = self.layout.options, self.layout.fixed, self.moments
        if self.layout.name == "linear_mhvae":
            return mhvae_optimum(
                self.latent_moments,
                latent_dims=tuple(options["latent_dims"]),
                betas=self.betas,
                posterior_scale1=fixed["z1"],
                posterior_scale2=fixed["z2"],
                **self._scales(scale),
            )
        wanted = {"latent_dim": options["latent_dim"], "beta": self.betas["z"], "posterior_scale": fixed["z"]}
        wanted |= self._scales(scale)
        if isinstance(moments, Moments):
            return vae_optimum(moments, **wanted)
        return cvae_optimum(moments, **wanted)

    def J(self, maps: Any, scale: float) -> Any:  # noqa: N802
        """The exact objective, 2 loss - d log(2 pi scale^2).

        Args:
            maps: Maps of NumPy, torch or JAX arrays.
            scale: Standard deviation of the likelihood.
        """
        scales = self._scales(scale)
        if self.layout.name == "linear_mhvae":
            return mhvae_objective(maps, self.latent_moments, betas=self.betas, **scales)
        if isinstance(self.moments, Moments):
            return vae_objective(maps, self.moments, beta=self.betas["z"], **scales)
        return cvae_objective(maps, self.moments, beta=self.betas["z"], **scales)

    def loss(self, fit: LinearFit) -> float:
        """Exact loss of a fit on the training data, in nats per datum.

        Args:
            fit: The fit.
        """
        extra = sum(self.betas[site] * float(excess.sum()) for site, excess in fit.excess.items())
        return nats_per_datum(float(self.J(fit.maps, fit.scale)), self.layout.data_dim, fit.scale) + extra

    def fit(self, parameters: Arrays) -> LinearFit:
        """What parameters of either backend mean; errors as of ``LinearLayout.fit``.

        Args:
            parameters: By name.
        """
        return self.layout.fit(parameters, self.rows)

    def _scales(self, scale: float) -> dict[str, float]:
        options = self.layout.options
        if self.layout.name != "linear_mhvae":
            return {"scale": scale, "prior_scale": options["prior_scale"]}
        # A learned scale of x leaves that of z1 where it began.
        middle = options["prior_scale1"] or options["scale"]
        return {"scale": scale, "prior_scale1": middle, "prior_scale2": options["prior_scale2"]}


def training_moments(data: Prepared, *, centre: bool) -> Moments | ConditionalMoments:
    """Moments of the training data, with those of their conditions where they have any.

    Args:
        data: The data of a fit.
        centre: Whether the model has biases.
    """
    rows = data.training()
    condition = condition_of(rows)
    if condition is None:
        return second_moments(rows, centre=centre)
    return conditional_moments(condition, rows, centre=centre)


def linear_problem(
    program: Program, data: Prepared, settings: FitSettings, betas: Mapping[str, float]
) -> LinearProblem:
    """The problem of a linear variant on its training data.

    Args:
        program: The built variant, in either backend.
        data: The data of the fit.
        settings: Settings of the fit.
        betas: Final beta of each site.

    Raises:
        InputError: Another variant, or training data that are drawn anew for each batch.
    """
    if program.name not in LINEAR_VARIANTS:
        raise InputError(
            f"variant must be one of {', '.join(LINEAR_VARIANTS)} for a linear optimum, but it is {program.name}, "
            "whose best parameters nobody knows; leave --init out"
        )
    if settings.binarise == "sample":
        raise InputError(
            "binarise must be none or threshold for a linear optimum, but it is sample: the data differ from "
            "batch to batch; choose one of them"
        )
    moments = training_moments(data, centre=program.options["bias"])
    condition_dim = moments.condition_dim if isinstance(moments, ConditionalMoments) else 0
    joint = moments.joint if isinstance(moments, ConditionalMoments) else moments
    layout = LinearLayout(program.name, program.options, len(joint.mean) - condition_dim, condition_dim)
    return LinearProblem(layout, final_betas(betas), moments, data.training())


def optimal_parameters(
    program: Program, data: Prepared, settings: FitSettings, betas: Mapping[str, float]
) -> Arrays:
    """Parameters at which a linear variant's loss on the training data is the least possible.

    Args:
        program: The built variant, in either backend.
        data: The data of the fit.
        settings: Settings of the fit.
        betas: Final beta of each site.

    Returns:
        Parameters by name, float32, the same for both backends.

    Raises:
        InputError: As of ``linear_problem`` and ``LinearProblem``, or amortised scales without biases.
    """
    problem = linear_problem(program, data, settings, betas)
    if "amortised" in problem.layout.kinds.values() and not program.options["bias"]:
        raise InputError(
            "posterior scales must be learned or fixed for a linear optimum without biases, but one is amortised: "
            "it needs a bias to be the same for all data, as the best one is; add --bias, or take learned"
        )
    scale = problem.best_scale()
    return problem.layout.arrays(problem.optimum(scale).maps, scale)
