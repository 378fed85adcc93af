"""Programs whose guide on data and on transformed data has parameters of its own, and functions that transform."""

import importlib

import numpy as np


def shifted(ppl, by):
    """Adds a constant to the data."""
    return lambda args, kwargs: ((args[0] + ppl.array(by), *args[1:]), kwargs)


def same(args, kwargs):
    """The identity."""
    return args, kwargs


def switched(ppl):
    """Makes the data 1, which are 0; see ``two_branches``."""
    return lambda args, kwargs: ((0.0 * args[0] + 1.0, *args[1:]), kwargs)


def two_branches(ppl, w, family="Normal"):
    """z -> x; the guide's z has ``loc``, ``scale``, maybe ``df`` where x = 0, and those of ``_t`` where x = 1."""

    def model(x, beta=1.0):
        with ppl.plate("data", len(x)):
            with ppl.scale(scale=beta):
                ppl.sample("z", ppl.dist.Normal(ppl.array(np.zeros((len(x), 1))), 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(x * 0.0, 1.0), obs=x)

    def guide(x, beta=1.0):
        def of(name):
            return (1.0 - x) * w[name] + x * w[f"{name}_t"]

        with ppl.plate("data", len(x)), ppl.scale(scale=beta):
            ppl.sample("z", posterior(ppl, family, of))

    return model, guide


def posterior(ppl, family, of):
    """A distribution over one coordinate, an event."""
    loc, scale = of("loc")[:, None], of("scale")[:, None]
    if family == "StudentT":
        return ppl.dist.StudentT(of("df")[:, None], loc, scale).to_event(1)
    if family == "DiagonalStudentT":
        module = importlib.import_module(f"ppl_vae.distributions.{ppl.name}_student_t")
        return module.DiagonalStudentT(of("df"), loc, scale)
    if family == "MultivariateStudentT":
        return ppl.dist.MultivariateStudentT(of("df"), loc, scale[..., None])
    return ppl.dist.Normal(loc, scale).to_event(1)


def chain(ppl, w):
    """x -> z2 -> z1 and x -> z1 in the guide, all Gaussian and linear, and a model of standard normals.

    With weights ``_t`` the guide has these where x = 1 and the others where x = 0.
    """

    def model(x, betas=None):
        with ppl.plate("data", len(x)):
            for name in ("z2", "z1"):
                ppl.sample(name, ppl.dist.Normal(0.0 * x, 1.0))
            ppl.sample("x", ppl.dist.Normal(0.0 * x, 1.0), obs=x)

    def guide(x, betas=None):
        of = {n: (1.0 - x) * w[n] + x * w[f"{n}_t"] if f"{n}_t" in w else w[n] for n in "a b c s2 s1".split()}
        at = 1.0 if "a_t" in w else x
        with ppl.plate("data", len(x)):
            z2 = ppl.sample("z2", ppl.dist.Normal(of["a"] * at, of["s2"]))
            ppl.sample("z1", ppl.dist.Normal(of["b"] * z2 + of["c"] * at, of["s1"]))

    return model, guide
