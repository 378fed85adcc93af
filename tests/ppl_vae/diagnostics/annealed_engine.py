"""The exactly solved engine with densities along a path."""

import numpy as np
from scipy import stats

from ppl_vae.training.engine import PathDensity
from tests.exact_engine import ExactEngine


class AnnealedEngine(ExactEngine):
    """See ``ExactEngine``."""

    def exact_log_px(self, x):
        return stats.multivariate_normal(cov=self.covariance).logpdf(np.reshape(x, (len(x), -1)).astype(float))

    def log_joint_gradient(self, x, latents, *, share=1.0, base="prior"):
        found = self.inspect(x, seed=0, latents=latents)
        z = np.concatenate([latents[name] for name in self.latents], axis=1)
        prior = sum(found.log_prior.values())
        loc = self.posterior_mean(x) + self.shift * self.posterior_scale
        of_prior = -z / self.prior_scale**2
        of_guide = (loc - z) / (self.spread * self.posterior_scale) ** 2
        flat = np.reshape(x, found.mean.reshape(len(x), -1).shape)
        of_joint = of_prior + (flat - z @ self.weights.T) @ self.weights / self.noise_scale**2
        of_base = of_prior if base == "prior" else of_guide
        log_base = prior if base == "prior" else sum(found.log_guide.values())
        gradient = self._split(of_base + share * (of_joint - of_base))
        return PathDensity(log_base, prior + found.log_likelihood - log_base, gradient)
