"""The command ``ppl-vae``: parses, calls one library function, prints.

Results go to stdout, progress and messages to stderr. A user's mistake exits with 2, an interrupt with 130.
Nothing heavy is imported before a command runs.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ppl_vae.errors import InputError

__all__ = ["main", "progress_bar"]

Backend = Literal["pyro", "numpyro"]
RunPath = Annotated[Path, typer.Argument(help="Run folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
OptionalBackend = Annotated[
    Backend | None, typer.Option(help="Backend to use the run in; by default its own.", show_default=False)
]


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
        with _messages():
            app.callback(invoke_without_command=True)(_general)
            app.command("fit", help=fit_help)(_reported(_fit_command(words)))
            for command in (resume, diagnose, convert, list_plugins):
                app.command(command.__name__.removesuffix("_plugins"))(_reported(command))
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


def resume(run: RunPath, as_json: AsJson = False) -> None:
    """Continue a fit that was cut off."""
    from ppl_vae.training.fit import resume as continue_run

    with progress_bar() as report:
        _print_result(continue_run(run, report=report), as_json)


def diagnose(
    run: RunPath,
    backend: OptionalBackend = None,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Data to diagnose on.")] = "test",
    num_draws: Annotated[int, typer.Option(help="Importance draws per datum.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what a fitted run is worth: rates, active units, information, log p(x), k-hat, probe."""
    from ppl_vae.training.files import strict_json
    from ppl_vae.training.run import Run

    opened = Run.open(run, backend=backend, device=device)
    summary = opened.diagnose(split=split, num_draws=num_draws, seed=seed)
    print(strict_json(summary.to_dict(), indent=2) if as_json else summary.table())
    print(f"wrote {run}/{{diagnosis.json, posterior.nc}}", file=sys.stderr)


def convert(
    run: RunPath,
    backend: Annotated[Backend, typer.Option(help="Backend to move the run to.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="New run folder.", show_default="RUN-BACKEND")] = None,
) -> None:
    """Move a run's weights to the other backend."""
    from ppl_vae.training.convert import convert as convert_run

    print(f"wrote {convert_run(run, backend=backend, out=out).path}")


def list_plugins(as_json: AsJson = False) -> None:
    """List the variants, the losses and the embedded data."""
    from ppl_vae.catalogue import catalogue, catalogue_table
    from ppl_vae.training.files import strict_json

    found = catalogue()
    print(strict_json(found, indent=2) if as_json else catalogue_table(found))


def _fit_command(words: Sequence[str]) -> Callable[..., None]:
    """The command ``fit`` with the options of the variant that the words name."""
    parameters = _FIT_PARAMETERS
    if words[:1] == ["fit"]:
        parameters = [*parameters, *_declared_options(words)]

    def command(**values: Any) -> None:
        from ppl_vae.options import parse_assignments
        from ppl_vae.training.fit import fit

        own = {p.name: values.pop(p.name) for p in _FIT_PARAMETERS}
        own["loss_options"] = parse_assignments(own.pop("loss_option"), "--loss-option")
        as_json = own.pop("as_json")
        with progress_bar() as report:
            run = fit(own.pop("variant"), beta=_betas(own.pop("beta")), report=report, **own, **values)
        _print_result(run, as_json)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_FIT_PARAMETERS = [
    _parameter(
        "variant",
        str,
        typer.Argument(help="Name of a variant, or path of a model file; it comes first.", show_default=False),
    ),
    _parameter("data", str, typer.Option("digits", help="Name of a data set, or path of .npy, .npz or .csv.")),
    _parameter("backend", Backend | None, typer.Option(None, help="Backend.", show_default="the file's, or pyro")),
    _parameter(
        "beta",
        list[str],
        typer.Option(
            ["1"],
            help="Weight on the rates: 4, or z=4 for one site; may be given for each site.",
            metavar="<number|site=number>",
        ),
    ),
    _parameter("loss", str | None, typer.Option(None, help="Loss.", show_default="the variant's")),
    _parameter("base_loss", str | None, typer.Option(None, help="Loss that a wrapping loss wraps.")),
    _parameter("loss_option", list[str], typer.Option([], help="Option of the loss.", metavar="<key=value>")),
    _parameter("out", Path | None, typer.Option(None, help="Run folder.", show_default="runs/VARIANT-BACKEND-N")),
    _parameter("as_json", bool, typer.Option(False, "--json", help="Print JSON instead of a table.")),
]


# How options that are written as numbers are shown, and their defaults as they would be typed.
_WRITTEN: dict[Any, tuple[str, Callable[[Any], str]]] = {
    int: ("<int>", str),
    float: ("<float>", str),
    list[int]: ("<int,int,...>", lambda values: ",".join(map(str, values))),
}


def _declared_options(words: Sequence[str]) -> Iterator[inspect.Parameter]:
    from ppl_vae.options import options_of
    from ppl_vae.training.settings import FitSettings

    declared = options_of(FitSettings)
    if len(words) > 1 and not words[1].startswith("-"):
        from ppl_vae.plugins import find
        from ppl_vae.training.programs import variant_options

        declared += variant_options(find("models", words[1], _backend_in(words)))
    for option in declared:
        if option.type in _WRITTEN:
            # As text, for our own messages say which value was met.
            metavar, text = _WRITTEN[option.type]
            default = typer.Option(text(option.default), help=option.help, metavar=metavar)
            yield _parameter(option.name, str, default)
        else:
            yield _parameter(option.name, option.type, typer.Option(option.default, help=option.help))


def _backend_in(words: Sequence[str]) -> Any:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--backend":
            return following
        if word.startswith("--backend="):
            return word.removeprefix("--backend=")
    return None


def _betas(texts: Sequence[str]) -> Any:
    from ppl_vae.options import parse_assignments

    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    return parse_assignments(texts, "--beta")


def _print_result(run: Any, as_json: bool) -> None:
    from ppl_vae.training.files import strict_json
    from ppl_vae.training.results import run_page

    print(strict_json({**run.metrics, "run": str(run.path)}, indent=2) if as_json else run_page(run))


@contextmanager
def progress_bar() -> Iterator[Callable[[Mapping[str, Any], float], None]]:
    """A progress bar on stderr, as a callback of the training loop."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task("", total=1.0)

    def report(record: Mapping[str, Any], done: float) -> None:
        bar.start()  # not before there is something to show: a mistake is answered by its message alone
        terms = record["train"]
        rate = sum(terms["rates"].values())
        text = f"epoch {record['epoch']}  loss {terms['loss']:.2f}  D {terms['distortion']:.2f}  R {rate:.2f}"
        bar.update(task, completed=done, description=text)

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a user's mistake into one message and exit code 2, an interrupt into 130."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with _messages():
            command(*args, **kwargs)

    return wrapped


@contextmanager
def _messages() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as interrupt:
        print(": ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
