"""Labelled pictures of letters of many scripts, drawn from installed fonts: a stand-in for Omniglot.

Grey values are in [0, 1]: ink is 1 on a ground of 0.
"""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data.checks import check_seed
from ppl_vae.data.generators._arguments import check_count, check_non_negative
from ppl_vae.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

__all__ = ["draw_glyphs"]

# Modifier letters are left out: most are another letter made small.
_LETTERS = ("Lu", "Ll", "Lt", "Lo")
_NO_SCRIPT = ("Zyyy", "Zinh", "Zzzz")
# Letters are drawn this many times larger than asked for, and averaged down.
_OVERSAMPLING = 4
# Parts of the side: an em, and what a letter too large for it leaves free at each edge.
_EM, _MARGIN = 0.9, 1 / 14
# At a jitter of 1: degrees, part of the side, part of the size.
_ROTATION, _SHIFT, _ZOOM = 15.0, 0.05, 0.1


class _Face(NamedTuple):
    """A font at drawing size.

    Attributes:
        font: The font as PIL reads it.
        letters: Letters that it maps to a glyph.
        missing: The glyph that stands for characters it lacks, as ``_key`` of its ink.
        order: Sorts regular upright fonts with many letters first.
    """

    font: "FreeTypeFont"
    letters: frozenset[str]
    missing: bytes
    order: tuple[float, float, int, str]


def draw_glyphs(
    fonts: str | os.PathLike[str] | None = None,
    *,
    size: int = 28,
    max_per_script: int = 60,
    num_drawings: int = 1,
    jitter: float = 0.0,
    seed: int = 0,
) -> Raw:
    """Square pictures of the letters of every script that some fonts have.

    Letters keep their sizes relative to each other, unless one is too large for its picture. A script's
    letters come in the order of their code points. Left out are modifier letters, and letters whose
    picture is blank, the font's sign for a missing character, or that of an earlier letter of the script.

    Args:
        fonts: A ``.ttf`` or ``.otf`` file, or a folder searched with all below it, such as that of a
            system's Noto fonts; by default the DejaVu fonts that come with matplotlib (15 scripts).
        size: Side of a picture in pixels, at least 8.
        max_per_script: The most letters kept of one script.
        num_drawings: Pictures of each letter, in turn from each of the fonts that have it: regular
            upright ones first, then by number of letters. Without jitter they repeat where fonts are few.
        jitter: Strength of the random transformation of each picture: at 1 it is a rotation of up to
            15 degrees, a shift of up to 5 % of the side each way, and a zoom of up to 10 % in or out.
        seed: Seed of the transformations.

    Returns:
        Pictures (n, size, size), sorted by script and letter, with labels such as
        ``Greek/GREEK SMALL LETTER ALPHA``.

    Raises:
        InputError: A number out of range, or fonts that are not there, cannot be read or hold no letter.

    Example:
        >>> str(draw_glyphs(max_per_script=1).labels[-1])
        'Tifinagh/TIFINAGH LETTER YA'
    """
    _check(size, max_per_script, num_drawings, jitter, seed)
    rng = np.random.default_rng(seed)
    faces = _faces(fonts, size)
    pictures, labels = [], []
    for script, letters in _by_script(faces):
        for letter, first in _distinct(letters, faces, max_per_script):
            usable = [face for face in faces[first:] if letter in face.letters][:num_drawings]
            inks = [ink for face in usable if (ink := _ink(letter, face)) is not None]
            pictures += [_picture(inks[i % len(inks)], size, jitter, rng) for i in range(num_drawings)]
            labels += [f"{script}/{_name(letter)}"] * num_drawings
    if not pictures:
        raise InputError(f"fonts must hold letters, but {fonts} hold none; pass fonts of a written script")
    return Raw(np.stack(pictures), np.array(labels))


def _check(size: int, max_per_script: int, num_drawings: int, jitter: float, seed: int) -> None:
    check_count(size, "size")
    if size < 8:
        raise InputError(f"size must be at least 8, but it is {size}; letters need 8 pixels or more")
    check_count(max_per_script, "max_per_script")
    check_count(num_drawings, "num_drawings")
    check_non_negative(jitter, "jitter")
    if jitter > 2:
        raise InputError(f"jitter must be at most 2, but it is {jitter}; 1 turns by up to 15 degrees")
    check_seed(seed)


def _faces(fonts: str | os.PathLike[str] | None, size: int) -> list[_Face]:
    """Readable faces with letters, the plainest first."""
    faces = [face for path in _font_files(fonts) if (face := _read_face(path, size)) is not None]
    return sorted(faces, key=lambda face: face.order)


def _font_files(fonts: str | os.PathLike[str] | None) -> list[Path]:
    if fonts is None:
        import matplotlib

        return sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))
    path = Path(fonts)
    if not path.exists():
        raise InputError(
            f"fonts must be a font file or a folder of them, but {path} does not exist; check the path"
        )
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    files = [file for file in found if file.suffix.lower() in (".ttf", ".otf")]
    if not files:
        raise InputError(f"fonts must name .ttf or .otf files, but {path} has none; pass a folder that holds some")
    return files


def _read_face(path: Path, size: int) -> _Face | None:
    """The face of a file, or None if it has no letters."""
    from fontTools.ttLib import TTFont
    from PIL import ImageFont

    try:
        with path.open("rb") as file, TTFont(file, lazy=True) as table:
            characters = map(chr, table.getBestCmap() or {})
            letters = frozenset(c for c in characters if unicodedata.category(c) in _LETTERS)
            # Fonts of pictures have no outlines that PIL could draw at this size.
            if not letters:
                return None
            weight, slant = table["OS/2"].usWeightClass, table["post"].italicAngle
        # The basic layout is in every build of PIL.
        font = ImageFont.truetype(path, int(_EM * size * _OVERSAMPLING), layout_engine=ImageFont.Layout.BASIC)
        missing = _key(_draw("\U0010ffff", font))
    # A damaged table raises whatever its decoder meets.
    except Exception as error:
        raise InputError(f"fonts must be readable, but {path} is not ({error}); remove it or repair it") from error
    return _Face(font, letters, missing, (abs(weight - 400), abs(slant), -len(letters), path.name))


def _by_script(faces: list[_Face]) -> Iterator[tuple[str, list[str]]]:
    """Names of scripts in alphabetical order, each with its letters by code point."""
    from fontTools import unicodedata as scripts

    groups: dict[str, list[str]] = {}
    for letter in sorted(frozenset[str]().union(*(face.letters for face in faces))):
        code = scripts.script(letter)
        if code not in _NO_SCRIPT:
            groups.setdefault(scripts.script_name(code), []).append(letter)
    yield from sorted(groups.items())


def _distinct(letters: list[str], faces: list[_Face], most: int) -> Iterator[tuple[str, int]]:
    """Letters that look like no earlier one, each with the first face that draws it."""
    seen: set[bytes] = set()
    for letter in letters:
        for i, face in enumerate(faces):
            ink = _ink(letter, face) if letter in face.letters else None
            if ink is not None:
                if _key(ink) not in seen:
                    seen.add(_key(ink))
                    yield letter, i
                break
        if len(seen) == most:
            return


def _ink(letter: str, face: _Face) -> "Image | None":
    """A letter without its margins, or None where it is blank or the sign for a missing one."""
    ink = _draw(letter, face.font)
    box = ink.getbbox()
    if box is None or _key(ink) == face.missing:
        return None
    # One blank pixel around, so that interpolation smooths the outermost edges too.
    return ink.crop((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1))


def _draw(letter: str, font: "FreeTypeFont") -> "Image":
    from PIL import Image, ImageDraw

    left, top, right, bottom = map(round, font.getbbox(letter))
    ink = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(ink).text((-left, -top), letter, fill=255, font=font)
    return ink


def _key(ink: "Image") -> bytes:
    return repr(ink.size).encode() + ink.tobytes()


def _picture(ink: "Image", size: int, jitter: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Ink in the middle of a picture, transformed and averaged down."""
    from PIL import Image

    side = size * _OVERSAMPLING
    angle, right_by, down_by, zoom = rng.uniform(-jitter, jitter, 4)
    # From a point of the picture to one of the ink, both counted from their middles.
    room = (1 - 2 * _MARGIN) * side
    scale = max(1.0, *((extent - 2) / room for extent in ink.size)) / (1 + _ZOOM * zoom)
    cos, sin = scale * np.cos(np.radians(_ROTATION * angle)), scale * np.sin(np.radians(_ROTATION * angle))
    x, y = 0.5 * side + _SHIFT * side * right_by, 0.5 * side + _SHIFT * side * down_by
    shift_x, shift_y = 0.5 * ink.size[0] - cos * x - sin * y, 0.5 * ink.size[1] + sin * x - cos * y
    matrix = (cos, sin, shift_x, -sin, cos, shift_y)
    large = ink.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(large.reduce(_OVERSAMPLING), np.float64) / 255


def _name(letter: str) -> str:
    return unicodedata.name(letter, f"U+{ord(letter):04X}")
