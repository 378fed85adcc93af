"""NumPyro's side of the objective: runs programs, reads traces, and gives a loss to ``numpyro.infer.SVI``."""

from collections.abc import Callable, Mapping
from functools import reduce
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import scipy.special
from jax.scipy.special import digamma, gammaln
from numpyro import handlers
from numpyro.distributions import ExpandedDistribution, Independent, MaskedDistribution, Normal
from numpyro.distributions.kl import kl_divergence
from numpyro.primitives import Messenger

from ppl_vae.errors import InputError
from ppl_vae.formulas.divergences import gaussian_kl
from ppl_vae.objective.numpyro_dependence import depends
from ppl_vae.objective.objective import LatentRule, Objective, Program, given_latents
from ppl_vae.objective.sites import Site, Traces
from ppl_vae.objective.terms import Terms
from ppl_vae.transforms import CallTransform, Transform, call_numpyro

__all__ = ["TERMS", "NumPyroLoss", "NumPyroProgram", "core_distribution"]

# The loop finds the terms of each step under this name in the mutable state.
TERMS = "ppl_vae/terms"

jax.tree_util.register_dataclass(Terms, data_fields=["loss", "distortion", "rates", "extras"], meta_fields=["how"])


class NumPyroProgram:
    """A NumPyro model and guide with their arguments; see ``objective.Program``.

    Args:
        model: Generative program.
        guide: Variational program with the same signature.
        args: Positional arguments of both.
        kwargs: Keyword arguments of both.
        rng_key: JAX random key; every run splits a fresh one off it.
        params: Constrained values of the param sites by name.
        data_plate: Name of the plate over data.
        latents: Sets the guide's latent values in place of draws.

    Attributes:
        mutable: Values of the programs' mutable sites after the first run, on whatever arguments; all begin alike.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        rng_key: jax.Array,
        params: Mapping[str, Any] | None = None,
        data_plate: str = "data",
        latents: LatentRule | None = None,
    ) -> None:
        self.model, self.guide = model, guide
        self.args, self.kwargs = args, dict(kwargs or {})
        self.rng_key, self.params = rng_key, dict(params or {})
        self.data_plate, self.latents = data_plate, latents
        self._runs = count()
        self.mutable: dict[str, Any] = {}

    # Programs are checked when they are traced, which costs the compiled steps nothing.
    validates = True

    @staticmethod
    def log_gamma(value: Any) -> Any:
        """Log-gamma function; of a number in float64, once, and not in the compiled program."""
        return scipy.special.gammaln(value) if isinstance(value, np.ndarray | np.floating) else gammaln(value)

    digamma = staticmethod(digamma)

    def constant(self, value: Any) -> Any:
        """A value, or a distribution, without its gradients."""
        return jax.lax.stop_gradient(value)

    def run(self, *, indices_of: Traces | None = None) -> Traces:
        """Run the guide, then the model on its values; see ``objective.Program.run``."""
        guide = handlers.seed(_SetLatents(self.guide, self.latents), self.fresh_key())
        if indices_of is not None:
            plates = {name: site for name, site in indices_of.raw.items() if site["type"] == "plate"}
            guide = handlers.replay(guide, plates)
        guide_trace = self._trace(guide, self.params)
        # A mutable site that the guide has changed is what the model goes on with.
        mutable = _mutable(guide_trace)
        model = handlers.replay(handlers.seed(self.model, self.fresh_key()), guide_trace)
        model_trace = self._trace(model, {**self.params, **mutable})
        for name, value in {**mutable, **_mutable(model_trace)}.items():
            self.mutable.setdefault(name, value)
        traces = Traces(self._sites(guide_trace), self._sites(model_trace), raw=guide_trace)
        traces.check()
        return traces

    def replay_guide(self, traces: Traces) -> Mapping[str, Site]:
        """Run the guide on the values of other traces; see ``objective.Program.replay_guide``."""
        guide = handlers.replay(handlers.seed(self.guide, self.fresh_key()), traces.raw)
        return self._sites(self._trace(guide, self.params))

    def generate(self, given: Mapping[str, Any] | None = None) -> Mapping[str, Site]:
        """Run the model with its observed sites drawn, not given; see ``objective.Program.generate``."""
        free = _SetLatents(handlers.uncondition(self.model), given_latents(given or {}))
        return self._sites(self._trace(handlers.seed(free, self.fresh_key()), self.params))

    def draw(self, site: Site) -> jax.Array:
        """A fresh draw from a site's distribution; see ``objective.Program.draw``."""
        return site.fn.expand(site.element_shape).sample(self.fresh_key())

    def on(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, latents: LatentRule | None = None
    ) -> "NumPyroProgram":
        """The same programs on other arguments, with a fresh key; see ``objective.Program.on``."""
        program = self._with(self.fresh_key(), args, kwargs)
        program.latents, program.mutable = latents or self.latents, self.mutable
        return program

    def transformed(self, transform: Transform | CallTransform) -> "NumPyroProgram":
        """The same programs on transformed arguments."""
        return self.on(*call_numpyro(transform, self.fresh_key(), self.args, self.kwargs))

    def kl(self, q: Site, p: Site) -> jax.Array | None:
        """KL divergence per element where the pair has a closed form, otherwise None."""
        if isinstance(q.fn, Normal) and isinstance(p.fn, Normal):
            return gaussian_kl(*(jnp.asarray(a) for a in (q.fn.loc, q.fn.scale, p.fn.loc, p.fn.scale)))
        try:
            return kl_divergence(q.fn, p.fn)
        except NotImplementedError:
            return None

    def learned_spreads(self, traces: Traces) -> frozenset[str]:
        """Latent sites whose spread depends on params; see ``objective.Program.learned_spreads``."""

        def spreads(params: Mapping[str, Any]) -> dict[str, list[jax.Array]]:
            program = self._with(self.rng_key, self.args, self.kwargs)
            program.params = dict(params)
            run = program.run()
            # A family without a spread counts as learned: what its density depends on stands for one.
            return {
                name: [
                    site.log_prob() if site.spread is None else jnp.asarray(site.spread)
                    for site in (q, run.model[name])
                ]
                for name, q in run.guide.items()
            }

        return frozenset(name for name, pair in depends(spreads, self.params).items() if any(pair))

    def largest_gradient(self, traces: Traces, function: Callable[[Mapping[str, Site]], jax.Array]) -> Any:
        """Largest derivative by a param past the latents; see ``objective.Program.largest_gradient``."""

        def value(params: Mapping[str, Any]) -> jax.Array:
            model = handlers.replay(handlers.seed(self.model, self.rng_key), traces.raw)
            return function(self._sites(self._trace(model, {**params, **self.mutable})))

        if not self.params or not depends(value, self.params):
            return 0.0
        leaves = jax.tree.leaves(jax.grad(value)(self.params))
        return jnp.stack([jnp.abs(leaf).max() for leaf in leaves]).max()

    def map(self, evaluate: Callable[[Program], Any], num: int) -> Any:
        """Independent evaluations, vectorised; see ``objective.Program.map``."""

        def evaluate_with(key: jax.Array) -> Any:
            program = self._with(key, self.args, self.kwargs)
            values = evaluate(program)
            if program.mutable:
                raise InputError(
                    f"num_particles must be 1 for a program with mutable sites, but it is {num} "
                    f"and the program has {sorted(program.mutable)}; each particle would leave another state"
                )
            return values

        return jax.vmap(evaluate_with)(jax.random.split(self.fresh_key(), num))

    def average(self, evaluate: Callable[[Program], Terms], num_particles: int) -> Terms:
        """Mean of the terms over independent evaluations, vectorised."""
        found: Terms = self.map(evaluate, num_particles)
        return found.combine(lambda values: values.mean(0))

    def _with(self, key: jax.Array, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "NumPyroProgram":
        return NumPyroProgram(
            self.model,
            self.guide,
            args,
            kwargs,
            rng_key=key,
            params=self.params,
            data_plate=self.data_plate,
            latents=self.latents,
        )

    def fresh_key(self) -> jax.Array:
        """A random key that no run has used, such as for a transformation of the data."""
        return jax.random.fold_in(self.rng_key, next(self._runs))

    def _trace(self, program: Callable[..., Any], params: Mapping[str, Any]) -> dict[str, Any]:
        substituted = handlers.substitute(program, data=params)
        return handlers.trace(substituted).get_trace(*self.args, **self.kwargs)

    def _sites(self, trace: Mapping[str, Any]) -> dict[str, Site]:
        sizes = {name: site["args"][0] for name, site in trace.items() if site["type"] == "plate"}
        return {
            name: _site(name, site, sizes, self.data_plate)
            for name, site in trace.items()
            if site["type"] == "sample"
        }


class _SetLatents(Messenger):
    """Sets the latent values of a program by a rule; None leaves it as it is."""

    def __init__(self, fn: Callable[..., Any], latents: LatentRule | None) -> None:
        super().__init__(fn)
        self.latents = latents

    def process_message(self, msg: dict[str, Any]) -> None:
        if self.latents is not None and msg["type"] == "sample" and not msg["is_observed"]:
            msg["value"] = self.latents(msg["name"], msg["fn"])


def _mutable(trace: Mapping[str, Any]) -> dict[str, Any]:
    return {name: site["value"] for name, site in trace.items() if site["type"] == "mutable"}


def core_distribution(fn: Any) -> tuple[Any, int, list[Any]]:
    """Take the wrappers off a distribution.

    Args:
        fn: A NumPyro distribution.

    Returns:
        The core distribution (its parameters not broadcast), how many of its batch axes are event axes,
        and the masks met, each with trailing axes of length one so that it broadcasts to the elements.
    """
    event_dim, masks = 0, []
    while True:
        if isinstance(fn, MaskedDistribution):
            masks.append((jnp.asarray(fn._mask), event_dim))
            fn = fn.base_dist
        elif isinstance(fn, Independent):
            event_dim += fn.reinterpreted_batch_ndims
            fn = fn.base_dist
        elif isinstance(fn, ExpandedDistribution):
            fn = fn.base_dist
        else:
            # A mask has the event axes that wrappers outside it declare; those inside it are still to come.
            return fn, event_dim, [m.reshape(m.shape + (1,) * (event_dim - outside)) for m, outside in masks]


def _site(name: str, site: Mapping[str, Any], sizes: Mapping[str, int], data_plate: str) -> Site:
    fn, event_dim, masks = core_distribution(site["fn"])
    plate_scale, num_data, enclosing = 1.0, None, 1
    for frame in reversed(site["cond_indep_stack"]):  # the stack has the innermost first
        size = sizes[frame.name]
        enclosing *= size
        if size != frame.size:
            plate_scale *= size / frame.size
        if frame.name == data_plate:
            num_data = enclosing  # a group of data in each plate around the data plate
    shape = tuple(site["fn"].batch_shape) + tuple(site["fn"].event_shape)
    scale = 1.0 if site["scale"] is None else site["scale"]
    return Site(
        name=name,
        fn=fn,
        value=jnp.asarray(site["value"]),
        element_shape=shape[: len(shape) - len(fn.event_shape)],
        event_dim=event_dim,
        plate_scale=plate_scale,
        beta=scale if plate_scale == 1.0 else scale / plate_scale,
        mask=reduce(jnp.logical_and, masks) if masks else None,
        is_observed=site["is_observed"],
        num_data=num_data,
    )


class NumPyroLoss(numpyro.infer.ELBO):
    """An objective as a NumPyro loss: works with ``numpyro.infer.SVI`` and any model and guide.

    Unlike NumPyro's own losses it is per datum, not summed over data.

    Args:
        objective: What is computed from the traces.
        data_plate: Name of the plate over data; a program without it counts as one datum.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from ppl_vae.objective.elbo import ELBO
        >>> def model(x):
        ...     with numpyro.plate("data", len(x)):
        ...         z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        ...         numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> terms = NumPyroLoss(ELBO()).terms(jax.random.key(0), {}, model, guide, jnp.zeros(1))
        >>> round(float(terms.rates["z"]), 4)
        0.0966
    """

    # Else SVI warns of discrete latents, which ``Traces.check`` refuses with a remedy.
    can_infer_discrete = True

    def __init__(self, objective: Objective, *, data_plate: str = "data") -> None:
        super().__init__(num_particles=objective.num_particles)
        self.objective = objective
        self.data_plate = data_plate

    def terms(
        self,
        rng_key: jax.Array,
        param_map: Mapping[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Terms:
        """Terms in nats per datum, differentiable in the parameters.

        Args:
            rng_key: JAX random key.
            param_map: Constrained values of the param sites.
            model: Generative program.
            guide: Variational program.
            args: Positional arguments of both.
            kwargs: Keyword arguments of both.
        """
        return self.objective.measure(self._program(rng_key, param_map, model, guide, args, kwargs))

    def loss_with_mutable_state(
        self,
        rng_key: jax.Array,
        param_map: Mapping[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Loss per datum with the programs' mutable sites; arguments as in ``terms``.

        A mutable state with an entry ``TERMS`` also gets the terms of the step there, in the order of
        ``Terms.flat``.
        """
        params = {name: value for name, value in param_map.items() if name != TERMS}
        program = self._program(rng_key, params, model, guide, args, kwargs)
        terms = self.objective.measure(program)
        # One array, because each array that a scan carries and stacks costs about as much as small sums do.
        recorded = {TERMS: jnp.stack(list(terms.flat().values()))} if TERMS in param_map else {}
        return {"loss": terms.loss, "mutable_state": {**program.mutable, **recorded} or None}

    def _program(
        self,
        rng_key: jax.Array,
        params: Mapping[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> NumPyroProgram:
        return NumPyroProgram(
            model, guide, args, kwargs, rng_key=rng_key, params=params, data_plate=self.data_plate
        )
