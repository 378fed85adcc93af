"""Data sets that come with an installed library: one function and one registry entry each."""

from collections.abc import Callable

from ppl_vae.data._dataset import Raw

__all__ = ["EMBEDDED", "embedded_names"]


def _digits() -> Raw:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Grey levels run from 0 to 16.
    return Raw(bunch.images / 16.0, bunch.target)


EMBEDDED: dict[str, Callable[[], Raw]] = {"digits": _digits}


def embedded_names() -> tuple[str, ...]:
    """Names that ``load`` knows without a file.

    Example:
        >>> embedded_names()
        ('digits',)
    """
    return tuple(EMBEDDED)
