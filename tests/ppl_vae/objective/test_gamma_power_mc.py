"""The gamma-power divergence by Monte Carlo: against the closed form, exact linear algebra, and its own rules."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from ppl_vae.errors import InputError
from ppl_vae.formulas.averages import effective_share, log_mean_exp
from ppl_vae.objective.gamma_power import GammaPower
from ppl_vae.objective.gamma_power_mc import GammaPowerMC
from ppl_vae.theory.t3vae import t3vae_constants
from tests.ppl_vae.distributions.test_student_t import student_t

NU, SIGMA, N, M = 5.0, 0.7, 2, 1
ALPHA = t3vae_constants(df=NU, data_dim=N, latent_dim=M, scale=SIGMA).alpha
X = np.random.default_rng(3).normal(size=(40, N))


def pair(ppl, df=NU, family="t"):
    """A linear joint t, or the same with Gaussian sites; the guide's scale is 0.6."""
    cls, dist = student_t(ppl), ppl.dist

    def model(x, betas=None):
        with ppl.plate("data", len(x)):
            zeros = x[:, :M] * 0.0
            if family == "normal":
                z = ppl.sample("z", dist.Normal(zeros, 1.0).to_event(1))
                ppl.sample("x", dist.Normal(mean(ppl, z), SIGMA).to_event(1), obs=x)
                return
            with ppl.scale(scale=(betas or {}).get("z", 1.0)):
                z = ppl.sample("z", cls(df, zeros, 1.0))
            ppl.sample("x", cls.conditional(df, mean(ppl, z), SIGMA, [z]), obs=x)

    def guide(x, betas=None):
        with ppl.plate("data", len(x)):
            if family == "normal":
                ppl.sample("z", dist.Normal(0.4 * x[:, :M], 0.6).to_event(1))
                return
            with ppl.scale(scale=(betas or {}).get("z", 1.0)):
                ppl.sample("z", cls(df + N, 0.4 * x[:, :M], 0.6))

    return model, guide


def mean(ppl, z):
    return z * ppl.array(np.array([0.8, -0.5]))


def noise_of(count):
    return {"z": np.random.default_rng(count).standard_t(NU + N, size=(len(X), M))}


def test_with_one_draw_it_is_the_closed_form_on_that_draw(ppl):
    """Alpha D = L_gamma + nu / 2, with |z|^2 of the draw where the closed form has its expectation."""
    noise = noise_of(1)
    found = ppl.numbers(ppl.terms(GammaPowerMC(num_draws=1), pair(ppl), ppl.array(X), noise=noise))
    closed = ppl.numbers(ppl.terms(GammaPower(), pair(ppl), ppl.array(X), noise=noise))
    loc, variance = 0.4 * X[:, :M], 0.6**2 * (NU + N) / (NU + N - 2)
    drawn = 0.5 * ((loc + 0.6 * noise["z"]) ** 2 - loc**2 - variance).sum(1).mean()
    assert ALPHA * found["loss"] == pytest.approx(closed["extra/gamma_loss"] + NU / 2 + drawn, rel=1e-10)
    for name in ("distortion", "rate/z", "elbo"):
        assert found[name] == pytest.approx(closed[name], rel=1e-10)


def test_the_entropy_enters_both_forms_alike(ppl):
    # Here as a factor exp(-gamma H / (1 + gamma)) of a power, in the closed form as B exp(H).
    objectives = [GammaPowerMC(num_draws=1, entropy=1.3), GammaPowerMC(num_draws=1)]
    by_mc = [ppl.numbers(ppl.terms(o, pair(ppl), ppl.array(X), noise=noise_of(2)))["loss"] for o in objectives]
    by_form = [
        ppl.numbers(ppl.terms(o, pair(ppl), ppl.array(X), noise=noise_of(2)))["extra/gamma_loss"]
        for o in (GammaPower(entropy=1.3), GammaPower())
    ]
    assert ALPHA * (by_mc[0] - by_mc[1]) == pytest.approx(by_form[0] - by_form[1], rel=1e-9)


def test_a_given_order_samples_what_numpy_computes_of_the_same_draws(ppl):
    gamma, noise = -0.1, {"z": np.random.default_rng(4).normal(size=(len(X), M))}
    objective = GammaPowerMC(gamma=gamma, num_draws=1)
    found = ppl.numbers(ppl.terms(objective, pair(ppl, family="normal"), ppl.array(X), noise=noise))
    z = 0.4 * X[:, :M] + 0.6 * noise["z"]
    log_q = stats.norm(0.4 * X[:, :M], 0.6).logpdf(z)[:, 0]
    log_p = stats.norm(0, 1).logpdf(z)[:, 0] + stats.norm(z * [0.8, -0.5], SIGMA).logpdf(X).sum(1)
    second = np.expm1(gamma * log_q / (1 + gamma)).mean() / gamma
    # The norm of the Gaussian joint is exact; the loss samples it with as many draws as data.
    log_norm = exact_log_norm(gamma)
    expected = second - np.expm1(gamma * (log_p - log_norm)).mean() / gamma
    slack = np.exp(gamma * (log_p - log_norm)).mean() * sampling_error(gamma) / (1 + gamma)
    assert abs(found["loss"] - expected) < 4 * slack
    assert found["extra/effective_share"] == pytest.approx(share(gamma * log_p), rel=1e-9)


def exact_log_norm(gamma):
    """Of a Gaussian of M + N coordinates: its density at the mean, and the width of a power."""
    log_height = -(M + N) / 2 * np.log(2 * np.pi) - N * np.log(SIGMA)
    return (gamma * log_height - (M + N) / 2 * np.log1p(gamma)) / (1 + gamma)


def sampling_error(gamma):
    """Relative standard error of the mean of p^gamma under p, from its second moment."""
    log_height = -(M + N) / 2 * np.log(2 * np.pi) - N * np.log(SIGMA)
    first, second = (g * log_height - (M + N) / 2 * np.log1p(g) for g in (gamma, 2 * gamma))
    return np.sqrt(np.expm1(second - 2 * first) / len(X))


def share(log_weights):
    return np.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights)) / log_weights.size


def test_more_draws_take_the_bias_away(ppl):
    """K draws of a normal guide: the mean over runs nears the exact E q^gamma, which one draw misses."""
    gamma, runs = -0.3, 60
    log_height = -0.5 * np.log(2 * np.pi) - np.log(0.6)
    exact = np.expm1((gamma * log_height - 0.5 * np.log1p(gamma)) / (1 + gamma)) / gamma

    def guide_term(num_draws, seed):
        rng = np.random.default_rng(seed)
        draws = gamma * stats.norm(0, 0.6).logpdf(0.6 * rng.normal(size=(num_draws, len(X))))
        return (np.expm1(np.asarray(log_mean_exp(draws)) / (1 + gamma)) / gamma).mean()

    one, many = (np.mean([guide_term(k, s) for s in range(runs)]) for k in (1, 64))
    assert abs(many - exact) < 0.1 * abs(one - exact)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"gamma": -1.0}, "gamma must be above -1"),
        ({"num_draws": 0}, "num_draws must be at least 1"),
        ({"entropy": float("nan")}, "entropy must be a number of nats"),
    ],
)
def test_bad_options(options, match):
    with pytest.raises(InputError, match=match):
        GammaPowerMC(**options)


def test_other_families_need_an_order_and_betas_have_no_place(ppl):
    with pytest.raises(InputError, match="gamma must be given .* there are Normal"):
        ppl.terms(GammaPowerMC(), pair(ppl, family="normal"), ppl.array(X))
    with pytest.raises(InputError, match="beta of 'z' must be 1 for gamma_power_mc, but it is 4"):
        ppl.terms(GammaPowerMC(), pair(ppl), ppl.array(X), betas={"z": 4.0})


def test_shares_count_unmasked_weights_alone():
    weights = np.log(np.array([1.0, 1.0, 2.0, 100.0]))
    mask = np.array([True, True, True, False])
    assert effective_share(weights, mask) == pytest.approx(16.0 / 6.0 / 3.0, rel=1e-12)
    assert effective_share(weights) == pytest.approx(104.0**2 / 10006.0 / 4.0, rel=1e-12)
    assert log_mean_exp(weights) == pytest.approx(np.log(26.0), rel=1e-12)
