"""What every loss reports, in nats per datum: loss, distortion, rates, ELBO and extra terms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SITE_TERM", "Terms", "weighted"]

# How the term of a site was computed that is no rate; see ``split``.
SITE_TERM = "site term"


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of one evaluation of a loss, in nats per datum.

    Attributes:
        loss: What is minimised: betas, extra terms and all.
        distortion: Minus the expected log likelihood, unweighted.
        rates: KL of guide from model per latent site, unweighted whatever the betas; the site term, which may
            be negative, where the guide draws a site before its parents in the model.
        extras: Further terms by name, such as a consistency.
        how: Pairs of a term's name and how it was computed: "analytic", "quadrature", "upper bound", "sampled",
            "gamma-power divergence" for what is no KL, or "site term" for what is no rate.
    """

    loss: Any
    distortion: Any
    rates: Mapping[str, Any]
    extras: Mapping[str, Any] = field(default_factory=dict)
    how: tuple[tuple[str, str], ...] = ()

    @property
    def elbo(self) -> Any:
        """Evidence lower bound: minus (distortion + sum of rates). Nothing weighted is called so."""
        return -(self.distortion + sum(self.rates.values()))

    @property
    def names(self) -> list[str]:
        """Names of the terms in the order of ``flat``: sites and extras sorted, as JAX sorts them."""
        rates = [f"rate/{name}" for name in sorted(self.rates)]
        return ["loss", "distortion", "elbo", *rates, *(f"extra/{name}" for name in sorted(self.extras))]

    def flat(self) -> dict[str, Any]:
        """The terms by name: ``loss``, ``distortion``, ``elbo``, ``rate/<site>``, ``extra/<name>``."""
        rates = (self.rates[name] for name in sorted(self.rates))
        extras = (self.extras[name] for name in sorted(self.extras))
        values = (self.loss, self.distortion, self.elbo, *rates, *extras)
        return dict(zip(self.names, values, strict=True))

    def combine(self, function: Callable[..., Any], *others: "Terms") -> "Terms":
        """Apply a function to each term, or to each term together with the same term of others.

        Args:
            function: Takes one array per ``Terms`` and returns one.
            others: Terms with the same sites and extras.
        """

        def over(own: Mapping[str, Any], rest: list[Mapping[str, Any]]) -> dict[str, Any]:
            return {name: function(value, *(r[name] for r in rest)) for name, value in own.items()}

        return Terms(
            loss=function(self.loss, *(t.loss for t in others)),
            distortion=function(self.distortion, *(t.distortion for t in others)),
            rates=over(self.rates, [t.rates for t in others]),
            extras=over(self.extras, [t.extras for t in others]),
            how=self.how,
        )


def weighted(value: Any, beta: Any) -> Any:
    """A term times the beta of its site, without an operation where that is 1.

    Args:
        value: A scalar.
        beta: A number or a scalar.
    """
    return value if isinstance(beta, float) and beta == 1.0 else value * beta
