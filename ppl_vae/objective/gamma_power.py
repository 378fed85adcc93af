"""The gamma-power loss of the t3VAE: squared error plus regularisers, in nats, for programs of Student t sites."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from array_api_compat import array_namespace

from ppl_vae.errors import InputError
from ppl_vae.formulas import gamma_power
from ppl_vae.objective.combinations import Combination, Slope, totals
from ppl_vae.objective.joint_t import (
    Conditional,
    JointT,
    check_scales,
    flat,
    read_joint_t,
    scale_deviations,
    scales,
    unit_density,
)
from ppl_vae.objective.objective import Objective, Program
from ppl_vae.objective.sites import Site, Traces
from ppl_vae.objective.terms import Terms, weighted

__all__ = ["GammaPower"]


class GammaPower(Objective):
    r"""Half the squared error over sigma^2, plus a regulariser of each latent site times its beta, per datum.

    .. math:: L = E \frac{|x - \hat x|^2}{2 \sigma^2} + \sum_l \beta_l R_l

    At betas of 1 it is a gamma-power divergence of the guide's joint from the model's, times a constant, but for a
    constant and for an average over data in place of an integral over their density; in two levels, where the
    entropy of the upper guide is left out too, that holds to first order in 1 / nu; see ``formulas.gamma_power``.
    Extras are ``half_squared_error``, the first term, a ``regulariser`` for each site, and ``gamma_loss``, their
    unweighted sum less the regularisers' constants, which is the loss as published, halved.
    It does not see the scale that the decoder's t has at each z, and it grows with the square of an outlier. Its
    regularisers are exact, its error is sampled; the reported distortion, rates and ELBO are those of the
    programs' own densities, sampled.

    Args:
        entropy: Differential entropy of the data in nats, which makes the loss independent of the units of x; 0 is
            the published loss.
        num_particles: Independent runs that a step averages over, at least 1.

    Raises:
        InputError: An argument breaks its rule.

    Source:
        Kim et al., ICLR 2024, arXiv:2312.01133, in one and two levels; the factor of the entropy is derived here.
    """

    def __init__(self, *, entropy: float = 0.0, num_particles: int = 1) -> None:
        super().__init__(num_particles=num_particles)
        if not isfinite(entropy):
            raise InputError(f"entropy must be a number of nats, but it is {entropy}; 0 is the published loss")
        self.entropy = entropy

    def read(self, traces: Traces, program: Program) -> Terms:
        """Terms of one run; see ``Objective.read``."""
        run = read_joint_t(traces, program)
        densities, weight = run.log_densities(program), 1.0 / traces.num_data
        levels = self._levels(run, program)
        wanted = [(run.x.site, _half_squared_error(run.x)), (run.x.site, -densities[run.x.site.name])]
        for (name, part), level in zip(run.latents.items(), levels, strict=True):
            q = run.guide[name]
            log_scales = _log_scales(part, q)
            log_q = _log_guide(run, part, q, log_scales, program)
            wanted += [(q, _regulariser(run, part, q, log_scales, level)), (q, log_q.minus(densities[name]))]
        error, distortion, *values = totals(wanted, weight)
        loss, gamma_loss, extras, how = weighted(error, run.x.site.beta), error, {}, []
        for (name, q), level, value in zip(run.guide.items(), levels, values[::2], strict=True):
            loss = loss + weighted(value, q.beta)
            counted = 1.0 if q.mask is None else q.total(1.0, weight)  # masked data have no constant
            gamma_loss = gamma_loss + value - 0.5 * level.constant * counted
            extras[f"regulariser/{name}"] = value
            how += [(name, "sampled"), (f"regulariser/{name}", "analytic")]
        rates = dict(zip(run.guide, values[1::2], strict=True))
        extras |= {"half_squared_error": error, "gamma_loss": gamma_loss}
        return Terms(loss=loss, distortion=distortion, rates=rates, extras=extras, how=tuple(how))

    def notes(self, traces: Traces, program: Program) -> list[str]:
        """Which form of the loss a run was fitted with."""
        if self.entropy:
            return [f"gamma-power loss with the entropy of the data, {self.entropy:g} nats"]
        return ["gamma-power loss as published: no entropy of the data, so that it depends on their units"]

    def deviations(self, traces: Traces, program: Program) -> dict[str, Any]:
        """How far scales are off; see ``joint_t.scale_deviations``."""
        return scale_deviations(read_joint_t(traces, program), traces, program)

    def check(self, deviations: Mapping[str, float]) -> None:
        """Refuse scales that are off."""
        check_scales(deviations)

    def _levels(self, run: JointT, program: Program) -> list[gamma_power.Level]:
        dims = [part.dim for part in run.latents.values()]
        if len(dims) > 2:
            raise InputError(
                f"model must have one or two latent sites for the gamma-power loss, but it has "
                f"{list(run.latents)}; no closed form is known for more: use gamma_power_mc"
            )
        log_gamma = program.log_gamma
        return gamma_power.levels(run.df, run.x.dim, dims, run.x.log_det, self.entropy, log_gamma=log_gamma)


def _log_scales(part: Conditional, q: Site) -> Any:
    """Log scales of the guide's t, one a coordinate, (n, d)."""
    values = scales(q)
    xp = array_namespace(values)
    found = xp.log(values)
    return found if found.shape[-1] == part.dim else xp.broadcast_to(found, (*found.shape[:-1], part.dim))


def _half_squared_error(x: Conditional) -> Combination:
    """Half the squared error of each datum in units of sigma."""
    if len(x.own) > 1:
        return Combination(0.0, ((0.5, x.squared),), None)
    return Combination(0.0, ((0.5, x.squared),), (Slope(x.offset, x.offset, 1.0 / x.own[0] ** 2),))


def _regulariser(
    run: JointT, part: Conditional, q: Site, log_scales: Any, level: gamma_power.Level
) -> Combination:
    """Regulariser of a latent site, of each datum."""
    shift = flat(q, q.fn.loc) - flat(part.site, part.site.fn.loc)
    xp = array_namespace(shift)
    squared = xp.sum(shift * shift, axis=-1)
    # Sigma over the squared scale of the guide's t: a level in units of that costs no operation.
    ratio = 1.0 + (run.x.dim + part.above) / run.df
    level = level._replace(log_s=level.log_s - array_namespace(ratio).log(ratio))
    if hasattr(q.fn, "scale_tril"):
        trace, log_det = xp.sum(q.fn.scale_tril**2, axis=(-2, -1)), 2.0 * xp.sum(log_scales, axis=-1)
        value = gamma_power.dense_regulariser(squared, trace, log_det, part.dim, level)
        return Combination(0.0, ((1.0, value),), None)
    if log_scales.shape != shift.shape:
        log_scales = xp.broadcast_to(log_scales, shift.shape)
    excess, power, direction = gamma_power.excess_and_power(2.0 * log_scales, level)
    half = 0.5 * level.kappa
    slopes = Slope(shift, shift, 1.0), Slope(log_scales, direction, level.kappa)
    return Combination(0.0, ((0.5, squared), (half, excess), (-half * level.total, power)), slopes)


def _log_guide(run: JointT, part: Conditional, q: Site, log_scales: Any, program: Program) -> Combination:
    """Log density of the guide's draw without gradients."""
    if hasattr(q.fn, "scale_tril"):
        return Combination(0.0, ((1.0, program.constant(q.log_prob())),))
    value, loc, scale = (program.constant(v) for v in (flat(q, q.value), flat(q, q.fn.loc), scales(q)))
    noise = (value - loc) / scale
    xp, df = array_namespace(noise), run.df + (run.x.dim + part.above)
    found = unit_density(xp.sum(noise * noise, axis=-1), df, part.dim, program)
    return found.minus(Combination(0.0, ((1.0, xp.sum(program.constant(log_scales), axis=-1)),)))
