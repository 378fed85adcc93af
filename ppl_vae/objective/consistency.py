"""Consistency regularisation of any loss: what a datum is coded as must not depend on a transformation of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from ppl_vae.data import BINARISE_MODES
from ppl_vae.data.checks import check_choice
from ppl_vae.errors import InputError
from ppl_vae.objective.objective import LatentRule, Objective, Program
from ppl_vae.objective.site_divergence import (
    DENSE_T,
    GAMMA_POWER,
    STUDENT_T,
    UPPER_BOUND,
    Divergence,
    site_divergence,
)
from ppl_vae.objective.site_weights import SiteWeights, check_weight
from ppl_vae.objective.sites import Site, Traces, as_number
from ppl_vae.objective.terms import Terms, weighted
from ppl_vae.objective.views import Views
from ppl_vae.transforms import CallTransform, Transform

__all__ = ["Consistency", "Mode", "Stop"]

# Where the values of a site's parents come from, in the guide on data and in the guide on transformed data.
Mode = Literal["replay", "shared_noise", "independent"]
# Which guide is a constant in the term.
Stop = Literal["none", "clean", "transformed"]

Guide = Mapping[str, Site]

# Name among the betas of a call that carries the weight of the term.
SCHEDULED = "consistency"
# How far the least df is below 2.
SMALL_DF = "small df"


class Consistency(Objective):
    r"""A loss on data x and on transformed data t(x), plus a divergence of the guides on them, per datum.

    .. math:: L(x) + L(t(x)) + \lambda \sum_l w_l \, E \, KL(q(z_l \mid z_{<l}, t(x)), q(z_l \mid z_{<l}, x))

    L is the loss of the base, betas and all; the divergence has neither betas nor free bits. The values of the
    sites before z_l are those of the first guide in both, so that with weights w of 1 the sum is the divergence of
    the joint posteriors. Its modes ``shared_noise`` and ``independent`` give each guide parents of its own: they
    are surrogates, no divergences, for comparison with other implementations, and the second is not 0 where the
    guides agree. Distortion, rates and ELBO that are reported are those of x; the same of t(x) and the divergence
    by site are extras.

    Args:
        base: Any objective; its particles are averaged over here, each with a transformation of its own.
        transform: Name of a transformation, see ``transforms.find_transform``; a ``Transform``; or a function
            ``(args, kwargs) -> (args, kwargs)`` of the programs' arguments.
        weight: Weight lambda, in nats per nat. Where the programs are called with ``betas`` that have an entry
            ``consistency``, and no latent site is of that name, that entry is the weight of the call: a schedule.
        site_weights: Factors w by site such as "z1=0.5,z2=2"; 1 for sites that are not named.
        mode: Parents of a site; see above.
        reverse: Take the divergence of the guide on x from that on t(x).
        stop: The guide that gets no gradient from the term.
        divergence: "kl"; or "gamma_power" to measure Student t sites of one df above 2 by the gamma-power
            divergence in place of the KL. It is not on that scale, depends on the unit of z, and its sum over
            sites is no divergence of the joint posteriors.
        student_t_bound: For Student t sites of a full scale matrix and one df take an upper bound, not a draw.
        binarise: Make zeros and ones of the data, which are grey, after the transformation and in both branches:
            ``threshold``, ``sample`` or ``none``.

    Raises:
        InputError: An argument breaks its rule.

    Source:
        Sinha & Dieng, NeurIPS 2021, arXiv:2105.14859; the sum over sites is the chain rule.
    """

    def __init__(
        self,
        base: Objective,
        transform: str | Transform | CallTransform,
        *,
        weight: float = 1.0,
        site_weights: str = "",
        mode: Mode = "replay",
        reverse: bool = False,
        stop: Stop = "none",
        divergence: Divergence = "kl",
        student_t_bound: bool = False,
        binarise: str = "none",
    ) -> None:
        super().__init__(num_particles=base.num_particles)
        check_choice(mode, get_args(Mode), "mode")
        check_choice(stop, get_args(Stop), "stop")
        check_choice(divergence, get_args(Divergence), "divergence")
        if student_t_bound and divergence != "kl":
            raise InputError(
                f"student_t_bound must go with the divergence kl, which it bounds, but with it is {divergence}; "
                "leave one of the two out"
            )
        check_choice(binarise, ("none", *BINARISE_MODES), "binarise")
        self.base, self.allow_unbounded, self.has_betas = base, base.allow_unbounded, base.has_betas
        self.binarises = binarise != "none"
        self.views = Views(transform, binarise if self.binarises else None)
        self.weights = SiteWeights.parse(weight, site_weights)
        self.term_weights = {SCHEDULED: weight}
        self.mode, self.reverse, self.stop, self.bound = mode, reverse, stop, student_t_bound
        self.divergence = divergence

    def prepare(self, program: Program) -> Program:
        """The program on the data of the untransformed branch."""
        return self.views.clean(program)

    def measure(self, program: Program) -> Terms:
        """Terms of a program on data, or on grey values that are binarised; see ``Objective.measure``."""

        def evaluate(given: Program) -> Terms:
            here = self.prepare(given)
            return self._compare(here.run(), here, given)

        if self.num_particles == 1:
            return evaluate(program)
        return program.average(evaluate, self.num_particles)

    def read(self, traces: Traces, program: Program) -> Terms:
        """Terms of one run and of one on transformed data; see ``Objective.read``."""
        return self._compare(traces, program, program)

    def notes(self, traces: Traces, program: Program) -> list[str]:
        """The base's notes, and what the term is not."""
        notes = [*self.base.notes(traces, program), *self.views.notes(traces, program)]
        if self.divergence == "gamma_power":
            notes.append(
                f"consistency is a {GAMMA_POWER}: its values and weights do not compare with those of a KL"
            )
        if len(traces.guide) > 1 and self.mode != "replay":
            notes.append(f"consistency in the mode {self.mode} is a surrogate, no divergence of the posteriors")
        return notes

    def deviations(self, traces: Traces, program: Program) -> Mapping[str, Any]:
        """The base's deviations, and how far data are from what a transformation and a likelihood take."""
        there, _ = self._transformed(traces, program)
        return {**self.base.deviations(traces, program), **self._deviations(traces, there, program)}

    def check(self, deviations: Mapping[str, float]) -> None:
        """Refuse what is off."""
        own = {name for name in deviations if name.startswith("consistency/")}
        self.base.check({name: value for name, value in deviations.items() if name not in own})
        _check({name: deviations[name] for name in own})

    def _compare(self, here: Traces, program: Program, given: Program) -> Terms:
        """Terms of a run of a program, transformed from the program ``given``."""
        self.weights.check(here)
        clean = self.base.read(here, program)
        there, other = self._transformed(here, given)
        _check_structure(here.guide, there.guide)
        if program.validates:
            _check(self._deviations(here, there, given))
        transformed = self.base.read(there, other)
        values, how = self._divergences(here, there, program, other)
        loss, weights = clean.loss + transformed.loss, self._weights(here, given)
        for name, value in values.items():
            weight = weights.of(name)
            if as_number(weight) != 0.0:
                loss = loss + weighted(value, weight)
        extras = {f"transformed/{name}": value for name, value in transformed.flat().items()}
        extras |= {f"consistency/{name}": value for name, value in values.items()}
        return replace(
            clean,
            loss=loss,
            extras={**clean.extras, **extras, "consistency": sum(values.values())},
            how=(*clean.how, *((f"consistency/{name}", method) for name, method in how.items())),
        )

    def _weights(self, here: Traces, given: Program) -> SiteWeights:
        betas = given.kwargs.get("betas")
        if not isinstance(betas, Mapping) or SCHEDULED not in betas or SCHEDULED in here.guide:
            return self.weights
        weight = betas[SCHEDULED]
        found = as_number(weight) if given.validates else None
        return replace(
            self.weights, everywhere=weight if found is None else check_weight(found, "beta of consistency")
        )

    def _transformed(self, here: Traces, given: Program) -> tuple[Traces, Program]:
        other = self.views.transformed(here, given)
        return other.run(indices_of=here), other

    def _deviations(self, here: Traces, there: Traces, given: Program) -> dict[str, Any]:
        found = self.views.deviations(there, given)
        for name, q in there.guide.items():
            if self.divergence == "gamma_power" and q.family in STUDENT_T:
                found[f"{GAMMA_POWER}/{name}"] = _df_gap(q, here.guide[name])
                found[f"{SMALL_DF}/{name}"] = 2.0 - q.fn.df.min()
            elif self.bound and q.family == DENSE_T:
                found[f"{UPPER_BOUND}/{name}"] = _df_gap(q, here.guide[name])
        return {f"consistency/{name}": value for name, value in found.items()}

    def _divergences(
        self, here: Traces, there: Traces, program: Program, other: Program
    ) -> tuple[dict[str, Any], dict[str, str]]:
        first, second, beyond = (here, there, other) if self.reverse else (there, here, program)
        stops_first, stops_second = (
            self.stop == ("clean" if own is here else "transformed") for own in (first, second)
        )
        qs, ps = self._pairs(first, second, beyond, stops_first=stops_first)
        values, how = {}, {}
        for name, q in qs.items():
            p = ps[name]
            q = _constant(q, program) if stops_first else q
            p = _constant(p, program) if stops_second else p
            site, elements, how[name] = site_divergence(
                q, p, program, divergence=self.divergence, bound=self.bound
            )
            # Over the data alone: a beta of the site is no part of the term.
            values[name] = site.total(elements, 1.0 / here.num_data)
        return values, how

    def _pairs(self, first: Traces, second: Traces, beyond: Program, *, stops_first: bool) -> tuple[Guide, Guide]:
        """Sites of the first guide, and those of the second that they are compared with."""
        if len(first.guide) == 1 or self.mode == "independent":
            return first.guide, second.guide  # the runs of the bounds, once more: no site has parents
        rule: LatentRule | None = None
        if self.mode == "shared_noise":
            rule = _same_noise(first, beyond)
        elif stops_first:
            rule = lambda name, fn: beyond.constant(first.guide[name].value)  # noqa: E731
        if rule is None:
            return first.guide, beyond.replay_guide(first)
        return first.guide, beyond.on(beyond.args, beyond.kwargs, latents=rule).run(indices_of=first).guide


def _same_noise(run: Traces, program: Program) -> LatentRule:
    """Give Gaussian sites of another run of the guide the noise of this one."""

    def rule(name: str, fn: Any) -> Any:
        site = run.guide[name]
        if site.family != "Normal":
            raise InputError(
                f"mode shared_noise is for Gaussian sites, but {name!r} is {site.family}; use the mode replay"
            )
        noise = program.constant((site.value - site.fn.loc) / site.fn.scale)
        return fn.mean + fn.variance**0.5 * noise

    return rule


def _constant(site: Site, program: Program) -> Site:
    return replace(site, fn=program.constant(site.fn), value=program.constant(site.value))


def _df_gap(q: Site, p: Site) -> Any:
    return abs(q.fn.df - p.fn.df).max()


def _check_structure(first: Guide, second: Guide) -> None:
    one_sided = sorted(first.keys() ^ second.keys())
    if one_sided:
        raise InputError(
            f"guide must sample the same sites on data and on transformed data, but {one_sided[0]!r} stands on "
            "one side only; let no site depend on values of the data"
        )
    for name, q in first.items():
        if q.shape != second[name].shape:
            raise InputError(
                f"site {name!r} of the guide must have one shape on data and on transformed data, but it has "
                f"{q.shape} and {second[name].shape}; let no shape depend on values of the data"
            )


def _check(deviations: Mapping[str, Any]) -> None:
    for name, value in deviations.items():
        _, kind, subject = name.split("/", 2)
        off = as_number(value)
        if off is None or off <= _ALLOWED[kind]:
            continue
        raise InputError(_MESSAGES[kind].format(subject=subject, off=f"{off:.3g}", df=f"{2.0 - off:.3g}"))


# Of float32 in grey levels of 255, and in degrees of freedom; images may not leave [0, 1] at all.
_ALLOWED = {"range": 0.0, "support": 1e-4, UPPER_BOUND: 1e-4, GAMMA_POWER: 1e-4, SMALL_DF: -1e-4}
_MESSAGES = {
    "range": "x must lie in [0, 1] for the transformation {subject}, but it is {off} outside; divide it by its "
    "maximum, or write a function (args, kwargs) -> (args, kwargs)",
    "support": "transformed data must have a density under the distribution of {subject!r}, but a value is {off} "
    "from the nearest that has; end the transformation with ppl_vae.transforms.Binarise or Levels",
    UPPER_BOUND: "site {subject!r} must have the same df on data and on transformed data for the upper bound, but "
    "it differs by {off}; leave student_t_bound out",
    GAMMA_POWER: "site {subject!r} must have the same df on data and on transformed data for the gamma-power "
    "divergence, but it differs by {off}; use the divergence kl",
    SMALL_DF: "df of site {subject!r} must be above 2 for the gamma-power divergence, which holds second moments, "
    "but it is {df}; raise it, or use the divergence kl",
}
