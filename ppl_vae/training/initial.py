"""Which parameters a fit begins with, if they are not random: those of another run, or the best ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ppl_vae.errors import InputError
from ppl_vae.objective.free_bits import FreeBits
from ppl_vae.training.prepared import Prepared
from ppl_vae.training.programs import Program
from ppl_vae.training.reopen import FINAL, open_folder
from ppl_vae.training.settings import FitSettings

__all__ = ["Init", "check_init", "free_bits", "initialise"]

Init = Literal["random", "linear-optimum"]


def check_init(init: str, *, start: str | Path | None, target_rates: Mapping[str, float]) -> None:
    """Refuse an initialisation that does not exist, or that something else stands against.

    Args:
        init: What was asked for.
        start: Folder of the run to start from, or None.
        target_rates: Rates that betas are found for.

    Raises:
        InputError: It is to be refused.
    """
    if init not in ("random", "linear-optimum"):
        raise InputError(f"init must be random or linear-optimum, but it is {init!r}; choose one of them")
    if init == "random" or (start is None and not target_rates):
        return
    other, why = ("target rates", "the betas that it depends on are not known yet")
    if start is not None:
        other, why = "start", "a fit begins in one place"
    raise InputError(f"init must be random with {other}, but it is {init}: {why}; leave one of them out")


def free_bits(record: Mapping[str, Any]) -> str | None:
    """Floors of the rates in a run's loss as they were given, None where every floor is 0.

    Args:
        record: The run's record.
    """
    given = record["loss"]["options"].get("free_bits") if record["loss"]["name"] == "elbo" else None
    if given is None:
        return None
    floors = FreeBits.parse(str(given))
    return str(given) if floors.everywhere or any(floors.by_site.values()) else None


def initialise(
    engine: Any,
    record: Mapping[str, Any],
    program: Program,
    data: Prepared,
    settings: FitSettings,
    betas: Mapping[str, float],
) -> None:
    """Give an engine the initial parameters that a run's record names; random ones it has already.

    Args:
        engine: Prepared for the first step.
        record: The run's record.
        program: The built model and guide.
        data: The data of the fit.
        settings: Settings of the fit.
        betas: Final beta of each site.

    Raises:
        InputError: The run to start from is none of this variant, or the best parameters are not known, as with
            free bits.
    """
    if "start" in record:
        engine.load_parameters(open_folder(record["start"]).read_checkpoint(FINAL)[0])
    elif record.get("init") == "linear-optimum":  # runs before version 0.2 have none
        from ppl_vae.training.linear_start import optimal_parameters

        if floors := free_bits(record):
            raise InputError(
                f"free_bits must be 0 with init linear-optimum, but it is {floors}: the optimum is that of the "
                "beta-ELBO without floors; leave one of them out"
            )
        engine.load_parameters(optimal_parameters(program, data, settings, betas))
