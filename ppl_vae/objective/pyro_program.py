"""Pyro's side of the objective: runs programs, reads traces, and gives a loss to ``pyro.infer.SVI``."""

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any

import pyro
import scipy.special
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.infer.util import is_validation_enabled, torch_item
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import Independent, Normal

from ppl_vae.errors import InputError
from ppl_vae.formulas.divergences import gaussian_kl
from ppl_vae.objective.objective import LatentRule, Objective, Program, given_latents
from ppl_vae.objective.pyro_constant import detached
from ppl_vae.objective.sites import Site, Traces
from ppl_vae.objective.terms import Terms
from ppl_vae.transforms import CallTransform, Transform, call_pyro

__all__ = ["PyroLoss", "PyroProgram", "core_distribution", "never_trained"]

# Messages of the sample statements of one run, by site.
Nodes = dict[str, Any]


class PyroProgram:
    """A Pyro model and guide with their arguments; see ``objective.Program``.

    Args:
        model: Generative program.
        guide: Variational program with the same signature.
        args: Positional arguments of both.
        kwargs: Keyword arguments of both.
        data_plate: Name of the plate over data.
        latents: Sets the guide's latent values in place of draws.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        data_plate: str = "data",
        latents: LatentRule | None = None,
    ) -> None:
        self.model, self.guide = model, guide
        self.args, self.kwargs = args, dict(kwargs or {})
        self.data_plate, self.latents = data_plate, latents

    @property
    def validates(self) -> bool:
        """Whether Pyro's validation is on."""
        return bool(is_validation_enabled())

    @staticmethod
    def log_gamma(value: Any) -> Any:
        """Log-gamma function; of a number in float64, and no operation of a captured step."""
        return torch.lgamma(value) if isinstance(value, torch.Tensor) else scipy.special.gammaln(value)

    digamma = staticmethod(torch.digamma)
    constant = staticmethod(detached)

    def run(self, *, indices_of: Traces | None = None) -> Traces:
        """Run the guide, then the model on its values; see ``objective.Program.run``."""
        indices = {} if indices_of is None else _values(indices_of.raw, subsample_only=True)
        guide_trace = self._trace(self.guide, indices, self.latents)
        model_trace = self._trace(self.model, _values(guide_trace))
        traces = Traces(self._sites(guide_trace), self._sites(model_trace), raw=guide_trace)
        if is_validation_enabled():
            traces.check()
        return traces

    def replay_guide(self, traces: Traces) -> Mapping[str, Site]:
        """Run the guide on the values of other traces; see ``objective.Program.replay_guide``."""
        return self._sites(self._trace(self.guide, _values(traces.raw)))

    def generate(self, given: Mapping[str, Any] | None = None) -> Mapping[str, Site]:
        """Run the model with its observed sites drawn, not given; see ``objective.Program.generate``."""
        return self._sites(self._trace(poutine.uncondition(self.model), {}, given_latents(given or {})))

    def draw(self, site: Site) -> torch.Tensor:
        """A fresh draw from a site's distribution; see ``objective.Program.draw``."""
        return site.fn.expand(site.element_shape).sample()

    def on(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, latents: LatentRule | None = None
    ) -> "PyroProgram":
        """The same programs on other arguments; see ``objective.Program.on``."""
        rule = latents or self.latents
        return PyroProgram(self.model, self.guide, args, kwargs, data_plate=self.data_plate, latents=rule)

    def transformed(self, transform: Transform | CallTransform) -> "PyroProgram":
        """The same programs on transformed arguments."""
        return self.on(*call_pyro(transform, self.args, self.kwargs))

    def kl(self, q: Site, p: Site) -> torch.Tensor | None:
        """KL divergence per element where the pair has a closed form, otherwise None."""
        if isinstance(q.fn, Normal) and isinstance(p.fn, Normal):
            return gaussian_kl(q.fn.loc, q.fn.scale, p.fn.loc, p.fn.scale)
        try:
            return torch.distributions.kl_divergence(q.fn, p.fn)
        except NotImplementedError:
            return None

    def learned_spreads(self, traces: Traces) -> frozenset[str]:
        """Latent sites of a run with gradients whose spread has one; see ``objective.Program.learned_spreads``."""
        pairs = {name: (q, traces.model[name]) for name, q in traces.guide.items()}
        return frozenset(name for name, pair in pairs.items() if any(map(_has_learned_spread, pair)))

    def largest_gradient(self, traces: Traces, function: Callable[[Mapping[str, Site]], torch.Tensor]) -> Any:
        """Largest derivative by a parameter past the latents; see ``objective.Program.largest_gradient``."""
        value = function(traces.model)
        leaves = list(_leaves(value, {site.value.grad_fn for site in traces.guide.values()}).values())
        if not leaves:
            return 0.0
        found = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.stack([gradient.abs().max() for gradient in found]).max()

    def map(
        self, evaluate: Callable[[Program], Mapping[str, torch.Tensor]], num: int
    ) -> Mapping[str, torch.Tensor]:
        """Independent evaluations, one after the other; see ``objective.Program.map``."""
        found = [evaluate(self) for _ in range(num)]
        return {name: torch.stack([values[name] for values in found]) for name in found[0]}

    def average(self, evaluate: Callable[[Program], Terms], num_particles: int) -> Terms:
        """Mean of the terms over independent evaluations, one after the other."""
        first, *others = [evaluate(self) for _ in range(num_particles)]
        return first.combine(lambda *values: sum(values) / num_particles, *others)

    def _trace(
        self, program: Callable[..., Any], values: Mapping[str, Any], latents: LatentRule | None = None
    ) -> Nodes:
        recorder = _Recorder(values, latents)
        try:
            with recorder:
                program(*self.args, **self.kwargs)
        except (ValueError, RuntimeError) as error:
            error.add_note(_format_shapes(recorder.nodes))
            raise
        return recorder.nodes

    def _sites(self, nodes: Nodes) -> dict[str, Site]:
        return {
            name: _site(name, node, self.data_plate)
            for name, node in nodes.items()
            if not isinstance(node["fn"], _Subsample) and not (node["infer"] or {}).get("_deterministic")
        }


class _Recorder(Messenger):
    """Pyro's trace and replay handlers in one, and no graph: it takes a quarter of their time a site."""

    def __init__(self, values: Mapping[str, Any], latents: LatentRule | None) -> None:
        super().__init__()
        self.values, self.latents = values, latents
        self.nodes: Nodes = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            return
        value = self.values.get(msg["name"])
        if value is None and self.latents is not None and not isinstance(msg["fn"], _Subsample):
            value = self.latents(msg["name"], msg["fn"])
        if value is not None:
            msg["value"], msg["done"] = value, True

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if msg["infer"] and msg["infer"].get("_do_not_trace"):
            return
        if name in self.nodes:
            raise RuntimeError(f"Multiple sample sites named '{name}'")  # as Pyro's own trace says it
        self.nodes[name] = msg.copy()


def _format_shapes(nodes: Nodes) -> str:
    trace = poutine.Trace()
    for name, node in nodes.items():
        trace.add_node(name, **node)
    return trace.format_shapes()


def _values(nodes: Nodes, *, subsample_only: bool = False) -> dict[str, Any]:
    return {
        name: node["value"]
        for name, node in nodes.items()
        if not subsample_only or isinstance(node["fn"], _Subsample)
    }


def core_distribution(fn: Any) -> tuple[Any, int, list[Any]]:
    """Take the wrappers off a distribution.

    Args:
        fn: A Pyro distribution.

    Returns:
        The core distribution, how many of its batch axes are event axes, and the masks met, each with
        trailing axes of length one so that it broadcasts to the elements.
    """
    event_dim, masks = 0, []
    while True:
        if isinstance(fn, Independent):
            event_dim += fn.reinterpreted_batch_ndims
            fn = fn.base_dist
        elif isinstance(fn, MaskedDistribution):
            masks.append((fn._mask, event_dim))
            fn = fn.base_dist
        elif isinstance(fn, ExpandedDistribution):
            fn = fn.base_dist
        else:
            # A mask has the event axes that wrappers outside it declare; those inside it are still to come.
            return fn, event_dim, [_mask_of_elements(mask, event_dim - outside) for mask, outside in masks]


def _mask_of_elements(mask: Any, event_dim: int) -> torch.Tensor:
    mask = torch.as_tensor(mask, dtype=torch.bool)
    return mask.reshape(mask.shape + (1,) * event_dim)


def _site(name: str, node: Mapping[str, Any], data_plate: str) -> Site:
    fn, event_dim, masks = core_distribution(node["fn"])
    if node["mask"] is not None:
        masks.append(_mask_of_elements(node["mask"], event_dim))
    plate_scale, num_data, enclosing = 1.0, None, 1
    for frame in node["cond_indep_stack"]:  # outermost first
        size = frame.size if frame.full_size is None else frame.full_size
        enclosing *= size
        if frame.size != size:
            plate_scale *= size / frame.size
        if frame.name == data_plate:
            num_data = enclosing  # a group of data in each plate around the data plate
    shape = (*node["fn"].batch_shape, *node["fn"].event_shape)
    return Site(
        name=name,
        fn=fn,
        value=node["value"],
        element_shape=shape[: len(shape) - len(fn.event_shape)],
        event_dim=event_dim,
        plate_scale=plate_scale,
        beta=node["scale"] if plate_scale == 1.0 else node["scale"] / plate_scale,
        mask=reduce(torch.logical_and, masks) if masks else None,
        is_observed=node["is_observed"],
        num_data=num_data,
    )


def _has_learned_spread(site: Site) -> bool:
    # A family without a spread counts as learned: what its density depends on stands for one.
    spread = site.log_prob() if site.spread is None else site.spread
    return isinstance(spread, torch.Tensor) and spread.requires_grad


def never_trained(loss: torch.Tensor, parameters: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the parameters that a loss does not depend on.

    Args:
        loss: A scalar with its graph.
        parameters: The module's parameters by name.

    Raises:
        InputError: The loss depends on parameters that are not the module's, which no step would train.
    """
    reached = _leaves(loss)
    foreign = reached.keys() - {id(parameter) for parameter in parameters.values()}
    if foreign:
        shapes = ", ".join(sorted(str(tuple(reached[key].shape)) for key in foreign))
        raise InputError(
            f"parameters must belong to the model's module, but the loss depends on others, of shapes {shapes}, "
            "which would never be trained; assign their network to an attribute of the module, several as "
            "nn.ModuleList"
        )
    return [name for name, parameter in parameters.items() if id(parameter) not in reached]


def _leaves(value: Any, stops: Iterable[Any] = ()) -> dict[int, torch.Tensor]:
    """Tensors whose gradients the graph of a value leads to other than through some nodes, by id."""
    leaves, seen, open_nodes = {}, set(stops), [getattr(value, "grad_fn", None)]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves[id(node.variable)] = node.variable
        open_nodes += [following for following, _ in node.next_functions]
    return leaves


class PyroLoss(pyro.infer.ELBO):
    """An objective as a Pyro loss: works with ``pyro.infer.SVI`` and any model and guide.

    Unlike Pyro's own losses it is per datum, not summed over data.

    Args:
        objective: What is computed from the traces.
        data_plate: Name of the plate over data; a program without it counts as one datum.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> from ppl_vae.objective.elbo import ELBO
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> round(PyroLoss(ELBO()).terms(model, guide, torch.zeros(1)).rates["z"].item(), 4)
        0.0966
    """

    def __init__(self, objective: Objective, *, data_plate: str = "data") -> None:
        super().__init__(num_particles=objective.num_particles)
        self.objective = objective
        self.data_plate = data_plate

    def terms(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Terms:
        """Terms in nats per datum, scalars with gradients.

        Args:
            model: Generative program.
            guide: Variational program.
            args: Positional arguments of both.
            kwargs: Keyword arguments of both.
        """
        return self.objective.measure(PyroProgram(model, guide, args, kwargs, data_plate=self.data_plate))

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Loss per datum, a scalar with gradients; arguments as in ``terms``."""
        return self.terms(model, guide, *args, **kwargs).loss

    @torch.no_grad()
    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Loss per datum as a number; arguments as in ``terms``."""
        return float(torch_item(self.differentiable_loss(model, guide, *args, **kwargs)))

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Loss per datum; adds its gradients to the parameters. Arguments as in ``terms``."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return float(torch_item(loss))

    def _get_trace(self, *args: Any) -> Any:
        # Pyro's base class asks for it; its callers are replaced by the methods above.
        raise TypeError("PyroLoss reads traces through PyroProgram.run")
