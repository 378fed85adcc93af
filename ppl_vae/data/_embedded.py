"""Data sets that need no file: those of an installed library, and generated ones."""

from collections.abc import Callable

from ppl_vae.data._dataset import Raw
from ppl_vae.data.generators import GENERATORS

__all__ = ["EMBEDDED", "embedded_names"]


def _digits() -> Raw:
    """Handwritten digits, 8 x 8, of scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Grey levels run from 0 to 16.
    return Raw(bunch.images / 16.0, bunch.target)


EMBEDDED: dict[str, Callable[[], Raw]] = {"digits": _digits, **GENERATORS}


def embedded_names() -> tuple[str, ...]:
    """Names that ``load`` knows without a file.

    Example:
        >>> embedded_names()[0]
        'digits'
    """
    return tuple(EMBEDDED)
