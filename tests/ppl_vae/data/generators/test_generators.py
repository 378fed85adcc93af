import subprocess
import sys

import numpy as np
import pytest

from ppl_vae.data import load
from ppl_vae.data.generators import GENERATORS

SHAPES = {
    "spiked": (2000, 100),
    "heavy-tailed-1d": (20_000, 1),
    "heavy-tailed-2d": (20_000, 2),
    "shapes": (2400, 256, 3),
    "glyphs": (7140, 28, 28),
}


def test_every_generator_is_listed_here():
    assert SHAPES.keys() == GENERATORS.keys()


@pytest.mark.parametrize("name", SHAPES)
def test_named_data_are_accepted_by_the_loader(name):
    raw = GENERATORS[name]()
    dataset = load(raw.x, labels=raw.labels)
    # Other versions of the bundled fonts may have other letters.
    assert dataset.x.shape[1:] == SHAPES[name][1:]
    assert dataset.num_data == SHAPES[name][0] or name == "glyphs"
    np.testing.assert_allclose(dataset.x, raw.x, rtol=1e-6)
    assert (raw.labels is None) == (name not in ("shapes", "glyphs"))


@pytest.mark.parametrize("name", SHAPES)
def test_descriptions_have_one_line(name):
    assert "\n" not in GENERATORS[name].__doc__.strip()


def test_import_loads_no_heavy_library():
    heavy = "matplotlib", "PIL", "fontTools", "scipy", "sklearn", "pandas", "torch", "jax"
    code = f"import sys, ppl_vae.data.generators; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
