"""The multivariate t of both backends: densities, draws, moments, gradients, and how the objective takes it."""

import importlib

import numpy as np
import pytest
from scipy import stats

from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import ELBO
from tests.helpers import needs

NUM_DRAWS = 20_000
PYRO = needs("torch", "pyro")
NUMPYRO = needs("jax", "numpyro")

DF = np.array([0.7, 3.0, 50.0])
LOC = np.array([0.3, -0.7, 0.0, 1.0])
SCALE = np.array([1.0, 0.5, 0.2, 2.0])


def student_t(ppl):
    return importlib.import_module(f"ppl_vae.distributions.{ppl.name}_student_t").DiagonalStudentT


def build(ppl, df=DF, loc=LOC, scale=SCALE, **options):
    return student_t(ppl)(*(v if isinstance(v, float) else ppl.array(v) for v in (df, loc, scale)), **options)


def draw(ppl, fn, shape):
    if ppl.name == "pyro":
        ppl.torch.manual_seed(3)
        return ppl.numpy(fn.rsample(shape))
    return ppl.numpy(ppl.jax.jit(lambda key: fn.sample(key, shape))(ppl.jax.random.key(3)))


def log_prob(ppl, fn, x):
    return ppl.numpy(ppl.compile(fn.log_prob)(x))


def log_scipy(df, scale):
    return stats.multivariate_t(LOC, np.diag(scale**2), df).logpdf


@pytest.mark.parametrize("scale", [SCALE, 0.7, np.array([[0.2], [1.0], [3.0]]), np.outer([1, 2, 5], SCALE)])
def test_densities_agree_with_scipy_for_each_shape_of_scale(ppl, scale):
    x = np.random.default_rng(0).normal(size=(6, 3, 4)) * 3
    found = log_prob(ppl, build(ppl, scale=scale), ppl.array(x))
    rows = np.broadcast_to(scale, (3, 4))
    expected = np.stack([log_scipy(df, row)(x[:, i]) for i, (df, row) in enumerate(zip(DF, rows, strict=True))], 1)
    # SciPy decomposes a matrix, which costs some digits.
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_one_df_for_all_is_given_the_dtype_of_loc(ppl):
    x = np.random.default_rng(1).normal(size=4)
    for df in (5.0, np.array(5), np.array(5.0, np.float32)):
        fn = student_t(ppl)(df, ppl.array(LOC), ppl.array(SCALE))
        assert fn.df.dtype == fn.loc.dtype
        assert float(log_prob(ppl, fn, ppl.array(x))) == pytest.approx(log_scipy(5.0, SCALE)(x), rel=1e-12)


@pytest.mark.parametrize("dim", [3, 12288])
def test_float32_keeps_its_digits_at_large_df(ppl, dim):
    rng, df = np.random.default_rng(2), np.array([2.5, 1e3, 1e6, 1e8])
    x, scale = (v.astype(np.float32) for v in (rng.normal(size=dim), rng.uniform(0.5, 2.0, dim)))
    double = log_prob(ppl, build(ppl, df, np.zeros(dim), scale), ppl.array(x))
    as_array = ppl.torch.as_tensor if ppl.name == "pyro" else ppl.jax.numpy.asarray
    single = log_prob(ppl, student_t(ppl)(*map(as_array, (df, 0 * x, scale))), as_array(x))
    assert single.dtype == np.float32
    # Rounding of the terms, each of which is of the order of dim.
    np.testing.assert_allclose(single, double, rtol=0, atol=2e-6 * dim)


def test_gradients_of_the_density_agree_with_differences(ppl):
    weights = {"df": DF, "loc": LOC, "scale": SCALE, "x": np.array([[0.1, 2.0, -1.0, 0.0]])}
    cls = student_t(ppl)

    def on_backend(w):
        return {"log_prob": cls(w["df"], w["loc"], w["scale"]).log_prob(w["x"]).sum()}

    def by_scipy(w):
        return sum(
            stats.multivariate_t(w["loc"], np.diag(w["scale"] ** 2), df).logpdf(w["x"][0]) for df in w["df"]
        )

    _, rows = ppl.derivatives(on_backend, weights)
    for name, weight in weights.items():
        for index in np.ndindex(weight.shape):
            above, below = (by_scipy({**weights, name: _moved(weight, index, s * 1e-5)}) for s in (1, -1))
            # Third derivatives of up to 1e3 at a scale of 0.2, times the squared step.
            assert rows["log_prob"][name][index] == pytest.approx((above - below) / 2e-5, rel=1e-6, abs=1e-6)


def _moved(weight, index, step):
    moved = weight.copy()
    moved[index] += step
    return moved


def test_draws_share_a_chi_square_and_have_the_moments(ppl):
    fn = build(ppl, df=np.array([5.0, 9.0]))
    x = draw(ppl, fn, (NUM_DRAWS,))
    variance = SCALE**2 * np.array([[5 / 3], [9 / 7]])
    np.testing.assert_allclose(ppl.numpy(fn.mean), np.tile(LOC, (2, 1)), rtol=1e-15)
    np.testing.assert_allclose(ppl.numpy(fn.variance), variance, rtol=1e-14)
    assert (np.abs(x.mean(0) - LOC) < 4 * np.sqrt(variance / NUM_DRAWS)).all()
    squares = (x - LOC) ** 2
    assert (np.abs(squares.mean(0) - variance) < 4 * squares.std(0) / np.sqrt(NUM_DRAWS)).all()
    for i, df in enumerate((5.0, 9.0)):
        # A product of univariate laws has another radius: its p-value is below 1e-20 here.
        radius = (squares[:, i] / SCALE**2).mean(-1)
        assert stats.kstest(radius, stats.f(4, df).cdf).pvalue > 1e-3
        for k in range(4):
            assert stats.kstest((x[:, i, k] - LOC[k]) / SCALE[k], stats.t(df).cdf).pvalue > 1e-3


def test_moments_that_do_not_exist(ppl):
    fn = build(ppl, df=np.array([1.0, 2.0]))
    mean, variance = ppl.numpy(fn.mean), ppl.numpy(fn.variance)
    assert np.isnan(mean[0]).all()
    np.testing.assert_array_equal(mean[1], LOC)
    assert np.isnan(variance[0]).all()
    assert np.isposinf(variance[1]).all()


def test_draws_have_gradients_by_all_parameters(ppl):
    df, cls, ones = 4.0, student_t(ppl), np.ones((NUM_DRAWS, 1))
    log = ppl.torch.log if ppl.name == "pyro" else ppl.jax.numpy.log

    def totals(w):
        fn = cls(w["df"], w["loc"], w["scale"])
        x = fn.rsample() if ppl.name == "pyro" else fn.sample(ppl.jax.random.key(5))
        y = (x - ppl.array(LOC)) / ppl.array(SCALE)
        return {"x": x.sum(), "log": log(1.0 + (y * y).sum(-1) / df).sum()}

    weights = {"df": df * ones[:, 0], "loc": LOC * ones, "scale": SCALE * ones}
    _, rows = ppl.derivatives(totals, weights)
    np.testing.assert_allclose(rows["x"]["loc"], 1.0, rtol=1e-15)

    def mean_log(df_of_draws):
        return stats.f(4, df_of_draws).expect(lambda f: np.log1p(4 * f / df))

    slope = (mean_log(df + 1e-3) - mean_log(df - 1e-3)) / 2e-3
    # d log / d log s = 2 y^2 / (df + M), whose mean is 2 / (df + d) for each of d coordinates.
    for each, expected in ((rows["log"]["df"], slope), (rows["log"]["scale"] * SCALE, 2 / (df + 4))):
        assert (np.abs(each.mean(0) - expected) < 4 * each.std(0) / np.sqrt(NUM_DRAWS)).all()


def test_shapes_expansion_and_events(ppl):
    fn = build(ppl, df=np.array([[3.0], [7.0]]), scale=np.array([0.5]))
    assert (tuple(fn.batch_shape), tuple(fn.event_shape), fn.has_rsample) == ((2, 1), (4,), True)
    wide = fn.expand((3, 2, 5))
    x = draw(ppl, wide, (6,))
    assert x.shape == (6, 3, 2, 5, 4)
    values = log_prob(ppl, wide, ppl.array(x))
    assert values.shape == (6, 3, 2, 5)
    np.testing.assert_allclose(values, log_prob(ppl, fn, ppl.array(x)), rtol=1e-14)
    assert len(np.unique(values)) == 180  # each element is drawn anew
    assert wide.mean.shape == wide.variance.shape == (3, 2, 5, 4)
    image = wide.to_event(2)
    assert (tuple(image.batch_shape), tuple(image.event_shape)) == ((3,), (2, 5, 4))
    core, event_dim, _ = ppl.core_distribution(image)
    assert (type(core).__name__, event_dim, tuple(core.event_shape)) == ("DiagonalStudentT", 2, (4,))


# Scales of images of 2 x 2, as coordinates and one for all of them, and of each of three images.
IMAGE_SCALES = [SCALE.reshape(2, 2), 0.7, np.array([0.2, 1.0, 3.0])[:, None, None]]


@pytest.mark.parametrize("scale", IMAGE_SCALES)
def test_an_event_of_two_axes_is_that_of_its_coordinates(ppl, scale):
    image = build(ppl, loc=LOC.reshape(2, 2), scale=scale, event_dim=2)
    flat = build(ppl, scale=scale if isinstance(scale, float) else scale.reshape(*scale.shape[:-2], -1))
    assert (tuple(image.batch_shape), tuple(image.event_shape)) == ((3,), (2, 2))
    x = np.random.default_rng(6).normal(size=(5, 3, 2, 2))
    expected = log_prob(ppl, flat, ppl.array(x.reshape(5, 3, 4)))
    wide = image.expand((5, 3))
    assert tuple(wide.event_shape) == (2, 2)
    for fn in (image, wide):
        np.testing.assert_allclose(log_prob(ppl, fn, ppl.array(x)), expected, rtol=1e-14)
    np.testing.assert_allclose(ppl.numpy(image.entropy()), ppl.numpy(flat.entropy()), rtol=1e-14)
    for name in ("mean", "variance"):
        found = ppl.numpy(getattr(wide, name))
        assert found.shape == (5, 3, 2, 2)
        np.testing.assert_array_equal(found[2].reshape(3, 4), ppl.numpy(getattr(flat, name)))
    core, event_dim, _ = ppl.core_distribution(wide.to_event(1))
    assert (type(core).__name__, event_dim, tuple(core.event_shape)) == ("DiagonalStudentT", 1, (2, 2))


def test_draws_of_two_axes_share_a_chi_square_and_have_the_moments(ppl):
    fn = build(ppl, 5.0, LOC.reshape(2, 2), SCALE.reshape(2, 2), event_dim=2)
    x = draw(ppl, fn, (NUM_DRAWS,)).reshape(NUM_DRAWS, 4)
    squares = (x - LOC) ** 2
    assert (np.abs(x.mean(0) - LOC) < 4 * x.std(0) / np.sqrt(NUM_DRAWS)).all()
    # 5 degrees of freedom have fourth moments, which the error needs.
    assert (np.abs(squares.mean(0) - SCALE**2 * 5 / 3) < 4 * squares.std(0) / np.sqrt(NUM_DRAWS)).all()
    assert stats.kstest((squares / SCALE**2).mean(-1), stats.f(4, 5.0).cdf).pvalue > 1e-3


def test_conditionals_multiply_to_the_density_of_the_joint(ppl):
    rng, df = np.random.default_rng(7), 4.5
    z1, z2, x = rng.normal(size=(6, 2)), rng.normal(size=(6, 1)), rng.normal(size=(6, 2, 2))
    sigma = np.array([[0.5, 1.0], [2.0, 0.3]])
    given = [ppl.array(z1), ppl.array(z2)]
    for scale in (sigma, 0.5):
        fn = student_t(ppl).conditional(
            df,
            ppl.array(LOC.reshape(2, 2)),
            scale if isinstance(scale, float) else ppl.array(scale),
            given,
            event_dim=2,
        )
        np.testing.assert_allclose(ppl.numpy(fn.df), 7.5, rtol=1e-15)
        own = np.broadcast_to(scale, (2, 2)).ravel()
        whole = stats.multivariate_t(np.zeros(7), np.diag([1.0] * 3 + [*own**2]), df)
        part = stats.multivariate_t(np.zeros(3), np.eye(3), df)
        before = np.hstack([z1, z2])
        expected = whole.logpdf(np.hstack([before, x.reshape(6, 4) - LOC])) - part.logpdf(before)
        np.testing.assert_allclose(log_prob(ppl, fn, ppl.array(x)), expected, rtol=1e-11)


def test_shapes_of_events_that_do_not_belong_together(ppl):
    with pytest.raises(InputError, match=r"the same 2 last axes, .* shapes are \(4, 3\) and \(3, 1\)"):
        build(ppl, 5.0, np.zeros((4, 3)), np.ones((3, 1)), event_dim=2)
    with pytest.raises(InputError, match="the same 2 last axes"):
        build(ppl, 5.0, np.zeros(4), np.ones(4), event_dim=2)


def test_entropies_agree_with_scipy(ppl):
    expected = [stats.multivariate_t(LOC, np.diag(SCALE**2), df).entropy() for df in DF]
    found = ppl.numpy(ppl.compile(lambda df: build(ppl, df).entropy())(ppl.array(DF)))
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def programs(ppl, prior):
    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", prior())
            scale = 0.8 * ((5.0 + (z * z).sum(-1)) / 7.0) ** 0.5
            ppl.sample("x", student_t(ppl)(7.0, z @ ppl.array(np.ones((2, 3))), scale[..., None]), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", student_t(ppl)(8.0, x[:, :2], ppl.array(np.array([0.4, 0.6]))))

    return model, guide


def test_the_objective_reads_a_t_as_one_event(ppl):
    x, noise = np.random.default_rng(3).normal(size=(5, 3)), np.random.default_rng(4).normal(size=(5, 2))
    pair = programs(ppl, lambda: student_t(ppl)(5.0, ppl.array(np.zeros(2)), 1.0))
    shapes = {}

    def read(traces, _):
        for name, site in (*traces.guide.items(), *traces.model.items()):
            shapes[name] = (site.family, site.element_shape, site.event_dim, site.shape, site.spread.shape[-1])
        return {name: site.log_prob() for name, site in traces.model.items()}

    found = ppl.read_run(read, pair, ppl.array(x), noise={"z": noise})
    assert shapes["x"] == ("DiagonalStudentT", (5,), 0, (5, 3), 1)
    assert shapes["z"][:4] == ("DiagonalStudentT", (5,), 0, (5, 2))
    z = x[:, :2] + np.array([0.4, 0.6]) * noise
    # Prior and decoder multiply to one joint law of n + m coordinates and 5 degrees of freedom.
    joint = stats.multivariate_t(np.zeros(5), np.diag([0.64] * 3 + [1.0] * 2), 5)
    residual = x - z @ np.ones((2, 3))
    expected = joint.logpdf(np.column_stack([residual, z]))
    np.testing.assert_allclose(found["z"] + found["x"], expected, rtol=1e-12)
    terms = ppl.terms(ELBO(), pair, ppl.array(x), noise={"z": noise})
    rate = stats.multivariate_t([0, 0], np.diag([0.16, 0.36]), 8).logpdf(z - x[:, :2]) - found["z"]
    assert dict(terms.how)["z"] == "sampled"
    assert float(terms.rates["z"]) == pytest.approx(rate.mean(), rel=1e-12)


def test_the_rate_from_a_gaussian_prior_is_analytic(ppl):
    x, z = np.random.default_rng(3).normal(size=(5, 3)), np.random.default_rng(5)
    pair = programs(ppl, lambda: ppl.dist.Normal(ppl.array(np.array(0.5)), 2.0).expand([2]).to_event(1))
    terms = ppl.terms(ELBO(), pair, ppl.array(x))
    assert dict(terms.how)["z"] == "analytic"
    scale = np.array([0.4, 0.6])
    draws = stats.multivariate_t([0, 0], np.diag(scale**2), 8).rvs(40_000, random_state=z)
    log_q = stats.multivariate_t([0, 0], np.diag(scale**2), 8).logpdf(draws)
    log_p = stats.norm(0.5, 2.0).logpdf(draws[:, None] + x[:, :2]).sum(-1).mean(-1)
    ratios = log_q - log_p
    assert abs(float(terms.rates["z"]) - ratios.mean()) < 4 * ratios.std() / 200


def test_what_has_no_closed_form_has_no_kl(ppl):
    q, laplace = build(ppl, df=5.0), ppl.dist.Laplace(ppl.array(LOC), 1.0).to_event(1)
    if ppl.name == "pyro":
        from torch.distributions import kl_divergence
    else:
        from numpyro.distributions.kl import kl_divergence
    for p in (laplace, build(ppl, df=6.0), ppl.dist.Normal(ppl.array(np.zeros((2, 4))), 1.0).to_event(2)):
        with pytest.raises(NotImplementedError):
            kl_divergence(q, p)


@pytest.mark.parametrize(("df", "scale"), [(0.0, 1.0), (np.inf, 1.0), (-1.0, 1.0), (5.0, -1.0), (5.0, 0.0)])
def test_validation_finds_bad_parameters(ppl, df, scale):
    with pytest.raises(ValueError, match="df" if df != 5.0 else "scale"):
        build(ppl, df, LOC, scale, validate_args=True)


def test_validation_finds_bad_values(ppl):
    fn = build(ppl, 5.0, validate_args=True)
    bad = ppl.array(np.array([0.0, np.nan, 0.0, 0.0]))
    refused = pytest.raises(ValueError, match="support")
    if ppl.name == "numpyro":  # which warns, since it cannot raise under jit
        refused = pytest.warns(UserWarning, match="Out-of-support")
    with refused:
        fn.log_prob(bad)


def test_shapes_that_do_not_belong_together(ppl):
    with pytest.raises(InputError, match="give one scale a coordinate"):
        build(ppl, 5.0, scale=np.ones(3))
    with pytest.raises(InputError, match="df has no axis for the coordinates"):
        build(ppl, np.ones(4), loc=np.zeros((3, 4)))


@PYRO
def test_no_array_is_larger_than_the_draws_in_pyro():
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from ppl_vae.distributions.pyro_student_t import DiagonalStudentT

    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            sizes.extend(leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor))
            return found

    loc, scale = torch.zeros(4, 12288, requires_grad=True), torch.ones(4, 1, requires_grad=True)
    with Sizes():
        fn = DiagonalStudentT(74.0, loc, scale)
        fn.log_prob(fn.rsample()).sum().backward()
    assert max(sizes) == 4 * 12288


@NUMPYRO
def test_no_array_is_much_larger_than_the_draws_in_numpyro():
    import jax
    import jax.numpy as jnp

    from ppl_vae.distributions.numpyro_student_t import DiagonalStudentT

    def total(loc, scale, key):
        fn = DiagonalStudentT(74.0, loc, scale)
        return fn.log_prob(fn.sample(key)).sum()

    arguments = (jnp.zeros((4, 12288)), jnp.ones((4, 1)), jax.random.key(0))
    compiled = jax.jit(jax.grad(total, (0, 1))).lower(*arguments).compile()
    # A dense matrix would take 600 MB.
    assert compiled.memory_analysis().temp_size_in_bytes < 20 * 4 * 12288 * 4
    assert all(np.isfinite(g).all() for g in compiled(*arguments))


@PYRO
def test_a_df_that_is_a_number_draws_as_a_tensor_does_in_pyro():
    import torch

    from ppl_vae.distributions.pyro_student_t import DiagonalStudentT

    drawn = []
    for df in (3.0, torch.tensor(3.0)):
        torch.manual_seed(0)
        drawn.append(DiagonalStudentT(df, torch.zeros(5, 4), 2.0).rsample((3,)))
    torch.testing.assert_close(*drawn, rtol=0.0, atol=0.0)
    # Half of such chi-squares are below the least number of float32.
    assert DiagonalStudentT(1e-3, torch.zeros(1000, 2), 1.0).rsample().isfinite().all()


@PYRO
def test_a_conditional_keeps_the_scale_of_the_joint_in_pyro():
    import torch

    from ppl_vae.distributions.pyro_student_t import DiagonalStudentT

    given = [torch.ones(3, 2)]
    fn = DiagonalStudentT.conditional(5.0, torch.zeros(3, 4), 2, given)
    assert (fn.joint_scale, fn.expand((6, 3)).joint_scale, fn.expand((3,)).joint_scale) == (2.0, 2.0, 2.0)
    assert DiagonalStudentT.conditional(5.0, torch.zeros(3, 4), torch.tensor(2.0), given).joint_scale is None
    assert DiagonalStudentT(5.0, torch.zeros(3, 4), 2.0).joint_scale is None
    fn.scale = 2 * fn.scale
    assert (fn.joint_scale, fn.expand((6, 3)).joint_scale) == (None, None)


@PYRO
def test_a_step_can_be_captured_in_pyro():
    import pyro
    import torch

    from ppl_vae.distributions.pyro_student_t import DiagonalStudentT
    from ppl_vae.training.capture import capture

    def step(parameters, x, betas):
        fn = DiagonalStudentT(20.0, parameters[0], parameters[1].exp())
        value = fn.rsample()
        loss = (fn.log_prob(value) - fn.log_prob(x[0])).sum()
        return [loss], list(torch.autograd.grad(loss, parameters))

    pyro.enable_validation(False)
    parameters = [torch.randn(6, 5, requires_grad=True), torch.randn(6, 1, requires_grad=True)]
    # It compares a replay on the second batch with an eager run, bit for bit.
    captured = capture(step, parameters, [[torch.randn(6, 5)], [torch.randn(6, 5)]], [])
    assert captured is not step


@NUMPYRO
def test_numpyro_distributions_pass_through_transformations():
    import jax
    import jax.numpy as jnp

    from ppl_vae.distributions.numpyro_student_t import DiagonalStudentT

    locs, x = jnp.asarray(np.outer([1, 2, 3], LOC), jnp.float32), jnp.ones((3, 4), jnp.float32)
    expected = DiagonalStudentT(5.0, locs, SCALE).log_prob(x)
    many = jax.jit(jax.vmap(lambda loc: DiagonalStudentT(5.0, loc, SCALE)))(locs)
    assert isinstance(many, DiagonalStudentT)
    each = jax.jit(jax.vmap(lambda fn, x: fn.log_prob(x)))(many, x)
    _, scanned = jax.lax.scan(
        lambda s, row: (s, DiagonalStudentT(5.0, row[0], SCALE).log_prob(row[1])), 0, (locs, x)
    )
    images = jax.vmap(lambda loc: DiagonalStudentT(5.0, loc.reshape(2, 2), 1.0, event_dim=2))(locs)
    of_images = jax.vmap(lambda fn, x: fn.log_prob(x))(images, x.reshape(3, 2, 2))
    flat = DiagonalStudentT(5.0, locs, 1.0).log_prob(x)
    for found, value in ((each, expected), (scanned, expected), (of_images, flat)):
        # float32, in another order of operations
        np.testing.assert_allclose(found, value, rtol=1e-5)
