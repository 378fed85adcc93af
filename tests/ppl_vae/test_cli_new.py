"""The command ``new``: what it writes, prints and refuses."""

import json
import re
from pathlib import Path

import pytest


def files():
    return sorted(str(path) for path in Path().rglob("*.py"))


def test_a_variant_is_copied_and_the_next_step_is_said(command):
    done = command("new", "beta_vae", "--backend", "pyro")
    assert (done.code, done.err) == (0, "")
    assert done.out == "wrote beta_vae_pyro.py\nedit, then fit:\n  ppl-vae fit ./beta_vae_pyro.py\n"
    assert files() == ["beta_vae_pyro.py"]


def test_without_a_backend_both_twins_are_copied(command):
    done = command("new", "beta_vae", "--name", "my_vae", "--out", "mine")
    assert done.code == 0
    assert files() == ["mine/my_vae_numpyro.py", "mine/my_vae_pyro.py"]
    for name in files():
        assert f"wrote {name}\n" in done.out
        assert f"  ppl-vae fit {name}\n" in done.out


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_loss_is_copied_and_the_next_step_is_said(command, backend):
    done = command("new", "--loss", "elbo", "--backend", backend)
    assert (done.code, files()) == (0, [f"elbo_{backend}.py"])
    assert f"  ppl-vae fit beta_vae --backend {backend} --loss ./elbo_{backend}.py\n" in done.out


def test_json_has_files_and_commands(command):
    copies = json.loads(command("new", "beta_vae", "--backend=pyro", "--json").out)["copies"]
    path = Path("beta_vae_pyro.py").resolve()
    assert copies == [{"file": str(path), "next": "ppl-vae fit ./beta_vae_pyro.py"}]


def test_the_help_explains_every_option(command):
    done = command("new", "--help")
    assert (done.code, done.err) == (0, "")
    for option in ("--loss", "--backend", "--name", "--out", "--json"):
        assert re.search(rf"^  {option} .*\w\.", done.out, re.M)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "new must be given either a variant or --loss, but it has neither; name one to copy"),
        (["beta_vae", "--loss=elbo"], "but it has both 'beta_vae' and --loss 'elbo'; name one"),
        (["beta_vea"], "variant must be one of .*; did you mean beta_vae"),
        (["--loss=elbow"], "loss must be one of .*; did you mean elbo"),
        (["beta_vae", "--backend=jax"], "'jax' is not one of 'pyro', 'numpyro'"),
        (["beta_vae", "--name=a/b"], "name must consist of letters, digits and underscores, but it is 'a/b'"),
        (["beta_vae", "--out=/dev/null/x"], "cannot create the folder /dev/null/x"),
        (["beta_vae", "--out=/proc"], "cannot write /proc/beta_vae_numpyro.py"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(command, words, match):
    done = command("new", *words)
    assert (done.code, done.out) == (2, "")
    assert re.search(match, done.err), done.err
    assert len(re.findall("^error: |^Error: ", done.err, re.M)) == 1
    assert "Traceback" not in done.err
    assert files() == []


def test_a_second_copy_does_not_overwrite_the_first(command):
    assert command("new", "beta_vae", "--backend=pyro").code == 0
    Path("beta_vae_pyro.py").write_text("edited")
    done = command("new", "beta_vae")
    assert done.code == 2
    assert re.match("error: a copy must not overwrite a file, but beta_vae_pyro.py exists; choose", done.err)
    assert files() == ["beta_vae_pyro.py"]
    assert Path("beta_vae_pyro.py").read_text() == "edited"
