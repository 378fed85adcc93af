"""The command ``sweep``: a fit at every point of a grid of betas, for several seeds."""

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from ppl_vae.cli._fit import FIT_PARAMETERS, declared_options, parameter
from ppl_vae.cli._shared import progress

__all__ = ["sweep_command"]


def sweep_command(words: Sequence[str]) -> Callable[..., None]:
    """The command ``sweep`` with the options of ``fit`` for the variant that the words name."""
    parameters = [*_SHARED, *_OWN]
    if words[:1] == ["sweep"]:
        # Before the options are looked up, because that may start JAX.
        _use_every_core()
        parameters += map(_with_own_default, declared_options(words))

    def command(**values: Any) -> None:
        from ppl_vae.options import parse_assignments
        from ppl_vae.sweeps.sweep import sweep

        beta, as_json = values.pop("beta"), values.pop("as_json")
        values["target_rates"] = values.pop("target_rate")
        values["loss_options"] = parse_assignments(values.pop("loss_option"), "--loss-option")
        values["base_options"] = parse_assignments(values.pop("base_option"), "--base-option")
        together = len(beta) == 1 and "=" not in beta[0]
        with progress() as report:
            found = sweep(
                values.pop("variant"),
                beta=beta[0] if together else parse_assignments(beta, "--beta"),
                report=report,
                **values,
            )
        _print_result(found, as_json)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


_SHARED = [p for p in FIT_PARAMETERS if p.name not in ("beta", "target_rate", "out")]
_OWN = [
    parameter(
        "beta",
        list[str],
        typer.Option(
            ["0.1:10:log7"],
            help="Betas: 0.1:10:log7 (from, to, log or lin, how many), or 0.5,1,2; z1=... for one site, given for "
            "each site that varies. Without a name all sites have the same beta at each point.",
            metavar="<betas|site=betas>",
        ),
    ),
    # Known, so that the refusal can say what to do.
    parameter("target_rate", list[str], typer.Option([], hidden=True)),
    parameter("seeds", int, typer.Option(1, help="Number of seeds, from --seed upwards.")),
    parameter(
        "out",
        Path | None,
        typer.Option(
            None,
            help="Folder of the sweep; one that was cut off continues when it is asked for again.",
            show_default="sweeps/VARIANT-BACKEND-N",
        ),
    ),
    parameter("max_runs", int, typer.Option(1000, help="Refuse a grid of more runs.")),
    parameter("jobs", int, typer.Option(0, help="Processes (Pyro); 0 takes one for each core.")),
    parameter(
        "runs_at_once", int, typer.Option(0, help="Most runs trained together (NumPyro); 0 takes what fits 2 GiB.")
    ),
    parameter(
        "warm_start",
        bool,
        typer.Option(False, help="Start each run from the parameters of the run with the next lower beta."),
    ),
    parameter("products", bool, typer.Option(False, help="Write posterior.nc and overview.png of each run.")),
]


def _with_own_default(option: inspect.Parameter) -> inspect.Parameter:
    from ppl_vae.sweeps.sweep import DEFAULTS

    if option.name in DEFAULTS:
        option.default.default = str(DEFAULTS[option.name])
    return option


def _use_every_core() -> None:
    """Let JAX have one device for each core, unless the user decided on a number."""
    flags, name = os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count"
    if name not in flags:
        from ppl_vae.training.records import num_cores

        os.environ["XLA_FLAGS"] = f"{flags} {name}={num_cores()}".strip()


def _print_result(found: Any, as_json: bool) -> None:
    from ppl_vae.files import strict_json
    from ppl_vae.sweeps.table import page

    if as_json:
        print(strict_json({"sweep": str(found.path), "table": str(found.table), "runs": found.rows}, indent=2))
        return
    print(page(found.rows))
    print(f"wrote {found.table} and {found.path}/runs")
