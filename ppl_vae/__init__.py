"""Variational autoencoders as probabilistic programs, in Pyro and NumPyro.

Names are imported on first use: ``import ppl_vae`` loads neither torch nor jax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppl_vae.copying import copy_plugin
    from ppl_vae.data import load
    from ppl_vae.diagnostics.store import to_arviz
    from ppl_vae.errors import InputError
    from ppl_vae.plugins import build, build_loss
    from ppl_vae.sweeps.sweep import sweep
    from ppl_vae.training.convert import convert
    from ppl_vae.training.fit import fit, resume
    from ppl_vae.training.run import Run

__all__ = [
    "InputError",
    "Run",
    "build",
    "build_loss",
    "convert",
    "copy_plugin",
    "fit",
    "load",
    "resume",
    "sweep",
    "to_arviz",
]

_HOMES = {
    "InputError": "ppl_vae.errors",
    "Run": "ppl_vae.training.run",
    "build": "ppl_vae.plugins",
    "build_loss": "ppl_vae.plugins",
    "convert": "ppl_vae.training.convert",
    "copy_plugin": "ppl_vae.copying",
    "fit": "ppl_vae.training.fit",
    "load": "ppl_vae.data",
    "resume": "ppl_vae.training.fit",
    "sweep": "ppl_vae.sweeps.sweep",
    "to_arviz": "ppl_vae.diagnostics.store",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ppl_vae' has no attribute {name!r}")
