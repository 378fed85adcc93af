"""The option ``entropy`` of a loss: off, a number of nats, or an estimator that finds it from training data."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_vae.data import condition_of
from ppl_vae.errors import InputError
from ppl_vae.theory.entropy import METHODS, differential_entropy

__all__ = ["entropy_in_nats", "resolve_options"]


def entropy_in_nats(entropy: str | float) -> float:
    """The number that the option stands for.

    Args:
        entropy: "off", a number, or text that reads as one.

    Returns:
        Nats, 0 for "off".

    Raises:
        InputError: It is the name of an estimator, which needs data, or anything else.

    Example:
        >>> entropy_in_nats("off"), entropy_in_nats("2.15")
        (0.0, 2.15)
    """
    if entropy == "off":
        return 0.0
    if isinstance(entropy, bool):
        entropy = str(entropy)
    if entropy in METHODS:
        raise InputError(
            f"entropy must be a number of nats where there are no data to estimate it, but it is {entropy!r}; "
            f"pass ppl_vae.theory.entropy.differential_entropy(x, method={entropy!r}).value, with x (n, d)"
        )
    try:
        return float(entropy)
    except (TypeError, ValueError):
        raise InputError(
            f"entropy must be off, a number of nats, {' or '.join(METHODS)}, but it is {entropy!r}; choose one"
        ) from None


def resolve_options(options: Mapping[str, Any], x: Any) -> tuple[dict[str, Any], list[str]]:
    """Options of a loss with the entropy as a number, and what there is to say of it.

    Args:
        options: Options of ``build_loss`` by name.
        x: Training data, (n, *data_shape).

    Returns:
        The options, in which an estimator's name and any number are a number as text; and a note on the estimate.

    Raises:
        InputError: The data have no such estimate, or are conditioned, where the entropy that counts is another.
    """
    entropy = options.get("entropy", "off")
    if isinstance(entropy, int | float | np.number) and not isinstance(entropy, bool):
        return {**options, "entropy": str(float(entropy))}, []
    if entropy not in METHODS:
        return dict(options), []
    if condition_of(x) is not None:
        raise InputError(
            f"entropy must be off or a number for data with conditions, but it is {entropy!r}, which "
            "estimates that of the data without them; estimate it given the condition, and pass the number"
        )
    data = np.asarray(x)
    found = differential_entropy(data.reshape(len(data), -1), method=entropy)
    # Six digits are beyond any error, and alike on every machine.
    nats = f"{found.value:.6g}"
    note = (
        f"entropy of the data: {nats} nats, standard error {found.error:.2g}, estimated from {found.num_data} "
        f"training data by {entropy}"
    )
    return {**options, "entropy": nats}, [note]
