"""Pairs whose sites are conditionals of one joint t, in one and two levels, with exchangeable parts."""

import importlib
from contextlib import nullcontext
from math import inf
from types import SimpleNamespace

import numpy as np
from array_api_compat import array_namespace

# Constants of the literal loss, which other arithmetic gave to ten and eight digits: w, and s of each level.
ONE = SimpleNamespace(nu=5.0, n=4, dims=(2,), sigma=0.5, w=4.695159624, s=(0.6676458315,))
TWO = SimpleNamespace(nu=6.0, n=3, dims=(2, 2), sigma=1.0, w=3.01559211, s=(0.20241252, 0.33752754))

_RNG = np.random.default_rng(7)
X = {4: _RNG.normal(size=(5, 4)), 3: _RNG.normal(size=(5, 3))}
NOISE = {"z": _RNG.normal(size=(5, 2)), "z1": _RNG.normal(size=(5, 2)), "z2": _RNG.normal(size=(5, 2))}
BETAS = {"z": 2.5, "z1": 4.0, "z2": 0.25}
ONE_WEIGHTS = {
    "encoder": 0.4 * _RNG.normal(size=(4, 2)),
    "logs": 0.3 * _RNG.normal(size=(4, 2)),
    "decoder": _RNG.normal(size=(2, 4)),
}
TWO_WEIGHTS = {
    "encoder1": 0.4 * _RNG.normal(size=(3, 2)),
    "logs1": 0.3 * _RNG.normal(size=(3, 2)),
    "encoder2": 0.4 * _RNG.normal(size=(3, 2)),
    "from_z1": 0.4 * _RNG.normal(size=(2, 2)),
    "logs2": 0.3 * _RNG.normal(size=(3, 2)),
    "prior": _RNG.normal(size=(2, 2)),
    "decoder1": _RNG.normal(size=(2, 3)),
    "decoder2": _RNG.normal(size=(2, 3)),
}


def student_t(ppl):
    """The family of a backend."""
    return importlib.import_module(f"ppl_vae.distributions.{ppl.name}_student_t").DiagonalStudentT


def is_gaussian(nu):
    """Whether it is the number inf; it may have no value, too."""
    return isinstance(nu, float) and nu == inf


def joint(ppl, nu, loc, scale, given=()):
    """What a model draws after the offsets that are given; nu = inf makes Gaussians."""
    if is_gaussian(nu):
        return ppl.dist.Normal(loc, scale).to_event(1)
    cls = student_t(ppl)
    return cls.conditional(nu, loc, scale, given) if given else cls(nu, loc, scale)


def posterior(ppl, nu, given, loc, logs):
    """What a guide draws, given so many coordinates, whose Sigma has these logs."""
    scale = array_namespace(loc).exp(0.5 * logs)
    if is_gaussian(nu):
        return ppl.dist.Normal(loc, scale).to_event(1)
    return student_t(ppl)(nu + given, loc, scale * (nu / (nu + given)) ** 0.5)


def one_level(ppl, weights=ONE_WEIGHTS, shape=ONE, *, subsample_size=None, handler=nullcontext, **changes):
    """z -> x, both linear, but for what ``changes`` puts in the place of prior, likelihood and posterior."""
    w, nu = {name: ppl.array(value) for name, value in weights.items()}, shape.nu
    default = {
        "prior": lambda x: joint(ppl, nu, 0.0 * x[:, : shape.dims[0]], 1.0),
        "likelihood": lambda z, x: joint(ppl, nu, z @ w["decoder"], shape.sigma, [z]),
        "posterior": lambda x: posterior(ppl, nu, shape.n, x @ w["encoder"], x @ w["logs"]),
        "observe": lambda x: x,
    }
    part = default | changes

    def model(x, betas=BETAS):
        with ppl.plate("data", len(x), subsample_size) as index, handler():
            with ppl.scale(scale=betas["z"]):
                z = ppl.sample("z", part["prior"](x[index]))
            ppl.sample("x", part["likelihood"](z, x[index]), obs=part["observe"](x[index]))

    def guide(x, betas=BETAS):
        with ppl.plate("data", len(x), subsample_size) as index, handler(), ppl.scale(scale=betas["z"]):
            ppl.sample("z", part["posterior"](x[index]))

    return model, guide


def two_levels(ppl, weights=TWO_WEIGHTS, shape=TWO, **changes):
    """z1 -> z2, both -> x, all linear, the guide top-down; ``changes`` as above."""
    w, nu, n, m1 = {k: ppl.array(v) for k, v in weights.items()}, shape.nu, shape.n, shape.dims[0]
    default = {
        "prior1": lambda x: joint(ppl, nu, 0.0 * x[:, :1] * w["prior"][0], 1.0),
        "prior2": lambda z1: joint(ppl, nu, z1 @ w["prior"], 1.0, [z1]),
        "posterior1": lambda x: posterior(ppl, nu, n, x @ w["encoder1"], x @ w["logs1"]),
        "posterior2": lambda x, z1: posterior(
            ppl, nu, n + m1, x @ w["encoder2"] + z1 @ w["from_z1"], x @ w["logs2"]
        ),
        "order": ("z1", "z2"),
    }
    part = default | changes

    def model(x, betas=BETAS):
        with ppl.plate("data", len(x)):
            with ppl.scale(scale=betas["z1"]):
                z1 = ppl.sample("z1", part["prior1"](x))
            with ppl.scale(scale=betas["z2"]):
                z2 = ppl.sample("z2", part["prior2"](z1))
            loc = z1 @ w["decoder1"] + z2 @ w["decoder2"]
            ppl.sample("x", joint(ppl, nu, loc, shape.sigma, [z1, z2 - z1 @ w["prior"]]), obs=x)

    def guide(x, betas=BETAS):
        z1 = 0.0 * x[:, :m1]
        with ppl.plate("data", len(x)):
            for name in part["order"]:
                with ppl.scale(scale=betas[name]):
                    if name == "z1":
                        z1 = ppl.sample("z1", part["posterior1"](x))
                    else:
                        ppl.sample("z2", part["posterior2"](x, z1))

    return model, guide


def literal_terms(xp, x, noise, weights, shape):
    """The doubled terms of the loss at this noise, per datum, as the source has them."""
    w, nu, n, above = weights, shape.nu, shape.n, sum(shape.dims[:-1])
    big = nu + n + sum(shape.dims) - 2

    def draw(loc, logs, given, noise):
        return loc + (nu / (nu + given)) ** 0.5 * xp.exp(0.5 * logs) * noise

    def regulariser(shift, logs, given, power):
        trace = nu / (nu + given - 2) * xp.exp(logs).sum(-1)
        return (shift**2).sum(-1) + trace - power * xp.exp(logs.sum(-1) / big)

    if not above:
        loc, logs = x @ w["encoder"], x @ w["logs"]
        mean = draw(loc, logs, n, noise["z"]) @ w["decoder"]
        regularisers = {"z": regulariser(loc, logs, n, shape.w)}
    else:
        loc1, logs1, logs2 = x @ w["encoder1"], x @ w["logs1"], x @ w["logs2"]
        z1 = draw(loc1, logs1, n, noise["z1"])
        loc2 = x @ w["encoder2"] + z1 @ w["from_z1"]
        z2 = draw(loc2, logs2, n + above, noise["z2"])
        mean = z1 @ w["decoder1"] + z2 @ w["decoder2"]
        # 1 + gamma = 1 - 2 / (nu + n + M) times w
        upper = regulariser(loc1, logs1, n, shape.w * big / (big + 2))
        regularisers = {"z1": upper, "z2": regulariser(loc2 - z1 @ w["prior"], logs2, n + above, shape.w)}
    return ((x - mean) ** 2).sum(-1) / shape.sigma**2, regularisers


def least_values(shape):
    """Of each level's doubled regulariser as the source has it, by site."""
    nu, n, above = shape.nu, shape.n, sum(shape.dims[:-1])
    big = nu + n + sum(shape.dims) - 2
    powers = [shape.w * big / (big + 2), shape.w][-len(shape.dims) :]
    found = [
        nu / (nu + given - 2) * m * s - power * s ** (m / big)
        for given, m, s, power in zip((n, n + above), shape.dims, shape.s, powers, strict=False)
    ]
    return dict(zip(("z",) if not above else ("z1", "z2"), found, strict=True))
