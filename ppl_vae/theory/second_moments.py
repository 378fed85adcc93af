"""Second moments of data, all that a linear model sees of them: in memory or by blocks, about the mean or about 0.

Data have n rows and are flattened, ``d`` numbers a datum; a condition has ``p``. Moments are means over data, with
divisor n, in squared units of the data, float64. Eigenvalues come largest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import Rows, row_blocks
from ppl_vae.data.checks import as_array, as_real
from ppl_vae.errors import InputError

__all__ = ["ConditionalMoments", "Moments", "Spectrum", "conditional_moments", "second_moments"]

Array = NDArray[np.float64]

# Eigenvalues below this share of the largest count as 0: float32 data that depend on each other leave some 1e-14.
CUTOFF = 1e-10

# Directions of the condition for each datum from which on the shrinkage of the residual is worth a warning.
OPTIMISM = 0.05

# Data that a point near the mean is found from.
FEW = 1000


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigen-decomposition of a symmetric positive semi-definite matrix.

    Attributes:
        values: Eigenvalues, (d,), largest first, 0 where they are below the cut-off.
        vectors: Eigenvectors in columns, (d, d).
        rank: How many eigenvalues are above the cut-off.
    """

    values: Array
    vectors: Array
    rank: int

    @classmethod
    def of(cls, matrix: Array, *, largest: float | None = None) -> "Spectrum":
        """Decompose a matrix.

        Args:
            matrix: Symmetric, (d, d).
            largest: What the cut-off is relative to, by default the largest eigenvalue.
        """
        values, vectors = np.linalg.eigh(matrix)
        values, vectors = values[::-1], vectors[:, ::-1]
        rank = int((values > CUTOFF * (values[0] if largest is None else largest)).sum())
        return cls(np.where(np.arange(len(values)) < rank, values, 0.0), vectors, rank)

    def pseudo_inverse(self) -> Array:
        """The inverse on the directions above the cut-off, 0 on the others, (d, d)."""
        kept = self.vectors[:, : self.rank]
        return kept / self.values[: self.rank] @ kept.T


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of data, and which second moment a model sees.

    A linear model with biases sees the covariance, one without them the moment about 0.

    Attributes:
        mean: (d,).
        covariance: (d, d).
        centred: Whether the model has biases.
        num_data: Number of data, None for a population.
    """

    mean: Array
    covariance: Array
    centred: bool = True
    num_data: int | None = None

    @classmethod
    def of(cls, covariance: ArrayLike, mean: ArrayLike = 0.0, *, centred: bool = True) -> "Moments":
        """Moments of a population.

        Args:
            covariance: (d, d), symmetric and positive semi-definite.
            mean: (d,), or one number for all.
            centred: Whether the model has biases.

        Raises:
            InputError: Shapes that do not fit, or a matrix that is no covariance.
        """
        s = np.asarray(as_real(covariance, "covariance"), np.float64)
        slack = 1e-10 * np.abs(s).max(initial=0.0)
        if (
            s.ndim != 2
            or s.shape[0] != s.shape[1]
            or np.abs(s - s.T).max(initial=0.0) > slack
            or np.linalg.eigvalsh(s).min(initial=0.0) < -slack
        ):
            raise InputError(
                "covariance must be symmetric and positive semi-definite, (d, d), but it is "
                f"{np.array2string(s, precision=4, threshold=20)}; pass data to second_moments instead"
            )
        m = np.asarray(as_real(mean, "mean"), np.float64)
        if m.shape not in ((), (len(s),)):
            raise InputError(
                f"mean must have shape ({len(s)},), but it has {m.shape}; pass one number a dimension"
            )
        return cls(np.broadcast_to(m, len(s)).copy(), (s + s.T) / 2, centred)

    @cached_property
    def second(self) -> Array:
        """What the model sees, (d, d): the covariance, or the moment about 0 where it has no biases."""
        return self.covariance if self.centred else self.covariance + np.outer(self.mean, self.mean)

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigen-decomposition of ``second``."""
        return Spectrum.of(self.second)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth knowing before these moments are used."""
        return _rank_warning("x", self.spectrum)


@dataclass(frozen=True, eq=False)
class ConditionalMoments:
    """Moments of a condition c and a target x, and what is left of x beside its best linear prediction from c.

    Attributes:
        joint: Moments of (c, x), the condition first, p + d numbers.
        condition_dim: p.
    """

    joint: Moments
    condition_dim: int

    def __post_init__(self) -> None:  # noqa: D105
        if not 0 < self.condition_dim < len(self.joint.mean):
            raise InputError(
                f"condition_dim must be between 1 and {len(self.joint.mean) - 1}, for condition and target share "
                f"{len(self.joint.mean)} numbers, but it is {self.condition_dim}; leave some to each"
            )

    @cached_property
    def condition(self) -> Spectrum:
        """Eigen-decomposition of the condition's second moment."""
        return Spectrum.of(self.joint.second[: self.condition_dim, : self.condition_dim])

    @cached_property
    def regression(self) -> Array:
        """Best linear prediction of x from c, (d, p); about the means where the moments are centred."""
        p = self.condition_dim
        return self.joint.second[p:, :p] @ self.condition.pseudo_inverse()

    @cached_property
    def residual(self) -> Spectrum:
        """Eigen-decomposition of E, the second moment of what the prediction leaves; the cut-off is that of x."""
        p = self.condition_dim
        # The quadratic form, not a difference: what rounding does to the prediction counts in second order only.
        left = np.hstack([-self.regression, np.eye(len(self.joint.mean) - p)])
        moment = left @ self.joint.second @ left.T
        largest = float(np.linalg.norm(self.joint.second[p:, p:], 2))
        return Spectrum.of((moment + moment.T) / 2, largest=largest)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth knowing before these moments are used."""
        found = [*_rank_warning("c", self.condition), *_rank_warning("the residual of x", self.residual)]
        share = self.condition.rank / (self.joint.num_data or np.inf)
        if share > OPTIMISM:
            found.append(
                f"c has {self.condition.rank} directions for {self.joint.num_data} data: the residual is too "
                f"small by about {share:.0%} in the mean; take more data, or a smaller condition"
            )
        return tuple(found)


def second_moments(x: Rows | ArrayLike, *, centre: bool = True) -> Moments:
    """Moments of data.

    Args:
        x: Data, (n, *data_shape): an array, or rows that are read by blocks.
        centre: Whether the model has biases, so that the covariance counts; otherwise the moment about 0.

    Raises:
        InputError: Data that are not finite real numbers, or too few of them.

    Example:
        >>> second_moments([[1.0, 0.0], [3.0, 0.0]], centre=False).second.tolist()
        [[5.0, 0.0], [0.0, 0.0]]
    """
    return _moments({"x": x}, centre)[0]


def conditional_moments(
    condition: Rows | ArrayLike, target: Rows | ArrayLike, *, centre: bool = True
) -> ConditionalMoments:
    """Moments of a condition and a target.

    Args:
        condition: c, (n, *condition_shape), as ``x`` in ``second_moments``.
        target: x, (n, *data_shape).
        centre: As there.

    Raises:
        InputError: As there, other numbers of rows, or a condition with as many directions as there are data, of
            which every target is a linear function.
    """
    joint, sizes = _moments({"condition": condition, "target": target}, centre)
    found = ConditionalMoments(joint, sizes[0])
    directions = found.condition.rank + int(centre)
    if joint.num_data is not None and joint.num_data <= directions:
        raise InputError(
            f"condition must have fewer directions than there are data, but it has {directions} (the mean among "
            f"them, where it is centred) for {joint.num_data}, which any target fits; take more data"
        )
    return found


def _moments(named: dict[str, Rows | ArrayLike], centre: bool) -> tuple[Moments, list[int]]:
    """Moments of data that lie beside each other, and the size of each."""
    parts = {name: _as_rows(values, name) for name, values in named.items()}
    lengths = {name: len(rows) for name, rows in parts.items()}
    num_data = next(iter(lengths.values()))
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"condition and target must have a row for each datum, but they have {lengths}; pass them in "
            "the same order"
        )
    if num_data < 1 + centre:
        raise InputError(
            f"{' and '.join(named)} must hold {1 + centre} data or more, but there is {num_data}; pass more"
        )
    sizes = [int(np.prod(rows.shape[1:])) for rows in parts.values()]
    total, gram = np.zeros(sum(sizes)), np.zeros((sum(sizes), sum(sizes)))
    # About a point near the mean: where the mean is large, a difference of squares would lose the digits.
    shift = _block(parts, slice(0, min(num_data, FEW))).mean(axis=0)
    for block in row_blocks(num_data, (sum(sizes),)):
        values = _block(parts, block)
        values -= shift
        total += values.sum(axis=0)
        gram += values.T @ values
    total /= num_data
    covariance = gram / num_data - np.outer(total, total)
    return Moments(total + shift, covariance, centre, num_data), sizes


def _as_rows(values: Any, name: str) -> Rows:
    rows = values if hasattr(values, "shape") else as_array(values, name)
    if len(rows.shape) < 2 or 0 in rows.shape[1:]:
        raise InputError(
            f"{name} must have shape (n, *shape) with a row for each datum, but its shape is "
            f"{tuple(rows.shape)}; reshape one number a datum to (n, 1)"
        )
    return rows


def _block(parts: dict[str, Rows], block: slice) -> Array:
    """A block of all parts beside each other, float64, in memory of its own."""
    checked: Sequence[NDArray[Any]] = [
        as_real(rows[block], name, first_row=block.start) for name, rows in parts.items()
    ]
    return np.concatenate([v.reshape(len(v), -1) for v in checked], axis=1, dtype=np.float64)


def _rank_warning(name: str, spectrum: Spectrum) -> tuple[str, ...]:
    if spectrum.rank == len(spectrum.values):
        return ()
    return (
        f"{name} has rank {spectrum.rank} of {len(spectrum.values)}: eigenvalues below {CUTOFF:g} of the largest "
        "count as 0",
    )
