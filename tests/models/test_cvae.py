"""The conditional VAE: what its networks see, what its prior sees, and the uses of a short fit."""

import numpy as np
import pytest
from scipy import stats

from ppl_vae import fit
from ppl_vae.data import Conditioned, add_condition, condition_of, join_quadrants, load
from ppl_vae.diagnostics.panels import whole
from ppl_vae.errors import InputError
from ppl_vae.nets.condition import Condition
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.inspection import inspect
from ppl_vae.posterior.inputs import choose_data
from ppl_vae.training.engine import UnitBetas
from tests.helpers import NUMPYRO_SLOW, load_file, needs

SMALL = {"latent_dim": 2, "hidden_dim": 5, "num_hidden": 1, "num_channels": 2}


def noise_of(x, size=2):
    return {"z": np.random.default_rng(1).normal(size=(len(x), size))}


def read(ppl, program, x, c, fields, *, weights=None):
    """Fields of an inspection, those of z."""

    def fields_of(traces, run):
        found = inspect(run)
        values = {name: getattr(found, name) for name in fields}
        return {name: value["z"] if isinstance(value, dict) else value for name, value in values.items()}

    data = (x, c)
    weights = ppl.initial_weights(program, data) if weights is None else weights
    options = ppl.set_weights(program, weights, data)
    pair = program.model, program.guide
    return ppl.read_run(fields_of, pair, *ppl.arguments(data), noise=noise_of(x), betas=UnitBetas(), **options)


JOINED = {
    "vectors": ("mlp", (3,), (2,), (5,)),
    "flattened": ("mlp", (2, 3), (2, 2, 1), (10,)),
    "grey images": ("conv", (6, 8), (6, 8), (6, 8, 2)),
    "images": ("conv", (6, 8, 3), (6, 8, 2), (6, 8, 5)),
    "an image and labels": ("conv", (6, 8), (3,), (6, 8, 4)),
    "an image and one of another size": ("conv", (6, 8), (3, 4), (6, 8, 13)),
}


@pytest.mark.parametrize("case", JOINED)
def test_data_and_conditions_are_joined(ppl, case):
    net, data_shape, shape, joined = JOINED[case]
    rng = np.random.default_rng(0)
    x = rng.poisson(3.0, (4, *data_shape)).astype(float)
    c, z = rng.normal(size=(4, *shape)), rng.normal(size=(4, 2))
    condition = Condition(data_shape, shape, net, log_input=True)
    found = ppl.numpy(condition.join(*ppl.arguments((x, c))))
    assert found.shape[1:] == condition.joined_shape == joined
    # log(1 + x) of the data alone, in their order, and every number of c in its place.
    flat, numbers = found.reshape(4, -1, joined[-1]), c.reshape(4, -1)
    if net == "mlp":
        np.testing.assert_array_equal(found, np.concatenate([np.log1p(x).reshape(4, -1), numbers], axis=1))
    else:
        channels = x.size // (4 * 48)
        np.testing.assert_allclose(flat[..., :channels].reshape(4, -1), np.log1p(x).reshape(4, -1), rtol=1e-14)
        own = c.reshape(4, 48, -1) if condition.is_image else np.repeat(numbers[:, None], 48, axis=1)
        np.testing.assert_array_equal(flat[..., channels:], own)
    beside = ppl.numpy(condition.beside(*ppl.arguments((z, c))))
    np.testing.assert_array_equal(beside, np.concatenate([z, numbers], axis=1))
    # Axes of particles stand in front of latents, not of conditions.
    particles = ppl.numpy(condition.beside(*ppl.arguments((np.stack([z, -z]), c))))
    np.testing.assert_array_equal(particles[0], beside)
    np.testing.assert_array_equal(particles[1, :, 2:], numbers)


def test_terms_are_those_of_the_conditional_densities(ppl):
    """By SciPy's densities and the Gaussian KL, for a conditioned prior of twice the network's width."""
    rng = np.random.default_rng(2)
    x, c = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    options = SMALL | {"num_hidden": 0, "prior": "conditioned", "prior_scale": 2.0, "scale": 0.4, "bias": True}
    program = ppl.build("cvae", (3,), condition_shape=(2,), **options)
    weights, noise = ppl.initial_weights(program, (x, c)), noise_of(x)
    terms, _, _ = ppl.evaluate(program, weights, (x, c), objective=ELBO(), noise=noise, betas={"z": 3.0})

    def moments(name, inputs):
        prefix = f"{name}.network.layers.0"
        loc, raw = np.split(inputs @ weights[f"{prefix}.weight"].T + weights[f"{prefix}.bias"], 2, axis=1)
        return loc, np.logaddexp(0.0, raw) + 1e-4

    (q, s), (p, r) = moments("posterior", np.concatenate([x, c], axis=1)), moments("prior", c)
    r = 2.0 * r
    z = q + s * noise["z"]
    mean = np.concatenate([z, c], axis=1) @ weights["decoder.layers.0.weight"].T + weights["decoder.layers.0.bias"]
    rate = (np.log(r / s) + (s**2 + (q - p) ** 2) / (2 * r**2) - 0.5).sum() / 4
    distortion = -stats.norm.logpdf(x, mean, 0.4).sum() / 4
    # Rounding in float64.
    np.testing.assert_allclose(terms["rate/z"], rate, rtol=1e-12)
    np.testing.assert_allclose(terms["distortion"], distortion, rtol=1e-12)
    np.testing.assert_allclose(terms["loss"], distortion + 3.0 * rate, rtol=1e-12)


@pytest.mark.parametrize("prior", ["fixed", "conditioned"])
@pytest.mark.parametrize(("net", "shape"), [("mlp", (2,)), ("conv", (6, 8)), ("conv", (2,))])
def test_what_the_condition_reaches(ppl, prior, net, shape):
    rng = np.random.default_rng(4)
    x, c, other = rng.normal(size=(4, 6, 8)), rng.normal(size=(4, *shape)), rng.normal(size=(4, *shape))
    program = ppl.build("cvae", (6, 8), condition_shape=shape, net=net, prior=prior, **SMALL)
    fields = ("loc", "mean", "log_prior", "latents")
    first, second = (read(ppl, program, x, given, fields) for given in (c, other))
    for name in ("loc", "mean"):  # the guide's mean, and that of x
        assert not np.allclose(first[name], second[name], rtol=1e-3), name
    standard = stats.norm.logpdf(first["latents"]).sum(axis=1)
    if prior == "fixed":
        np.testing.assert_allclose(first["log_prior"], standard, rtol=1e-12)
    else:
        assert np.abs(first["log_prior"] - standard).min() > 1e-3


@pytest.mark.parametrize("scale", ["learned", "0.3"])
def test_posterior_scales_that_are_the_same_for_all_data(ppl, scale):
    rng = np.random.default_rng(5)
    x, c = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    program = ppl.build("cvae", (3,), condition_shape=(2,), posterior_scale=scale, **SMALL)
    found = read(ppl, program, x, c, ("scale",))["scale"]
    np.testing.assert_allclose(found, 1.0 if scale == "learned" else 0.3, rtol=1e-14)
    assert ("posterior.log_scale" in ppl.initial_weights(program, (x, c))) == (scale == "learned")


@pytest.fixture(scope="module")
def digits():
    found = load("digits")
    return load(found.x[:120], labels=found.labels[:120])


FIT = {"epochs": 2, "hidden_dim": 16, "latent_dim": 3, "num_hidden": 1, "log_px_draws": 30, "device": "cpu"}


@NUMPYRO_SLOW
def test_a_fit_by_quadrants_and_its_uses(backend, digits, tmp_path):
    import ppl_vae
    from ppl_vae.training.run import Run

    run = ppl_vae.fit("cvae", digits, backend=backend, out=tmp_path / "run", **FIT)
    assert run.record["data"]["arrangement"] == {"condition": "quadrant"}
    assert (run.engine.condition_shape, run.engine.latents, run.record["notes"]) == ((4, 4, 1), ["z"], [])
    x = run.data.split("test")
    assert x.shape[1:] == (4, 4, 3)
    assert run.encode(x)["z"].shape == (len(x), 3)
    assert run.reconstruct(x).shape == x.shape
    found = run.complete(x[:2], missing="bottom", num_draws=2, num_steps=10)
    np.testing.assert_array_equal(found.draws[:, :, :2], np.broadcast_to(x[:2, :2], (2, 2, 2, 4, 3)))
    store = run.to_arviz(num_draws=4, max_data=5)
    assert set(store.prior.data_vars) == set(store.posterior.data_vars) == {"z"}
    assert list(store.observed_data.data_vars) == ["x"]
    summary = run.summarise(num_draws=30)
    assert [site.name for site in summary.sites] == ["z"]
    assert {"overview.png", "posterior.nc", "diagnosis.json"} <= {path.name for path in run.path.iterdir()}

    # Drawn given the test data's conditions, or given any others, again and again.
    draws = run.sample(2 * len(x))
    np.testing.assert_array_equal(run.sample(2 * len(x), condition=condition_of(x)), draws)
    given = run.engine.generate(3, seed=0, condition=condition_of(x)[:1], latents={"z": np.zeros((3, 3))})
    np.testing.assert_array_equal(given.mean[1], given.mean[0])
    assert list(given.latents) == ["z"]
    assert not np.allclose(given.mean[0], run.engine.generate(1, seed=0, condition=condition_of(x)[1:2]).mean[0])

    other = "numpyro" if backend == "pyro" else "pyro"
    # The same weights in float32.
    np.testing.assert_allclose(Run.open(run.path, backend=other).reconstruct(x), run.reconstruct(x), atol=1e-5)


@NUMPYRO_SLOW
def test_a_fit_by_labels_learns_what_they_say(backend, digits, tmp_path):
    import ppl_vae

    options = FIT | {"epochs": 40, "batch_size": 16, "scale": 0.3, "learn_scale": False, "learning_rate": 5e-3}
    run = ppl_vae.fit(
        "cvae", digits, condition="labels", backend=backend, out=tmp_path / "run", products=False, **options
    )
    labels = np.eye(10, dtype=np.float32)
    train, codes = run.data.split("train"), run.data.labels("train")
    means = np.stack([np.asarray(train)[codes == code].mean(axis=0) for code in range(10)])
    drawn = run.sample(1000, condition=labels).reshape(100, 10, 8, 8).mean(axis=0)
    nearest = ((drawn[:, None] - means) ** 2).sum(axis=(2, 3)).argmin(axis=1)
    # Draws for a label look like the label; by chance one in ten would.
    assert (nearest == np.arange(10)).sum() >= 8


@NUMPYRO_SLOW
def test_mistakes_are_named(backend, digits, tmp_path):
    import ppl_vae

    def fit(data, **options):
        return ppl_vae.fit("cvae", data, backend=backend, out=tmp_path / "run", **FIT | options)

    unlabelled = load(np.random.default_rng(0).normal(size=(40, 5)))
    with pytest.raises(InputError, match="condition labels needs data with labels"):
        fit(unlabelled)
    with pytest.raises(InputError, match=r"data_shape must be \(h, w\) or .* it is \(4, 4, 3\); use --net mlp"):
        fit(digits, net="conv")
    build = load_file(f"models/cvae_{backend}.py").build
    with pytest.raises(InputError, match="condition_shape must be given for a .* but it is None; pass"):
        build((5,))
    with pytest.raises(InputError, match="prior_scale must be positive and finite, but it is 0"):
        build((5,), condition_shape=(2,), prior_scale=0.0)
    program = build((5,), condition_shape=(2,))
    for side in (program.model, program.guide):
        with pytest.raises(InputError, match="c must be given for a conditional variant, but it is None; pass"):
            # Refused before anything is drawn, so that no handlers are needed.
            run_alone(backend, side, np.zeros((2, 5), np.float32))
    run = fit(unlabelled, condition=np.zeros((40, 2)) + np.arange(40)[:, None], products=False)
    x = run.data.split("test")
    with pytest.raises(InputError, match=r"condition must have shape \(n, 2\), .* but it has shape \(n, 3\)"):
        run.encode(Conditioned(np.asarray(x), np.zeros((8, 3), np.float32)))
    with pytest.raises(InputError, match=r"condition must have shape \(n, 2\), .* but there is none"):
        run.reconstruct(np.asarray(x))
    with pytest.raises(InputError, match=r"condition must have shape \(n, 2\) for draws .* \(1, 3\)"):
        run.sample(2, condition=np.zeros((1, 3)))


def run_alone(backend, side, x):
    """Run a model or a guide by itself, without a condition."""
    if backend == "pyro":
        import torch

        side(torch.as_tensor(x), betas={"z": 1.0})
    else:
        import jax
        from numpyro import handlers

        handlers.seed(side, jax.random.key(0))(x, betas={"z": 1.0})


def test_quadrants_are_drawn_whole():
    images = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    split = add_condition(load(images), "quadrant")
    arrangement = split.arrangement
    np.testing.assert_array_equal(whole(split.x, split.condition, arrangement), images)
    np.testing.assert_array_equal(join_quadrants(split.x, split.condition), images)
    assert whole(split.x, split.condition, {"condition": "labels"}) is split.x
    assert whole(split.x, None, arrangement) is split.x


def short(tmp_path, data, **options):
    """A fit of one epoch, for what surrounds it."""
    settings = {
        "epochs": 1,
        "hidden_dim": 4,
        "num_hidden": 1,
        "latent_dim": 2,
        "log_px_draws": 2,
        "log_px_data": 4,
    }
    return fit("cvae", data, out=tmp_path / "run", products=False, **{**settings, **options})


@needs("torch", "pyro")
def test_data_that_bring_their_conditions_are_fitted_with_them(tmp_path):
    x, c = load("digits").x[:100], np.random.default_rng(0).random((100, 3), np.float32)
    run = short(tmp_path, Conditioned(x, c))
    assert run.record["data"]["condition_shape"] == [3]
    np.testing.assert_array_equal(condition_of(run.data.split("test")), c[run.data.indices("test")])
    dataset = add_condition(load(x), c)
    np.testing.assert_array_equal(run.encode(dataset)["z"], run.encode(Conditioned(x, c))["z"])


@needs("torch", "pyro")
def test_other_data_need_conditions_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", rng.random((60, 5), np.float32))
        np.save(tmp_path / f"c{name}.npy", rng.random((60, 2), np.float32))
    run = short(tmp_path, tmp_path / "a.npy", condition=tmp_path / "ca.npy")
    with pytest.raises(InputError, match="condition must be given with other data"):
        choose_data(run, str(tmp_path / "b.npy"))
    found = choose_data(run, str(tmp_path / "b.npy"), condition=str(tmp_path / "cb.npy"))
    np.testing.assert_array_equal(condition_of(found.x), np.load(tmp_path / "cb.npy"))
    with pytest.raises(InputError, match="leave it out"):
        choose_data(run, condition=str(tmp_path / "cb.npy"))


@needs("torch", "pyro")
def test_quadrants_are_binarised_on_both_sides(tmp_path):
    run = short(tmp_path, "digits", likelihood="bernoulli", binarise="threshold")
    x = run.data.split("test")
    assert set(np.unique(x)) == set(np.unique(condition_of(x))) == {0.0, 1.0}


@needs("torch", "pyro")
def test_a_rate_beyond_a_condition_bounds_no_accuracy(tmp_path):
    run = short(tmp_path, "digits", condition="labels", prior="conditioned")
    found = run.summarise(num_draws=25)
    assert any("depends on the condition" in warning for warning in found.warnings)
    assert found.layers.layers[0].accuracy_ceiling is None
    assert found.layers.errors == []
    fixed = short(tmp_path / "fixed", "digits", condition="labels").summarise(num_draws=25)
    assert fixed.layers.layers[0].accuracy_ceiling is not None


@needs("torch", "pyro")
def test_conditions_of_draws_are_checked(tmp_path):
    run = short(tmp_path, "digits", condition="labels")
    with pytest.raises(InputError, match="condition must be finite"):
        run.sample(2, condition=np.full((1, 10), np.nan))
    plain = fit("beta_vae", "digits", epochs=1, hidden_dim=4, out=tmp_path / "plain", products=False)
    with pytest.raises(InputError, match="this one takes none"):
        plain.sample(2, condition=np.ones((1, 10)))
