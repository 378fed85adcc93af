"""The gamma-power divergence by Monte Carlo, for any model and guide whose densities are known."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from array_api_compat import array_namespace

from ppl_vae.errors import InputError
from ppl_vae.formulas import student_t
from ppl_vae.formulas.averages import effective_share, log_mean_exp
from ppl_vae.objective.elbo import distortion_and_loss, rate
from ppl_vae.objective.joint_density import check_unweighted, log_joint
from ppl_vae.objective.joint_t import FAMILIES, JointT, check_scales, flat, read_joint_t, scale_deviations, scales
from ppl_vae.objective.objective import Objective, Program
from ppl_vae.objective.sites import Traces
from ppl_vae.objective.terms import Terms

__all__ = ["GammaPowerMC"]


class GammaPowerMC(Objective):
    r"""Gamma-power divergence of the guide's joint of data and latents from the model's, sampled.

    .. math:: D = \frac1\gamma \Bigl( E_x \bigl[ E_q q(z \mid x)^\gamma \bigr]^{1 / (1 + \gamma)} - 1 \Bigr)
       - \frac1\gamma \Bigl( E_q \bigl[ p(x, z) / \|p\| \bigr]^\gamma - 1 \Bigr)

    The second bracket is the expected log density with a Box-Cox logarithm. The norm :math:`\|p\|_{1 + \gamma}`
    and the inner expectation are exact where all sites are those of a joint t, at its own order; elsewhere they
    are sampled, the norm from the model itself, which biases D by terms of the order of gamma^2 over the number of
    draws. With gamma below 0 powers grow in the tails: the reported effective shares, of draws that make up a
    mean, say whether it can be trusted. There are no betas, because the power is one of the whole joint.

    Args:
        gamma: Order, above -1; 0 for that of a joint t, -2 / (nu + n + m).
        num_draws: Draws of the latents per datum, at least 1.
        entropy: Differential entropy of the data in nats, as in ``GammaPower``; 0 to leave it out.

    Raises:
        InputError: An argument breaks its rule.

    Source:
        Fujisawa & Eguchi (2008) for the divergence; Kim et al., ICLR 2024, arXiv:2312.01133, for its joint form;
        the estimators are derived here.
    """

    has_betas = False

    def __init__(self, *, gamma: float = 0.0, num_draws: int = 16, entropy: float = 0.0) -> None:
        super().__init__()
        if not -1.0 < gamma < float("inf"):
            raise InputError(f"gamma must be above -1 and finite, but it is {gamma}; 0 takes that of the t sites")
        if num_draws < 1:
            raise InputError(f"num_draws must be at least 1, but it is {num_draws}; 16 is the default")
        if not isfinite(entropy):
            raise InputError(f"entropy must be a number of nats, but it is {entropy}; 0 leaves it out")
        self.gamma, self.num_draws, self.entropy = gamma, num_draws, entropy

    def read(self, traces: Traces, program: Program) -> Terms:
        """Terms of one run and of further draws; see ``Objective.read``."""
        check_unweighted(traces, "gamma_power_mc")
        run = self._joint_t(traces, program)
        gamma = self._order(run)
        joint, guide = self._densities(traces, program)
        log_norm, share_of_norm = self._log_norm(run, gamma, program, joint)
        log_guide = self._log_guide(run, gamma, program, guide) - gamma / (1.0 + gamma) * self.entropy
        parts = _power(log_guide) / gamma - _power(gamma * (joint - log_norm)).mean(0) / gamma
        distortion, _ = distortion_and_loss(traces)
        rates, how = {}, []
        for name, q in traces.guide.items():
            rates[name], method = rate(q, traces.model[name], traces, program)
            how.append((name, method))
        return Terms(
            loss=traces.x.total_of_events(parts) / traces.num_data,
            distortion=distortion,
            rates=rates,
            extras={"effective_share": self._share(traces, gamma * joint), "effective_share_norm": share_of_norm},
            how=tuple(how),
        )

    def notes(self, traces: Traces, program: Program) -> list[str]:
        """Where means may be infinite."""
        if not self.gamma:
            return []
        return [
            "the norm of the model's density is sampled, which biases gradients; with gamma below 0 a mean is "
            "infinite where the guide is wider than the model by more than 1 / |gamma| in variance, and the "
            "norm's variance where nu of a joint t is 4 or less: see that extra/effective_share stays far above "
            "one over the draws"
        ]

    def deviations(self, traces: Traces, program: Program) -> dict[str, Any]:
        """How far scales are off where they are to be those of a joint t; see ``joint_t.scale_deviations``."""
        run = self._joint_t(traces, program)
        return {} if run is None else scale_deviations(run, traces, program)

    def check(self, deviations: Mapping[str, float]) -> None:
        """Refuse scales that are off."""
        check_scales(deviations)

    def _joint_t(self, traces: Traces, program: Program) -> JointT | None:
        """The run as a joint t, or None where an order is given, at which nothing has a closed form."""
        if self.gamma:
            return None
        sites = [*traces.model.values(), *traces.guide.values()]
        others = sorted({site.family for site in sites} - {*FAMILIES, "Delta"})
        if others:
            raise InputError(
                "gamma must be given where not all sites are multivariate Student t, but it is 0 and there are "
                f"{', '.join(others)}; give one such as -0.1"
            )
        return read_joint_t(traces, program)

    def _order(self, run: JointT | None) -> Any:
        return self.gamma if run is None else student_t.power_gamma(run.df, run.dim)

    def _densities(self, traces: Traces, program: Program) -> tuple[Any, Any]:
        """Log densities of joint and guide, (draws, n); the given run is the first draw."""
        first = _log_densities(traces)
        if self.num_draws == 1:
            return first["joint"][None], first["guide"][None]
        others = program.map(lambda p: _log_densities(p.run(indices_of=traces)), self.num_draws - 1)
        concat = array_namespace(first["joint"]).concat
        joint, guide = (concat([first[name][None], others[name]]) for name in ("joint", "guide"))
        return joint, guide

    def _share(self, traces: Traces, powers: Any) -> Any:
        """Effective share of the powers, (draws, n), of data that no mask leaves out."""
        mask = traces.x.mask
        return effective_share(powers, None if mask is None else mask.reshape(powers.shape[1:]))

    def _log_norm(self, run: JointT | None, gamma: Any, program: Program, like: Any) -> tuple[Any, Any]:
        """Log of the norm of the model's joint density, and the effective share of the draws that it is of."""
        if run is not None:
            log_norm = student_t.log_power_norm(run.df, run.dim, run.x.log_det, log_gamma=program.log_gamma)
            return log_norm, array_namespace(like).ones_like(like[0, 0])
        powers = gamma * log_joint(program.generate())
        return log_mean_exp(powers) / (1.0 + gamma), effective_share(powers)

    def _log_guide(self, run: JointT | None, gamma: Any, program: Program, log_densities: Any) -> Any:
        """Log of the second mean's terms, E_q[q^gamma]^(1 / (1 + gamma)), (n,)."""
        if run is not None and len(run.guide) == 1:
            ((name, q),) = run.guide.items()
            if not hasattr(q.fn, "scale_tril"):
                dim = run.latents[name].dim
                log_det = student_t.log_det(scales(q), dim) + 0.0 * flat(q, q.fn.loc)[..., 0]
                return student_t.log_power_norm(run.df + run.x.dim, dim, log_det, log_gamma=program.log_gamma)
        return log_mean_exp(gamma * log_densities) / (1.0 + gamma)


def _power(log_value: Any) -> Any:
    """Exponential less 1; over gamma it is a Box-Cox logarithm."""
    return array_namespace(log_value).expm1(log_value)


def _log_densities(traces: Traces) -> dict[str, Any]:
    return {"joint": log_joint(traces.model), "guide": log_joint(traces.guide)}
