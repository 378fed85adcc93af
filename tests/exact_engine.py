"""An engine without a backend, on a model that is solved exactly: what diagnostics are tested with."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import norm

from ppl_vae.objective.inspection import Generation, Inspection
from ppl_vae.training.engine import MAX_ROWS


class ExactEngine:
    """z ~ N(0, prior_scale^2 I), x given z ~ N(W z, noise_scale^2 I); it inspects, weighs and generates only.

    W has orthogonal columns, so that the exact posterior is a diagonal Gaussian. The guide is that posterior,
    shifted by ``shift`` posterior standard deviations and widened by the factor ``spread``.

    Args:
        norms: Lengths of the columns of W, one per latent unit; 0 for a unit that says nothing.
        data_shape: Shape of one datum.
        noise_scale: Standard deviation of x given z.
        shift: Error of the guide's mean, in posterior standard deviations.
        spread: Factor of the guide's standard deviation.
        prior_scale: Standard deviation of z.
        sites: Sizes of the latent sites by name, the units in order; by default one site z.
        sampled: Whether rates are log q - log p of the draw in place of the closed form.
    """

    observed = "x"
    condition_shape = None
    nested = ()
    has_density = True
    max_rows = MAX_ROWS

    def __init__(
        self,
        norms=(1.5, 0.7, 0.0),
        data_shape=(6,),
        *,
        noise_scale=0.5,
        shift=0.0,
        spread=1.0,
        prior_scale=1.0,
        sites=None,
        sampled=False,
    ):
        self.norms, self.data_shape = np.asarray(norms, float), tuple(data_shape)
        num_entries = int(np.prod(self.data_shape))
        basis = np.linalg.qr(np.random.default_rng(7).normal(size=(num_entries, len(self.norms))))[0]
        self.weights = basis * self.norms
        self.noise_scale, self.prior_scale, self.shift, self.spread = noise_scale, prior_scale, shift, spread
        self.posterior_scale = (1.0 / prior_scale**2 + self.norms**2 / noise_scale**2) ** -0.5
        self.sites = dict(sites or {"z": len(self.norms)})
        self.latents, self.sampled, self.notes = list(self.sites), sampled, []
        self.calls = []

    @property
    def covariance(self):
        """Covariance of x, flattened; its mean is zero."""
        noise = self.noise_scale**2 * np.eye(len(self.weights))
        return self.prior_scale**2 * self.weights @ self.weights.T + noise

    @property
    def mutual_information(self):
        """Exact I(x; z) in nats."""
        return 0.5 * np.log1p((self.prior_scale * self.norms / self.noise_scale) ** 2).sum()

    def posterior_mean(self, x):
        """Exact E[z | x], (n, k)."""
        flat = np.reshape(x, (len(x), -1)).astype(float)
        return flat @ self.weights * (self.posterior_scale / self.noise_scale) ** 2

    def inspect(self, x, *, seed, latents="draw"):
        self.calls.append((len(x), seed))
        loc = self.posterior_mean(x) + self.shift * self.posterior_scale
        scale = np.broadcast_to(self.spread * self.posterior_scale, loc.shape)
        if isinstance(latents, Mapping):
            z = np.concatenate([latents[name] for name in self.latents], axis=1)
        else:
            noise = np.random.default_rng(seed).normal(size=loc.shape) if latents == "draw" else 0.0
            z = loc + scale * noise
        log_q, log_p = norm.logpdf(z, loc, scale), norm.logpdf(z, 0.0, self.prior_scale)
        ratio = scale / self.prior_scale
        rates = 0.5 * ((loc / self.prior_scale) ** 2 + ratio**2 - 1.0) - np.log(ratio)
        mean = z @ self.weights.T
        return Inspection(
            latents=self._split(z),
            loc=self._split(loc),
            scale=self._split(scale),
            log_guide={name: value.sum(axis=1) for name, value in self._split(log_q).items()},
            log_prior={name: value.sum(axis=1) for name, value in self._split(log_p).items()},
            log_likelihood=norm.logpdf(np.reshape(x, mean.shape), mean, self.noise_scale).sum(axis=1),
            rates=self._split(log_q - log_p if self.sampled else rates),
            mean=mean.reshape(np.shape(x)),
            how=tuple((name, "sampled" if self.sampled else "analytic") for name in self.latents),
        )

    def log_weights(self, x, *, num_draws, seed):
        rows = np.concatenate([x] * num_draws)
        return self.inspect(rows, seed=seed).log_weight.reshape(num_draws, len(x))

    def generate(self, num_draws, *, seed, latents=None, condition=None):
        rng = np.random.default_rng(seed)
        free = self._split(rng.normal(0.0, self.prior_scale, (num_draws, len(self.norms))))
        z = np.concatenate(list((free | (latents or {})).values()), axis=1)
        mean = z @ self.weights.T
        x = mean + rng.normal(0.0, self.noise_scale, mean.shape)
        shape = (num_draws, *self.data_shape)
        return Generation(latents=self._split(z), mean=mean.reshape(shape), x=x.reshape(shape))

    def draw_data(self, num_data, seed=0):
        """Data of the model itself, float32 as the data sets are."""
        return self.generate(num_data, seed=seed).x.astype(np.float32)

    def _split(self, units):
        ends = np.cumsum(list(self.sites.values()))[:-1]
        return dict(zip(self.sites, np.split(units, ends, axis=1), strict=True))
