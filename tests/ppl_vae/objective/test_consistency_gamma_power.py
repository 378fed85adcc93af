"""Consistency of Student t codes measured by a gamma-power divergence, against quadrature of its definition."""

import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.errors import InputError
from ppl_vae.objective.consistency import Consistency
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.site_divergence import site_divergence
from tests.ppl_vae.objective.branches import same, switched, two_branches

FAMILIES = ["StudentT", "DiagonalStudentT", "MultivariateStudentT"]
# Degrees of freedom, locations and scales of q(z | t(x)) and of q(z | x).
ROWS = np.array([[5, 0.5, 0.8, 0, 1], [5, 3, 0.1, 0, 1], [3, 0.2, 1, 0, 0.5], [30, 0.5, 0.8, 0, 1]])
PRINTED = 0.39786  # of the first, to five decimals
NEAR_GAUSSIAN, EQUAL = [1e8, 0.5, 0.8, 0, 1], [4, 0.3, 0.7, 0.3, 0.7]
ONE = {"loc": 0.0, "scale": 1.0, "df": 5.0, "loc_t": 0.5, "scale_t": 0.8, "df_t": 5.0}


def by_definition(df, loc_q, scale_q, loc_p, scale_p):
    """The divergence at the order -2 / (df + 1), integrals by a substitution that is wide enough for the tails."""
    q, p, gamma = stats.t(df, loc_q, scale_q), stats.t(df, loc_p, scale_p), -2 / (df + 1)

    def integral(function):
        def substituted(u):
            return function(loc_q + scale_q * np.sinh(u)) * scale_q * np.cosh(u)

        return integrate.quad(substituted, -45, 45, epsabs=1e-13, epsrel=1e-11, limit=500)[0]

    norm_q, norm_p = (
        integral(lambda z, law=law: np.exp((1 + gamma) * law.logpdf(z))) ** (1 / (1 + gamma)) for law in (q, p)
    )
    crossed = integral(lambda z: np.exp(q.logpdf(z) + gamma * (p.logpdf(z) - np.log(norm_p))))
    return (norm_q - crossed) / gamma


def columns(ppl, rows):
    names = ("df_t", "loc_t", "scale_t", "loc", "scale")
    found = {name: ppl.array(values) for name, values in zip(names, np.array(rows, float).T, strict=True)}
    return {**found, "df": found["df_t"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_the_divergence_of_the_definition(ppl, family):
    rows = np.array([*ROWS, NEAR_GAUSSIAN, EQUAL], float)

    def read(traces, program):
        there = program.transformed(switched(ppl)).run()
        q, p = there.guide["z"], traces.guide["z"]
        site, elements, method = site_divergence(q, p, program, divergence="gamma_power")
        assert method == "gamma-power divergence"
        return {"values": site.per_datum(elements)}

    pair = two_branches(ppl, columns(ppl, rows), family)
    *found, near_gaussian, equal = ppl.read_run(read, pair, ppl.array(np.zeros(len(rows))))["values"]
    # At df 3 what the integrals leave out is of the order exp(-45).
    np.testing.assert_allclose(found, [by_definition(*row) for row in ROWS], rtol=1e-8)
    np.testing.assert_allclose(found[0], PRINTED, atol=5e-6)
    # The KL of the Gaussians; the rest is of the order 1 / df.
    np.testing.assert_allclose(near_gaussian, -np.log(0.8) + (0.8**2 + 0.5**2) / 2 - 0.5, rtol=1e-6)
    np.testing.assert_allclose(equal, 0.0, atol=1e-14)


def test_full_matrices_have_the_divergence_of_the_definition(ppl):
    # Squared scales [[1, 0.3], [0.3, 0.5]] about (0.5, -0.3), and [[2, -0.4], [-0.4, 1]] about 0.
    trils = [np.linalg.cholesky(np.array(squared)) for squared in ([[1, 0.3], [0.3, 0.5]], [[2, -0.4], [-0.4, 1]])]
    first, second = map(ppl.array, trils)

    def model(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(ppl.array(np.zeros((len(x), 2))), 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(0.0 * x, 1.0), obs=x)

    def guide(x):
        loc, at = x[:, None] * ppl.array([0.5, -0.3]), x[:, None, None]
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.MultivariateStudentT(5.0, loc, at * first + (1.0 - at) * second))

    objective = Consistency(ELBO(), switched(ppl), divergence="gamma_power")
    found = ppl.terms(objective, (model, guide), ppl.array(np.zeros(1)), noise={"z": np.zeros((1, 2))})
    # Ten digits of other arithmetic.
    np.testing.assert_allclose(ppl.numpy(found.extras["consistency"]), 2.075283172, rtol=1e-9)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_term_has_the_direction_and_its_measure_is_reported(ppl, reverse):
    objective = Consistency(ELBO(), switched(ppl), weight=0.7, reverse=reverse, divergence="gamma_power")
    pair = two_branches(ppl, {name: ppl.array(value) for name, value in ONE.items()}, "DiagonalStudentT")
    found = ppl.terms(objective, pair, ppl.array(np.zeros(3)), noise={"z": np.ones((3, 1))}, beta=4.0)
    values, expected = ppl.numbers(found), by_definition(*((5, 0, 1, 0.5, 0.8) if reverse else ROWS[0]))
    bounds = values["distortion"] + 4.0 * values["rate/z"] + values["extra/transformed/loss"]
    np.testing.assert_allclose(values["extra/consistency/z"], expected, rtol=1e-8)
    np.testing.assert_allclose(values["loss"], bounds + 0.7 * expected, rtol=1e-8)
    assert dict(found.how)["consistency/z"] == "gamma-power divergence"


@pytest.mark.parametrize(
    "family", ["DiagonalStudentT", pytest.param("MultivariateStudentT", marks=pytest.mark.slow)]
)
def test_gradients_are_those_of_the_definition_and_stock_svi_descends_them(ppl, family):
    objective = Consistency(ELBO(), switched(ppl), weight=1.5, divergence="gamma_power")
    free, x, noise = {k: v for k, v in ONE.items() if "df" not in k}, ppl.array([0.0]), {"z": np.zeros((1, 1))}

    def pair(w):
        return two_branches(ppl, {"df": ppl.array(5.0), "df_t": ppl.array(5.0), **w}, family)

    def values(w):
        terms = ppl.terms(objective, pair(w), x, noise=noise)
        return {"term": terms.extras["consistency"], "loss": terms.loss}

    def with_params(side):
        return lambda x: pair({name: ppl.param(name, ppl.array(value)) for name, value in free.items()})[side](x)

    found, rows = ppl.derivatives(values, free)
    point, order = (
        [free[name] for name in ("loc_t", "scale_t", "loc", "scale")],
        ("loc_t", "scale_t", "loc", "scale"),
    )
    for name, step in zip(order, 1e-4 * np.eye(4), strict=True):
        up, down = (by_definition(5, *(point + sign * step)) for sign in (1, -1))
        # Central differences err by a third derivative of about 10 times 1e-8.
        np.testing.assert_allclose(rows["term"][name], (up - down) / 2e-4, rtol=1e-6, atol=1e-7)
    programs = with_params(0), with_params(1)
    value, params = ppl.svi_step(ppl.loss(objective), programs, x, noise=noise, learning_rate=0.01)
    np.testing.assert_allclose(value, found["loss"], rtol=1e-12)
    for name in order:
        np.testing.assert_allclose(params[name], free[name] - 0.01 * rows["loss"][name], rtol=1e-12, atol=1e-15)


def test_other_sites_and_degrees_of_freedom_are_refused(ppl):
    objective, x = Consistency(ELBO(), switched(ppl), divergence="gamma_power"), ppl.array(np.zeros(2))

    def of(family="DiagonalStudentT", **changes):
        return two_branches(ppl, {name: ppl.array(value) for name, value in (ONE | changes).items()}, family)

    def look(pair):
        objective.check(ppl.read_run(objective.deviations, pair, x))

    look(of())
    with pytest.raises(
        InputError, match="'z' must be a Student t for the gamma-power divergence, but it is Normal;"
    ):
        ppl.terms(objective, of("Normal"), x)
    with pytest.raises(InputError, match="'z' must have the same df .* it differs by 3; use the divergence kl"):
        look(of(df_t=8.0))
    with pytest.raises(
        InputError, match="df of site 'z' must be above 2 .* but it is 2; raise it, or use the div"
    ):
        look(of(df=2.0, df_t=2.0))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"divergence": "power"}, "divergence must be one of kl, gamma_power, but it is 'power'"),
        (
            {"divergence": "gamma_power", "student_t_bound": True},
            "student_t_bound must go with the divergence kl, which it bounds, but with it is gamma_power; leave",
        ),
    ],
)
def test_options_are_checked_before_anything_runs(options, match):
    with pytest.raises(InputError, match=match):
        Consistency(ELBO(), "simple", **options)


def test_the_record_of_a_fit_says_what_the_term_is(ppl):
    objective = Consistency(ELBO(), same, divergence="gamma_power")
    pair = two_branches(ppl, {name: ppl.array(value) for name, value in ONE.items()}, "DiagonalStudentT")
    program = ppl.program(pair, ppl.array(np.zeros(2)), noise={"z": np.zeros((2, 1))})
    note = "consistency is a gamma-power divergence: its values and weights do not compare with those of a KL"
    assert objective.notes(program.run(), program) == [note]
