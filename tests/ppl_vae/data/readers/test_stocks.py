import gzip
import hashlib
from dataclasses import replace

import numpy as np
import pytest

from ppl_vae.data import load
from ppl_vae.data.collection import registry as _registry
from ppl_vae.data.collection.imports import import_data
from ppl_vae.data.readers.stocks import read_stocks
from ppl_vae.errors import InputError

PRICES = np.exp(np.random.default_rng(0).normal(3.0, 0.1, (6, 20))).round(3)


def table(prices):
    head = ",".join(["Date", *(f"S{number}" for number in range(prices.shape[1]))])
    days = [f"1990-01-{day:02d},{','.join(map(str, row))}" for day, row in enumerate(prices.tolist(), 1)]
    return "\n".join([head, *days, ""]).encode()


def write(folder, content, name="sp500_dataset.csv.gz"):
    (folder / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)


@pytest.mark.parametrize("name", ["sp500_dataset.csv.gz", "sp500_dataset.csv"])
def test_returns_in_the_order_of_time(tmp_path, name):
    write(tmp_path, table(PRICES), name)
    raw = read_stocks(tmp_path)
    # Rounding of a ratio near 1, over a return of 1e-4 or more.
    np.testing.assert_allclose(raw.x, 100.0 * np.diff(np.log(PRICES), axis=0), rtol=1e-11, atol=0)
    assert (raw.labels, raw.num_test) == (None, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(PRICES[:1]), "two days or more, but it holds 1 days"),
        (table(PRICES - PRICES[2, 3]), "6 days and the least price is -"),
        (table(np.where(PRICES == PRICES[2, 3], np.nan, PRICES)), "the least price is nan; get the file again"),
        (table(PRICES[:, :9]), "cannot be read as a table of prices"),
        (table(PRICES).replace(b"1990-01-02,", b"1990-01-02,x"), "cannot be read as a table of prices"),
    ],
)
def test_tables_of_something_else_are_refused(tmp_path, content, message):
    write(tmp_path, content)
    with pytest.raises(InputError, match=message):
        read_stocks(tmp_path)


def test_a_torn_file_is_refused(tmp_path):
    whole = gzip.compress(table(PRICES), mtime=0)
    (tmp_path / "sp500_dataset.csv.gz").write_bytes(whole[:-20])
    with pytest.raises(InputError, match="cannot be read as a table of prices"):
        read_stocks(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"must hold the file sp500_dataset.csv.gz or sp500_dataset.csv, but"):
        read_stocks(tmp_path)


def test_import_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path / "cache"))
    entry = _registry.REGISTRY["stocks"]
    digest = hashlib.sha256(table(PRICES)).hexdigest()
    layout = replace(entry.layouts[0], sha256={"sp500_dataset.csv": digest})
    monkeypatch.setitem(_registry.REGISTRY, "stocks", replace(entry, layouts=(layout,), sha256=None))
    folder = tmp_path / "skfolio" / "datasets" / "data"
    folder.mkdir(parents=True)
    write(folder, table(PRICES))
    about = import_data("stocks", tmp_path / "skfolio")
    assert about["source_sha256"] == {"sp500_dataset.csv.gz": digest}
    assert load("stocks").x.shape == (5, 20)
    write(folder, table(PRICES + 1.0))
    with pytest.raises(InputError, match=f"sp500_dataset.csv.gz must have the SHA-256 {digest}"):
        import_data("stocks", tmp_path / "skfolio")
