"""The command ``ppl-vae``: parses, calls one library function, prints.

Results go to stdout, progress and messages to stderr. A user's mistake exits with 2, an interrupt with 130.
Nothing heavy is imported before a command runs.
"""

from ppl_vae.cli._main import main
from ppl_vae.cli._shared import progress_bar

__all__ = ["main", "progress_bar"]
