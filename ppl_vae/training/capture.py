"""Turns a loss with its gradients into a flat list of tensor operations that is replayed step by step.

Effect handlers and automatic differentiation run once, at the capture; a replay only repeats the tensor
operations they led to. Python control flow that depends on values is thereby frozen, so a capture is
checked against an eager run on other data, and refused when the two differ.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["Step", "capture", "forked"]

# From parameters, a batch and betas to terms (loss first) and gradients.
Step = Callable[[list[Tensor], list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]


def capture(step: Step, parameters: list[Tensor], batches: list[list[Tensor]], betas: list[Tensor]) -> Step:
    """Record the tensor operations of a step.

    Args:
        step: What is recorded; its random numbers come from torch's global generator.
        parameters: Example parameters.
        batches: Two batches of the shape to replay, data and conditions; the second is for the check.
        betas: Example betas, scalars.

    Returns:
        A step with the same results for batches of this shape; bit for bit on the CPU.

    Raises:
        RuntimeError: The operations cannot be recorded, or the replay differs from the step.
    """
    device = parameters[0].device
    with forked(device):
        try:
            graph = make_fx(step)(parameters, batches[0], betas)
        except Exception as error:  # whatever a user's program does that cannot be recorded
            raise RuntimeError(f"the program cannot be captured: {type(error).__name__}: {error}") from error
    _remove_detach(graph)
    replayed, eager = (_with_same_noise(device, s, parameters, batches[1], betas) for s in (graph, step))
    # On a GPU sums run in varying order, so that a step does not repeat itself to the bit.
    tolerance = 0.0 if device.type == "cpu" else 1e-4
    same = (
        torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        for a, b in zip(replayed, eager, strict=True)
    )
    if not all(same):
        raise RuntimeError("its captured step differs from it on another batch: its control flow varies")
    return graph


def _remove_detach(graph: torch.fx.GraphModule) -> None:
    # Recorded by automatic differentiation for its own bookkeeping; a replay has no gradients to cut.
    for node in list(graph.graph.nodes):
        if node.target in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


@contextmanager
def forked(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Leave the global generators as they were when the block ends.

    Only those of the CPU and of one device are touched: torch's own functions reach for every GPU there is.

    Args:
        device: Device of the programs that run in the block.
        seed: Seed to begin with; None continues the stream.
    """
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            for gpu in gpus:
                with torch.cuda.device(gpu):
                    torch.cuda.manual_seed(seed)
        yield


def _with_same_noise(device: torch.device, step: Step, *arguments: Any) -> list[Tensor]:
    with forked(device, seed=0):
        terms, gradients = step(*arguments)
        return [*terms, *gradients]
