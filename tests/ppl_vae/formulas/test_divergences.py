"""The Gaussian KL against quadrature and against the libraries' own, on NumPy, torch and JAX."""

import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.formulas.divergences import gaussian_kl
from tests.helpers import needs

# loc and scale of q, loc and scale of p: equal, shifted, narrow, wide, far apart.
PAIRS = np.array(
    [
        [0.0, 1.0, 0.0, 1.0],
        [0.7, 0.5, -0.3, 1.2],
        [2.0, 0.05, 0.0, 1.0],
        [0.0, 3.0, 0.1, 0.4],
        [-5.0, 0.9, 4.0, 2.0],
    ]
)
COLUMNS = tuple(PAIRS.T)
NAMES = ("loc_q", "scale_q", "loc_p", "scale_p")


def by_quadrature(loc_q, scale_q, loc_p, scale_p):
    q, p = stats.norm(loc_q, scale_q), stats.norm(loc_p, scale_p)
    # Beyond 12 standard deviations the integrand is below 1e-29.
    span = (loc_q - 12.0 * scale_q, loc_q + 12.0 * scale_q)
    return integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), *span, epsabs=1e-12)[0]


def by_torch(*columns):
    import torch
    from torch.distributions import Normal, kl_divergence

    q_loc, q_scale, p_loc, p_scale = (torch.tensor(c) for c in columns)
    return kl_divergence(Normal(q_loc, q_scale), Normal(p_loc, p_scale)).numpy()


def by_numpyro(*columns):
    import jax
    from numpyro.distributions import Normal
    from numpyro.distributions.kl import kl_divergence

    with jax.enable_x64(True):
        q_loc, q_scale, p_loc, p_scale = (jax.numpy.asarray(c) for c in columns)
        return np.asarray(kl_divergence(Normal(q_loc, q_scale), Normal(p_loc, p_scale)))


@pytest.mark.parametrize(
    "oracle",
    [
        np.vectorize(by_quadrature),
        pytest.param(by_torch, marks=needs("torch")),
        pytest.param(by_numpyro, marks=needs("jax", "numpyro")),
    ],
)
def test_gaussian_kl_agrees_with_an_oracle(oracle):
    # Quadrature is asked for 1e-12 absolute; the libraries differ by rounding alone.
    np.testing.assert_allclose(gaussian_kl(*COLUMNS), oracle(*COLUMNS), rtol=1e-12, atol=1e-11)


def test_gaussian_kl_is_the_same_on_arrays_of_each_backend_and_so_are_its_gradients(ppl):
    values, rows = ppl.derivatives(
        lambda w: {"kl": gaussian_kl(*(w[name] for name in NAMES)).sum()},
        dict(zip(NAMES, COLUMNS, strict=True)),
    )
    np.testing.assert_allclose(values["kl"], gaussian_kl(*COLUMNS).sum(), rtol=1e-13)
    for column, name in enumerate(NAMES):
        np.testing.assert_allclose(rows["kl"][name], _central_difference(column), rtol=1e-6, atol=1e-6)


def _central_difference(column, step=1e-5):
    # Error of order step^2 = 1e-10 times a third derivative of up to 1e4 (scale 0.05 enters as its cube).
    up, down = np.array(PAIRS), np.array(PAIRS)
    up[:, column] += step
    down[:, column] -= step
    return (gaussian_kl(*up.T) - gaussian_kl(*down.T)) / (2.0 * step)


def test_gaussian_kl_broadcasts():
    values = gaussian_kl(np.zeros((3, 1)), np.ones(2), np.array(1.0), np.array(2.0))
    np.testing.assert_allclose(values, np.full((3, 2), by_quadrature(0.0, 1.0, 1.0, 2.0)), atol=1e-11)
