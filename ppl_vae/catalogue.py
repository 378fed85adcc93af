"""What there is: variants, losses and data, read without running any file."""

import ast
import re
from typing import Any

from ppl_vae.data import embedded_names
from ppl_vae.plugins import Kind, Plugin, available

__all__ = ["catalogue", "catalogue_table"]


def catalogue() -> dict[str, Any]:
    """Variants and losses with their backends and first line of documentation, and the embedded data."""
    return {"variants": _entries("models"), "losses": _entries("inference"), "data": list(embedded_names())}


def catalogue_table(found: dict[str, Any]) -> str:
    """The catalogue for people.

    Args:
        found: What ``catalogue`` gave.
    """
    lines = []
    for kind in ("variants", "losses"):
        lines.append(kind)
        for name, entry in found[kind].items():
            lines.append(f"  {name:<16}{', '.join(entry['backends']):<16}{entry['text']}")
    return "\n".join([*lines, "data", f"  {', '.join(found['data'])}, or a path of .npy, .npz or .csv"])


def _entries(kind: Kind) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for plugin in available(kind):
        # The backends are listed beside it.
        text = re.sub(r" in (?:Num)?Pyro|, as a loss for .*(?=\.)", "", _first_line(plugin))
        entry = entries.setdefault(plugin.name, {"backends": [], "text": text})
        entry["backends"].append(plugin.backend)
    return entries


def _first_line(plugin: Plugin) -> str:
    try:
        text = ast.get_docstring(ast.parse(plugin.path.read_bytes())) or ""
    except (SyntaxError, ValueError) as error:
        return f"cannot be read: {error}"
    return text.partition("\n")[0]
