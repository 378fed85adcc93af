"""The exactly solved model of ``tests.exact_engine``, drawing x too."""

import dataclasses

import numpy as np
from scipy.stats import norm

from tests.exact_engine import ExactEngine


class DrawingEngine(ExactEngine):
    """It also draws x given the latents and gives the log likelihood by entry."""

    def inspect(self, x, *, seed, latents="draw", draw_x=False):
        record = super().inspect(x, seed=seed, latents=latents)
        if not draw_x:
            return record
        noise = np.random.default_rng([seed, 1]).normal(0.0, self.noise_scale, record.mean.shape)
        elements = {"x": norm.logpdf(x, record.mean, self.noise_scale)}
        return dataclasses.replace(record, x_draw=record.mean + noise, log_elements=elements)

    def conditional(self, x, missing):
        """Exact mean and covariance of the missing entries of one datum (d,) given the others."""
        cov, seen = self.covariance, ~missing
        gain = cov[np.ix_(missing, seen)] @ np.linalg.inv(cov[np.ix_(seen, seen)])
        return gain @ x[seen].astype(float), cov[np.ix_(missing, missing)] - gain @ cov[np.ix_(seen, missing)]
