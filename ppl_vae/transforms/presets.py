"""Transformations by name, and by several names at once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from ppl_vae.data import BINARISE_MODES
from ppl_vae.data.checks import check_choice
from ppl_vae.errors import InputError, remedy_for
from ppl_vae.likelihoods.support import COUNTS, LIKELIHOODS
from ppl_vae.nets.clouds import CloudLikelihood
from ppl_vae.transforms.affine import Affine
from ppl_vae.transforms.clouds import DropPoints, PointJitter, Resize, Rotate
from ppl_vae.transforms.colour import ColourJitter
from ppl_vae.transforms.finish import Binarise, Levels
from ppl_vae.transforms.noise import Erase, PixelNoise
from ppl_vae.transforms.step import Kind, Step, data_kind
from ppl_vae.transforms.transform import Transform

__all__ = ["PRESETS", "find_transform"]

PRESETS: Mapping[Kind, Mapping[str, tuple[Step, ...]]] = {
    "images": {
        "none": (),
        "simple": (Affine(degrees=15, translate=0.05, scale=(0.9, 1.1)),),
        "large": (Affine(degrees=30, translate=0.1, scale=(0.75, 1.25)),),
        "horizontal-flip": (Affine(horizontal_flip=0.5),),
        "vertical-flip": (Affine(vertical_flip=0.5),),
        "flips": (Affine(horizontal_flip=0.5, vertical_flip=0.5),),
        "jitter": (ColourJitter(),),
        "noise": (PixelNoise(),),
        "erase": (Erase(),),
    },
    "clouds": {
        "none": (),
        "rotate": (Rotate(),),
        "rotate-any": (Rotate(axis="any"),),
        "resize": (Resize(),),
        "jitter": (PointJitter(),),
        "drop": (DropPoints(),),
        "points": (DropPoints(), Rotate(), Resize(), PointJitter()),
    },
}

_FLIP_NOTE = "a flip calls mirrored data the same: letters and most digits are not"


def find_transform(
    name: str, data_shape: tuple[int, ...], *, likelihood: str | None = None, binarise: str | None = None
) -> Transform:
    """A transformation by its name.

    Several names joined by ``+`` are done one after the other, all that moves pixels in one resampling, flips
    first. ``simple``, ``large``, ``simple+vertical-flip``, ``simple+jitter``, ``simple+vertical-flip+jitter`` and
    the same with ``large`` are the presets of the paper, here bilinear.

    Data are transformed while they are grey, and brought to the likelihood's support afterwards: for
    ``bernoulli`` they become zeros and ones as ``binarise`` says (by a threshold where it says nothing), for
    ``discretised-logistic-mixture`` the nearest of 256 levels. Hence hand in data as loaded; ``none`` does that
    last part alone, and so serves the untransformed branch.

    Args:
        name: Names of ``PRESETS`` for data of this shape.
        data_shape: Shape of one datum.
        likelihood: A key of ``ppl_vae.likelihoods.support.LIKELIHOODS``, or for clouds ``mixture`` or ``chamfer``
            of ``point_vae``; None leaves grey values as they come.
        binarise: ``threshold``, ``sample`` or None, as for a fit.

    Raises:
        InputError: An unknown name, data that are neither images nor point clouds, two rotations, or a likelihood
            that the transformed data would have no density for.

    Example:
        >>> find_transform("simple+flips+jitter", (28, 28)).steps[0].vertical_flip
        0.5

    Source:
        Sinha & Dieng, arXiv:2105.14859, its published code, for ``simple``, ``large`` and ``jitter`` of images.
    """
    kind = data_kind(data_shape)
    if kind is None:
        raise InputError(
            "data_shape must be that of images, (h, w) or (h, w, c) with 1 to 4 channels, or of point clouds, "
            f"(p, 3), for the transformation {name}, but it is {tuple(data_shape)}; a table has no named "
            "transformation: write a function (args, kwargs) -> (args, kwargs)"
        )
    steps = [step for part in name.split("+") for step in _steps(part, kind)]
    steps = [*_merged(name, steps), *_finish(kind, likelihood, binarise)]
    flips = any(isinstance(step, Affine) and step.horizontal_flip + step.vertical_flip > 0 for step in steps)
    return Transform(name, tuple(data_shape), tuple(steps), (_FLIP_NOTE,) if flips else ())


def _steps(name: str, kind: Kind) -> tuple[Step, ...]:
    if name in PRESETS[kind]:
        return PRESETS[kind][name]
    known = list(PRESETS[kind])
    other = next((other for other in PRESETS if name in PRESETS[other]), None)
    hint = remedy_for(name, known, "choose some of them, joined by +")
    found = f"{name!r}, which is for {other}" if other else repr(name)
    raise InputError(f"a transformation of {kind} must be of {', '.join(known)}, but it is {found}; {hint}")


def _merged(name: str, steps: Sequence[Step]) -> list[Step]:
    """The same steps with all that moves pixels in one, at the place of the first."""
    moves = [step for step in steps if isinstance(step, Affine)]
    if len(moves) < 2:
        return list(steps)
    turns = [move for move in moves if move.degrees > 0]
    if len(turns) > 1:
        raise InputError(
            f"a transformation must have one of simple and large, but it is {name!r}; drop one of them"
        )
    one = replace(
        turns[0] if turns else Affine(),
        horizontal_flip=max(move.horizontal_flip for move in moves),
        vertical_flip=max(move.vertical_flip for move in moves),
    )
    first = steps.index(moves[0])
    return [*steps[:first], one, *(step for step in steps[first:] if not isinstance(step, Affine))]


def _finish(kind: Kind, likelihood: str | None, binarise: str | None) -> list[Step]:
    if binarise is not None:
        check_choice(binarise, BINARISE_MODES, "binarise")
    if likelihood is not None:
        known = (*LIKELIHOODS, *get_args(CloudLikelihood)) if kind == "clouds" else LIKELIHOODS
        check_choice(likelihood, known, "likelihood")
    if likelihood in COUNTS:
        raise InputError(
            f"likelihood must not be {likelihood} with a named transformation: values between pixels are no "
            "counts; use --likelihood gaussian, or write a function (args, kwargs) -> (args, kwargs)"
        )
    if kind == "clouds" and (binarise is not None or likelihood in ("bernoulli", "discretised-logistic-mixture")):
        raise InputError(
            f"likelihood must be one of real values with transformed point clouds, but it is {likelihood} with "
            f"binarise {binarise}; use --likelihood gaussian, or mixture of point_vae, without --binarise"
        )
    if likelihood == "discretised-logistic-mixture":
        return [Levels()]
    return [Binarise(binarise or "threshold")] if likelihood == "bernoulli" or binarise else []
