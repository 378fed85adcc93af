"""Models and guides that know nothing of the package, in the words of ``tests.backends``; densities by SciPy."""

import numpy as np
from scipy import stats


def linear_pair(ppl, exact, *, subsample_size=None, beta=1.0):
    """The program of an ``ExactEngine`` with its guide, in a plate called rows."""
    weights, scale = ppl.array(exact.weights), ppl.array(exact.posterior_scale)
    slope = ppl.array(exact.weights * (exact.posterior_scale / exact.noise_scale) ** 2)
    zeros = ppl.array(np.zeros(len(exact.norms)))

    def model(x):
        with ppl.plate("rows", len(x), subsample_size=subsample_size) as index:
            with ppl.scale(scale=beta):
                z = ppl.sample("z", ppl.dist.Normal(zeros, 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z @ weights.T, exact.noise_scale).to_event(1), obs=x[index])

    def guide(x):
        with ppl.plate("rows", len(x), subsample_size=subsample_size) as index, ppl.scale(scale=beta):
            loc = x[index] @ slope + exact.shift * scale
            ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))

    return model, guide


def linear_log_weight(exact, x, z):
    """log p(x, z) - log q(z given x), (s, n), of the same."""
    loc = exact.posterior_mean(x) + exact.shift * exact.posterior_scale
    log_joint = stats.norm.logpdf(x, z @ exact.weights.T, exact.noise_scale).sum(-1) + stats.norm.logpdf(z).sum(-1)
    return log_joint - stats.norm.logpdf(z, loc, exact.posterior_scale).sum(-1)


def shared_pair(ppl):
    """A latent that all data share, beside their own ones; two observed sites and a term."""
    normal = ppl.dist.Normal

    def model(x, y):
        w = ppl.sample("w", normal(ppl.array(np.zeros(2)), 1.0))
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", normal(0.0, 1.0))
            ppl.sample("x", normal(w[0] + z, 1.0), obs=x)
            ppl.sample("y", normal(z, 1.0), obs=y)
        ppl.factor("term", ppl.array(0.25))

    def guide(x, y):
        ppl.sample("w", normal(ppl.array(np.zeros(2)), 1.0))
        with ppl.plate("guide rows", len(x)):
            ppl.sample("z", normal((x + y) / 3.0, 0.8))

    return model, guide


def shared_log_px(x, y):
    """log p(x, y) of the same, the term included."""
    n = len(x)
    common = np.block([[np.eye(n) + np.ones((n, n)), np.eye(n)], [np.eye(n), np.eye(n)]])
    return 0.25 + stats.multivariate_normal(cov=common + np.eye(2 * n)).logpdf(np.concatenate([x, y]))


MIXTURE = np.array([0.2, 0.5, 0.3]), np.array([-2.0, 0.0, 1.5])


def mixture_pair(ppl, *, in_guide):
    """A kind k of three, z about its centre, x about z; the second datum is masked."""
    probs, centres = map(ppl.array, MIXTURE)

    def model(x, mask):
        with ppl.plate("rows", len(x)), ppl.mask(mask=mask):
            k = ppl.sample("k", ppl.dist.Categorical(probs))
            z = ppl.sample("z", ppl.dist.Normal(centres[k], 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 0.5), obs=x)

    def guide(x, mask):
        with ppl.plate("rows", len(x)), ppl.mask(mask=mask):
            if in_guide:
                ppl.sample("k", ppl.dist.Categorical(ppl.array(np.full(3, 1 / 3))))
            ppl.sample("z", ppl.dist.Normal(0.8 * x, 0.7))

    return model, guide


def mixture_log_px(x):
    """log p(x) of the same."""
    probs, centres = MIXTURE
    return np.log((probs * stats.norm.pdf(x[:, None], centres, np.sqrt(1.25))).sum(-1))
