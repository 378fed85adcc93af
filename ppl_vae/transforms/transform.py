"""Transformations of data: steps one after the other, in Pyro or NumPyro, each datum with draws of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace, is_torch_array
from numpy.typing import ArrayLike

from ppl_vae.data.checks import as_real
from ppl_vae.errors import InputError
from ppl_vae.transforms._random import JaxRandom, Random, TorchRandom
from ppl_vae.transforms.step import Parameters, Step, data_kind

__all__ = ["Transform"]

_FITS = {"images": "images, (h, w) or (h, w, c) with 1 to 4 channels", "clouds": "point clouds, (p, 3)"}


@dataclass(frozen=True)
class Transform:
    """Steps that change data but not what they are data of.

    No Python loop runs over the data and no control flow looks at values, so that both calls can be captured,
    compiled and scanned.

    Args:
        name: For messages, titles and records.
        data_shape: Shape of one datum: (h, w) or (h, w, c) for images, (p, 3) for point clouds.
        steps: What happens, first to last; none for the identity.
        notes: What a user should know of it.

    Raises:
        InputError: A step is for other data.

    Example:
        >>> import torch
        >>> from ppl_vae.transforms import Affine, Transform
        >>> Transform("turned", (8, 8), (Affine(degrees=15),)).pyro(torch.rand(5, 8, 8)).shape
        torch.Size([5, 8, 8])
    """

    name: str
    data_shape: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the steps are for such data."""
        kind = data_kind(self.data_shape)
        for step in self.steps:
            if step.kind not in (None, kind):
                raise InputError(
                    f"data_shape must be that of {_FITS[step.kind]}, for the transformation {self.name}, but it "
                    f"is {self.data_shape}; choose a transformation of such data, or write one as a function"
                )

    def pyro(self, x: Any) -> Any:
        """Transformed data; random numbers come from torch's global generator.

        Args:
            x: Data, a floating tensor (n, *data_shape); images lie in [0, 1], see ``check``.

        Returns:
            A tensor of the same shape and dtype, on the same device.

        Raises:
            InputError: Another type or shape, or a step changes the shape.
        """
        if not is_torch_array(x):
            raise InputError(
                f"x must be a torch tensor, but it is of type {type(x).__name__}; use torch.as_tensor(x)"
            )
        self._check_array(x)
        return self.apply(x, self.draw(TorchRandom(x), x.shape))

    def numpyro(self, rng_key: Any, x: Any) -> Any:
        """Transformed data, with the same result for the same key.

        Args:
            rng_key: A JAX key, used nowhere else.
            x: Data, a floating array (n, *data_shape); images lie in [0, 1], see ``check``.

        Returns:
            A JAX array of the same shape and dtype.

        Raises:
            InputError: Another dtype or shape, or a step changes the shape.
        """
        import jax.numpy as jnp

        x = jnp.asarray(x)
        self._check_array(x)
        return self.apply(x, self.draw(JaxRandom(rng_key, x), x.shape))

    def draw(self, random: Random, shape: Sequence[int]) -> list[Parameters]:
        """Parameters of every step, for ``apply``.

        Args:
            random: ``TorchRandom`` or ``JaxRandom``.
            shape: Shape of the data, (n, *data_shape).
        """
        return [step.draw(random, tuple(shape)) for step in self.steps]

    def apply(self, x: Any, parameters: Sequence[Parameters]) -> Any:
        """Transformed data; equal parameters give equal results in both backends, but for rounding.

        Args:
            x: Data, (n, *data_shape), a torch or JAX array.
            parameters: For each step its arrays by name, of the backend of ``x``.

        Raises:
            InputError: A step changes the shape or the type.
        """
        transformed = x
        for step, drawn in zip(self.steps, parameters, strict=True):
            transformed = step.apply(transformed, drawn)
            if (transformed.shape, transformed.dtype) != (x.shape, x.dtype):
                raise InputError(
                    f"a transformation must keep shape and dtype, but {type(step).__name__} of {self.name} makes "
                    f"{tuple(transformed.shape)}, {transformed.dtype} of {tuple(x.shape)}, {x.dtype}; return data "
                    "of the shape that it takes"
                )
        return transformed

    def check(self, x: ArrayLike) -> None:
        """Refuse data that the transformation cannot take, looking at their values.

        Args:
            x: Some or all of the data, (n, *data_shape).

        Raises:
            InputError: Another shape, an entry that is not finite, or images outside [0, 1].
        """
        values = as_real(x, "x")
        self._check_shape(values.shape)
        is_image = data_kind(self.data_shape) == "images"
        if is_image and values.size and not (values.min() >= 0 and values.max() <= 1):
            raise InputError(
                f"x must lie in [0, 1] for the transformation {self.name}, but it runs from {values.min():.6g} to "
                f"{values.max():.6g}; divide it by its maximum"
            )

    def _check_array(self, x: Any) -> None:
        self._check_shape(x.shape)
        if not array_namespace(x).isdtype(x.dtype, "real floating"):
            raise InputError(f"x must be of a floating dtype, but it is {x.dtype}; convert it to float32")

    def _check_shape(self, shape: Sequence[int]) -> None:
        if tuple(shape[1:]) != tuple(self.data_shape) or not len(shape):
            raise InputError(
                f"x must have shape {('n', *self.data_shape)} for the transformation {self.name}, but it has "
                f"{tuple(shape)}; give whole data with n rows"
            )
