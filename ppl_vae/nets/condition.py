"""How networks see data beside their condition: shapes, and the joining of arrays, the same for both backends."""

from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

from array_api_compat import array_namespace

from ppl_vae.errors import InputError
from ppl_vae.nets.sizes import Net, conv_layers, image_shape

__all__ = ["Condition", "Shape", "given"]

Shape = tuple[int, ...]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Condition:
    """The condition c of data x, as networks see both.

    An MLP sees x, then c, as one vector. Convolutions see the channels of c behind those of x where c is an image
    of the same height and width, and otherwise each number of c as a channel of its own, the same for all pixels.

    Args:
        data_shape: Shape of one datum.
        shape: Shape of its condition.
        net: What x and c are joined for.
        log_input: Whether networks see log(1 + x) in place of x; c stays as it is.

    Raises:
        InputError: The data are no images that "conv" can halve.
    """

    data_shape: Shape
    shape: Shape
    net: Net = "mlp"
    log_input: bool = False

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.net == "conv":
            conv_layers(self.data_shape, 1)  # raises

    @property
    def size(self) -> int:
        """How many numbers a condition has."""
        return prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether its channels join those of the data."""
        return self.net == "conv" and len(self.shape) in (2, 3) and self.shape[:2] == self.data_shape[:2]

    @property
    def own_net(self) -> Net:
        """The kind of network that can read c alone."""
        return "conv" if self.is_image else "mlp"

    @property
    def joined_shape(self) -> Shape:
        """Shape of one datum and its condition, joined."""
        if self.net == "mlp":
            return (prod(self.data_shape) + self.size,)
        h, w, channels = image_shape(self.data_shape)
        return h, w, channels + (image_shape(self.shape)[2] if self.is_image else self.size)

    def join(self, x: Any, c: Any) -> Any:
        """Data and conditions as the encoder sees them.

        Args:
            x: Data, (..., *data_shape).
            c: Conditions, (..., *shape).

        Returns:
            An array of the backend, (..., *joined_shape).
        """
        xp = array_namespace(x, c)
        batch = x.shape[: x.ndim - len(self.data_shape)]
        seen = xp.log1p(x) if self.log_input else x
        if self.net == "mlp":
            return xp.concat([xp.reshape(seen, (*batch, -1)), xp.reshape(c, (*batch, -1))], axis=-1)
        h, w, _ = image_shape(self.data_shape)
        image = xp.reshape(seen, (*batch, *image_shape(self.data_shape)))
        if self.is_image:
            channels = xp.reshape(c, (*batch, *image_shape(self.shape)))
        else:
            channels = xp.broadcast_to(xp.reshape(c, (*batch, 1, 1, -1)), (*batch, h, w, self.size))
        return xp.concat([image, channels], axis=-1)

    def beside(self, z: Any, c: Any) -> Any:
        """Latents and conditions as the decoder sees them.

        Args:
            z: Latents, (..., n, k); axes of particles may stand in front.
            c: Conditions, (n, *shape).

        Returns:
            An array of the backend, (..., n, k + size).
        """
        xp = array_namespace(z, c)
        flat = xp.reshape(c, (len(c), -1))
        return xp.concat([z, xp.broadcast_to(flat, (*z.shape[:-1], self.size))], axis=-1)


def given(name: str, value: Value | None) -> Value:
    """What a conditional variant cannot do without.

    Args:
        name: Name of the argument, for the message.
        value: Conditions, or the shape of one.

    Raises:
        InputError: It is None.
    """
    if value is None:
        raise InputError(
            f"{name} must be given for a conditional variant, but it is None; pass condition_shape, such as "
            "(10,), to build, and conditions of that shape behind x to model and guide"
        )
    return value
