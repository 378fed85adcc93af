from types import SimpleNamespace

import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.data import Conditioned
from ppl_vae.diagnostics.reference import (
    ReferencePosterior,
    Rules,
    read_reference,
    reference_posterior,
    sampling_engine,
    write_reference,
)
from ppl_vae.diagnostics.reference_chains import Chains
from ppl_vae.errors import InputError
from ppl_vae.training.run import Run
from tests.helpers import BACKENDS, build_engine, needs
from tests.ppl_vae.diagnostics.linear_posterior import LinearPosterior


@pytest.fixture(scope="module")
def linear():
    """Chains on a linear model, with the model."""
    import jax

    model = LinearPosterior("numpyro", spread=0.5)
    before = jax.config.read("jax_disable_most_optimizations")
    # Optimising the chains takes longer than they do.
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        options = {"num_draws": 250, "num_warmup": 200, "thinning": 3}
        return model, reference_posterior(model.engine, model.draw_data(3), **options)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def assert_exact(model, found):
    """Moments within 4 standard errors, of as many independent draws as the chains are worth."""
    mean, scale = found.moments("z")
    size = np.minimum(found.ess, found.energy[:, :, 0].size)[:, None]
    exact_scale = np.diag(model.covariance) ** 0.5
    assert (np.abs(mean - model.posterior_mean(found.x)) < 4 * exact_scale / size**0.5).all()
    assert (np.abs(np.log(scale / exact_scale)) < 4 / (2 * size) ** 0.5).all()
    draws = found.draws["z"].reshape(-1, len(found.x), 2)
    rho = model.covariance[0, 1] / exact_scale.prod()
    for datum in range(len(found.x)):
        assert abs(np.corrcoef(draws[:, datum].T)[0, 1] - rho) < 4 * (1 - rho**2) / size[datum, 0] ** 0.5


class TestLinearModel:
    def test_moments_are_exact(self, linear):
        assert_exact(*linear)

    def test_draws_are_accepted(self, linear):
        _, found = linear
        assert found.draws["z"].shape == (4, 250, 3, 2)
        assert found.accepted.all()
        assert found.why == ("", "", "")
        assert (found.rhat < 1.01).all()
        assert (found.num_divergences == 0).all()

    def test_attrs_say_whose_posterior_it_is(self, linear):
        model, found = linear
        twin = LinearPosterior("pyro", spread=0.5)
        few = {"num_chains": 2, "num_draws": 4, "num_warmup": 20, "thinning": 1}
        other = reference_posterior(twin.engine, found.x[:1], **few)
        assert other.attrs["weights_sha256"] == found.attrs["weights_sha256"]
        assert found.attrs["rules"] == {"max_rhat": 1.01, "min_ess": 400.0, "max_lag1": 0.05, "min_ebfmi": 0.2}
        assert (found.attrs["seed"], found.attrs["thinning"]) == (0, 3)
        assert found.attrs["versions"].keys() == {"numpyro", "jax", "numpy"}
        assert (found.attrs["sampler"], other.attrs["sampler"]) == ("NUTS of numpyro", "NUTS of pyro-ppl")

    def test_file_gives_back_what_was_written(self, linear, tmp_path):
        _, found = linear
        write_reference(tmp_path / "reference.nc", found)
        again = read_reference(tmp_path / "reference.nc")
        assert again.draws.keys() == found.draws.keys()
        np.testing.assert_array_equal(again.draws["z"], found.draws["z"])
        for name in ("x", "rhat", "ess", "lag1", "ebfmi", "num_divergences", "energy", "diverging", "accepted"):
            np.testing.assert_array_equal(getattr(again, name), getattr(found, name), err_msg=name)
        assert (again.why, again.attrs) == (found.why, found.attrs)

    def test_dims_of_the_file(self, linear, tmp_path):
        import xarray

        _, found = linear
        write_reference(tmp_path / "reference.nc", found)
        with xarray.open_datatree(tmp_path / "reference.nc", engine="h5netcdf") as tree:
            assert tree["posterior"]["z"].dims == ("chain", "draw", "datum", "z_dim")
            assert tree["sample_stats"]["diverging"].dims == ("chain", "draw", "datum")
            assert tree["constant_data"]["why"].dims == ("datum",)


class TestRules:
    """Chains that were made up, one fault each; their energies and draws are independent otherwise."""

    @pytest.fixture
    def judge(self, monkeypatch):
        engine = LinearPosterior("pyro").engine

        def judge(change, rules=None):
            rng = np.random.default_rng(1)
            chains = Chains(
                draws={"z": rng.normal(size=(2, 4, 500, 2))},
                energy=rng.normal(size=(2, 4, 500, 1)),
                diverging=np.zeros((2, 4, 500, 1), bool),
            )
            change(chains)
            monkeypatch.setattr("ppl_vae.diagnostics.reference.run_chains", lambda *args, **options: chains)
            return reference_posterior(engine, np.zeros((2, 6), np.float32), rules=rules)

        return judge

    def test_independent_draws_are_accepted(self, judge):
        found = judge(lambda chains: None)
        assert found.accepted.all()
        # E (e_t - e_(t-1))^2 = 2 var e; its standard error with 500 draws is about 0.11, the least of 4 lower.
        np.testing.assert_allclose(found.ebfmi, 2.0, atol=0.4)

    def test_chain_in_another_mode(self, judge):
        def shift(chains):
            chains.draws["z"][1, 2, :, 0] += 2.0

        found = judge(shift)
        assert found.accepted.tolist() == [True, False]
        # Half chains' means have the variance 2^2 (2 6 / 8^2) 8/7 = 0.857: R-hat is about sqrt(1.857) = 1.36.
        assert found.rhat[1] == pytest.approx(1.36, abs=0.05)
        assert f"R-hat {found.rhat[1]:.3f} is not below 1.01" in found.why[1]
        assert "effective sample size" in found.why[1]

    def test_divergence(self, judge):
        def diverge(chains):
            chains.diverging[0, 3, 7] = True

        found = judge(diverge)
        assert found.why == ("1 steps diverged", "")
        assert found.diverging[3, 7, 0]

    @pytest.mark.parametrize("rho", [0.3, -0.3])
    def test_dependent_draws(self, judge, rho):
        def smooth(chains):
            z = chains.draws["z"]
            for draw in range(1, 500):
                z[1, :, draw, 1] = rho * z[1, :, draw - 1, 1] + (1 - rho**2) ** 0.5 * z[1, :, draw, 1]

        found = judge(smooth)
        assert found.why[0] == ""
        # 4 standard errors of a correlation of 2000 draws.
        assert abs(found.lag1[1] - rho) < 4 * (1 - rho**2) / 2000**0.5
        assert "lag-1 autocorrelation" in found.why[1]

    def test_slow_energies(self, judge):
        def walk(chains):
            energy = chains.energy
            for draw in range(1, 500):
                energy[0, 1, draw] = 0.95 * energy[0, 1, draw - 1] + (1 - 0.95**2) ** 0.5 * energy[0, 1, draw]

        found = judge(walk)
        # 2 (1 - rho) = 0.1 for an autoregression.
        assert 0.05 < found.ebfmi[0] < 0.2
        assert found.why == (f"E-BFMI {found.ebfmi[0]:.2f} is not above 0.2", "")

    def test_chains_that_stand_still(self, judge):
        def freeze(chains):
            chains.draws["z"][1] = 1.0

        assert "R-hat nan" in judge(freeze).why[1]

    def test_own_rules(self, judge):
        found = judge(lambda chains: None, Rules(min_ess=1e6))
        assert "is not 1e+06 or more" in found.why[0]


class TestInput:
    @pytest.fixture
    def engine(self):
        return LinearPosterior("pyro").engine

    @pytest.mark.parametrize("options", [{"num_chains": 1}, {"num_draws": 3}, {"num_warmup": 5}, {"thinning": 0}])
    def test_numbers_that_are_too_small(self, engine, options):
        (name,) = options
        with pytest.raises(InputError, match=f"{name} must be at least .* but it is {options[name]}"):
            reference_posterior(engine, np.zeros((1, 6), np.float32), **options)

    def test_data_without_rows(self, engine):
        with pytest.raises(InputError, match="x must have shape"):
            reference_posterior(engine, np.zeros((0, 6), np.float32))

    def test_data_of_another_shape(self, engine):
        folder = SimpleNamespace(record={"data": {"data_shape": [6]}})
        run = Run(folder, SimpleNamespace(backend="pyro", plugin=None), engine)
        with pytest.raises(InputError, match=r"x must have shape \(n, 6\), but it is \(2, 5\)"):
            reference_posterior(run, np.zeros((2, 5), np.float32))

    def test_files_of_others(self, tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            read_reference(tmp_path / "none.nc")
        (tmp_path / "damaged.nc").write_bytes(b"no netCDF")
        with pytest.raises(InputError, match="damaged.nc"):
            read_reference(tmp_path / "damaged.nc")

    def test_store_without_reference(self, tmp_path):
        from ppl_vae.diagnostics.store import to_arviz, write_store
        from tests.exact_engine import ExactEngine

        engine = ExactEngine()
        write_store(tmp_path / "posterior.nc", to_arviz(engine, engine.draw_data(2), num_draws=30))
        with pytest.raises(InputError, match="write_reference wrote, but it lacks 'reference'"):
            read_reference(tmp_path / "posterior.nc")

    def test_file_that_cannot_be_written(self, tmp_path):
        figures = {name: np.ones(1) for name in ("rhat", "ess", "lag1", "ebfmi", "num_divergences")}
        chains = {"energy": np.zeros((2, 4, 1)), "diverging": np.zeros((2, 4, 1), bool)}
        found = ReferencePosterior(np.zeros((1, 3)), {"z": np.zeros((2, 4, 1, 2))}, **figures, **chains, why=("",))
        with pytest.raises(InputError, match="cannot write"):
            write_reference(tmp_path / "none" / "reference.nc", found)


@pytest.mark.slow
def test_pyros_chains_are_exact():
    model = LinearPosterior("pyro")
    options = {"num_draws": 150, "num_warmup": 150, "thinning": 2, "rules": Rules(min_ess=100, max_rhat=1.05)}
    found = reference_posterior(model.engine, model.draw_data(2), **options)
    assert found.accepted.all()
    assert (found.ebfmi > 0.5).all()
    assert_exact(model, found)


@pytest.mark.slow
@BACKENDS
def test_positive_latent_against_quadrature(backend):
    """A site that is not real is sampled on its support: z ~ Gamma(3, 2), x given z ~ N(z, 0.5^2)."""
    found = reference_posterior(
        gamma_engine(backend),
        np.array([[1.5], [0.2]], np.float32),
        **{"num_draws": 200, "num_warmup": 200, "thinning": 3, "rules": Rules(min_ess=100, max_rhat=1.05)},
    )
    mean, scale = found.moments("z")
    for datum, x in enumerate((1.5, 0.2)):
        grid = np.linspace(1e-6, 8.0, 20001)
        density = stats.gamma.pdf(grid, 3.0, scale=0.5) * stats.norm.pdf(x, grid, 0.5)
        density /= integrate.trapezoid(density, grid)
        exact = integrate.trapezoid(grid * density, grid)
        sd = integrate.trapezoid((grid - exact) ** 2 * density, grid) ** 0.5
        size = min(found.ess[datum], 800)
        assert abs(mean[datum, 0] - exact) < 4 * sd / size**0.5
        # The kurtosis of these posteriors is below 5: the variance of log sd is below 1 / size.
        assert abs(np.log(scale[datum, 0] / sd)) < 4 / size**0.5


def gamma_engine(backend):
    """An engine of an own program, whose weights are fixed by what they are multiplied with: nothing."""
    if backend == "pyro":
        import pyro
        import pyro.distributions as dist
        import torch

        from ppl_vae.training.pyro_engine import PyroEngine

        class Positive(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.level = torch.nn.Parameter(torch.zeros(()))

            def model(self, x, c=None, *, betas):
                with pyro.plate("data", len(x)):
                    z = pyro.sample("z", dist.Gamma(x.new_full((len(x), 1), 3.0), 2.0).to_event(1))
                    pyro.sample("x", dist.Normal(z + self.level, 0.5).to_event(1), obs=x)

            def guide(self, x, c=None, *, betas):
                with pyro.plate("data", len(x)):
                    pyro.sample("z", dist.LogNormal(self.level.expand(len(x), 1), 0.5).to_event(1))

        return PyroEngine(Positive(), (1,), device="cpu")
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    from ppl_vae.training.numpyro_engine import NumPyroEngine

    class Positive:
        def model(self, x, c=None, *, betas):
            level = numpyro.param("level", jnp.zeros(()))
            with numpyro.plate("data", len(x)):
                z = numpyro.sample("z", dist.Gamma(jnp.full((len(x), 1), 3.0), 2.0).to_event(1))
                numpyro.sample("x", dist.Normal(z + level, 0.5).to_event(1), obs=x)

        def guide(self, x, c=None, *, betas):
            loc = numpyro.param("loc", jnp.zeros(())) * jnp.ones((len(x), 1))
            with numpyro.plate("data", len(x)):
                numpyro.sample("z", dist.LogNormal(loc, 0.5).to_event(1))

    return NumPyroEngine(Positive(), (1,), device="cpu")


@pytest.mark.slow
def test_levels_are_drawn_together():
    engine = build_engine("numpyro", "ghvae", (4,), latent_dims=[2, 1], hidden_dim=4, num_hidden=1, scale=0.5)
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    found = reference_posterior(engine, x, num_draws=250, num_warmup=300, thinning=3)
    assert {name: draws.shape for name, draws in found.draws.items()} == {
        "z2": (4, 250, 2, 1),
        "z1": (4, 250, 2, 2),
    }
    # The mean of the score of the joint density is zero under the posterior, by partial integration.
    latents = {name: draws.reshape(2000, *draws.shape[3:]) for name, draws in found.draws.items()}
    density = engine.log_joint_gradient(np.tile(x, (1000, 1)), latents)
    for name, gradient in density.gradient.items():
        score = gradient.reshape(1000, 2, -1).astype(float)
        error = score.std(axis=0) / np.minimum(found.ess, 1000)[:, None] ** 0.5
        assert (np.abs(score.mean(axis=0)) < 4 * error).all(), name


@pytest.mark.slow
@needs("torch", "pyro")
def test_runs_of_pyro_are_sampled_in_numpyro(fitted, tmp_path):
    assert type(sampling_engine(fitted.run)).__name__ == "NumPyroEngine"
    few = {"num_chains": 2, "num_draws": 30, "num_warmup": 50, "thinning": 1}
    done = []
    found = reference_posterior(fitted.run, fitted.x[:2], **few, report=done.append)
    assert done == [1.0]
    assert found.attrs["backend"] == fitted.backend
    assert (found.attrs["sampler"], found.attrs["variant"]) == ("NUTS of numpyro", "beta_vae")
    assert not found.accepted.any()
    write_reference(tmp_path / "few.nc", found)
    assert not read_reference(tmp_path / "few.nc").accepted.any()


def test_conditions_are_kept(tmp_path):
    figures = {name: np.ones(2) for name in ("rhat", "ess", "lag1", "ebfmi", "num_divergences")}
    chains = {"energy": np.zeros((2, 4, 2)), "diverging": np.zeros((2, 4, 2), bool)}
    x = Conditioned(np.zeros((2, 3), np.float32), np.array([[1.0], [2.0]], np.float32))
    found = ReferencePosterior(x, {"z": np.zeros((2, 4, 2, 2))}, **figures, **chains, why=("", "R-hat"))
    write_reference(tmp_path / "reference.nc", found)
    again = read_reference(tmp_path / "reference.nc")
    np.testing.assert_array_equal(again.x.condition, x.condition)
    assert again.accepted.tolist() == [True, False]
