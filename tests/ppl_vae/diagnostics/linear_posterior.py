"""A linear decoder whose posteriors are known, with a guide as good or as bad as a test wants it."""

import numpy as np

from tests.helpers import build_engine

NOISE = 0.7
# Columns that are neither orthogonal nor of one length: the posterior's latents are correlated.
WEIGHT = np.array([[1.0, 0.4], [-0.5, 0.8], [0.3, 0.2], [0.0, -0.6], [0.7, 0.1], [0.2, 0.5]])


class LinearPosterior:
    """z ~ N(0, I), x given z ~ N(W z, 0.7^2 I); the guide is the best diagonal Gaussian, changed.

    Args:
        backend: "pyro" or "numpyro".
        weight: W, (d, 2).
        spread: Factor of the guide's scales.
        follow: Factor of the guide's means; 0 for a guide that ignores x, of the prior's scales.
    """

    def __init__(self, backend, *, weight=WEIGHT, spread=1.0, follow=1.0):
        size = len(weight)
        options = {"latent_dim": 2, "num_hidden": 0, "likelihood": "gaussian", "scale": NOISE}
        self.engine = build_engine(backend, "beta_vae", (size,), **options)
        self.weight = weight
        self.precision = np.eye(2) + weight.T @ weight / NOISE**2
        self.covariance = np.linalg.inv(self.precision)
        self.best_scale = np.diag(self.precision) ** -0.5
        self.gain = self.covariance @ weight.T / NOISE**2
        self.scale = spread * (self.best_scale if follow else np.ones(2))
        self.follow = follow
        parameters = self.engine.parameters()
        parameters["decoder.layers.0.weight"], parameters["decoder.layers.0.bias"] = weight, np.zeros(size)
        parameters["encoder.layers.0.weight"] = np.concatenate([follow * self.gain, np.zeros((2, size))])
        parameters["encoder.layers.0.bias"] = np.array([0.0, 0.0, *np.log(np.expm1(self.scale))])
        self.engine.load_parameters(parameters)

    def draw_data(self, num_data, seed=0):
        rng = np.random.default_rng(seed)
        mean = rng.normal(size=(num_data, 2)) @ self.weight.T
        return (mean + NOISE * rng.normal(size=mean.shape)).astype(np.float32)

    def posterior_mean(self, x):
        return np.asarray(x, float) @ self.gain.T
