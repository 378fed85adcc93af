import errno
import os
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import xarray
from scipy import stats
from scipy.special import logsumexp

from ppl_vae.diagnostics.store import read_store, to_arviz, write_store
from ppl_vae.errors import InputError
from tests.exact_engine import ExactEngine
from tests.helpers import BACKENDS, ROOT, build_engine, needs

GROUPS = [
    "posterior",
    "prior",
    "posterior_predictive",
    "sample_stats",
    "observed_data",
    "constant_data",
]


@pytest.fixture(scope="module")
def fit():
    engine = ExactEngine(data_shape=(3, 2), shift=0.3, sites={"z2": 1, "z1": 2})
    x = engine.draw_data(5)
    options = {
        "labels": [0, 1, 1, 0, 1],
        "label_names": ("left", "right"),
        "num_draws": 40,
        "num_prior_draws": 30,
        "attrs": {
            "backend": "exact",
            "variant": "linear",
            "beta": 4.0,
            "options": {"hidden_dim": 3},
            "cold": None,
        },
    }
    return engine, x, to_arviz(engine, x, **options)


def exact_log_px(engine, x):
    return stats.multivariate_normal(cov=engine.covariance).logpdf(x.reshape(len(x), -1).astype(float))


class TestGroups:
    def test_dims(self, fit):
        *_, store = fit
        dims = {f"{group}.{name}": v.dims for group in GROUPS for name, v in store[group].data_vars.items()}
        draws = ("chain", "draw", "datum")
        assert dims == {
            "posterior.z2": (*draws, "z2_dim"),
            "posterior.z1": (*draws, "z1_dim"),
            "prior.z2": ("chain", "draw", "z2_dim"),
            "prior.z1": ("chain", "draw", "z1_dim"),
            "posterior_predictive.x": (*draws, "x_dim_0", "x_dim_1"),
            "posterior_predictive.x_mean": (*draws, "x_dim_0", "x_dim_1"),
            "sample_stats.log_weight": draws,
            "observed_data.x": ("datum", "x_dim_0", "x_dim_1"),
            "constant_data.label": ("datum",),
            "constant_data.label_name": ("datum",),
            "constant_data.log_px": ("datum",),
            "constant_data.log_px_standard_error": ("datum",),
            "constant_data.khat": ("datum",),
        }

    def test_sizes_and_coords(self, fit):
        *_, store = fit
        sizes = {"chain": 1, "draw": 40, "datum": 5, "z2_dim": 1, "z1_dim": 2, "x_dim_0": 3, "x_dim_1": 2}
        few = {"prior": {"draw": 30}, "posterior_predictive": {"draw": 10}}
        for group in GROUPS:
            assert len(store[group].coords) > 0
            for dim, coord in store[group].coords.items():
                np.testing.assert_array_equal(coord, np.arange((sizes | few.get(group, {}))[dim]))
                assert coord.dtype.kind == "i"

    def test_no_pointwise_likelihood_for_leave_one_out(self, fit):
        *_, store = fit
        assert "log_likelihood" not in list(store.children if hasattr(store, "children") else store.groups())

    def test_values_belong_together(self, fit):
        engine, x, store = fit
        posterior = store["posterior"]
        z = np.concatenate([posterior["z2"], posterior["z1"]], axis=-1)[0]
        mean = (z @ engine.weights.T).reshape(40, 5, 3, 2)
        np.testing.assert_allclose(store["posterior_predictive"]["x_mean"][0], mean[:10], rtol=0, atol=1e-12)
        # Bayes: the weight times the guide's density is the exact joint density of the draw.
        loc = engine.posterior_mean(x) + 0.3 * engine.posterior_scale
        log_joint = stats.norm.logpdf(x, mean, engine.noise_scale).sum((-1, -2)) + stats.norm.logpdf(z).sum(-1)
        log_guide = stats.norm.logpdf(z, loc, engine.posterior_scale).sum(-1)
        np.testing.assert_allclose(
            store["sample_stats"]["log_weight"][0], log_joint - log_guide, rtol=0, atol=1e-10
        )

    def test_draws_of_x_have_the_noise_of_the_likelihood(self, fit):
        engine, _, store = fit
        predictive = store["posterior_predictive"]
        noise = (predictive["x"] - predictive["x_mean"]).values / engine.noise_scale
        assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
        assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)

    def test_log_px(self, fit):
        engine, x, store = fit
        constant = store["constant_data"]
        error = (constant["log_px"] - exact_log_px(engine, x)) / constant["log_px_standard_error"]
        assert abs(error).max() < 4
        assert (constant["khat"] < 0.7).all()

    def test_data_and_labels(self, fit):
        _, x, store = fit
        np.testing.assert_array_equal(store["observed_data"]["x"], x)
        assert store["constant_data"]["label"].values.tolist() == [0, 1, 1, 0, 1]
        assert store["constant_data"]["label_name"].values.tolist() == ["left", "right", "right", "left", "right"]

    def test_prior_moments(self):
        engine = ExactEngine(prior_scale=2.0)
        prior = to_arviz(engine, engine.draw_data(2), num_draws=2, num_prior_draws=4000)["prior"]["z"]
        assert abs(prior.mean("draw")).max() < 4 * 2 / np.sqrt(4000)
        assert abs(prior.std("draw") / 2 - 1).max() < 4 / np.sqrt(2 * 4000)

    def test_attrs_are_on_every_group(self, fit):
        *_, store = fit
        for group in GROUPS:
            attrs = store[group].attrs
            assert attrs["backend"] == "exact"
            assert attrs["beta"] == 4.0
            assert attrs["options"] == '{"hidden_dim": 3}'
            assert attrs["cold"] == "null"
            assert attrs["seed"] == 0

    def test_few_draws_and_plain_labels(self):
        engine = ExactEngine()
        store = to_arviz(engine, engine.draw_data(3), labels=["a", "b", "a"], num_draws=4)
        assert store["posterior_predictive"]["x_mean"].shape == (1, 4, 3, 6)
        assert store["constant_data"]["label"].values.tolist() == ["a", "b", "a"]
        assert "label_name" not in store["constant_data"]
        assert np.isnan(store["constant_data"]["khat"]).all()

    def test_one_datum_of_one_number_without_labels(self, tmp_path):
        engine = ExactEngine((1.5,), (1,))
        write_store(tmp_path / "one.nc", to_arviz(engine, engine.draw_data(1), num_draws=30))
        store = read_store(tmp_path / "one.nc")
        assert store["posterior"]["z"].shape == (1, 30, 1, 1)
        assert store["posterior_predictive"]["x"].dims == ("chain", "draw", "datum", "x_dim_0")
        assert list(store["constant_data"]) == ["log_px", "log_px_standard_error", "khat"]


class TestArviz:
    def test_container_is_the_versions_own(self, fit):
        *_, store = fit
        expected = "DataTree" if int(version("arviz").split(".")[0]) >= 1 else "InferenceData"
        assert type(store).__name__ == expected

    def test_summary(self, fit):
        import arviz as az

        engine, x, store = fit
        table = az.summary(store, kind="stats", round_to="none")
        assert table.shape[0] == 5 * 3
        mean = engine.posterior_mean(x) + 0.3 * engine.posterior_scale
        error = (table.loc["z1[2, 1]", "mean"] - mean[2, 2]) / engine.posterior_scale[2]
        assert abs(error) < 4 / np.sqrt(40)


class TestFile:
    @pytest.mark.parametrize("name", ["posterior.nc", "no suffix"])
    def test_round_trip(self, fit, tmp_path, name):
        *_, store = fit
        write_store(tmp_path / name, store)
        write_store(tmp_path / name, store)  # over what is there
        found = read_store(tmp_path / name)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert type(found) is type(store)
        for group in GROUPS:
            for variable, expected in store[group].variables.items():
                actual = found[group].variables[variable]
                assert actual.dims == expected.dims
                np.testing.assert_array_equal(actual.values, expected.values)
            assert dict(found[group].attrs) == dict(store[group].attrs)

    def test_file_can_be_replaced_after_reading(self, fit, tmp_path):
        engine, x, store = fit
        write_store(tmp_path / "posterior.nc", store)
        found = read_store(tmp_path / "posterior.nc")
        (tmp_path / "posterior.nc").unlink()
        write_store(tmp_path / "posterior.nc", found)
        np.testing.assert_array_equal(read_store(tmp_path / "posterior.nc")["observed_data"]["x"], x)

    def test_missing_file(self, tmp_path):
        with pytest.raises(InputError, match="cannot read .*posterior.nc: No such file"):
            read_store(tmp_path / "posterior.nc")

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: b"not netCDF",
            lambda data: data[: len(data) // 2],
            lambda data: data[:-1],
            lambda data: data[: len(data) // 2] + b"\xff" * 200 + data[len(data) // 2 + 200 :],
        ],
        ids=["empty", "text", "half", "without its end", "overwritten"],
    )
    def test_damaged_file(self, fit, tmp_path, damage):
        path = tmp_path / "posterior.nc"
        write_store(path, fit[2])
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(
            InputError, match=r"posterior\.nc must be a whole netCDF file .* copy it again, or write"
        ):
            read_store(path)

    def test_other_groups(self, fit, tmp_path):
        path = tmp_path / "other.nc"
        xarray.Dataset(fit[2]["observed_data"].data_vars).to_netcdf(path, engine="h5netcdf")
        with pytest.raises(InputError, match=r"its groups are \[\], without draws in posterior"):
            read_store(path)

    def test_a_write_that_fails_leaves_the_old_file(self, fit, tmp_path, monkeypatch):
        path = tmp_path / "posterior.nc"
        write_store(path, fit[2])
        before = path.read_bytes()

        def refuse(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(InputError, match="cannot write .*No space left"):
            write_store(path, fit[2])
        assert path.read_bytes() == before
        assert [found.name for found in tmp_path.iterdir()] == ["posterior.nc"]

    def test_missing_folder(self, fit, tmp_path):
        with pytest.raises(InputError, match="cannot write .*missing/posterior.nc"):
            write_store(tmp_path / "missing" / "posterior.nc", fit[2])


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"labels": [0, 1]}, r"labels must have shape \(3,\), one label per datum of x, but has shape \(2,\)"),
            ({"labels": [0, 1, 2], "label_names": ["a", "b"]}, "number the 2 label_names from 0, .* from 0 to 2"),
            ({"labels": [0, -1, 1], "label_names": ["a", "b"]}, "run from -1 to 1"),
            ({"labels": [0.5, 1, 0], "label_names": ["a", "b"]}, "they are of dtype float64"),
            ({"num_draws": 0}, "num_prior_draws must be at least 1"),
            ({"num_predictive_draws": 0}, "num_predictive_draws must be at least 1, but it is 0"),
            ({"num_draws": 0, "num_prior_draws": 1}, "num_draws must be at least 1, but it is 0"),
            ({"seed": -1}, "seed must be"),
        ],
    )
    def test_message(self, options, message):
        with pytest.raises(InputError, match=message):
            to_arviz(ExactEngine(), np.zeros((3, 6)), **options)

    @pytest.mark.parametrize(
        ("source", "arguments", "options", "message"),
        [
            (3, (), {}, r"source must be a run, .* or a pair \(model, guide\), but it is a int"),
            (ExactEngine(), (), {}, "x must be the data that an engine is asked about, but it is missing"),
            (ExactEngine(), (np.zeros((3, 6)), 1), {}, "kwargs and params are for programs of your own"),
            (ExactEngine(), (np.zeros((3, 6)),), {"params": {"w": 1}}, "source is a ExactEngine"),
            ("no folder", (), {}, "no folder"),
        ],
    )
    def test_source(self, source, arguments, options, message):
        with pytest.raises(InputError, match=message):
            to_arviz(source, *arguments, **options)


@needs("torch", "pyro")
@pytest.mark.slow
def test_runs_and_their_folders(tmp_path):
    import ppl_vae
    from tests.toy_fits import TOY, toy_data

    x, labels = toy_data(60)
    settings = {"epochs": 1, "backend": "pyro", "out": tmp_path / "run"}
    run = ppl_vae.fit("beta_vae", x, labels=labels, **settings, **TOY)
    known, store = run.to_arviz(num_draws=3), to_arviz(run, num_draws=3)
    for group in GROUPS:
        assert dict(store[group].attrs) == dict(known[group].attrs)
        for name, expected in known[group].data_vars.items():
            np.testing.assert_array_equal(store[group][name], expected)
    names = [f"class {label}" for label in range(10)]
    fewer = to_arviz(run, num_draws=3, num_predictive_draws=2, num_prior_draws=1, label_names=names)
    assert (fewer["posterior_predictive"].sizes["draw"], fewer["prior"].sizes["draw"]) == (2, 1)
    assert set(fewer["constant_data"]["label_name"].values) <= set(names)
    run = ppl_vae.Run.open(run.path, data=ppl_vae.load(x, labels=labels))
    np.testing.assert_array_equal(to_arviz(run, x[:2])["observed_data"]["x"], x[:2])
    assert to_arviz(run.path, x[:2], num_draws=3)["posterior"].attrs["variant"] == "beta_vae"
    with pytest.raises(InputError, match=r"x must have shape \(n, 8, 8\), but it is \(2, 64\)"):
        to_arviz(run, x[:2].reshape(2, 64))
    with pytest.raises(InputError, match="labels must go with data, but x is missing"):
        to_arviz(run, labels=[0, 1])


@BACKENDS
def test_backends(backend, tmp_path):
    engine = build_engine(backend, "beta_vae", (2, 3), latent_dim=2, num_hidden=0, likelihood="bernoulli")
    x = np.random.default_rng(0).integers(0, 2, (4, 2, 3)).astype(np.float32)
    store = to_arviz(engine, x, num_draws=30, attrs={"backend": backend})
    write_store(tmp_path / "posterior.nc", store)
    found = read_store(tmp_path / "posterior.nc")
    assert found["posterior"]["z"].sizes == {"chain": 1, "draw": 30, "datum": 4, "z_dim": 2}
    assert found["prior"]["z"].sizes == {"chain": 1, "draw": 30, "z_dim": 2}
    mean = found["posterior_predictive"]["x_mean"]
    assert mean.sizes == {"chain": 1, "draw": 10, "datum": 4, "x_dim_0": 2, "x_dim_1": 3}
    # The stored draws give the stored means: both come from the engine's own decoder.
    again = engine.inspect(x, seed=0, latents={"z": found["posterior"]["z"].values[0, 7]}).mean
    np.testing.assert_allclose(mean[0, 7], again, rtol=0, atol=1e-6)
    log_mean_weight = logsumexp(found["sample_stats"]["log_weight"][0], axis=0) - np.log(30)
    np.testing.assert_allclose(found["constant_data"]["log_px"], log_mean_weight, rtol=0, atol=1e-12)


@needs("jax", "numpyro", "equinox", "optax")
def test_the_numpyro_engine_can_be_imported_after_arviz():
    # ArviZ 1.x registers numpyro lazily, so that its submodules are no attributes at first.
    code = "import arviz; from ppl_vae.training.numpyro_engine import NumPyroEngine"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
