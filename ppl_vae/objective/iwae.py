"""The importance-weighted bound: log of a mean of weights in place of the mean of their logs; nats per datum."""

from collections.abc import Mapping
from typing import Any

from array_api_compat import array_namespace

from ppl_vae.errors import InputError
from ppl_vae.formulas.averages import log_mean_exp
from ppl_vae.objective.elbo import distortion_and_loss, rate
from ppl_vae.objective.joint_density import check_unweighted, log_joint
from ppl_vae.objective.objective import Objective, Program
from ppl_vae.objective.sites import Traces
from ppl_vae.objective.terms import Terms

__all__ = ["IWAE"]


class IWAE(Objective):
    r"""Minus the importance-weighted bound of K draws, per datum.

    .. math:: L = -E \log \frac1K \sum_{k=1}^K w_k, \quad w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \; z_k \sim q

    K = 1 is minus the ELBO; the bound rises with K to log p(x). There are no betas, because the weights hold the
    joint density as a whole, of which no part can be weighed and leave a bound. Distortion, rates and ELBO that
    are reported are those of one draw; ``effective_share`` is the share of the K draws that make up the mean.

    Args:
        num_draws: Draws K of the latents per datum, at least 1.
        doubly_reparameterised: Take another unbiased gradient of the guide, whose signal does not drown in noise
            as K grows; it costs one more run of guide and model a draw.

    Raises:
        InputError: ``num_draws`` is below 1.

    Source:
        Burda, Grosse & Salakhutdinov, arXiv:1509.00519; Tucker et al., arXiv:1810.04152, for the gradient.
    """

    has_betas = False

    def __init__(self, *, num_draws: int = 8, doubly_reparameterised: bool = False) -> None:
        super().__init__()
        if num_draws < 1:
            raise InputError(f"num_draws must be at least 1, but it is {num_draws}; 8 is the default")
        self.num_draws, self.doubly_reparameterised = num_draws, doubly_reparameterised

    def read(self, traces: Traces, program: Program) -> Terms:
        """Terms of one run and of further draws; see ``Objective.read``."""
        _check(traces)
        draws = self._draws(traces, program)
        bounds = log_mean_exp(draws["weight"])
        if self.doubly_reparameterised:
            bounds = _with_gradient(bounds, draws, program)
        shares = 2.0 * log_mean_exp(draws["weight"]) - log_mean_exp(2.0 * draws["weight"])
        distortion, _ = distortion_and_loss(traces)
        rates, how = {}, []
        for name, q in traces.guide.items():
            rates[name], method = rate(q, traces.model[name], traces, program)
            how.append((name, method))
        return Terms(
            loss=traces.x.total_of_events(-bounds) / traces.num_data,
            distortion=distortion,
            rates=rates,
            extras={"effective_share": array_namespace(shares).exp(shares).mean()},
            how=tuple(how),
        )

    def _draws(self, traces: Traces, program: Program) -> dict[str, Any]:
        """Logs of the weights, (k, n), and what their gradients are made of; the given run is the first draw."""
        others = None
        if self.num_draws > 1:
            others = program.map(lambda p: self._log_weights(p.run(indices_of=traces), p), self.num_draws - 1)
        first = self._log_weights(traces, program)
        if others is None:
            return {name: values[None] for name, values in first.items()}
        concat = array_namespace(first["weight"]).concat
        return {name: concat([values[None], others[name]]) for name, values in first.items()}

    def _log_weights(self, traces: Traces, program: Program) -> dict[str, Any]:
        found = {"weight": log_joint(traces.model) - log_joint(traces.guide)}
        if self.doubly_reparameterised:
            # The same draws as constants: what parameters do to the densities other than through them.
            constant = {name: program.constant(site.value) for name, site in traces.guide.items()}
            fixed = program.on(program.args, program.kwargs, latents=lambda name, fn: constant[name])
            run = fixed.run(indices_of=traces)
            found |= {"model": log_joint(run.model), "guide": log_joint(run.guide)}
        return found


def _with_gradient(bounds: Any, draws: Mapping[str, Any], program: Program) -> Any:
    """The same bounds, with the doubly reparameterised gradient.

    With shares s_k of the weights, the gradient of the model's log density is weighed by s_k, and that of log w_k
    by the draws alone by s_k^2. The gradient of log w_k is the sum of both less that of the guide's log density.
    """
    shares = program.constant(array_namespace(bounds).exp(draws["weight"] - bounds) / len(draws["weight"]))
    squares = shares * shares
    parts = squares * (draws["weight"] + draws["guide"]) + (shares - squares) * draws["model"]
    gradient = parts.sum(0)
    return program.constant(bounds) + (gradient - program.constant(gradient))


def _check(traces: Traces) -> None:
    check_unweighted(traces, "iwae")
    for site in (*traces.guide.values(), *traces.observed):
        if site.batch_shape != traces.x.batch_shape:
            raise InputError(
                f"site {site.name!r} must have the batch shape of {traces.x.name!r}, {traces.x.batch_shape}, for "
                f"iwae, which has one weight a datum, but it has {site.batch_shape}; use elbo for groups of data"
            )
