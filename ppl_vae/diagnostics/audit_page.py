"""An audit as a page for people."""

from typing import Any

import numpy as np

__all__ = ["audit_page"]

# Latents in the table of a site.
SHOWN = 16
# What is shown as 0: nats and standard deviations that rounding leaves.
TINY = 1e-6

# Fields of a site in the order of the table; those with a star are by theory.
_COLUMNS = {
    "eigenvalues": "eigenvalue",
    "critical_beta": "critical*",
    "regime": "regime*",
    "predicted_lambda": "lambda*",
    "lambda_": "lambda",
    "predicted_omega": "omega*",
    "omega": "omega",
    "predicted_kl": "KL*",
    "kl": "KL",
}


def audit_page(found: Any) -> str:
    """The page of an audit.

    Args:
        found: An ``Audit``.
    """
    setting = found.setting
    betas = ", ".join(f"{site}={beta:.4g}" for site, beta in setting["betas"].items())
    scale = "" if setting["scale"] is None else f"  scale={setting['scale']:.4g}"
    lines = [
        f"{setting['variant']} ({setting['backend']})  run={setting['run']}  data={setting['data']} "
        f"n={setting['num_data']} (training)  beta {betas}{scale}",
    ]
    if found.optimum is not None:
        lines.append(
            f"loss {found.loss:.4f} (exact), least possible {found.optimum:.4f}, gap {found.gap:.4f}; measured "
            f"{_text(found.measured)}   [nats per datum, training data]"
        )
    for site in found.sites:
        lines += _site_lines(site)
    lines.append(f"{found.verdict}: {found.meaning}")
    lines += [f"advice: {line}" for line in found.advice]
    lines += [f"note: {line}" for line in found.notes]
    return "\n".join(lines)


def _site_lines(site: Any) -> list[str]:
    columns = [(head, values) for name, head in _COLUMNS.items() if (values := getattr(site, name)) is not None]
    counts = "" if site.num_predicted is None else f"{site.num_predicted} of {len(site.lambda_)} on in theory, "
    lines = [
        f"{site.site}: {counts}{site.num_carried} in the fit   [KL in nats; * by theory; columns sorted apart]"
    ]
    lines.append("mode  " + "".join(f"{head:>11}" for head, _ in columns))
    shown = min(len(site.lambda_), SHOWN)
    for i in range(shown):
        cells = "".join(f"{_text(values[i]):>11}" for _, values in columns)
        lines.append(f"{i + 1:<6}{cells}")
    if shown < len(site.lambda_):
        lines.append(f"and {len(site.lambda_) - shown} more")
    return lines


def _text(value: Any) -> str:
    if value is None:
        return "not finite"
    if isinstance(value, str):
        return value
    return "none" if not np.isfinite(value) else f"{value:.4g}" if abs(value) >= TINY else "0"
