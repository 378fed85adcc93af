"""The record of what each layer's rate buys, as plain values and as a section of a page; in nats per datum.

Layers come top first. Accuracies are shares in [0, 1], PSNR is in decibels.
"""

import textwrap
from dataclasses import dataclass

from ppl_vae.diagnostics.summary_page import WIDTH, Estimate
from ppl_vae.objective.terms import SITE_TERM

__all__ = ["LayerSummary", "LayersSummary"]


@dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Attributes:
        name: Name of the site.
        how: How its rates were computed; "site term" for what is no rate.
        rate: R(z_l | z_>l), or the site term.
        rate_from_top: Sum of the rates from the top to this layer: what z_>=l knows of x is at most that.
            None where a site term is in it, but for the lowest layer: all terms together are a rate.
        accuracy_ceiling: Largest accuracy of any classifier on a sample of z_l that this sum allows, for the
            shares of the labels as they are; None without labels or without the sum.
        accuracy_ceiling_interval: The same at the sum less and plus 2 standard errors.
        is_empty: Whether the sum reaches H[y], so that the ceiling is 1 and says nothing.
        accuracy_on_samples: Accuracies of probes on draws of z_l, by name; the ceiling is for these.
        accuracy_on_means: Accuracies on posterior means, which no rate bounds.
        psnr: Of the mean of x given draws of z_>=l, and draws of the layers below from the model.
    """

    name: str
    how: str
    rate: Estimate
    rate_from_top: Estimate | None
    accuracy_ceiling: float | None
    accuracy_ceiling_interval: tuple[float, float] | None
    is_empty: bool | None
    accuracy_on_samples: dict[str, Estimate]
    accuracy_on_means: dict[str, Estimate]
    psnr: Estimate


@dataclass(frozen=True)
class LayersSummary:
    """What `measure_layers` found.

    Attributes:
        layers: Layers, top first.
        label_entropy: H[y] of the data, or None without labels.
        label_information: I(y; z) of the top layer for these data, or None.
        label_information_ceiling: The smaller of H[y] and log of the number of data of that estimate, or None.
        psnr_of_means: PSNR of the mean of x at the posterior means of all layers.
        peak: Largest value that the PSNR relates to: 1 for data in [0, 1], otherwise their range.
        num_reconstructed: Data that the PSNR is of.
        num_probe_train: Data that probes were fitted to, 0 where there are none.
        num_probe_test: Data that they were tested on.
        not_estimated: Why there are no probes, under "probes".
        errors: Bounds that the numbers break, each with the likely cause.
    """

    layers: list[LayerSummary]
    label_entropy: float | None
    label_information: Estimate | None
    label_information_ceiling: float | None
    psnr_of_means: Estimate
    peak: float
    num_reconstructed: int
    num_probe_train: int
    num_probe_test: int
    not_estimated: dict[str, str]
    errors: list[str]

    @property
    def says_something(self) -> bool:
        """Whether a page needs it: of one layer without probes the rest of the page says all."""
        return len(self.layers) > 1 or self.num_probe_test > 0 or bool(self.errors)

    def table(self) -> str:
        """A section of at most 100 columns for people."""
        blocks = [_rates(self)]
        if self.num_probe_test:
            blocks.append(_accuracies(self))
        elif "probes" in self.not_estimated and self.label_entropy is not None:
            blocks.append(_wrapped(f"probes: not estimated, {self.not_estimated['probes']}"))
        blocks += ["\n".join(_wrapped(f"error: {text}") for text in self.errors)] if self.errors else []
        return "\n\n".join(blocks)


def _rates(found: LayersSummary) -> str:
    terms = [layer.name for layer in found.layers if layer.how == SITE_TERM]
    width, head = (29, f"rate or {SITE_TERM}") if terms else (19, "rate")
    lines = [
        "what the rates buy: layers, the top first",
        f"{'layer':<6}{head:>{width - 4}}        sum from the top   PSNR [dB]   accuracy at most",
    ]
    for layer in found.layers:
        rate = f"{SITE_TERM} {_pair(layer.rate)}" if layer.how == SITE_TERM else _pair(layer.rate)
        total = "no rate" if layer.rate_from_top is None else _pair(layer.rate_from_top)
        row = f"{layer.name:<6}{rate:>{width}}{total:>21}{layer.psnr.value:>12.2f}   {_ceiling(layer)}"
        lines.append(row.rstrip())
    if terms:
        lines.append(
            _wrapped(
                f"a {SITE_TERM} ({', '.join(terms)}) may be negative and bounds nothing, nor does a sum with it, "
                "but for that of all layers, which is their rate"
            )
        )
    lines.append(
        _wrapped(
            f"PSNR on {found.num_reconstructed} data (peak {found.peak:.4g}) from samples of the layer and those "
            f"above, the layers below drawn from the model; from means of all layers "
            f"{found.psnr_of_means.value:.2f}"
        )
    )
    if found.label_entropy is not None:
        lines.append(_wrapped(_entropy_line(found)))
    return "\n".join(lines)


def _entropy_line(found: LayersSummary) -> str:
    text = f"entropy of the labels {found.label_entropy:.3f}"
    if found.label_information is None:
        return text
    return (
        f"{text}; information of {found.layers[0].name} about them {_pair(found.label_information)}, at most "
        f"{found.label_information_ceiling:.3f} on these data"
    )


def _ceiling(layer: LayerSummary) -> str:
    if layer.accuracy_ceiling is None or layer.accuracy_ceiling_interval is None:
        return ""
    if layer.is_empty:
        return "1, says nothing"
    low, high = layer.accuracy_ceiling_interval
    return f"{layer.accuracy_ceiling:.3f} ({low:.3f} to {high:.3f})"


def _accuracies(found: LayersSummary) -> str:
    names = list(found.layers[0].accuracy_on_samples)
    lines = [
        f"labels read from one layer: probes of {found.num_probe_train} data on {found.num_probe_test} others",
        f"{'layer':<15}" + "".join(f"{name:>19}" for name in names),
    ]
    for layer in found.layers:
        for kind, accuracy in (("samples", layer.accuracy_on_samples), ("means", layer.accuracy_on_means)):
            lines.append(f"{layer.name:<6}{kind:<9}" + "".join(f"{_pair(accuracy[name]):>19}" for name in names))
    lines.append("the accuracy that a rate allows is for samples; means are functions of x, which no rate bounds")
    return "\n".join(lines)


def _pair(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} +- {estimate.standard_error:.3f}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=WIDTH, subsequent_indent="  ")
