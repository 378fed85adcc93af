"""The commands ``fit`` and ``resume``: training a run, or continuing it."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import typer

from ppl_vae.cli._shared import AsJson, Backend, RunPath, progress_bar

__all__ = ["FIT_PARAMETERS", "declared_options", "fit_command", "parameter", "resume"]


def fit_command(words: Sequence[str]) -> Callable[..., None]:
    """The command ``fit`` with the options of the variant that the words name."""
    parameters = _PARAMETERS
    if words[:1] == ["fit"]:
        parameters = [*parameters, *declared_options(words)]

    def command(**values: Any) -> None:
        from ppl_vae.options import parse_assignments
        from ppl_vae.training.fit import fit

        own = {p.name: values.pop(p.name) for p in _PARAMETERS}
        own["loss_options"] = parse_assignments(own.pop("loss_option"), "--loss-option")
        own["base_options"] = parse_assignments(own.pop("base_option"), "--base-option")
        own["target_rates"] = parse_assignments(own.pop("target_rate"), "--target-rate")
        as_json = own.pop("as_json")
        with progress_bar() as report:
            run = fit(own.pop("variant"), beta=_betas(own.pop("beta")), report=report, **own, **values)
        _print_result(run, as_json)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def resume(run: RunPath, as_json: AsJson = False) -> None:
    """Continue a fit that was cut off."""
    from ppl_vae.training.fit import resume as continue_run

    with progress_bar() as report:
        _print_result(continue_run(run, report=report), as_json)


def parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """A parameter of a command that is put together.

    Args:
        name: Its name.
        annotation: Its type.
        default: Its default, as typer's argument or option.
    """
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


FIT_PARAMETERS = [
    parameter(
        "variant",
        str,
        typer.Argument(help="Name of a variant, or path of a model file; it comes first.", show_default=False),
    ),
    parameter("data", str, typer.Option("digits", help="Name (see `data list`), or path of a file or folder.")),
    parameter(
        "condition",
        str | None,
        typer.Option(
            None,
            help="What a conditional variant is given with each datum.",
            metavar="<labels|quadrant|FILE>",
            show_default="quadrants of images, else labels",
        ),
    ),
    parameter(
        "group",
        str | None,
        typer.Option(
            None, help="Group of each datum for a grouped variant.", metavar="<labels|FILE>", show_default="labels"
        ),
    ),
    parameter(
        "max_members", int, typer.Option(0, help="Most members of a group; larger ones are parted; 0: no bound.")
    ),
    parameter("backend", Backend | None, typer.Option(None, help="Backend.", show_default="the file's, or pyro")),
    parameter(
        "beta",
        list[str],
        typer.Option(
            ["1"],
            help="Weight on the rates: 4, or z=4 for one site; may be given for each site.",
            metavar="<number|site=number>",
        ),
    ),
    parameter(
        "target_rate",
        list[str],
        typer.Option(
            [],
            help="Nats per datum that a site, or all by the name total, shall spend; the betas are found.",
            metavar="<site=nats>",
        ),
    ),
    parameter("loss", str | None, typer.Option(None, help="Loss.", show_default="the variant's")),
    parameter("base_loss", str | None, typer.Option(None, help="Loss that a wrapping loss wraps.")),
    parameter("loss_option", list[str], typer.Option([], help="Option of the loss.", metavar="<key=value>")),
    parameter("base_option", list[str], typer.Option([], help="Option of the base loss.", metavar="<key=value>")),
    parameter("out", Path | None, typer.Option(None, help="Run folder.", show_default="runs/VARIANT-BACKEND-N")),
    parameter("as_json", bool, typer.Option(False, "--json", help="Print JSON instead of a table.")),
]
# A sweep has no --init: each of its points would have another one, and nothing to learn.
_PARAMETERS = [
    *FIT_PARAMETERS,
    parameter(
        "init",
        Literal["random", "linear-optimum"],
        typer.Option("random", help="Initial parameters; the best ones are known for the linear variants."),
    ),
]


# How options that are written as numbers are shown, and their defaults as they would be typed.
_WRITTEN: dict[Any, tuple[str, Callable[[Any], str]]] = {
    int: ("<int>", str),
    float: ("<float>", str),
    list[int]: ("<int,int,...>", lambda values: ",".join(map(str, values))),
}


def declared_options(words: Sequence[str]) -> Iterator[inspect.Parameter]:
    """Options of the settings, and of the variant that the words name.

    Args:
        words: Words of the command line, the command's first.
    """
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
            yield parameter(option.name, str, default)
        else:
            yield parameter(option.name, option.type, typer.Option(option.default, help=option.help))


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
    from ppl_vae.files import strict_json
    from ppl_vae.training.results import run_page

    print(strict_json({**run.metrics, "run": str(run.path)}, indent=2) if as_json else run_page(run))
