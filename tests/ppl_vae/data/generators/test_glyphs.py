import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.areaPen import AreaPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from matplotlib import get_data_path

from ppl_vae.data.generators import draw_glyphs
from ppl_vae.errors import InputError

DEJAVU = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"


def outline(*corners):
    pen = TTGlyphPen(None)
    if corners:
        pen.moveTo(corners[0])
        for corner in corners[1:]:
            pen.lineTo(corner)
        pen.closePath()
    return pen.glyph()


def rectangle(width, height):
    return outline((0, 0), (0, height), (width, height), (width, 0))


def write_font(path, glyphs, *, weight=400):
    """A font of 1000 units an em that maps each character to an outline; the missing glyph is a square."""
    names = {ord(character): f"g{ord(character):X}" for character in glyphs}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    outlines = {".notdef": rectangle(500, 500), **{names[ord(c)]: glyph for c, glyph in glyphs.items()}}
    builder.setupGlyf(outlines)
    builder.setupHorizontalMetrics(dict.fromkeys(outlines, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=weight, sTypoAscender=800)
    builder.setupPost()
    path.parent.mkdir(exist_ok=True)
    builder.save(path)


def extents(picture):
    """Height and width of what is inked by a half or more."""
    return tuple(np.ptp(np.flatnonzero((picture >= 0.5).any(axis))) + 1 for axis in (1, 0))


def test_blank_missing_and_repeated_letters_are_left_out(tmp_path):
    glyphs = {
        "A": rectangle(300, 700),
        "B": rectangle(300, 700),  # as A
        "C": outline(),  # blank
        "D": rectangle(500, 500),  # as the missing glyph
        "E": rectangle(700, 100),
        "1": rectangle(100, 400),  # no letter
        "\u02b0": rectangle(100, 300),  # a modifier letter
        "\u0391": rectangle(300, 700),  # as A, in another script
    }
    write_font(tmp_path / "fonts" / "a.ttf", glyphs)
    raw = draw_glyphs(tmp_path, size=40)
    names = ["Greek/GREEK CAPITAL LETTER ALPHA", "Latin/LATIN CAPITAL LETTER A", "Latin/LATIN CAPITAL LETTER E"]
    assert raw.labels.tolist() == names
    assert (raw.x.shape, raw.x.dtype) == ((3, 40, 40), np.float64)
    # An em is 0.9 of the side: 36 pixels. Hinting may move an edge by a quarter of a pixel.
    for picture, expected in zip(raw.x, [(25.2, 10.8), (25.2, 10.8), (3.6, 25.2)], strict=True):
        np.testing.assert_allclose(extents(picture), expected, rtol=0, atol=1)
        np.testing.assert_allclose(picture.sum(), np.prod(expected), rtol=0.05)


def test_ink_is_the_area_of_the_outline():
    labels, letters = [], "OoVgI"
    raw = draw_glyphs(DEJAVU, size=56, max_per_script=60)
    with TTFont(DEJAVU) as font:
        glyphs, cmap, em = font.getGlyphSet(), font.getBestCmap(), font["head"].unitsPerEm
        for letter in letters:
            pen = AreaPen(glyphs)
            glyphs[cmap[ord(letter)]].draw(pen)
            labels.append((letter, abs(pen.value) / em**2))
    for letter, area in labels:
        case = "CAPITAL" if letter.isupper() else "SMALL"
        picture = raw.x[raw.labels == f"Latin/LATIN {case} LETTER {letter.upper()}"][0]
        # An em is 0.9 of the side; hinting may move each edge by an eighth of a pixel of the picture.
        np.testing.assert_allclose(picture.sum(), area * (0.9 * 56) ** 2, rtol=0.04)


def test_too_large_letters_shrink_into_the_picture(tmp_path):
    write_font(tmp_path / "a.ttf", {"A": rectangle(3000, 300)})
    picture = draw_glyphs(tmp_path, size=28).x[0]
    # A margin of 2 pixels each side leaves 24, and 2.4 across.
    np.testing.assert_allclose(extents(picture), (2.4, 24), rtol=0, atol=1)
    assert picture[:, :2].max() == picture[:, -2:].max() == 0


def test_drawings_come_from_each_font_plainest_first(tmp_path):
    write_font(tmp_path / "a.ttf", {"A": rectangle(800, 800)}, weight=700)
    write_font(tmp_path / "b.ttf", {"A": rectangle(200, 600)})
    write_font(tmp_path / "c.ttf", {"A": rectangle(600, 200), "B": rectangle(400, 300)})
    raw = draw_glyphs(tmp_path, size=40, num_drawings=4)
    assert raw.labels.tolist() == ["Latin/LATIN CAPITAL LETTER A"] * 4 + ["Latin/LATIN CAPITAL LETTER B"] * 4
    # Regular before bold, more letters before fewer, then the first again.
    for picture, expected in zip(raw.x[:4], [(7.2, 21.6), (21.6, 7.2), (28.8, 28.8), (7.2, 21.6)], strict=True):
        np.testing.assert_allclose(extents(picture), expected, rtol=0, atol=1)
    np.testing.assert_array_equal(raw.x[4:], np.broadcast_to(raw.x[4], (4, 40, 40)))


def test_jitter_turns_shifts_and_zooms_within_its_bounds(tmp_path):
    write_font(tmp_path / "a.ttf", {"A": rectangle(600, 100)})
    size = 56
    plain = draw_glyphs(tmp_path, size=size).x[0]
    pictures = draw_glyphs(tmp_path, size=size, num_drawings=400, jitter=1.0).x
    mass = pictures.sum((1, 2))
    zoom = np.sqrt(mass / plain.sum())
    grid = np.arange(size) + 0.5 - size / 2
    centres = np.stack([(pictures.sum(1) * grid).sum(1), (pictures.sum(2) * grid).sum(1)]) / mass / size
    offsets = np.stack(np.meshgrid(grid, grid)) - size * centres.T[:, :, None, None]
    moments = np.einsum("nij,naij,nbij->nab", pictures, offsets, offsets)
    angles = np.degrees(np.arctan2(2 * moments[:, 0, 1], moments[:, 0, 0] - moments[:, 1, 1]) / 2)
    # Uniform on [-bound, bound]: a standard deviation of bound / sqrt(3), whose relative standard error
    # is sqrt(0.2 / 400); the averaging of pixels adds a hundredth or so of a bound.
    for values, bound in ((zoom - 1, 0.1), (centres[0], 0.05), (centres[1], 0.05), (angles, 15.0)):
        assert np.abs(values).max() < 1.05 * bound
        np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=4 * np.sqrt(0.2 / 400) + 0.02)
        assert abs(values.mean()) < 4 * bound / np.sqrt(3 * 400) + 0.02 * bound


def test_bundled_fonts_give_many_scripts():
    raw = draw_glyphs(size=16, max_per_script=9)
    scripts = [label.split("/")[0] for label in raw.labels]
    counts = dict(zip(*np.unique(scripts, return_counts=True), strict=True))
    assert {"Arabic", "Armenian", "Cyrillic", "Georgian", "Greek", "Hebrew", "Latin"} <= set(counts)
    assert max(counts.values()) == 9
    assert scripts == sorted(scripts)
    assert len(set(raw.labels)) == len(raw.labels)
    assert raw.x.min() == 0
    # Thin strokes need not fill a pixel; no picture is blank.
    assert 0.3 < raw.x.max((1, 2)).min() <= raw.x.max() <= 1


def test_drawings_follow_the_seed():
    first, again, other = (draw_glyphs(DEJAVU, max_per_script=2, jitter=0.5, seed=s).x for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any((1, 2)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "size must be at least 8, but it is 4"),
        ({"size": -28}, "size must be an integer of at least 1"),
        ({"max_per_script": 0}, "max_per_script must be an integer of at least 1"),
        ({"num_drawings": 0}, "num_drawings must be an integer of at least 1"),
        ({"jitter": -1.0}, "jitter must be 0 or more"),
        ({"jitter": 5.0}, "jitter must be at most 2, but it is 5.0"),
        ({"seed": -1}, "seed must be an integer of 0 or more"),
        ({"fonts": "no/such/folder"}, "fonts must be a font file or a folder of them, but .* does not exist"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        draw_glyphs(**options)


def test_folders_without_letters_are_refused(tmp_path):
    (tmp_path / "readme.txt").write_text("no font")
    with pytest.raises(InputError, match="fonts must name .ttf or .otf files, but .* has none"):
        draw_glyphs(tmp_path)
    write_font(tmp_path / "digits.ttf", {"1": rectangle(100, 400)})
    with pytest.raises(InputError, match="fonts must hold letters, but .* hold none"):
        draw_glyphs(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_damaged_fonts_are_refused(tmp_path, keep):
    with open(DEJAVU, "rb") as file:
        whole = file.read()
    (tmp_path / "broken.ttf").write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(InputError, match=r"fonts must be readable, but .*broken.ttf is not \(.*\); remove it"):
        draw_glyphs(tmp_path)
