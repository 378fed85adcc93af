"""The colours of the page: text can be read in both themes."""

import re
from base64 import b64decode
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ppl_vae.report
from ppl_vae.report.images import clouds_uri

STYLE = Path(ppl_vae.report.__file__).with_name("style.css").read_text("utf-8")
NAMED = dict(re.findall(r"(--[\w-]+): light-dark\((#\w{6}, #\w{6})\)", STYLE))
COLOURS = {name: dict(zip(("light", "dark"), pair.split(", "), strict=True)) for name, pair in NAMED.items()}


def luminance(colour):
    """Relative luminance of sRGB, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(name, ground, theme):
    light, dark = sorted((luminance(COLOURS[n][theme]) for n in (name, ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_is_that_of_the_standard():
    # Black on white is 21 : 1; #767676 is the lightest grey that passes 4.5 on white.
    assert luminance("#ffffff") == pytest.approx(1.0)
    assert (1.0 + 0.05) / (luminance("#767676") + 0.05) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(theme):
    pairs = [*product(("--text", "--muted", "--accent"), ("--background", "--surface", "--sunken"))]
    pairs += [("--on-accent", "--accent")]
    pairs += [(f"--{v}", f"--{v}-ground") for v in ("good", "warning", "bad", "unknown")]
    found = {pair: round(contrast(*pair, theme), 2) for pair in pairs}
    assert {pair: value for pair, value in found.items() if value < 4.5} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_and_dots_have_contrast(theme):
    # WCAG asks for 3 : 1 of graphics.
    series = [name for name in COLOURS if name.startswith("--series-")]
    assert len(series) == 10
    assert {n: c for n in [*series, "--bad"] if (c := contrast(n, "--surface", theme)) < 3.0} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_clouds_stand_on_the_page_itself(theme):
    # Ten clouds in a row for twelve; the near and the far end of the scale are among the points.
    clouds = np.random.default_rng(0).uniform(-1.0, 1.0, (10, 200, 3))
    with Image.open(BytesIO(b64decode(clouds_uri(clouds, 12, clouds).partition(",")[2]))) as image:
        pixels = np.asarray(image).reshape(-1, 4)
        assert image.width == 12 * image.height
    assert not pixels[0, 3]
    assert (pixels[:, 3] == 0).mean() > 0.5
    drawn = {f"#{bytes(p[:3]).hex()}" for p in np.unique(pixels[pixels[:, 3] == 255], axis=0)}
    assert len(drawn) > 20
    ground = luminance(COLOURS["--surface"][theme]) + 0.05
    pairs = [sorted((luminance(colour) + 0.05, ground)) for colour in drawn]
    assert min(light / dark for dark, light in pairs) >= 3.0


def test_motion_is_only_for_who_wants_it():
    outside = re.sub(r"@media \(prefers-reduced-motion: no-preference\) \{.*?\n\}", "", STYLE, flags=re.S)
    assert "transition" in STYLE
    assert not re.search(r"transition|animation|scroll-behavior", outside)
