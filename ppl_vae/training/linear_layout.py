"""Where the maps of the theory lie in the parameters of the linear variants, by name, the same for both backends.

``n`` is data, ``d`` numbers a datum, ``p`` numbers a condition, ``k`` latents; scales are standard deviations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import Rows, condition_of, row_blocks
from ppl_vae.nets.parameters import check_names
from ppl_vae.nets.sizes import MINIMUM_SCALE
from ppl_vae.nets.spreads import Spread, parse_spread
from ppl_vae.theory.linear_conditional import CVAEMaps
from ppl_vae.theory.linear_encoder import VAEMaps
from ppl_vae.theory.linear_markov import MHVAEMaps
from ppl_vae.training.engine import Arrays

__all__ = ["LINEAR_VARIANTS", "LinearFit", "LinearLayout"]

Array = NDArray[np.float64]
Maps = VAEMaps | CVAEMaps | MHVAEMaps

# Nodes of the quadrature over z1 that a scale of z2 depends on: exact to rounding for a softplus.
NODES = 32


class _Scale(NamedTuple):
    """Where a scale of the guide is: its module, its field of the maps, and the option that says its kind."""

    module: str
    field: str
    option: str


class _Kind(NamedTuple):
    """How maps lie in the parameters of a variant.

    Attributes:
        maps: Class of the maps.
        affine: By layer the maps that lie beside each other in its weight, and its bias.
        scales: Scales of the guide by latent site, in the order in which the guide draws.
    """

    maps: type[Any]
    affine: Mapping[str, tuple[tuple[str, ...], str]]
    scales: Mapping[str, _Scale]


_KINDS = {
    "linear_vae": _Kind(
        VAEMaps,
        {"posterior.network.loc": (("w",), "b"), "decoder": (("u",), "a")},
        {"z": _Scale("posterior", "sigma", "posterior_scale")},
    ),
    "linear_cvae": _Kind(
        CVAEMaps,
        {"posterior.network.loc": (("w2", "w1"), "b"), "decoder": (("u1", "u2"), "a")},
        {"z": _Scale("posterior", "sigma", "posterior_scale")},
    ),
    "linear_mhvae": _Kind(
        MHVAEMaps,
        {
            "posterior1.network.loc": (("w1",), "b1"),
            "posterior2.network.loc": (("w2",), "b2"),
            "prior1.network.loc": (("u2",), "a2"),
            "decoder": (("u1",), "a1"),
        },
        {
            "z1": _Scale("posterior1", "sigma1", "posterior_scale1"),
            "z2": _Scale("posterior2", "sigma2", "posterior_scale2"),
        },
    ),
}
LINEAR_VARIANTS = tuple(_KINDS)


@dataclass(frozen=True, eq=False)
class LinearFit:
    """Parameters of a linear variant as the theory writes them.

    Attributes:
        maps: The maps; an amortised scale enters by its root mean square over the training data.
        scale: Standard deviation of the likelihood.
        excess: By latent site what an amortised scale adds to the KL of each latent for not being the same for all
            data, log of the root mean square less mean log, in nats, (k,); 0 for other scales.
    """

    maps: Any
    scale: float
    excess: Mapping[str, Array]


@dataclass(frozen=True)
class LinearLayout:
    """The parameters of a linear variant on data of some size.

    Attributes:
        name: Name of the variant, one of ``LINEAR_VARIANTS``.
        options: Options of its ``build``.
        data_dim: Numbers a datum, d.
        condition_dim: Numbers a condition, p; 0 without one.
    """

    name: str
    options: Mapping[str, Any]
    data_dim: int
    condition_dim: int = 0

    @property
    def kinds(self) -> dict[str, Spread]:
        """What the posterior scale of each latent site is."""
        return {site: parse_spread(s.option, self.options[s.option]) for site, s in self._kind.scales.items()}

    @property
    def fixed(self) -> dict[str, float | None]:
        """The posterior scale of each latent site, None where it is learned or amortised."""
        return {site: kind if isinstance(kind, float) else None for site, kind in self.kinds.items()}

    @property
    def held(self) -> set[str]:
        """Fields of the maps that are not learned: fixed scales, and the biases of a variant without."""
        found = {scale.field for site, scale in self._kind.scales.items() if self.fixed[site] is not None}
        return found if self.options["bias"] else found | {bias for _, bias in self._kind.affine.values()}

    def arrays(self, maps: Any, scale: float) -> Arrays:
        """Maps as parameters, float32; an amortised scale becomes the same for all data, if it has a bias.

        Args:
            maps: Maps of the theory.
            scale: Standard deviation of the likelihood; it is left out where it is not learned.
        """
        found = {}
        for layer, (weights, bias) in self._kind.affine.items():
            found[f"{layer}.weight"] = np.concatenate([getattr(maps, name) for name in weights], axis=1)
            found[f"{layer}.bias"] = getattr(maps, bias)
        for site, (module, field, _) in self._kind.scales.items():
            sigma, head = getattr(maps, field), f"{module}.network.raw_scale"
            if self.kinds[site] == "learned":
                found[f"{module}.log_scale"] = np.log(sigma)
            elif self.kinds[site] == "amortised":
                soft = np.maximum(sigma - MINIMUM_SCALE, 1e-12)
                found[f"{head}.weight"] = np.zeros_like(found[f"{module}.network.loc.weight"])
                found[f"{head}.bias"] = soft + np.log(-np.expm1(-soft))
        if self.options["learn_scale"]:
            found["likelihood.log_scale"] = np.log(scale)
        has_bias = self.options["bias"]
        return {n: np.asarray(v, np.float32) for n, v in found.items() if has_bias or not n.endswith(".bias")}

    def fit(self, parameters: Arrays, rows: Rows) -> LinearFit:
        """What parameters mean.

        Args:
            parameters: By name, from either backend.
            rows: The training data, which an amortised scale is averaged over.

        Raises:
            InputError: They are not those of the variant.
        """
        arrays = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
        check_names(arrays, {name: value.shape for name, value in self.arrays(self._blank(), 1.0).items()})
        found: dict[str, Any] = {}
        for layer, (weights, bias) in self._kind.affine.items():
            out, widths = self._sizes[layer]
            parts = np.split(arrays[f"{layer}.weight"], np.cumsum(widths)[:-1], axis=1)
            found |= dict(zip(weights, parts, strict=True))
            found[bias] = arrays.get(f"{layer}.bias", np.zeros(out))
        log_scale = arrays.get("likelihood.log_scale", np.log(self.options["scale"]))
        scales = self._scales(arrays, rows)
        found |= {scale.field: scales[site][0] for site, scale in self._kind.scales.items()}
        excess = {site: np.log(rms) - mean_log for site, (rms, mean_log) in scales.items()}
        return LinearFit(self._kind.maps(**found), float(np.exp(log_scale)), excess)

    @property
    def _kind(self) -> _Kind:
        return _KINDS[self.name]

    @property
    def _sizes(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Outputs of each layer, and its inputs by map."""
        d, given = self.data_dim, (self.condition_dim,) * (self.condition_dim > 0)
        if self.name == "linear_mhvae":
            k1, k2 = self.options["latent_dims"]
            guide = {"posterior1.network.loc": (k1, (d,)), "posterior2.network.loc": (k2, (k1,))}
            return {**guide, "prior1.network.loc": (k1, (k2,)), "decoder": (d, (k1,))}
        k = self.options["latent_dim"]
        return {"posterior.network.loc": (k, (d, *given)), "decoder": (d, (k, *given))}

    def _blank(self) -> Any:
        """Maps of the right shapes."""
        found = {}
        for layer, (weights, bias) in self._kind.affine.items():
            out, widths = self._sizes[layer]
            found[bias] = np.zeros(out)
            found |= {name: np.zeros((out, width)) for name, width in zip(weights, widths, strict=True)}
        for module, field, _ in self._kind.scales.values():
            found[field] = np.ones(self._sizes[f"{module}.network.loc"][0])
        return self._kind.maps(**found)

    def _scales(self, arrays: Arrays, rows: Rows) -> dict[str, tuple[Array, Array]]:
        """Root mean square and mean logarithm of each site's scale over the training data."""
        kinds = self.kinds
        same = {}
        for site, (module, _, _) in self._kind.scales.items():
            out = self._sizes[f"{module}.network.loc"][0]
            if kinds[site] == "learned":
                same[site] = np.exp(arrays[f"{module}.log_scale"])
            elif isinstance(kinds[site], float):
                same[site] = np.full(out, kinds[site])
        if len(same) == len(kinds):
            return {site: (sigma, np.log(sigma)) for site, sigma in same.items()}
        sums: dict[str, Any] = dict.fromkeys(kinds, 0.0)
        widest = max(out for out, _ in self._sizes.values())
        for block in row_blocks(len(rows), (widest * NODES,)):
            inputs = _flat(rows[block])
            variance = np.zeros_like(inputs)
            for site, (module, _, _) in self._kind.scales.items():
                head = f"{module}.network"
                if site in same:
                    squares = np.broadcast_to(same[site] ** 2, (len(inputs), len(same[site])))
                    logs = np.log(squares) / 2
                else:
                    squares, logs = _amortised(arrays, f"{head}.raw_scale", inputs, variance)
                sums[site] = sums[site] + np.stack([squares.sum(axis=0), logs.sum(axis=0)])
                inputs, variance = _affine(arrays, f"{head}.loc", inputs), squares
        return {site: (np.sqrt(total[0] / len(rows)), total[1] / len(rows)) for site, total in sums.items()}


def _flat(rows: Any) -> Array:
    """Data as an encoder sees them, with their conditions behind them."""
    parts = [np.asarray(rows), *([] if (condition := condition_of(rows)) is None else [condition])]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1, dtype=np.float64)


def _affine(arrays: Arrays, layer: str, inputs: Array) -> Array:
    found: Array = inputs @ arrays[f"{layer}.weight"].T + arrays.get(f"{layer}.bias", 0.0)
    return found


def _amortised(arrays: Arrays, head: str, inputs: Array, variance: Array) -> tuple[Array, Array]:
    """Mean square and mean logarithm of a scale for each datum, whose inputs are Gaussian of this variance."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    width = np.sqrt(variance @ arrays[f"{head}.weight"].T ** 2)
    raw = _affine(arrays, head, inputs)[..., None] + width[..., None] * nodes
    sigma = np.logaddexp(0.0, raw) + MINIMUM_SCALE
    share = weights / weights.sum()
    return sigma**2 @ share, np.log(sigma) @ share
