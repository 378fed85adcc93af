"""The command theory entropy: what it prints, as JSON and as a page, and what it refuses."""

import json

import numpy as np
import pytest

from ppl_vae.theory.entropy import differential_entropy


@pytest.fixture
def x(tmp_path):
    """What is written to the file that the command reads."""
    x = np.random.default_rng(0).normal(size=(200, 2, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return x.reshape(200, 2)


@pytest.mark.parametrize("method", ["nearest-neighbours", "gaussian"])
def test_json_has_the_estimate(command, x, method):
    done = command("theory", "entropy", "x.npy", f"--method={method}", "--json")
    found = differential_entropy(x, method=method)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {
        **{"data": "x", "dimension": 2, "value": found.value, "error": found.error},
        **{"method": method, "num_data": 200},
    }


def test_the_page_ends_with_how_to_use_it(command, x):
    done = command("theory", "entropy", "x.npy")
    found = differential_entropy(x)
    first, value, error, last = done.out.splitlines()
    assert first == "data=x  n=200  d=2  method=nearest-neighbours   [nats]"
    assert value.split() == ["entropy", f"{found.value:.6g}"]
    assert error.split() == ["standard", "error", f"{found.error:.2g}"]
    assert last.endswith(f"--loss-option entropy={found.value:.6g}")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["nothing.npy"], "error: source nothing.npy"),
        (["digits"], "error: x must vary in each coordinate, but coordinate 0 is 0"),
        (["digits", "--method=kernel"], "'kernel' is not one of 'nearest-neighbours', 'gaussian'"),
    ],
)
def test_bad_input_is_answered_by_one_message(command, words, match):
    done = command("theory", "entropy", *words)
    assert (done.code, done.out) == (2, "")
    assert match in done.err
