"""The main job on the embedded default: a beta-VAE of the 8x8 digits, in Pyro and in NumPyro.

It prints the result of both and leaves two run folders, each with ``posterior.nc`` for ArviZ and
``overview.png`` to look at.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

# For networks this small a second thread saves little, and on a busy machine it costs much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from ppl_vae import fit
from ppl_vae.cli import progress_bar
from ppl_vae.errors import InputError
from ppl_vae.plugins import Backend
from ppl_vae.training.results import run_page

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit both and print both.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200, help="passes over the training data")
    parser.add_argument("--beta", type=float, default=4.0, help="weight on the rate")
    parser.add_argument("--out", type=Path, default=None, help="folder of the two run folders")
    options = parser.parse_args(arguments)
    print("Likelihood: Gaussian with standard deviation 0.2 on pixels in [0, 1].")
    for backend in get_args(Backend):
        with progress_bar() as report:
            run = fit(
                "beta_vae",
                "digits",
                backend=backend,
                beta=options.beta,
                epochs=options.epochs,
                learning_rate_schedule="cosine",
                likelihood="gaussian",
                scale=0.2,
                learn_scale=False,
                out=None if options.out is None else options.out / f"demo-{backend}",
                report=report,
            )
        print(f"\n{run_page(run)}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
