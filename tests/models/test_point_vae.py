"""The VAE of point clouds: its terms by SciPy, what does not depend on the order of points, and fits of solids."""

import json

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import KDTree

import ppl_vae
from ppl_vae.data import load
from ppl_vae.data.generators import draw_shapes
from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import ELBO
from ppl_vae.training.engine import UnitBetas
from tests.helpers import BACKENDS, build_engine, load_file, needs

SMALL = {"latent_dim": 2, "hidden_dim": 6, "num_hidden": 1, "grid_side": 4, "num_neighbours": 5}
RNG = np.random.default_rng(4)


def solids(num_data, num_points=64):
    """Boxes and tori, all upright."""
    return draw_shapes(num_data, num_points=num_points, classes=("box", "torus"), rotation="none").x


def log_likelihood(x, centres, likelihood, scale):
    if likelihood == "mixture":
        densities = stats.norm.pdf(x[:, None], centres, scale).prod(-1)
        return np.log(densities.mean(-1)).sum()
    forth, back = (np.mean(KDTree(b).query(a)[0] ** 2) for a, b in ((x, centres), (centres, x)))
    return -len(x) * (forth + back) / 2 / (2 * scale**2)


@pytest.mark.parametrize("likelihood", ["mixture", "chamfer"])
def test_terms_are_those_of_scipy_whatever_the_order_of_points(ppl, likelihood):
    x, noise = RNG.normal(size=(4, 10, 3)), RNG.normal(size=(4, 2))
    program = ppl.build("point_vae", (10, 3), net="folding", likelihood=likelihood, scale=0.5, **SMALL)
    pair, weights = (program.model, program.guide), ppl.initial_weights(program, x)
    assert ("likelihood.log_scale" in weights) == (likelihood == "mixture")
    options = ppl.set_weights(program, weights, x) | {"betas": UnitBetas(), "noise": {"z": noise}}

    def read(traces, program):
        z = traces.guide["z"].fn
        return {
            "loc": z.loc,
            "scale": z.scale,
            "centres": traces.x.fn.centres,
            **ELBO().read(traces, program).flat(),
        }

    found = ppl.read_run(read, pair, ppl.array(x), **options)
    rate = 0.5 * (found["loc"] ** 2 + found["scale"] ** 2 - 1) - np.log(found["scale"])
    distortion = -np.mean([log_likelihood(*row, likelihood, 0.5) for row in zip(x, found["centres"], strict=True)])
    # Rounding in float64.
    np.testing.assert_allclose(found["distortion"], distortion, rtol=1e-11)
    np.testing.assert_allclose(found["rate/z"], rate.sum(-1).mean(), rtol=1e-12)
    others = np.stack([cloud[RNG.permutation(10)] for cloud in x])
    again = ppl.read_run(read, pair, ppl.array(others), **options)
    for name, value in found.items():
        np.testing.assert_allclose(again[name], value, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("likelihood", ["mixture", "chamfer"])
def test_a_short_fit_brings_the_points_nearer(ppl, likelihood):
    x = solids(16)
    program = ppl.build("point_vae", (64, 3), likelihood=likelihood, scale=0.2, **SMALL | {"hidden_dim": 16})
    before = ppl.initial_weights(program, x)
    losses, after = ppl.fit(program, ppl.build_loss("elbo"), x, UnitBetas(), num_steps=60, learning_rate=0.02)
    # A cloud has 64 points of size up to 1; half a nat a point is far above the noise of the steps.
    assert np.mean(losses[-10:]) < np.mean(losses[:3]) - 32.0
    assert all(not np.array_equal(after[name], before[name]) for name in before)


FIT = {"epochs": 3, "batch_size": 16, "device": "cpu", "log_px_draws": 25, "log_px_data": 5, **SMALL}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of each likelihood in Pyro."""
    data = load(solids(80, 32))
    folder = tmp_path_factory.mktemp("clouds")
    return {
        name: ppl_vae.fit("point_vae", data, backend="pyro", out=folder / name, likelihood=name, **FIT)
        for name in ("mixture", "chamfer")
    }


@needs("torch", "pyro", "arviz")
def test_a_fit_and_its_uses(fitted):
    run = fitted["mixture"]
    assert run.record["notes"] == []  # such as that a step could not be captured
    assert (run.path / "overview.png").stat().st_size > 10_000
    x = run.data.split("test")
    assert run.encode(x)["z"].shape == (len(x), 2)
    assert run.sample(3).shape == run.sample(3, noise=True).shape == run.reconstruct(x[:3]).shape == (3, 32, 3)
    # What is shown are the centres; noise puts other points about them.
    assert len(np.unique(run.sample(1)[0], axis=0)) == 16 < len(np.unique(run.sample(1, noise=True)[0], axis=0))
    assert np.isfinite(run.log_px(x[:2], num_draws=10).value).all()
    assert run.summarise(num_draws=25).log_px is not None
    assert "log p(x)" in run.summarise(num_draws=25).table()


@needs("torch", "pyro", "arviz")
def test_a_pseudo_likelihood_has_no_log_px_anywhere(fitted):
    from ppl_vae.diagnostics.store import to_arviz
    from ppl_vae.training.results import run_page

    run = fitted["chamfer"]
    assert run.record["notes"] == [
        "the likelihood is no density: loss, distortion and elbo compare fits of it alone"
    ]
    assert not [name for name in run.metrics if "log_px" in name]
    assert np.isfinite(list(run.metrics["elbo"].values())).all()
    page = run_page(run)
    assert "log p(x)" not in page
    assert "note: the likelihood is no density" in page
    summary = run.summarise(num_draws=25)
    assert summary.log_px is None
    assert "log p(x): not estimated, the likelihood is no density" in summary.table()
    assert summary.to_dict()["log_px"] is None
    x = run.data.split("test")
    store = to_arviz(run.engine, x, labels=np.arange(len(x)), num_draws=5)
    assert list(store["constant_data"].data_vars) == ["label"]
    assert store["posterior"]["z"].shape == (1, 5, len(x), 2)
    for use in (run.log_px, run.scores, lambda x: run.complete(x, missing=np.ones((32, 3)))):
        with pytest.raises(
            InputError, match=r"must give x a density for log p\(x\).* another likelihood, such as mi"
        ):
            use(x)
    assert run.reconstruct(x).shape == x.shape


@needs("torch", "pyro", "arviz")
def test_reconstructions_are_compared_without_an_order_of_points(fitted, tmp_path, capsys):
    from ppl_vae.cli import main

    x, out = solids(6, 32), tmp_path / "mean.npz"
    np.save(tmp_path / "x.npy", x)
    words = ["reconstruct", str(fitted["mixture"].path), "--data", str(tmp_path / "x.npy"), "--out", str(out)]
    with pytest.raises(SystemExit) as done:
        main([*words, "--json"])
    assert done.value.code == 0
    found = json.loads(capsys.readouterr().out)
    mean = np.load(out)["mean"]
    distances = [
        np.mean(KDTree(b).query(a)[0] ** 2) for u, v in zip(x, mean, strict=True) for a, b in ((u, v), (v, u))
    ]
    # In float32.
    assert found["mean_chamfer_distance"] == pytest.approx(np.mean(distances), rel=1e-4)
    assert "mean_squared_error" not in found


@pytest.mark.slow  # JAX compiles for long
@needs("torch", "pyro", "jax", "numpyro", "equinox", "optax", "arviz")
def test_a_run_moves_to_numpyro_and_a_fit_there_says_the_same(fitted, tmp_path):
    run = fitted["mixture"]
    x = run.data.split("test")
    other = ppl_vae.Run.open(run.path, backend="numpyro")
    # The same weights in float32.
    np.testing.assert_allclose(other.reconstruct(x), run.reconstruct(x), atol=1e-5)
    options = FIT | {"likelihood": "chamfer", "products": False, "out": tmp_path / "chamfer"}
    twin = ppl_vae.fit("point_vae", load(solids(80, 32)), backend="numpyro", **options)
    assert twin.record["notes"] == fitted["chamfer"].record["notes"]
    assert twin.metrics.keys() == fitted["chamfer"].metrics.keys()


@BACKENDS
@pytest.mark.parametrize(
    ("data_shape", "options", "message"),
    [
        ((8, 8), {}, r"data_shape must be \(p, 3\), .* but it is \(8, 8\); give clouds of one number of points"),
        ((6, 3), {"net": "folding"}, "num_neighbours must be from 2 to .* 6, but it is 8; .* or use --net pointn"),
        ((6, 3), {"likelihood": "gaussian"}, "likelihood must be one of mixture, chamfer, but it is 'gaussian'"),
        ((6, 3), {"scale": float("nan")}, "scale must be positive and finite, but it is nan; pass a standard"),
        ((6, 3), {"grid_side": 1}, "grid_side must be at least 2, but it is 1"),
        ((6, 3), {"latent_dim": 0}, "latent_dim and the size of a datum must be at least 1"),
    ],
)
def test_mistakes_are_named(backend, data_shape, options, message):
    with pytest.raises(InputError, match=message):
        build_engine(backend, "point_vae", data_shape, **options)


def test_files_of_both_backends_say_the_same():
    files = [load_file(f"models/point_vae_{backend}.py") for backend in ("pyro", "numpyro")]
    first, second = (file.__doc__.split("\n", 1) for file in files)
    assert first[1] == second[1]
