"""Mixture of discretised logistics over the 256 grey levels of a pixel: masses in nats, means, draws.

Grey values x lie in [0, 1], level k at k / 255. Parameters are on the scale y = 2 x - 1, where an untrained
network's outputs near 0 are mid-grey. There are c channels and m mixture components.

Written over the array API standard, as ``formulas.divergences`` is.

Source:
    Salimans, Karpathy, Chen & Kingma, "PixelCNN++", arXiv:1701.05517, section 2.1 and 2.2.
"""

from typing import Any, NamedTuple

from array_api_compat import array_namespace, is_torch_array

__all__ = ["Mixture", "draw", "is_grey_level", "log_mass", "mean", "mixture", "num_outputs"]

# Levels are this far from their edges on the scale of y.
HALF_WIDTH = 1.0 / 255.0

# Log-scales stay above it: a level is then 8.6 scales wide, and a narrower logistic has nothing to gain.
LOWEST_LOG_SCALE = -7.0

# In levels; float32 arithmetic puts k / 255 within 1e-4.
TOLERANCE = 1e-3


class Mixture(NamedTuple):
    """Parameters of the mixture at each pixel on the scale of y, every array of shape (..., m).

    Attributes:
        logits: Unnormalised log weights of the components.
        locs: Locations by channel, before the dependence on other channels.
        log_scales: Logs of the logistics' scales by channel.
        coefficients: How a location moves with the channels before it: c (c - 1) / 2 arrays, those of
            channel i from i (i - 1) / 2 on.
    """

    logits: Any
    locs: tuple[Any, ...]
    log_scales: tuple[Any, ...]
    coefficients: tuple[Any, ...]

    def component(self, channel: int, before: list[Any]) -> tuple[Any, Any]:
        """Location and log-scale of a channel, each (..., m).

        Args:
            channel: Number of the channel.
            before: Values of the channels before it on the scale of y, broadcastable to (..., m).
        """
        loc, first = self.locs[channel], channel * (channel - 1) // 2
        for number, value in enumerate(before, first):
            loc = loc + self.coefficients[number] * value
        return loc, self.log_scales[channel]


def num_outputs(num_channels: int, num_mixtures: int) -> int:
    """How many parameters a pixel has.

    Args:
        num_channels: Number of channels.
        num_mixtures: Number of components.
    """
    return num_mixtures * (1 + 2 * num_channels + num_channels * (num_channels - 1) // 2)


def mixture(outputs: Any, num_channels: int) -> Mixture:
    """Parameters from the unconstrained outputs of a network.

    Args:
        outputs: Shape (..., p), p a multiple of ``num_outputs(num_channels, 1)``: logits, locations,
            log-scales, coefficients, in each the components fastest. The log-scale is bounded below by a
            softplus, which unlike a clamp leaves a gradient; coefficients are bounded by tanh.
        num_channels: Number of channels c.
    """
    xp = array_namespace(outputs)
    num_rows = num_outputs(num_channels, 1)
    by_row = xp.reshape(outputs, (*outputs.shape[:-1], num_rows, outputs.shape[-1] // num_rows))
    logits, *rows = xp.unstack(by_row, axis=-2)
    scales = rows[num_channels : 2 * num_channels]
    return Mixture(
        logits=logits,
        locs=tuple(rows[:num_channels]),
        log_scales=tuple(LOWEST_LOG_SCALE - _log_sigmoid(LOWEST_LOG_SCALE - scale) for scale in scales),
        coefficients=tuple(xp.tanh(row) for row in rows[2 * num_channels :]),
    )


def log_mass(x: Any, parameters: Mixture) -> Any:
    r"""Log of the probability mass of a pixel's grey levels, in nats.

    With a and b a level's edges in units of the scale from the location, and d = b - a, the mass of one
    logistic is taken without a difference of nearly equal numbers, as

    .. math:: \log(\sigma(b) - \sigma(a)) = \log \sigma(b) + \log \sigma(-a) + \log(1 - e^{-d})

    The outer edges of levels 0 and 255 are open.

    Args:
        x: Grey values k / 255, shape (..., c).
        parameters: The mixture, broadcastable.

    Returns:
        Log masses, shape (...).
    """
    y = 2.0 * x - 1.0
    values = [y[..., channel, None] for channel in range(y.shape[-1])]
    joint = parameters.logits
    for channel, value in enumerate(values):
        joint = joint + _log_mass_of_level(value, *parameters.component(channel, values[:channel]))
    return _log_sum_exp(joint) - _log_sum_exp(parameters.logits)


def mean(parameters: Mixture) -> Any:
    r"""Mean grey value of each channel.

    It is the mean of the logistics clipped to [0, 1], before they are rounded to levels,

    .. math:: E[\operatorname{clip}(y, -1, 1)] = -1 + s \operatorname{softplus}((\mu + 1) / s)
       - s \operatorname{softplus}((\mu - 1) / s)

    Rounding moves it by at most half a level, 1/510, and by far less unless a scale is below a level's width.
    For one channel this is all. A later channel is evaluated at the means of those before it in the same
    component, exact where the clipping does not bend its mean; at worst it is off by the coefficient's
    size times the mean absolute deviation of each channel before it.

    Args:
        parameters: The mixture.

    Returns:
        Means in [0, 1], shape (..., c).
    """
    xp = array_namespace(parameters.logits)
    shifted = xp.exp(parameters.logits - xp.max(parameters.logits, axis=-1, keepdims=True))
    weights = shifted / xp.sum(shifted, axis=-1, keepdims=True)
    means: list[Any] = []
    for channel in range(len(parameters.locs)):
        loc, log_scale = parameters.component(channel, means)
        scale = xp.exp(log_scale)
        difference = _log_sigmoid((1.0 - loc) / scale) - _log_sigmoid((-1.0 - loc) / scale)
        means.append(scale * difference - 1.0)
    return xp.stack([0.5 + 0.5 * xp.sum(weights * value, axis=-1) for value in means], axis=-1)


def draw(parameters: Mixture, gumbel: Any, logistic: Any) -> Any:
    """Grey values drawn from the mixture; not differentiable.

    Args:
        parameters: The mixture.
        gumbel: Standard Gumbel noise, shape (..., m).
        logistic: Standard logistic noise, shape (..., c).

    Returns:
        Values k / 255, shape (..., c).
    """
    xp = array_namespace(gumbel)
    chosen = xp.argmax(parameters.logits + gumbel, axis=-1, keepdims=True)
    levels: list[Any] = []
    for channel in range(len(parameters.locs)):
        before = [level[..., None] * (2.0 * HALF_WIDTH) - 1.0 for level in levels]
        loc, log_scale = (
            xp.take_along_axis(xp.broadcast_to(p, gumbel.shape), chosen, axis=-1)[..., 0]
            for p in parameters.component(channel, before)
        )
        y = loc + xp.exp(log_scale) * logistic[..., channel]
        levels.append(xp.clip(xp.round((y + 1.0) / (2.0 * HALF_WIDTH)), 0.0, 255.0))
    return xp.stack(levels, axis=-1) / 255.0


def is_grey_level(x: Any) -> Any:
    """Whether values are k / 255 for a whole k from 0 to 255, as near as float32 can say.

    Args:
        x: Values, finite, any shape.

    Returns:
        Boolean array of the same shape.
    """
    xp = array_namespace(x)
    level = x * 255.0
    nearest = xp.round(level)
    return (xp.abs(level - nearest) < TOLERANCE) & (nearest >= 0.0) & (nearest <= 255.0)


def _log_mass_of_level(y: Any, loc: Any, log_scale: Any) -> Any:
    xp = array_namespace(loc)
    precision = xp.exp(-log_scale)
    above = (y - loc + HALF_WIDTH) * precision
    below = (y - loc - HALF_WIDTH) * precision
    is_lowest, is_highest, zero = y < HALF_WIDTH - 1.0, y > 1.0 - HALF_WIDTH, xp.zeros_like(y)
    inner = xp.log(-xp.expm1(-2.0 * HALF_WIDTH * precision))
    return (
        xp.where(is_lowest | is_highest, zero, inner)
        + xp.where(is_highest, zero, _log_sigmoid(above))
        + xp.where(is_lowest, zero, _log_sigmoid(-below))
    )


def _log_sigmoid(values: Any) -> Any:
    """Minus the softplus of minus the values, at any size, with the right gradient also at 0."""
    if is_torch_array(values):
        from torch.nn.functional import logsigmoid

        return logsigmoid(values)  # torch's logaddexp takes seven times as long
    xp = array_namespace(values)
    return -xp.logaddexp(-values, xp.zeros_like(values))


def _log_sum_exp(values: Any) -> Any:
    xp = array_namespace(values)
    largest = xp.max(values, axis=-1, keepdims=True)
    return largest[..., 0] + xp.log(xp.sum(xp.exp(values - largest), axis=-1))
