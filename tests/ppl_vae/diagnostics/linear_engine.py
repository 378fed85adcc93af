"""An engine without a backend, on a linear-Gaussian hierarchy whose rates and informations are known exactly."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import multivariate_normal

from ppl_vae.objective.inspection import Generation, Inspection
from ppl_vae.theory.linear_hierarchy import best_guide, measure


class LinearEngine:
    """The best guide for given betas, top first; it inspects, weighs and generates only.

    Args:
        model: A `LinearHierarchy`.
        betas: Weights that the guide is best for, top first.
        how: How each site's term counts as computed.
    """

    observed = "x"
    condition_shape = None
    has_density = True
    max_rows = 16384
    nested = ()

    def __init__(self, model, betas, how="analytic"):
        self.model, self.guide = model, best_guide(model, betas)
        self.latents = [f"z{number}" for number in range(len(betas), 0, -1)]
        self.how, self.notes = dict.fromkeys(self.latents, how), []
        self.data_shape = (len(model.likelihood.bias),)

    def exact(self, mean, covariance):
        """`Readings` for Gaussian data."""
        return measure(self.model, self.guide, mean, covariance)

    def inspect(self, x, *, seed, latents="draw", draw_x=False):
        rng = np.random.default_rng(seed)
        seen, above = np.asarray(x, float), np.zeros((len(x), 0))
        record = {name: {} for name in ("latents", "loc", "scale", "log_guide", "log_prior", "rates")}
        for site, q, p in zip(self.latents, self.guide, self.model.layers, strict=True):
            loc, prior = seen @ q.weights.T + q.bias, above @ p.weights.T + p.bias
            noise = rng.multivariate_normal(np.zeros(len(q.bias)), q.covariance, len(x))
            value = latents[site] if isinstance(latents, Mapping) else loc + noise * (latents == "draw")
            inverse = np.linalg.inv(p.covariance)
            trace = np.trace(inverse @ q.covariance) - len(q.bias)
            logdets = np.linalg.slogdet(p.covariance)[1] - np.linalg.slogdet(q.covariance)[1]
            quadratic = np.einsum("ni,ij,nj->n", loc - prior, inverse, loc - prior)
            record["rates"][site] = 0.5 * (quadratic + trace + logdets)
            record["latents"][site], record["loc"][site] = value, loc
            record["scale"][site] = np.broadcast_to(np.sqrt(np.diag(q.covariance)), loc.shape)
            record["log_guide"][site] = _log_density(value - loc, q.covariance)
            record["log_prior"][site] = _log_density(value - prior, p.covariance)
            seen, above = np.hstack([seen, value]), np.hstack([above, value])
        mean = above @ self.model.likelihood.weights.T + self.model.likelihood.bias
        likelihood = _log_density(np.asarray(x, float) - mean, self.model.likelihood.covariance)
        return Inspection(**record, log_likelihood=likelihood, mean=mean, how=tuple(self.how.items()))

    def log_weights(self, x, *, num_draws, seed):
        rows = np.concatenate([x] * num_draws)
        return self.inspect(rows, seed=seed).log_weight.reshape(num_draws, len(x))

    def generate(self, num_draws, *, seed, latents=None, condition=None):
        rng, above, drawn = np.random.default_rng(seed), np.zeros((num_draws, 0)), {}
        for site, p in zip(self.latents, self.model.layers, strict=True):
            loc = above @ p.weights.T + p.bias
            noise = rng.multivariate_normal(np.zeros(len(p.bias)), p.covariance, num_draws)
            drawn[site] = (latents or {}).get(site, loc + noise)
            above = np.hstack([above, drawn[site]])
        part = self.model.likelihood
        mean = above @ part.weights.T + part.bias
        x = mean + rng.multivariate_normal(np.zeros(len(part.bias)), part.covariance, num_draws)
        return Generation(latents=drawn, mean=mean, x=x)


def _log_density(gap, covariance):
    return np.atleast_1d(multivariate_normal(cov=covariance).logpdf(gap))
