"""Last steps, which bring transformed grey values in [0, 1] back to what a likelihood has a density for."""

from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

from ppl_vae.data import BINARISE_MODES
from ppl_vae.data.checks import check_choice
from ppl_vae.transforms._random import Random
from ppl_vae.transforms.step import Kind, Parameters

__all__ = ["Binarise", "Levels"]


@dataclass(frozen=True)
class Binarise:
    """Zeros and ones from grey values, as ``ppl_vae.data.binarise`` makes them.

    Args:
        how: ``threshold`` is 1 where x > 0.5; ``sample`` is 1 with probability x.

    Parameters:
        ``threshold``, (n, *data_shape): the value above which a pixel becomes 1.

    Raises:
        InputError: Another word.
    """

    kind: ClassVar[Kind | None] = None
    how: str = "threshold"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice(self.how, BINARISE_MODES, "how")

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Parameters of each datum; see the class."""
        uniform = random.uniform(shape)
        return {"threshold": uniform if self.how == "sample" else array_namespace(uniform).full_like(uniform, 0.5)}

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Zeros and ones, of the shape and dtype of ``x``."""
        return array_namespace(x).astype(x > parameters["threshold"], x.dtype)


@dataclass(frozen=True)
class Levels:
    """The nearest of the 256 grey levels k / 255."""

    kind: ClassVar[Kind | None] = None

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Nothing is random."""
        return {}

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Grey levels, of the shape of ``x``."""
        return array_namespace(x).round(255 * x) / 255
