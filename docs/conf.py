"""How Sphinx builds these pages: `make docs`."""

import re
from importlib.metadata import version as version_of
from typing import Any

project = "ppl_vae"
author = "The ppl_vae developers"
release = version = version_of("ppl-vae")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"ppl_vae {release}"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
html_show_copyright = False
# Pages are read without a network too.
html_permalinks_icon = "#"


def _escape_shapes(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    # In (n, *data_shape) the star is a shape's, not the start of emphasis.
    lines[:] = [re.sub(r"(?<=[ (])\*(?=[a-z])", r"\\*", line) for line in lines]


def setup(app: Any) -> None:
    """Hooks of the build."""
    app.connect("autodoc-process-docstring", _escape_shapes)
