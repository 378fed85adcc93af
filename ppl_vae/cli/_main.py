"""Assembles the command; each other file holds a group of its commands."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from ppl_vae.cli._advise import advise
from ppl_vae.cli._audit import audit
from ppl_vae.cli._catalogue import list_plugins
from ppl_vae.cli._classify import classifier, score
from ppl_vae.cli._data import data_app
from ppl_vae.cli._fit import fit_command, resume
from ppl_vae.cli._forecast import forecast
from ppl_vae.cli._new import new
from ppl_vae.cli._report import report
from ppl_vae.cli._runs import convert, diagnose
from ppl_vae.cli._shared import messages, reported
from ppl_vae.cli._sweep import sweep_command
from ppl_vae.cli._theory import theory_app
from ppl_vae.cli._use import complete, encode, reconstruct, sample

__all__ = ["main"]

# In the order of their work; `fit`, whose options depend on the words, comes first, groups of commands last.
_COMMANDS: dict[str, Callable[..., None]] = {
    "resume": resume,
    "advise": advise,
    "forecast": forecast,
    "diagnose": diagnose,
    "audit": audit,
    "score": score,
    "encode": encode,
    "reconstruct": reconstruct,
    "sample": sample,
    "complete": complete,
    "report": report,
    "convert": convert,
    "classifier": classifier,
    "new": new,
    "list": list_plugins,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: Words after the command's name; by default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    app = typer.Typer(
        help="Variational autoencoders as probabilistic programs, in Pyro and NumPyro.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    fit_help = "Fit a model to data; `fit VARIANT --help` lists the variant's own options too."
    try:
        with messages():
            app.callback(invoke_without_command=True)(_general)
            app.command("fit", help=fit_help)(reported(fit_command(words)))
            app.command("sweep", help="Fit a model at every point of a grid of betas.")(
                reported(sweep_command(words))
            )
            for name, command in _COMMANDS.items():
                app.command(name)(reported(command))
            app.add_typer(data_app(), name="data")
            app.add_typer(theory_app(), name="theory")
            app(words, prog_name="ppl-vae")
    except SystemExit as end:
        if end.code == 130 and arguments is None:
            # The threads of an interrupted compilation would crash a process that ends as usual.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        raise


def _general(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as version_of

        try:
            print(version_of("ppl-vae"))
        except PackageNotFoundError:
            print("unknown: run from a checkout that is not installed")
        raise typer.Exit
