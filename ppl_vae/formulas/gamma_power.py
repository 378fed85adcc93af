r"""The gamma-power loss of the t3VAE in one and two levels: constants of its regularisers, and their stable form.

Latents are drawn top first; the prior of the first is t with nu degrees of freedom, and every conditional is that
of one joint t with unit scales of the latents and scales sigma of the n coordinates of a datum. A guide's squared
scales are :math:`\Sigma / (1 + n' / \nu)`, with n' what it is given: n, and the latents above. With D = nu + n +
m - 2 of all latents m, the regulariser of a level is

.. math:: 2 R = |\mu - \mu_p|^2 + \kappa \, [\operatorname{tr} \Sigma / s - m_l - D \, \operatorname{expm1}(L /
   D)], \quad L = \log |\Sigma| - m_l \log s,

which is a trace less a power of a determinant, plus what makes it 0 at its least, :math:`\Sigma = s I`; nothing
large is subtracted. It tends to the KL divergence for large D.

Source:
    Kim et al., ICLR 2024, arXiv:2312.01133, and their code (Mincheol2/t3VAE on GitHub) for the two levels; the
    form, the least of the upper level and the factor exp(H) are derived here.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from ppl_vae.formulas.student_t import log_normaliser, log_power_norm

__all__ = [
    "Level",
    "dense_divergence",
    "dense_regulariser",
    "excess_and_power",
    "levels",
    "log_power_base",
    "log_ratio_at_least",
    "regulariser",
]

Function = Callable[[Any], Any]


class Level(NamedTuple):
    """Constants of one level's regulariser.

    Attributes:
        log_s: Log of s, where the regulariser is least; the squared scale of the alternative prior is
            s / (1 + n' / nu).
        kappa: Weight of the bracket; variance of the alternative prior where there is one level.
        total: D, the index of the determinant's power.
        constant: What the regulariser 2 R has beyond the trace less the determinant's power.
    """

    log_s: Any
    kappa: Any
    total: Any
    constant: Any


def log_power_base(df: Any, dim: int, log_det: Any, *, log_gamma: Function) -> Any:
    """Log of B: the height of t_n with nu degrees of freedom, over 1 + n / (nu - 2).

    Args:
        df: nu above 2, an array.
        dim: n, and for two levels the latents of the upper one too.
        log_det: Sum of the log scales of the coordinates.
        log_gamma: Log-gamma function of the backend.
    """
    xp = array_namespace(df)
    return log_normaliser(df, dim, log_gamma=log_gamma) - log_det - xp.log1p(dim / (df - 2.0))


def levels(
    df: Any, data_dim: int, latent_dims: Sequence[int], log_det: Any, entropy: float = 0.0, *, log_gamma: Function
) -> list[Level]:
    """Constants of each level, in the order in which the levels are drawn.

    Args:
        df: nu above 2, an array of shape ().
        data_dim: Coordinates n of a datum.
        latent_dims: Sizes of one or two levels, the top first.
        log_det: Sum of log sigma over the coordinates of a datum, ().
        entropy: Differential entropy H of the data in nats, which B is multiplied by exp of; 0 for the published
            loss.
        log_gamma: Log-gamma function of the backend.
    """
    above, last = sum(latent_dims[:-1]), latent_dims[-1]
    log_b = log_power_base(df, data_dim + above, log_det, log_gamma=log_gamma) + entropy
    total = df + (data_dim + above + last - 2.0)
    found = [_level(2.0 * log_b / (df + (data_dim + above - 2.0)), df, data_dim + above, last, total)]
    if above:
        ratio = log_ratio_at_least(df, data_dim, above, total)
        log_s = (total * ratio + 2.0 * log_b) / (df + (data_dim + last - 2.0))
        found.insert(0, _level(log_s, df, data_dim, above, total))
    return found


def log_ratio_at_least(df: Any, data_dim: int, top_dim: int, total: Any) -> Any:
    """What the weight 1 + gamma of the upper level's determinant adds to where its regulariser is least.

    Args:
        df: nu, an array.
        data_dim: n.
        top_dim: Size of the upper level.
        total: D.
    """
    xp = array_namespace(df)
    return -xp.log1p(top_dim / (df + (data_dim - 2.0))) - xp.log1p(2.0 / total)


def _level(log_s: Any, df: Any, given: int, dim: int, total: Any) -> Level:
    # The number of degrees of freedom may be NumPy's where the scale is an array of another library.
    kappa = array_namespace(log_s).exp(log_s - array_namespace(df).log1p((given - 2.0) / df))
    return Level(log_s, kappa, total, kappa * (total - dim))


def regulariser(squared_shift: Any, log_variances: Any, level: Level) -> Any:
    """The regulariser R of diagonal Sigma, half of what is above.

    Args:
        squared_shift: Squared distance of the guide's location from the prior's, (...).
        log_variances: Logs of the diagonal of Sigma, (..., m).
        level: Constants of the level.

    Returns:
        R in nats, 0 or more, (...).
    """
    excess, power, _ = excess_and_power(log_variances, level)
    return _half(squared_shift, excess, power, level)


def excess_and_power(log_variances: Any, level: Level) -> tuple[Any, Any, Any]:
    """What the bracket of a regulariser is made of: excess less D times power.

    Returns:
        Trace less its value at the least and expm1(L / D), each (...); and the derivatives of the bracket by the
        log variances, (..., m).
    """
    xp = array_namespace(log_variances)
    centred = log_variances - level.log_s
    grown, power = xp.expm1(centred), xp.expm1(xp.sum(centred, axis=-1) / level.total)
    return xp.sum(grown, axis=-1), power, grown - power[..., None]


def dense_regulariser(squared_shift: Any, trace: Any, log_det: Any, dim: int, level: Level) -> Any:
    """The same of any Sigma (dim, dim), from its trace and its log determinant, each (...)."""
    xp = array_namespace(trace)
    unit = array_namespace(level.log_s).exp(-level.log_s)
    volume = log_det - dim * level.log_s
    return _half(squared_shift, trace * unit - dim, xp.expm1(volume / level.total), level)


def dense_divergence(
    df: Any, trace: Any, squared_shift: Any, log_ratio: Any, log_det_p: Any, dim: int, *, log_gamma: Function
) -> Any:
    """Gamma-power divergence of one t from another of the same df: a regulariser, times a constant of the second.

    It is ``student_t.power_divergence``, with scales that need not be diagonal.

    Args:
        df: Degrees of freedom above 2, an array (...).
        trace: Of the first's squared scales in units of the second's, (...).
        squared_shift: Squared distance of the locations in these units, (...).
        log_ratio: Log determinant of the first's scales in these units, (...).
        log_det_p: Log determinant of the second's scales, (...).
        dim: Number of coordinates.
        log_gamma: Log-gamma function of the backend.
    """
    xp = array_namespace(df)
    level = _level(xp.zeros_like(df), df, 0, dim, df + (dim - 2.0))
    log_height = log_power_norm(df, dim, log_det_p, log_gamma=log_gamma) - xp.log1p(dim / (df - 2.0))
    factor = (1.0 + dim / df) * xp.exp(log_height)
    return factor * dense_regulariser(squared_shift, trace, 2.0 * log_ratio, dim, level)


def _half(squared_shift: Any, excess: Any, power: Any, level: Level) -> Any:
    return 0.5 * (squared_shift + level.kappa * (excess - level.total * power))
