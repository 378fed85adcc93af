r"""Reads a run whose sites are all Student t as one joint t of data and latents, and a t guide.

With nu degrees of freedom at the first latent, every further site of the model has nu + k of them, k the number of
coordinates drawn before it, and its scale is :math:`\sqrt{(\nu + r^2) / (\nu + k)}` times that of the joint, with
r their distance from their locations. The guide's sites have nu + n + k, with n coordinates of a datum.

Source:
    Kim et al., ICLR 2024, arXiv:2312.01133.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ppl_vae.errors import InputError
from ppl_vae.formulas import student_t
from ppl_vae.objective.combinations import Combination
from ppl_vae.objective.objective import Program
from ppl_vae.objective.sites import Site, Traces, as_number

__all__ = [
    "Conditional",
    "JointT",
    "check_scales",
    "flat",
    "read_joint_t",
    "scale_deviations",
    "scales",
    "unit_density",
]

# The second, of full covariance, for the guide alone.
FAMILIES = ("DiagonalStudentT", "MultivariateStudentT")
# Of float32, through a square root and its square.
ROUNDING = 1e-4
# Where parameters move sigma at all, the log has a derivative of order 1; rounding leaves far less.
SIGMA, NU, MOVING = "scale (sigma) of the observed site", "df (nu) of the first latent site", 1e-3


@dataclass(frozen=True)
class Conditional:
    """A site of the model in the units of the joint t.

    Attributes:
        site: The site.
        dim: Number of its coordinates d.
        above: Number k of coordinates drawn before it.
        ratio: Its squared scale over that of the joint, (n,); None for the first site, where it is 1.
        offset: Its location less its value, (n, d).
        squared: Squared distance of its value from its location, in units of the joint's scale, (n,).
        log_det: Sum of the log scales of the joint over its coordinates, (); 0.0 for latents.
        own: The joint's scales of its coordinates, (d,) or (1,).
    """

    site: Site
    dim: int
    above: int
    ratio: Any
    offset: Any
    squared: Any
    log_det: Any
    own: Any


@dataclass(frozen=True)
class JointT:
    """A run of t sites.

    Attributes:
        df: Degrees of freedom nu of the joint, ().
        latents: Latent sites of the model by name, the first drawn first.
        guide: The same sites of the guide.
        x: The observed site.
    """

    df: Any
    latents: Mapping[str, Conditional]
    guide: Mapping[str, Site]
    x: Conditional

    @property
    def dim(self) -> int:
        """Number of coordinates of data and latents."""
        return self.x.dim + sum(part.dim for part in self.latents.values())

    def log_densities(self, program: Program) -> dict[str, Combination]:
        """Log densities of the model's sites by name, without gradients, in nats.

        Each is that of the joint t of the coordinates so far, less that of those before.
        """
        found, squared, before = {}, None, Combination(0.0, ())
        for part in [*self.latents.values(), self.x]:
            own, dim = program.constant(part.squared), part.above + part.dim
            squared = own if squared is None else squared + own  # no operation for the first
            joint = unit_density(squared, self.df, dim, program)
            conditional = joint.minus(before)
            found[part.site.name] = conditional._replace(constant=conditional.constant - part.log_det)
            before = joint
        return found


def read_joint_t(traces: Traces, program: Program) -> JointT:
    """Read a run.

    Args:
        traces: The run.
        program: The programs that were run.

    Raises:
        InputError: A site is no multivariate t, the guide draws in another order, or, as far as they have values,
            degrees of freedom or scales are not those of a joint t.
    """
    x = _data(traces)
    names = traces.latents
    sites = [traces.model[name] for name in names]
    for site in (*sites, x):
        _check_family(site, "model", FAMILIES[:1])
    for site in traces.guide.values():
        _check_family(site, "guide", FAMILIES)
    if list(traces.guide) != names:
        raise InputError(
            f"guide must draw the latent sites in the model's order, {names}, but draws {list(traces.guide)}; "
            "a t given what is drawn after it has other degrees of freedom"
        )
    df = _degrees_of_freedom(sites[0])
    parts: list[Conditional] = []
    for site in [*sites, x]:
        parts.append(_conditional(site, df, parts, program))
    run = JointT(df, dict(zip(names, parts[:-1], strict=True)), traces.guide, parts[-1])
    if program.validates:
        _check(run, traces, program)
    return run


def unit_density(squared: Any, df: Any, dim: int, program: Program) -> Combination:
    """Log density of a t of unit scale, as ``student_t.radial_log_density``, whose arguments it has.

    Args:
        squared: Squared distances, (n,).
        df: Degrees of freedom.
        dim: Number of coordinates.
        program: Where the log-gamma function is.
    """
    height = student_t.log_normaliser(df, dim, log_gamma=program.log_gamma)
    return Combination(height, ((-0.5 * (df + dim), array_namespace(squared).log1p(squared / df)),))


def flat(site: Site, values: Any) -> Any:
    """Values of a site with one axis for the event, (n, d).

    Args:
        site: The site.
        values: Array (n, *event).
    """
    if len(site.fn.event_shape) == 1:
        return values
    return values.reshape(*values.shape[: values.ndim - len(site.fn.event_shape)], -1)


def scales(site: Site) -> Any:
    """Scales of a site, (n, d) or (n, 1), or of a dense family the diagonal of their matrix.

    Args:
        site: The site.
    """
    if hasattr(site.fn, "scale_tril"):
        xp = array_namespace(site.fn.scale_tril)
        return xp.linalg.diagonal(site.fn.scale_tril)
    return flat(site, site.fn.scale)


def _conditional(site: Site, df: Any, before: list[Conditional], program: Program) -> Conditional:
    xp = array_namespace(site.value)
    offset, ratio, log_det, own = flat(site, site.fn.loc) - flat(site, site.value), None, 0.0, np.ones(1)
    above, dim = sum(part.dim for part in before), offset.shape[-1]
    if before:
        # Begun with the first, not with 0: steps of small networks are as long as their operations are many.
        ratio = (df + sum((part.squared for part in before[1:]), before[0].squared)) / (df + above)
    squared = xp.sum(offset * offset, axis=-1)
    if site.is_observed:
        # The joint's scale is the same for all data; that of one of them is free of rounding's gradients.
        own = _joint_scales(site, ratio, program)
        log_det = student_t.log_det(own, dim)
        squared = squared / own[0] ** 2 if len(own) == 1 else xp.sum((offset / own) ** 2, axis=-1)
    return Conditional(site, dim, above, ratio, offset, squared, log_det, own)


def _joint_scales(site: Site, ratio: Any, program: Program) -> Any:
    """The joint's scales of the observed coordinates, (d,) or (1,), without gradients.

    Where the program gave a number, all constants of the loss are numbers, and no operations.
    """
    number = getattr(site.fn, "joint_scale", None)
    if number is not None:
        return np.asarray([number])
    scale = scales(site)
    own = program.constant(scale.reshape(-1, scale.shape[-1])[0])
    return own if ratio is None else own / program.constant(ratio.reshape(-1)[0]) ** 0.5


def _data(traces: Traces) -> Site:
    """The observed t site; what else is observed is a condition."""
    found = [site for site in traces.observed if site.family != "Delta"]
    if len(found) != 1:
        raise InputError(
            f"model must observe one Student t site beside conditions (Delta sites), but it observes "
            f"{[site.name for site in found]}; join the data in one event"
        )
    return found[0]


def _check_family(site: Site, side: str, families: Sequence[str]) -> None:
    if site.family in families and not site.event_dim:
        return
    if site.family == "StudentT":
        raise InputError(
            f"site {site.name!r} of the {side} must be a multivariate Student t, but it is a product of "
            "univariate ones, another law, whose joint no gamma-power formula fits; use "
            "DiagonalStudentT of ppl_vae.distributions, with one chi-square for the event"
        )
    further = " with further event axes" if site.family in families else ""
    raise InputError(
        f"site {site.name!r} of the {side} must be a {' or '.join(families)} over its whole event, but it is "
        f"{site.family}{further}; use DiagonalStudentT of "
        "ppl_vae.distributions, or for other families the loss elbo or gamma_power_mc"
    )


def scale_deviations(run: JointT, traces: Traces, program: Program) -> dict[str, Any]:
    """How far the scales of the model's sites are off those of a joint t of fixed sigma.

    Args:
        run: The run.
        traces: The same as sites.
        program: The programs that were run.

    Returns:
        By site the largest relative deviation; under ``SIGMA`` and ``NU`` the largest derivative of the log by a
        parameter, of nu where it is no number.
    """
    found = {}
    for part in [*run.latents.values(), run.x]:
        own = scales(part.site)
        if part.ratio is not None:
            own = own / part.ratio[..., None] ** 0.5
        reference = part.own[0] if len(part.own) == 1 else part.own
        found[part.site.name] = abs(own / reference - 1.0).max()

    def log_sigma(sites: Mapping[str, Site]) -> Any:
        own = _own_scales([sites[name] for name in [*run.latents, run.x.site.name]], run.df)
        return array_namespace(own).log(own).mean()

    def log_df(sites: Mapping[str, Site]) -> Any:
        df = sites[next(iter(run.latents))].fn.df
        return array_namespace(df).log(df).mean()

    moving = {SIGMA: log_sigma} | ({} if isinstance(run.df, float) else {NU: log_df})
    return found | {name: program.largest_gradient(traces, value) for name, value in moving.items()}


def _own_scales(sites: Sequence[Site], df: Any) -> Any:
    """Scales of the last site over those that it has by what was drawn before."""
    xp = array_namespace(sites[-1].fn.loc)
    offsets = [flat(site, site.value) - flat(site, site.fn.loc) for site in sites[:-1]]
    squared = sum(xp.sum(offset * offset, axis=-1) for offset in offsets)
    above = sum(offset.shape[-1] for offset in offsets)
    return scales(sites[-1]) / xp.sqrt((df + squared) / (df + above))[..., None]


def check_scales(deviations: Mapping[str, Any]) -> None:
    """Refuse scales that are off.

    Args:
        deviations: What ``scale_deviations`` gives, as numbers or as arrays; those without values pass.

    Raises:
        InputError: One is off by more than rounding.
    """
    # A learned nu moves what is taken for sigma, too.
    for name in sorted(deviations, key=lambda name: (name != NU, name != SIGMA)):
        off = as_number(deviations[name])
        if name in (SIGMA, NU):
            if off is not None and not off <= MOVING:
                raise InputError(
                    f"{name} must be fixed, but parameters move it: the loss is a divergence times a constant "
                    "that holds it, so that its least means nothing; fix it and compare several by their ELBO, "
                    "or use elbo"
                )
            continue
        if off is not None and not off <= ROUNDING:
            raise InputError(
                f"scale of site {name!r} must be sqrt((nu + r^2) / (nu + k)), with r the distance of the k "
                "latents drawn before it from their locations (1 for the first latent), times one fixed sigma "
                f"for all data at the observed site, but it is off by up to {off:.2g} of it: the sites must be "
                "conditionals of one joint t; use DiagonalStudentT.conditional"
            )


def _check(run: JointT, traces: Traces, program: Program) -> None:
    nu = as_number(run.df)
    if nu is not None and not nu > 2.0:
        raise InputError(
            f"df (nu) of site {next(iter(run.latents))!r} must be above 2, but it is {nu:g}: the loss holds "
            "second moments; use 2.5 or more"
        )
    given = 0
    for name, part in run.latents.items():
        _check_df(part.site, "model", run.df + part.above, f"nu + {part.above}" if part.above else "nu")
        rule = f"nu + n + {given}" if given else "nu + n"
        _check_df(run.guide[name], "guide", run.df + run.x.dim + given, rule)
        given += part.dim
    _check_df(run.x.site, "model", run.df + given, f"nu + {given}")
    check_scales(scale_deviations(run, traces, program))


def _check_df(site: Site, side: str, wanted: Any, rule: str) -> None:
    df = site.fn.df
    low, high, target = as_number(df.min()), as_number(df.max()), as_number(wanted)
    if low is None or high is None or target is None:
        return
    if max(abs(low - target), abs(high - target)) > 1e-6 * target:
        raise InputError(
            f"df of site {site.name!r} in the {side} must be {rule} = {target:g}, but it is "
            f"{low:g}{'' if low == high else f' to {high:g}'}: the sites must be conditionals of one joint t, "
            "whose nu is that of the first latent, and n the number of coordinates of a datum; correct it"
        )


def _degrees_of_freedom(site: Site) -> Any:
    """Those of a site as a scalar, in float64 where the program gave a number."""
    number = getattr(site.fn, "number", None)
    return site.fn.df.reshape(-1)[0] if number is None else np.float64(number)
