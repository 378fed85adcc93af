import numpy as np
import pytest
from scipy import stats

from ppl_vae.diagnostics.annealed import annealed_log_px, bidirectional
from ppl_vae.errors import InputError
from ppl_vae.nets.sizes import MINIMUM_SCALE
from tests.helpers import BACKENDS, NUMPYRO_SLOW, build_engine, linear_engine, load_file, needs
from tests.ppl_vae.diagnostics.annealed_engine import AnnealedEngine

SHORT = {"num_temperatures": 15, "num_leapfrog": 3}


@BACKENDS
def test_backends_agree_with_a_linear_gaussian_model(backend):
    engine, weight, bias = linear_engine(backend)
    marginal = stats.multivariate_normal(bias, weight @ weight.T + 0.49 * np.eye(3))
    x = marginal.rvs(6, random_state=0)
    found = annealed_log_px(engine, x, num_chains=32, **SHORT)
    assert (np.abs(found.value - marginal.logpdf(x)) < 4 * found.standard_error).all()
    assert (found.acceptance > 0.5).all()


@pytest.mark.parametrize("base", ["prior", "guide"])
@pytest.mark.parametrize("sites", [None, {"z2": 1, "z1": 2}])
def test_exact_model_from_either_base(base, sites):
    engine = AnnealedEngine(shift=0.5, spread=1.3, sites=sites)
    x = engine.draw_data(60)
    found = annealed_log_px(engine, x, num_chains=64, base=base, **SHORT)
    gap = found.value - engine.exact_log_px(x)
    assert np.abs(gap / found.standard_error).max() < 4.5  # 60 values of a skew estimate
    assert found.log_weight.shape == (64, 60)
    assert ((found.effective_chains > 1) & (found.effective_chains <= 64)).all()
    # By the delta method the squared relative error is 1 / effective - 1 / c; n - 1 for n is allowed for.
    expected = np.sqrt(1 / found.effective_chains - 1 / 64)
    np.testing.assert_allclose(found.standard_error, expected, rtol=0.01)


@pytest.mark.parametrize("first_step", [1e-3, 5.0])
def test_weights_are_unbiased_however_bad_the_moves(monkeypatch, first_step):
    # Nearly no motion, or nearly no acceptance: the mean weight must still be p(x).
    monkeypatch.setattr("ppl_vae.diagnostics.annealed.FIRST_STEP", first_step)
    monkeypatch.setattr("ppl_vae.diagnostics.annealed.GAIN", 0.1)
    engine = AnnealedEngine(norms=(0.6, 0.4))
    x = engine.draw_data(40)
    found = annealed_log_px(engine, x, num_chains=200, num_temperatures=6, num_leapfrog=2)
    ratio = np.exp(found.log_weight - engine.exact_log_px(x)).mean(axis=0)
    assert abs(ratio.mean() - 1) < 4 * stats.sem(ratio)


def test_steps_find_the_wanted_acceptance():
    engine = AnnealedEngine()
    found = annealed_log_px(engine, engine.draw_data(20), num_chains=32, num_temperatures=60, num_leapfrog=8)
    # Means of 1900 moves; the first ten temperatures still look for the step.
    np.testing.assert_allclose(found.acceptance, 0.65, atol=0.12)


def test_both_sides_close_about_the_truth():
    engine = AnnealedEngine()
    gaps = []
    for num_temperatures in (5, 60):
        found = bidirectional(engine, 100, num_chains=8, num_temperatures=num_temperatures, num_leapfrog=6)
        exact = engine.exact_log_px(found.x)
        below, above = exact - found.lower.value, found.upper - exact
        assert below.mean() > -4 * stats.sem(below)
        assert above.mean() > -4 * stats.sem(above)
        gaps.append((found.upper - found.lower.value).mean())
    assert 0 < gaps[1] < 0.3 * gaps[0]


def test_seed_and_progress():
    engine, done = AnnealedEngine(), []
    x = engine.draw_data(5)
    found = [
        annealed_log_px(engine, x, num_chains=4, seed=seed, report=done.append, **SHORT) for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(found[0].log_weight, found[1].log_weight)
    assert (found[0].log_weight != found[2].log_weight).all()
    assert done == sorted(done[: len(done) // 3]) * 3
    assert 0 < done[0] < done[-1] <= 1


def test_data_in_blocks(monkeypatch):
    monkeypatch.setattr("ppl_vae.diagnostics.annealed.MAX_ROWS", 64)
    engine = AnnealedEngine()
    x = engine.draw_data(9)
    found = annealed_log_px(engine, x, num_chains=16, **SHORT)
    assert max(size for size, _ in engine.calls) == 64
    assert (np.abs(found.value - engine.exact_log_px(x)) < 4.5 * found.standard_error).all()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"has_density": False}, {}, "must give x a density"),
        ({}, {"num_chains": 0}, "num_chains must be at least 1, but it is 0; ask for more"),
        ({}, {"num_temperatures": 1}, "num_temperatures must be at least 2, but it is 1"),
        ({}, {"num_leapfrog": 0}, "num_leapfrog must be at least 1"),
        ({}, {"base": "joint"}, "base"),
        ({}, {"x": np.zeros(3)}, r"x must have shape .* but has shape \(3,\)"),
    ],
)
def test_refusals(changes, options, message):
    engine = AnnealedEngine()
    for name, value in changes.items():
        setattr(engine, name, value)
    given = {"x": np.zeros((2, 6)), **options}
    with pytest.raises(InputError, match=message):
        annealed_log_px(engine, given.pop("x"), **given)


class TestLogJointGradient:
    @BACKENDS
    @pytest.mark.parametrize("base", ["prior", "guide"])
    def test_agrees_with_a_linear_gaussian_model(self, backend, base):
        engine, weight, bias = linear_engine(backend)
        rng = np.random.default_rng(0)
        x, z = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
        found = engine.log_joint_gradient(x, {"z": z}, share=0.3, base=base)
        scale = 1.0 if base == "prior" else 1.2 + MINIMUM_SCALE
        log_base = stats.norm(0, scale).logpdf(z).sum(1)
        rest = x - z @ weight.T - bias
        log_joint = stats.norm.logpdf(z).sum(1) + stats.norm(0, 0.7).logpdf(rest).sum(1)
        of_base, of_joint = -z / scale**2, -z + rest @ weight / 0.49
        # Single precision: sums of ten terms of size up to ten.
        np.testing.assert_allclose(found.log_base, log_base, atol=1e-4)
        np.testing.assert_allclose(found.log_ratio, log_joint - log_base, atol=1e-4)
        np.testing.assert_allclose(found.gradient["z"], 0.7 * of_base + 0.3 * of_joint, atol=1e-4)

    @NUMPYRO_SLOW
    def test_conditional_model_as_it_is_inspected(self, backend):
        from ppl_vae.data import Conditioned

        engine = self.conditional(backend)
        rng = np.random.default_rng(0)
        x = Conditioned(rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32))
        drawn = engine.inspect(x, seed=0)
        found = engine.log_joint_gradient(x, drawn.latents)
        np.testing.assert_allclose(found.log_base, sum(drawn.log_prior.values()), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(found.log_ratio, drawn.log_likelihood, rtol=1e-5, atol=1e-4)
        assert {name: value.shape for name, value in found.gradient.items()} == {
            name: value.shape for name, value in drawn.latents.items()
        }

    @staticmethod
    def conditional(backend):
        if backend == "pyro":
            from ppl_vae.training.pyro_engine import PyroEngine as Engine
        else:
            from ppl_vae.training.numpyro_engine import NumPyroEngine as Engine
        program = load_file(f"models/cvae_{backend}.py").build((4,), condition_shape=(2,), hidden_dim=8)
        return Engine(program, (4,), device="cpu", condition_shape=(2,))

    @BACKENDS
    def test_latents_that_are_not_real_are_refused(self, backend):
        if backend == "pyro":
            import pyro
            import pyro.distributions as dist
            import torch

            from ppl_vae.training.pyro_engine import PyroEngine as Engine

            class Program(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    self.rate = torch.nn.Parameter(torch.tensor(2.0))

                def model(self, x, c=None, *, betas):
                    with pyro.plate("data", len(x)):
                        z = pyro.sample("z", dist.Exponential(x.new_ones(len(x))))
                        pyro.sample("x", dist.Normal(z[:, None], 1.0).to_event(1), obs=x)

                def guide(self, x, c=None, *, betas):
                    with pyro.plate("data", len(x)):
                        pyro.sample("z", dist.Exponential(self.rate.expand(len(x))))
        else:
            import jax.numpy as jnp
            import numpyro
            import numpyro.distributions as dist

            from ppl_vae.training.numpyro_engine import NumPyroEngine as Engine

            class Program:
                def model(self, x, c=None, *, betas):
                    with numpyro.plate("data", len(x)):
                        z = numpyro.sample("z", dist.Exponential(jnp.ones(len(x))))
                        numpyro.sample("x", dist.Normal(z[:, None], 1.0).to_event(1), obs=x)

                def guide(self, x, c=None, *, betas):
                    rate = numpyro.param("rate", jnp.array(2.0))
                    with numpyro.plate("data", len(x)):
                        numpyro.sample("z", dist.Exponential(jnp.full(len(x), rate)))

        engine = Engine(Program(), (1,), device="cpu")
        with pytest.raises(InputError, match="site 'z' must range over all real numbers .* Exponential has"):
            engine.log_joint_gradient(np.zeros((2, 1), np.float32), {"z": np.ones(2)})


@pytest.mark.slow
@needs("blackjax", "numpyro")
def test_agrees_with_tempered_smc_on_a_decoder_with_a_hidden_layer():
    import blackjax
    import blackjax.smc.resampling as resampling
    import jax
    import jax.numpy as jnp
    from blackjax.smc import extend_params

    options = {"latent_dim": 2, "hidden_dim": 8, "num_hidden": 1, "activation": "tanh"}
    engine = build_engine(
        "numpyro", "beta_vae", (3,), **options, likelihood="gaussian", scale=0.4, learn_scale=False
    )
    weights = {name: 3.0 * value if "weight" in name else value for name, value in engine.parameters().items()}
    engine.load_parameters(weights)
    x = engine.generate(2, seed=1).x
    w = {name.removeprefix("decoder.layers."): jnp.asarray(v) for name, v in weights.items() if "decoder" in name}

    def log_likelihood(z, datum):
        loc = w["1.weight"] @ jnp.tanh(w["0.weight"] @ z + w["0.bias"]) + w["1.bias"]
        return jax.scipy.stats.norm.logpdf(datum, loc, 0.4).sum()

    def log_evidence(datum):
        smc = blackjax.adaptive_tempered_smc(
            lambda z: jax.scipy.stats.norm.logpdf(z).sum(),
            lambda z: log_likelihood(z, datum),
            blackjax.hmc.build_kernel(),
            blackjax.hmc.init,
            extend_params({"step_size": 0.2, "inverse_mass_matrix": jnp.eye(2), "num_integration_steps": 5}),
            resampling.systematic,
            target_ess=0.8,
            num_mcmc_steps=5,
        )
        step = jax.jit(smc.step)
        for seed in range(4):
            key, total = jax.random.key(seed), 0.0
            state = smc.init(jax.random.normal(key, (1000, 2)))
            while state.tempering_param < 1:
                key, now = jax.random.split(key)
                state, info = step(now, state)
                total += float(info.log_likelihood_increment)
            yield total

    expected = np.stack([list(log_evidence(datum)) for datum in x], axis=1)
    found = annealed_log_px(engine, x, num_chains=64, num_temperatures=100, num_leapfrog=5)
    error = np.hypot(found.standard_error, expected.std(axis=0, ddof=1) / 2)
    # The spread of four runs is itself uncertain: at least 0.02 nats is taken.
    assert (np.abs(found.value - expected.mean(axis=0)) < 4 * np.maximum(error, 0.02)).all()
