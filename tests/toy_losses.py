"""Two small losses that stand for what will extend the objective: a joint loss and a wrapper of any loss."""

from array_api_compat import array_namespace

from ppl_vae.objective.elbo import distortion_and_loss, rate
from ppl_vae.objective.objective import Objective
from ppl_vae.objective.terms import Terms


class PowerLoss(Objective):
    """Minus the log of a power mean of weights over data, -(1/gamma) log mean_n exp(gamma a_n).

    Where a_n = log p(x_n | z_n) + sum of beta (log p(z_n) - log q(z_n)): a function of all sites of a datum at
    once that no sum of site terms gives. It tends to the sampled ELBO as gamma tends to zero.

    Args:
        gamma: The power, not zero.
    """

    def __init__(self, *, gamma, num_particles=1):
        super().__init__(num_particles=num_particles)
        self.gamma = gamma

    def read(self, traces, program):
        x, *_ = traces.observed
        joint = x.per_datum(x.log_prob())
        for name, q in traces.guide.items():
            p = traces.model[name]
            joint = joint + q.beta * (p.per_datum(p.log_prob()) - q.per_datum(q.log_prob()))
        xp = array_namespace(joint)
        loss = -xp.log(x.total_of_events(xp.exp(self.gamma * joint)) / traces.num_data) / self.gamma
        distortion, _ = distortion_and_loss(traces)
        rates = {n: rate(q, traces.model[n], traces, program)[0] for n, q in traces.guide.items()}
        # A number read off the guide's parameters, as the t losses read scales and degrees of freedom.
        extras = {f"scale/{n}": q.total(q.fn.scale) / traces.num_data for n, q in traces.guide.items()}
        return Terms(loss, distortion, rates, extras, (("loss", "sampled"),))


class AgreementLoss(Objective):
    """A base loss on data and on transformed data, plus weight * KL(q(z | t(x)), q(z | x)) of the guide.

    Args:
        base: Any objective.
        transform: From the program to the arguments of the second branch.
        weight: Factor of the KL.
    """

    def __init__(self, base, transform, *, weight, num_particles=1):
        super().__init__(num_particles=num_particles)
        self.base, self.transform, self.weight = base, transform, weight

    def read(self, traces, program):
        other = program.on(*self.transform(program))
        there = other.run(indices_of=traces)
        here, beyond = self.base.read(traces, program), self.base.read(there, other)
        agreement = 0.0
        for name, p in program.replay_guide(there).items():
            q = there.guide[name]
            elements = program.kl(q, p)
            elements = q.log_prob() - p.log_prob() if elements is None else elements
            agreement = agreement + q.total(elements) / traces.num_data
        return Terms(
            loss=here.loss + beyond.loss + self.weight * agreement,
            distortion=here.distortion,
            rates=here.rates,
            extras={**here.extras, "transformed": beyond.loss, "agreement": agreement},
            how=here.how,
        )
