import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppl_vae.data import load
from ppl_vae.errors import InputError
from ppl_vae.posterior.outputs import check_size, new_file, table_columns, write_npz, write_picture, write_table


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class TestNewFile:
    def test_of_a_name_that_is_free(self):
        assert new_file(Path("a.NPZ"), "d.npz", [".npz"]) == Path("a.NPZ")
        assert new_file(None, "d.npz", [".npz"]) == Path("d.npz")

    def test_default_names_are_numbered(self):
        for name in ("d.npz", "d-2.npz"):
            Path(name).touch()
        assert new_file(None, "d.npz", [".npz"]) == Path("d-3.npz")

    @pytest.mark.parametrize(
        ("out", "match"),
        [
            ("a.txt", "out must end in .npz or .csv, but it is a.txt"),
            ("none/a.npz", "out must be in a folder that exists, but none is none"),
            ("there.npz", "out must be a new file, but there.npz exists"),
        ],
    )
    def test_refusals(self, out, match):
        Path("there.npz").touch()
        with pytest.raises(InputError, match=match):
            new_file(Path(out), "d.npz", [".npz", ".csv"])


def test_arrays_come_back_with_what_they_are():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_npz(Path("a.npz"), {"x": x, "y": None, "two words": x > 2}, {"seed": 3, "nan": float("nan")})
    with np.load("a.npz") as found:
        assert set(found) == {"x", "two words", "meta"}
        np.testing.assert_array_equal(found["x"], x)
        assert json.loads(str(found["meta"])) == {"seed": 3, "nan": None}
    np.testing.assert_array_equal(load("a.npz").x, x)


def test_a_table_reads_as_data():
    x = np.random.default_rng(0).normal(size=(3, 2, 2)).astype(np.float32)
    columns = table_columns({"x": x, "khat": np.arange(3.0), "none": None})
    assert list(columns) == ["x_0_0", "x_0_1", "x_1_0", "x_1_1", "khat"]
    write_table(Path("a.csv"), {**columns, "label": ["b", "a", "b"]})
    found = load("a.csv")
    # Float32 numbers are written so that they read as they were.
    np.testing.assert_array_equal(found.x[:, :4], x.reshape(3, 4))
    np.testing.assert_array_equal(found.x[:, 4], np.arange(3.0))
    assert [found.label_names[code] for code in found.labels] == ["b", "a", "b"]


def test_wide_tables_and_large_results_are_refused():
    with pytest.raises(InputError, match="a .csv must have at most 4096 columns, but would have 4097; use .npz"):
        table_columns({"x": np.zeros((1, 4096)), "y": np.zeros(1)})
    check_size(2**18, (1024,), "num")
    with pytest.raises(InputError, match="num must give at most 268435456 numbers"):
        check_size(2**18 + 1, (1024,), "num")


def test_a_picture_that_fails_leaves_nothing():
    with pytest.raises(ValueError, match="broadcast"):
        write_picture(Path("a.png"), [{"a": np.zeros((2, 4, 4)), "b": np.zeros((2, 4, 4, 5))}], title="t")
    assert not list(Path().iterdir())
    write_picture(Path("a.png"), [{"a": np.zeros((2, 4, 4))}], title="t")
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_keeps_its_pixels_with_a_text():
    rows = [{"a": np.random.default_rng(0).random((2, 4, 4))}]
    write_picture(Path("a.png"), rows, title="t")
    write_picture(Path("b.png"), rows, title="t", meta={"run": "Läufe/1", "nan": float("nan")})
    with Image.open("a.png") as plain, Image.open("b.png") as told:
        assert json.loads(told.text["meta"]) == {"run": "Läufe/1", "nan": None}
        assert "meta" not in plain.text
        np.testing.assert_array_equal(np.asarray(told), np.asarray(plain))
