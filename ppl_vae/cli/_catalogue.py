"""The command ``list``: what there is."""

from ppl_vae.cli._shared import AsJson

__all__ = ["list_plugins"]


def list_plugins(as_json: AsJson = False) -> None:
    """List the variants, the losses and the embedded data."""
    from ppl_vae.catalogue import catalogue, catalogue_table
    from ppl_vae.files import strict_json

    found = catalogue()
    print(strict_json(found, indent=2) if as_json else catalogue_table(found))
