"""Programs that the gamma-power loss would be wrong for are refused, each by one message with a remedy."""

from types import SimpleNamespace

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.objective.gamma_power import GammaPower
from tests.backends import CLASSES
from tests.helpers import needs
from tests.ppl_vae.objective.joint_t_programs import (
    NOISE,
    ONE,
    ONE_WEIGHTS,
    TWO,
    X,
    joint,
    one_level,
    posterior,
    student_t,
    two_levels,
)

NU, N, M = ONE.nu, ONE.n, ONE.dims[0]
DECODER = ONE_WEIGHTS["decoder"]
MEAN = X[N] @ ONE_WEIGHTS["encoder"]


def with_parts(**parts):
    """A pair of one level, each part a function of the backend and its arguments."""

    def build(ppl):
        bound = {n: lambda *given, part=part: part(ppl, *given) for n, part in parts.items()}
        return one_level(ppl, **bound)

    return build


def like(**constants):
    """A pair of one level of other constants."""
    return lambda ppl: one_level(ppl, shape=SimpleNamespace(**(vars(ONE) | constants)))


def number(ppl, df):
    """A number, which is one under jit too, or an array."""
    return df if isinstance(df, float) else ppl.array(df)


def guide_of(df):
    return with_parts(posterior=lambda ppl, x: student_t(ppl)(number(ppl, df), ppl.array(MEAN), 0.5))


def three_levels(ppl):
    names, nu = ("z1", "z2", "z3"), 5.0

    def model(x):
        with ppl.plate("data", len(x)):
            given = []
            for name in names:
                given.append(ppl.sample(name, joint(ppl, nu, 0.0 * x[:, :1], 1.0, given)))
            ppl.sample("x", joint(ppl, nu, 0.0 * x, 1.0, given), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            for above, name in enumerate(names):
                ppl.sample(name, posterior(ppl, nu, TWO.n + above, 0.0 * x[:, :1], 0.0 * x[:, :1]))

    return model, guide


def observing(*names):
    """The data in another site, or twice, or as a condition alone."""

    def build(ppl):
        _, guide = one_level(ppl)

        def model(x, **options):
            with ppl.plate("data", len(x)):
                z = ppl.sample("z", joint(ppl, NU, 0.0 * x[:, :M], 1.0))
                law = joint(ppl, NU, z @ ppl.array(DECODER), 1.0, [z])
                if "c" in names:
                    ppl.sample("c", ppl.dist.Delta(x, event_dim=1), obs=x)
                for name in names:
                    if name != "c":
                        ppl.sample(name, law, obs=x)

        def unscaled(x, **options):
            guide(x, betas={"z": 1.0})

        return model, unscaled

    return build


def product(ppl, df, loc):
    return ppl.dist.StudentT(df, loc, 1.0).to_event(1)


def normal(ppl, loc):
    return ppl.dist.Normal(loc, 1.0).to_event(1)


# What families, shapes, orders and numbers show, under jit too.
FAULTS = {
    "nu of 2": (like(nu=2.0), r"df \(nu\) of site 'z' must be above 2, but it is 2: .* use 2\.5 or more"),
    "df of the prior in the guide": (
        guide_of(NU),
        r"df of site 'z' in the guide must be nu \+ n = 9, but it is 5:",
    ),
    "df of the data": (
        with_parts(likelihood=lambda ppl, z, x: student_t(ppl)(NU, z @ ppl.array(DECODER), 0.5)),
        r"df of site 'x' in the model must be nu \+ 2 = 7, but it is 5: .* n the number of coordinates of a datum",
    ),
    "a product in the prior": (
        with_parts(prior=lambda ppl, x: product(ppl, NU, 0.0 * x[:, :M])),
        "site 'z' of the model must be a multivariate Student t, but it is a product of univariate ones, .* one",
    ),
    "a product in the guide": (
        with_parts(posterior=lambda ppl, x: product(ppl, NU + N, ppl.array(MEAN))),
        "site 'z' of the guide must be a multivariate Student t, but it is a product of univariate ones",
    ),
    "a product in the likelihood": (
        with_parts(likelihood=lambda ppl, z, x: product(ppl, NU + M, z @ ppl.array(DECODER))),
        "site 'x' of the model must be a multivariate Student t, but it is a product of univariate ones",
    ),
    "a Gaussian prior": (
        with_parts(prior=lambda ppl, x: normal(ppl, 0.0 * x[:, :M])),
        "site 'z' of the model must be a DiagonalStudentT over its whole event, but it is Normal;",
    ),
    "a Gaussian guide": (
        with_parts(posterior=lambda ppl, x: normal(ppl, ppl.array(MEAN))),
        "site 'z' of the guide must be a DiagonalStudentT or MultivariateStudentT .* or for other families",
    ),
    "Gaussian data": (
        with_parts(likelihood=lambda ppl, z, x: normal(ppl, z @ ppl.array(DECODER))),
        "site 'x' of the model must be a DiagonalStudentT .* but it is Normal",
    ),
    "a full covariance in the model": (
        with_parts(prior=lambda ppl, x: ppl.dist.MultivariateStudentT(NU, 0.0 * x[:, :M], ppl.array(np.eye(M)))),
        "site 'z' of the model must be a DiagonalStudentT over its whole event, but it is MultivariateStudentT;",
    ),
    "an event of several draws": (
        with_parts(
            likelihood=lambda ppl, z, x: student_t(ppl)(NU + M, 0.0 * x[..., None], 1.0).to_event(1),
            observe=lambda ppl, x: x[..., None],
        ),
        "site 'x' of the model must be .* but it is DiagonalStudentT with further event axes",
    ),
    "no reparameterised guide": (
        with_parts(posterior=lambda ppl, x: ppl.dist.Bernoulli(0.0 * ppl.array(MEAN) + 0.5).to_event(1)),
        "site 'z' of the guide must have a reparameterised sampler, but Bernoulli has none",
    ),
    "nothing observed": (observing(), "model must observe data, but no site has obs="),
    "conditions alone": (observing("c"), r"model must observe one Student t site .* but it observes \[\]"),
    "data in two sites": (
        observing("x", "y"),
        r"beside conditions \(Delta sites\), but it observes \['x', 'y'\]; join the data in one event",
    ),
    "the lower latent first": (
        lambda ppl: two_levels(ppl, order=("z2", "z1")),
        r"guide must draw the latent sites in the model's order, \['z1', 'z2'\], but draws \['z2', 'z1'\]",
    ),
    "df of the lower level": (
        lambda ppl: two_levels(ppl, posterior2=lambda x, z1: posterior(ppl, TWO.nu, TWO.n, z1, z1)),
        r"df of site 'z2' in the guide must be nu \+ n \+ 2 = 11, but it is 9",
    ),
    "an upper df in the lower prior": (
        lambda ppl: two_levels(ppl, prior2=lambda z1: joint(ppl, TWO.nu, z1, 1.0)),
        r"df of site 'z2' in the model must be nu \+ 2 = 8, but it is 6",
    ),
    "three levels": (
        three_levels,
        r"one or two latent sites .* it has \['z1', 'z2', 'z3'\]; .* use gamma_power_mc",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_pair_is_refused(ppl, fault):
    build, message = FAULTS[fault]
    pair = build(ppl)
    x = ppl.array(X[TWO.n] if "z2" in message else X[N])
    with pytest.raises(InputError, match=message):
        ppl.terms(GammaPower(), pair, x)


def test_df_that_differ_between_data_are_refused(ppl):
    program = ppl.program(guide_of([9.0, 9.0, 10.0, 9.0, 9.0])(ppl), ppl.array(X[N]))
    with pytest.raises(InputError, match=r"df of site 'z' in the guide must be .* but it is 9 to 10: "):
        GammaPower().read(program.run(), program)


def off(ppl, scale):
    """The t of the data with the scale that a function of x and z gives."""
    return one_level(ppl, likelihood=lambda z, x: student_t(ppl)(NU + M, z @ ppl.array(DECODER), scale(x, z)))


def right(z):
    return ((NU + (z * z).sum(-1)) / (NU + M))[:, None] ** 0.5


# What only values show.
OFF = {
    "the same whatever z": (lambda ppl: off(ppl, lambda x, z: 0.5), "'x'"),
    "another power of r": (lambda ppl: off(ppl, lambda x, z: right(z) ** 2), "'x'"),
    "other for each datum": (lambda ppl: off(ppl, lambda x, z: right(z) * (1.0 + x[:, :1] ** 2)), "'x'"),
    "of the prior": (with_parts(prior=lambda ppl, x: student_t(ppl)(NU, 0.0 * x[:, :M], 1.5)), "'z'"),
    "of the lower prior": (
        lambda ppl: two_levels(ppl, prior2=lambda z1: student_t(ppl)(TWO.nu + 2, z1, 1.0)),
        "'z2'",
    ),
}


@pytest.mark.parametrize("scale", OFF)
def test_scales_of_no_joint_are_refused(ppl, scale):
    build, site = OFF[scale]
    program = ppl.program(build(ppl), ppl.array(X[TWO.n] if site == "'z2'" else X[N]), noise=NOISE)
    message = rf"scale of site {site} must be .* one fixed sigma for all data .* off by up to [0-9.]+ of it"
    traces = program.run()
    with pytest.raises(InputError, match=message):
        GammaPower().read(traces, program)


def learned(ppl, form):
    """A sigma that a parameter moves."""

    def likelihood(z, x):
        weight = ppl.param("weight", ppl.array([[0.3], [0.2]]))
        outputs = {"parameter": weight[0, 0], "output of a network": (0.0 * z + 1.0) @ weight}
        return joint(ppl, NU, z @ ppl.array(DECODER), outputs[form] ** 2, [z])

    return one_level(ppl, likelihood=likelihood)


@pytest.mark.parametrize("form", ["parameter", "output of a network"])
def test_a_learned_sigma_is_refused(ppl, form):
    options = {} if ppl.name == "pyro" else {"params": {"weight": ppl.array([[0.3], [0.2]])}}
    program = ppl.program(learned(ppl, form), ppl.array(X[N]), noise=NOISE, **options)
    traces = program.run()
    message = r"scale \(sigma\) of the observed site must be fixed, but parameters move it: .* compare several by"
    with pytest.raises(InputError, match=message):
        GammaPower().read(traces, program)


def test_sound_pairs_pass_the_same_checks(ppl):
    for pair, n in ((one_level(ppl), N), (two_levels(ppl), TWO.n)):
        program = ppl.program(pair, ppl.array(X[n]), noise=NOISE)
        assert np.isfinite(float(GammaPower().read(program.run(), program).loss))


@needs("torch", "pyro")
def test_pyro_checks_only_while_validation_is_on():
    import pyro

    ppl = CLASSES["pyro"]()
    with ppl.float64(), pyro.validation_enabled(False):
        assert np.isfinite(float(ppl.terms(GammaPower(), off(ppl, lambda x, z: 0.5), ppl.array(X[N])).loss))


@needs("torch", "pyro")
def test_a_record_says_which_form_of_the_loss_it_was():
    ppl = CLASSES["pyro"]()
    with ppl.float64():
        program = ppl.program(one_level(ppl), ppl.array(X[N]), noise=NOISE)
        found = [GammaPower(entropy=entropy).notes(program.run(), program) for entropy in (0.0, 2.5)]
    assert found == [
        ["gamma-power loss as published: no entropy of the data, so that it depends on their units"],
        ["gamma-power loss with the entropy of the data, 2.5 nats"],
    ]


@pytest.mark.parametrize("entropy", [float("nan"), float("inf")])
def test_an_entropy_must_be_a_number(entropy):
    with pytest.raises(InputError, match=f"entropy must be a number of nats, but it is {entropy}; 0 is the pub"):
        GammaPower(entropy=entropy)


def test_a_learned_nu_is_refused(ppl):
    """It stands in the order of the divergence and in its constants, as sigma does."""

    def nu():
        return 2.0 + ppl.param("excess", ppl.array(np.array(3.0)))

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", student_t(ppl)(nu(), 0.0 * x[:, :2], 1.0))
            ppl.sample("x", student_t(ppl).conditional(nu(), 0.0 * x, 1.0, [z]), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", student_t(ppl)(nu() + 4.0, 0.0 * x[:, :2], 0.5))

    options = {} if ppl.name == "pyro" else {"params": {"excess": ppl.array(np.array(3.0))}}
    program = ppl.program((model, guide), ppl.array(X[4]), **options)
    with pytest.raises(InputError, match=r"df \(nu\) of the first latent site must be fixed, but parameters move"):
        GammaPower().read(program.run(), program)
