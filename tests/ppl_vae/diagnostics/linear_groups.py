"""A linear-Gaussian model of groups with known posteriors and densities, and a guide as good as a test wants it.

u ~ N(0, 1) a group, z ~ N(0, 1) a member, x given both ~ N(a u + b z, s^2), in groups of 3, 1 and 2 members.
"""

import numpy as np
from scipy import stats

from ppl_vae.data import Conditioned
from ppl_vae.nets.sizes import MINIMUM_SCALE
from tests.helpers import load_file

A, B, S = 1.3, 0.8, 0.5
SPREAD = B**2 + S**2  # of x given u
PRESENT = np.array([[1, 1, 1], [0, 1, 0], [1, 0, 1]], np.float32)


class LinearGroups:
    """The model in a backend; its guide is the posterior, changed.

    Args:
        backend: "pyro" or "numpyro".
        spread: Factor of the guide's scale of z.
        shift: What is added to the guide's mean of z.
        options: Options of the model.
    """

    latents = ("u", "z")

    def __init__(self, backend, *, spread=1.0, shift=0.0, **options):
        if backend == "pyro":
            from ppl_vae.training.pyro_engine import PyroEngine as Engine
        else:
            from ppl_vae.training.numpyro_engine import NumPyroEngine as Engine
        size, shape = PRESENT.shape[1], (PRESENT.shape[1], 1)
        options |= {"latent_dim": 1, "group_dim": 1, "num_hidden": 0, "scale": S, "learn_scale": False}
        program = load_file(f"models/grouped_vae_{backend}.py").build(shape, condition_shape=(size,), **options)
        self.engine = Engine(program, shape, condition_shape=(size,), device="cpu")
        self.slope, self.intercept = np.array([-A * B, B]) / SPREAD, shift  # of z by u and x
        self.scale = spread * S / SPREAD**0.5
        weights = {
            "decoder.layers.0.weight": [[B, A]],
            "decoder.layers.0.bias": [0.0],
            # A member says N(a u, b^2 + s^2) of x, thus N(x / a, (b^2 + s^2) / a^2) of u.
            "group_encoder.layers.0.weight": [[1 / A], [0.0]],
            "group_encoder.layers.0.bias": [0.0, _raw(SPREAD**0.5 / A)],
            "encoder.layers.0.weight": [[self.slope[1], self.slope[0]], [0.0, 0.0]],
            "encoder.layers.0.bias": [shift, _raw(self.scale)],
        }
        self.engine.load_parameters({name: np.array(value) for name, value in weights.items()})

    def draw_data(self, num_groups=3, seed=0):
        """Groups of the model, of 3, 1 and 2 members in turn; entries without a member are zeros."""
        present = np.resize(PRESENT, (num_groups, PRESENT.shape[1]))
        rng = np.random.default_rng(seed)
        x = A * rng.normal(size=(num_groups, 1)) + SPREAD**0.5 * rng.normal(size=present.shape)
        return Conditioned((x * present)[..., None].astype(np.float32), present)

    def log_px(self, x):
        """Log p(x) of each group."""
        return np.array([stats.multivariate_normal(cov=_marginal(len(own))).logpdf(own) for own in _members(x)])

    def posterior(self, x):
        """Of each group mean and covariance of u and the z of its members, given x."""
        found = []
        for own in _members(x):
            loading = np.column_stack([np.full(len(own), A), B * np.eye(len(own))])
            covariance = np.linalg.inv(np.eye(1 + len(own)) + loading.T @ loading / S**2)
            found.append((covariance @ loading.T @ own / S**2, covariance))
        return found

    def guide(self, x):
        """The same of the guide."""
        found = []
        for own in _members(x):
            variance = 1 / (1 + len(own) * A**2 / SPREAD)
            u = variance * A / SPREAD * own.sum()
            mean = np.r_[u, self.slope[0] * u + self.slope[1] * own + self.intercept]
            # (u, z) is linear in the standard normal noise of both.
            root = np.diag(np.r_[variance**0.5, np.full(len(own), self.scale)])
            root[1:, 0] = self.slope[0] * variance**0.5
            found.append((mean, root @ root.T))
        return found


def _members(x):
    """Members of each group, (members,)."""
    return [
        values[there > 0].astype(float) for values, there in zip(np.asarray(x)[..., 0], x.condition, strict=True)
    ]


def _marginal(size):
    return A**2 + SPREAD * np.eye(size)


def _raw(scale):
    """What a network of no layers must put out for a scale."""
    return np.log(np.expm1(scale - MINIMUM_SCALE))
