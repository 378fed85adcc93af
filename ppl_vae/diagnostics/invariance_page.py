"""The record of how invariant a code is, as plain values and as a section of a page; in nats per datum."""

import textwrap
from dataclasses import dataclass
from typing import Any

from ppl_vae.diagnostics.probe import ProbeResult
from ppl_vae.diagnostics.summary_page import WIDTH, Estimate

__all__ = ["Invariance", "SiteConsistency"]


@dataclass(frozen=True)
class SiteConsistency:
    """One latent site.

    Attributes:
        name: Name of the site.
        how: How the divergence was computed: "analytic" between diagonal Gaussians, "sampled" otherwise.
        kl: KL(q(z_l given z_<l, t(x)), q(z_l given z_<l, x)), the values z_<l being those on t(x).
    """

    name: str
    how: str
    kl: Estimate


@dataclass(frozen=True)
class Invariance:
    """What `measure_invariance` found.

    Standard errors are over data; of each datum the mean over its transformations is taken.

    Attributes:
        transform: Name of the transformation.
        num_data: Number n of data.
        num_transforms: Transformations of each datum, T.
        sites: Consistency of each latent site, in the model's order.
        consistency: R, their sum: the divergence of the guide on t(x) from that on x.
        information: I(z; t given x), what the code tells of the transformation: at least that, and at most log T.
        information_at_most: The same: at most that.
        bias: R less ``information``: the divergence of the mean over transformations of the guide from that on x,
            or more.
        ceiling: log T.
        probe: Linear probe on posterior means of the data, fitted to those of other data, or None.
        probe_transformed: The same classifier on the transformed data; its standard error counts the T copies of
            a datum as one, and so is rather too large.
        not_estimated: Why there is no probe, under "probe".
        notes: What a reader should know of the transformation.
    """

    transform: str
    num_data: int
    num_transforms: int
    sites: list[SiteConsistency]
    consistency: Estimate
    information: Estimate
    information_at_most: Estimate
    bias: Estimate
    ceiling: float
    probe: ProbeResult | None
    probe_transformed: Estimate | None
    not_estimated: dict[str, str]
    notes: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """A row a quantity: ``quantity``, ``value``, ``standard_error`` and ``how`` it was found."""
        found = [(f"consistency {site.name}", site.kl, site.how) for site in self.sites]
        if len(self.sites) > 1:
            found.append(("consistency", self.consistency, "sum over the sites"))
        found += [
            ("information about t, least", self.information, f"never above log {self.num_transforms}"),
            ("information about t, most", self.information_at_most, "each t left out of its own mixture"),
            ("bias", self.bias, "consistency less the least information"),
        ]
        if self.probe is not None and self.probe_transformed is not None:
            clean = Estimate(self.probe.accuracy, self.probe.standard_error)
            found.append(("linear probe", clean, "share of labels right"))
            found.append(("linear probe, transformed", self.probe_transformed, "fitted to data as they are"))
        return [
            {"quantity": name, "value": one.value, "standard_error": one.standard_error, "how": how}
            for name, one, how in found
        ]

    def table(self) -> str:
        """A section of at most 100 columns for people."""
        lines = [
            f"invariance under {self.transform}: {self.num_transforms} transformations t of each of "
            f"{self.num_data} data; the divergence of codes of t(x) from those of x splits into what they tell "
            "of t and a bias",
            *map(_line, self.rows()),
            *(f"linear probe: not estimated, {why}" for why in self.not_estimated.values()),
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(textwrap.fill(line, width=WIDTH, subsequent_indent="  ") for line in lines)


def _line(row: dict[str, Any]) -> str:
    numbers = f"{row['value']:11.3f} +- {row['standard_error']:.3f}"
    return f"{row['quantity']:<27}{numbers:<22}  {row['how']}"
