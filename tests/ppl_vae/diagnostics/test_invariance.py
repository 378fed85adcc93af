"""The invariance of a code: exactly solvable engines as oracles, and runs of both backends."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from ppl_vae.data import Conditioned
from ppl_vae.diagnostics.invariance import invariance_of_run, measure_invariance, transformed_copies
from ppl_vae.errors import InputError
from ppl_vae.theory.linear_hierarchy import Affine, LinearHierarchy
from ppl_vae.training.fit import fit
from ppl_vae.training.programs import build_program, make_engine
from ppl_vae.transforms import find_transform
from tests.exact_engine import ExactEngine
from tests.helpers import NUMPYRO_SLOW
from tests.ppl_vae.diagnostics.linear_engine import LinearEngine
from tests.toy_fits import TOY, toy_data

NORMS, NOISE = np.array([1.5, 0.7]), 0.3


def near(estimate, exact):
    return abs(estimate.value - exact) < 4.0 * estimate.standard_error


def noisy(num_transforms, num_data=400):
    """An engine whose code of x + noise is Gaussian, with the ratio of its variance to the posterior's by unit."""
    engine = ExactEngine(norms=NORMS, data_shape=(6,))
    x = engine.draw_data(num_data).astype(float)
    copies = x + NOISE * np.random.default_rng(num_transforms).normal(size=(num_transforms, *x.shape))
    spread = NOISE * NORMS * (engine.posterior_scale / engine.noise_scale) ** 2
    return measure_invariance(engine, x, copies, seed=1), (spread / engine.posterior_scale) ** 2


class TestGaussian:
    @pytest.mark.parametrize("num_transforms", [2, 5, 20])
    def test_divergence_is_exact_and_information_between_two_bounds(self, num_transforms):
        found, ratios = noisy(num_transforms)
        information = 0.5 * np.log1p(ratios).sum()
        assert near(found.consistency, 0.5 * ratios.sum())
        assert (found.sites[0].name, found.sites[0].how) == ("z", "analytic")
        assert found.information.value - 4.0 * found.information.standard_error < information
        assert found.information_at_most.value + 4.0 * found.information_at_most.standard_error > information
        assert found.information.value < found.ceiling == pytest.approx(np.log(num_transforms))
        assert found.bias.value == pytest.approx(found.consistency.value - found.information.value)

    def test_bounds_close_in_as_told_of_many_transformations(self):
        found, ratios = noisy(60, num_data=300)
        # The mean over t of N(m, s^2) has the variance s^2 (1 + r), and C is the mean of q(z given t) over it.
        mean_ratio = np.prod([_mean_density_ratio(r) for r in ratios])
        told = (mean_ratio - 1.0) * 0.5 * (1.0 / 60 + 1.0 / 59)
        gap = found.information_at_most.value - found.information.value
        # To first order in 1/60; the noise of both bounds is the same, and leaves their difference.
        assert gap == pytest.approx(told, rel=0.15)
        middle = 0.5 * (found.information.value + found.information_at_most.value)
        assert abs(middle - 0.5 * np.log1p(ratios).sum()) < 4.0 * found.information.standard_error
        exact_bias = 0.5 * (ratios - np.log1p(ratios)).sum()
        assert abs(found.bias.value - exact_bias) < 4.0 * found.bias.standard_error + told

    def test_two_transformations_by_quadrature(self):
        engine = ExactEngine(norms=(1.5,), data_shape=(6,))
        x = engine.draw_data(3000).astype(float)
        step = engine.weights[:, 0] / (engine.weights[:, 0] @ engine.weights[:, 0])
        shift = engine.posterior_mean(step[None])[0, 0] / engine.posterior_scale[0]
        found = measure_invariance(engine, x, np.stack([x - 0.5 * step, x + 0.5 * step]))

        def excess(z):
            q, other = norm.pdf(z), norm.pdf(z, shift)
            return q * (np.log(q) - np.log(0.5 * (q + other)))

        assert near(found.information, quad(excess, -8.0, 8.0)[0])
        # Without its own copy only the other one is left in the mixture: the KL of one from the other.
        assert near(found.information_at_most, 0.5 * shift**2)
        # The same for all data but for rounding.
        assert found.consistency.value == pytest.approx(0.5 * (0.5 * shift) ** 2, rel=1e-9)

    def test_same_data_have_the_same_code(self):
        engine = ExactEngine()
        x = engine.draw_data(50)
        found = measure_invariance(engine, x, np.stack([x] * 3))
        # Equal arrays through equal operations: nothing is rounded differently.
        assert [row["value"] for row in found.rows()] == [0.0] * 4


def _mean_density_ratio(ratio):
    """E q(z given t) / q(z) for q(z given t) = N(m, 1), m ~ N(0, ratio), by quadrature."""
    total = np.sqrt(1.0 + ratio)

    def over_m(z):
        # The integral of N(m; 0, ratio) N(z; m, 1)^2 over m.
        return norm.pdf(z, 0.0, np.sqrt(0.5 + ratio)) / (2.0 * np.sqrt(np.pi)) / norm.pdf(z, 0.0, total)

    return quad(over_m, -40.0, 40.0)[0]


class TestHierarchy:
    MODEL = LinearHierarchy.markov(
        [Affine.of([[1.0, 0.3], [0.0, 0.8], [0.5, 0.0]], 0.3)], Affine.of(np.eye(4, 3) + 0.2, 0.25), top_dim=2
    )

    @pytest.mark.parametrize("how", ["sampled", "analytic"])
    def test_sum_over_sites_is_the_divergence_of_the_joint_guides(self, how):
        engine = LinearEngine(self.MODEL, [1.0, 0.5])
        if how == "analytic":
            engine.guide = [Affine(q.weights, q.bias, np.diag(np.diag(q.covariance))) for q in engine.guide]
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2000, 4))
        step = np.array([0.4, -0.3, 0.2, 0.1])
        found = measure_invariance(engine, x, np.stack([x + step, x - step]), seed=3)
        assert [site.how for site in found.sites] == [how] * 2
        top, bottom = engine.guide
        # Means of both layers move by these; the covariance of the joint guide is the same for all data.
        over_x, over_top = bottom.weights[:, :4], bottom.weights[:, 4:]
        moved = np.concatenate([top.weights @ step, over_x @ step + over_top @ top.weights @ step])
        cross = over_top @ top.covariance
        joint = np.block([[top.covariance, cross.T], [cross, bottom.covariance + cross @ over_top.T]])
        exact = 0.5 * moved @ np.linalg.solve(joint, moved)
        if how == "sampled":
            assert near(found.consistency, exact)
        # The lower layer's weights see values that are the same in both branches: nothing is random.
        assert how == "sampled" or found.consistency.value == pytest.approx(exact, rel=1e-9)
        assert found.rows()[2]["quantity"] == "consistency"


class TestProbe:
    def test_reads_clean_and_transformed_data(self):
        engine = ExactEngine(norms=(4.0, 0.0), data_shape=(3,))
        train, x = engine.draw_data(500, seed=1), engine.draw_data(400, seed=2)
        along = engine.weights[:, 0]
        labels, train_labels = x @ along > 0, train @ along > 0
        rng = np.random.default_rng(3)
        copies = x * rng.choice([-1.0, 1.0], size=(4, 400, 1))  # half of them on the other side
        options = {"labels": labels, "train_x": train, "train_labels": train_labels}
        found = measure_invariance(engine, x, copies.astype(np.float32), **options)
        assert found.probe.accuracy > 0.97
        share = found.probe_transformed
        assert near(share, np.mean(np.sign(copies @ along) == np.where(labels, 1, -1)))
        assert share.standard_error == pytest.approx(np.sqrt(share.value * (1 - share.value) / 400))
        assert [row["quantity"] for row in found.rows()][-2:] == ["linear probe", "linear probe, transformed"]
        assert max(map(len, found.table().splitlines())) <= 100

    def test_says_why_there_is_none(self):
        engine = ExactEngine()
        x = engine.draw_data(20)
        without = measure_invariance(engine, x, np.stack([x, x]))
        assert "linear probe: not estimated, it needs labels" in without.table()
        options = {"labels": np.zeros(20, int), "train_x": x, "train_labels": np.zeros(20, int)}
        assert "two classes or more" in measure_invariance(engine, x, np.stack([x, x]), **options).table()


@pytest.mark.parametrize(
    ("shape", "copies", "match"),
    [
        ((1, 6), (2, 1, 6), "x must hold 2 data or more"),
        ((4, 6), (1, 4, 6), r"copies must have shape \(t, 4, 6\) with t of 2 or more, but has shape \(1, 4, 6\)"),
        ((4, 6), (3, 5, 6), r"copies must have shape .* but has shape \(3, 5, 6\)"),
    ],
)
def test_shapes_are_checked(shape, copies, match):
    with pytest.raises(InputError, match=match):
        measure_invariance(ExactEngine(), np.zeros(shape), np.zeros(copies))


def test_groups_are_refused():
    program, engine = SimpleNamespace(options={}), SimpleNamespace(nested=["z"])
    run = SimpleNamespace(data=None, program=program, engine=engine, record={"settings": {"binarise": "none"}})
    with pytest.raises(InputError, match="transform must be left out for a run whose rows are groups.*'simple'"):
        invariance_of_run(run, "simple")


@NUMPYRO_SLOW
class TestBackends:
    def test_copies_are_seeded_and_differ(self, backend):
        x, transform = toy_data(6)[0], find_transform("simple", (8, 8), likelihood="bernoulli")
        copies = transformed_copies(transform, x, num_transforms=3, backend=backend, seed=1)
        assert copies.shape == (3, 6, 8, 8)
        assert set(np.unique(copies)) == {0.0, 1.0}
        assert not (copies[0] == copies[1]).all(axis=(1, 2)).any()
        again = transformed_copies(transform, x, num_transforms=3, backend=backend, seed=1)
        np.testing.assert_array_equal(copies, again)
        same = transformed_copies(find_transform("none", (8, 8)), x, num_transforms=2, backend=backend)
        np.testing.assert_array_equal(same, [x, x])

    def test_conditions_go_with_every_copy(self, backend):
        small = {"latent_dim": 2, "hidden_dim": 4, "likelihood": "gaussian"}
        built = build_program("cvae", (8, 8), backend=backend, options=small, seed=0, condition_shape=(10,))
        engine = make_engine(built, (8, 8), seed=0, device="cpu")
        x = Conditioned(toy_data(5)[0], np.eye(10, dtype=np.float32)[:5])
        found = measure_invariance(engine, x, np.stack([np.asarray(x)] * 2))
        # Equal images with other conditions would have other codes.
        assert found.consistency.value == pytest.approx(0.0, abs=1e-6)

    def test_of_a_run_and_by_the_command(self, backend, command):
        options = {**TOY, "epochs": 1, "likelihood": "bernoulli", "binarise": "threshold", "products": False}
        run = fit("beta_vae", "digits", backend=backend, out="run", test=0.02, **options)
        same = invariance_of_run(run, "none", num_transforms=2)
        assert (same.consistency.value, same.information.value) == (0.0, 0.0)
        assert same.probe.accuracy == same.probe_transformed.value
        with pytest.raises(InputError, match="num_transforms must be 2 or more, but it is 1"):
            invariance_of_run(run, "simple", num_transforms=1)
        assert invariance_of_run(run, "simple", max_data=7, num_transforms=2).num_data == 7
        done = command(
            "diagnose", "run", "--only=summary", "--transform=horizontal-flip", "--num-draws=2", "--device=cpu"
        )
        section = done.out[done.out.index("invariance under horizontal-flip: 5 transformations t of each of 36") :]
        assert "note: a flip calls mirrored data the same" in section
        found = json.loads((run.path / "diagnosis.json").read_text())["invariance"]
        assert found["sites"][0]["how"] == "analytic"
        assert f"consistency z{found['consistency']['value']:25.3f} +- " in section
        assert found["consistency"]["value"] > 0.0
        assert run.summarise(num_draws=2).invariance is None
        wrong = command("diagnose", "run", "--transform=simpel")
        assert (wrong.code, wrong.out) == (2, "")
        assert "did you mean simple?" in wrong.err
