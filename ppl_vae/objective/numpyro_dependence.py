"""What depends on the params of a NumPyro program, read off its operations without running them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.extend

from ppl_vae.nets.bridge import flatten_params

__all__ = ["depends", "never_trained"]


def depends(function: Callable[[Any], Any], params: Mapping[str, Any]) -> Any:
    """Whether each array that a function returns depends on the params.

    Args:
        function: Maps params to a pytree of arrays.
        params: Value of each param site by name.

    Returns:
        The pytree with booleans in place of the arrays.
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(params)
    reached = set(program.jaxpr.invars)
    for step in program.jaxpr.eqns:
        inputs = (v for v in step.invars if isinstance(v, jax.extend.core.Var))
        if step.primitive.name != "stop_gradient" and not reached.isdisjoint(inputs):
            reached.update(step.outvars)
    outputs = [isinstance(v, jax.extend.core.Var) and v in reached for v in program.jaxpr.outvars]
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def never_trained(loss: Callable[[Any], jax.Array], params: Mapping[str, Any]) -> list[str]:
    """Dotted names of the parameters that a loss does not depend on, found without running it.

    Args:
        loss: Maps params to a scalar.
        params: Value of each param site by name.
    """
    program = jax.make_jaxpr(loss)(params).jaxpr
    needed = {v for v in program.outvars if isinstance(v, jax.extend.core.Var)}
    for step in reversed(program.eqns):
        if step.primitive.name != "stop_gradient" and not needed.isdisjoint(step.outvars):
            needed.update(v for v in step.invars if isinstance(v, jax.extend.core.Var))
    unused = jax.tree.unflatten(jax.tree.structure(params), [v not in needed for v in program.invars])
    return [name for name, is_unused in flatten_params(unused).items() if is_unused]
