"""The command ``audit``: how far a run is from the best possible fit, and which collapse is a failure."""

from typing import Annotated, Literal

import typer

from ppl_vae.cli._shared import AsJson, OptionalBackend, RunPath

__all__ = ["audit"]


def audit(
    run: RunPath,
    backend: OptionalBackend = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Say how far a run is from the best possible fit, and whether a collapse is true or a failure.

    For the linear variants the gap to the global optimum on the training data is exact. For beta_vae, cvae and
    mhvae with a Gaussian likelihood the best linear model stands beside the fit as a guide.
    """
    from ppl_vae.audit import audit as audit_run
    from ppl_vae.files import strict_json
    from ppl_vae.training.run import Run

    found = audit_run(Run.open(run, backend=backend, device=device))
    print(strict_json(found.to_dict(), indent=2) if as_json else found.page())
