"""Fits of the grouped VAE: what a run says per group and per member, its files, and how it continues."""

import json

import numpy as np
import pytest

import ppl_vae
from ppl_vae.data import group_data, load
from ppl_vae.diagnostics.store import read_store
from ppl_vae.errors import InputError
from ppl_vae.training.reopen import open_folder
from ppl_vae.training.results import run_page
from tests.helpers import needs
from tests.toy_fits import TOY

OPTIONS = {**TOY, "max_members": 30, "num_members": 8, "group_dim": 2, "epochs": 2, "log_px_draws": 5}
BETAS = {"u": 0.5, "z": 2.0}
PYRO = needs("torch", "pyro")
# JAX compiles for longer than it fits.
BACKENDS = [
    pytest.param("pyro", marks=PYRO),
    pytest.param("numpyro", marks=[needs("jax", "numpyro", "equinox", "optax"), pytest.mark.slow]),
]


def fit(data="digits", **options):
    return ppl_vae.fit("grouped_vae", data, **{**OPTIONS, **options})


@pytest.fixture(scope="module", params=BACKENDS)
def run(request, tmp_path_factory):
    """A run on groups of up to 30 digits of one class, of which a step looks at 8."""
    return fit(backend=request.param, beta=BETAS, out=tmp_path_factory.mktemp("runs") / "run")


def test_a_result_is_per_group_and_per_member(run):
    result, x = run.metrics, run.data.split("test")
    assert result["members"]["test"] == pytest.approx(x.condition.sum(axis=1).mean())
    assert 25 < result["members"]["test"] < 30
    for split in ("train", "validation", "test"):
        members, rates = result["members"][split], result["rates"][split]
        for site, rate in result["rates_per_member"][split].items():
            assert rate * members == pytest.approx(rates[site])
        distortion = result["distortion"][split]
        assert result["distortion_per_member"][split] * members == pytest.approx(distortion)
        weighted = sum(beta * rates[site] for site, beta in BETAS.items())
        assert result["loss"][split] == pytest.approx(distortion + weighted, rel=1e-5)
        assert result["elbo"][split] == pytest.approx(-distortion - sum(rates.values()), rel=1e-5)
    page = run_page(run)
    assert "[nats per group]" in page
    assert "beta u=0.5, z=2" in page
    assert f"members a group (train / validation / test): {result['members']['train']:.1f}" in page
    assert f"rate u {result['rates_per_member']['train']['u']:.3f}" in page


def test_a_run_finds_its_groups_and_writes_its_products(run):
    opened = ppl_vae.Run.open(run.path)
    assert opened.record["data"]["arrangement"] == {"group": "labels", "size": 30}
    np.testing.assert_array_equal(opened.data.split("test"), run.data.split("test"))
    assert (run.path / "overview.png").read_bytes().startswith(b"\x89PNG")
    posterior = read_store(run.path / "posterior.nc")["posterior"]
    assert posterior["u"].shape[-1] == 2
    assert posterior["z"].shape[-2:] == (30, 3)


def test_codes_reconstructions_and_samples_are_by_group_and_member(run, command, tmp_path):
    x = run.data.split("test")
    for name in ("codes.npz", "codes.csv"):
        done = command("encode", str(run.path), "--out", name)
        assert done.code == 0, done.err
    codes = np.load("codes.npz")
    assert codes["u_mean"].shape == (len(x), 2)
    assert codes["z_mean"].shape == (len(x), 30, 3)
    table = np.genfromtxt("codes.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["z_mean_4_1"], codes["z_mean"][:, 4, 1], rtol=1e-5)

    done = command("reconstruct", str(run.path), "--out", "mean.npz", "--json")
    mean = np.load("mean.npz")["mean"]
    assert mean.shape == x.shape
    assert not mean[x.condition == 0].any()
    error = ((np.asarray(x) - mean) ** 2)[x.condition > 0].mean()
    assert json.loads(done.out)["mean_squared_error"] == pytest.approx(error, rel=1e-5)
    assert command("sample", str(run.path), "--num", "3", "--out", "x.npz").code == 0
    assert np.load("x.npz")["x"].shape == (3, 30, 8, 8)
    for words in (["reconstruct"], ["sample", "--num", "3"]):
        assert command(words[0], str(run.path), *words[1:], "--out", f"{words[0]}.png").code == 0


def test_other_data_are_put_in_groups_of_the_same_size(run, command):
    digits = load("digits")
    np.savez("few.npz", x=digits.x[:100], y=digits.labels[:100])
    assert command("encode", str(run.path), "--data", "few.npz", "--out", "few-codes.npz").code == 0
    assert np.load("few-codes.npz")["z_mean"].shape == (10, 30, 3)
    np.save("plain.npy", digits.x[:20])
    done = command("encode", str(run.path), "--data", "plain.npy", "--out", "plain-codes.npz")
    assert done.code == 2
    assert "group labels needs data with labels, but plain has none" in done.err


def test_diagnose_speaks_of_groups(run, command):
    done = command("diagnose", str(run.path), "--only", "summary", "--num-draws", "5")
    assert done.code == 0, done.err
    num_groups = len(run.data.split("test"))
    assert f"{num_groups} groups; nats per group, +- standard error over groups" in done.out
    for line in ("rate u", "rate z", "latent u: 2 units", "latent z: 3 units"):
        assert line in done.out


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupted_run_ends_bit_for_bit_like_an_unbroken_one(tmp_path, backend):
    options = {"backend": backend, "epochs": 4, "checkpoint_seconds": 0, "products": False}

    def interrupt(record, done):
        if record["epoch"] >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(out=tmp_path / "broken", report=interrupt, **options)
    ppl_vae.resume(tmp_path / "broken")
    unbroken = fit(out=tmp_path / "unbroken", **options)
    found, wanted = (open_folder(tmp_path / name).read_checkpoint("final")[0] for name in ("broken", "unbroken"))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert ppl_vae.Run.open(tmp_path / "broken").metrics == unbroken.metrics


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_target_rate_of_the_group_latent_finds_its_beta(tmp_path, backend):
    run = fit(backend=backend, epochs=4, target_rates={"u": 2.0}, out=tmp_path / "run", products=False)
    betas = run.record["final_betas"]
    assert betas["z"] == 1.0
    assert betas["u"] != 1.0
    assert run.record["target_rates"] == {"u": 2.0}
    assert "target rates" in run_page(run)


@PYRO
def test_groups_come_from_a_file_by_the_command(command, tmp_path):
    digits = load("digits")
    names = np.array([f"subject {number // 10}" for number in range(300)])
    np.save("x.npy", digits.x[:300])
    np.save("subjects.npy", names)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in TOY.items()]
    done = command(
        *("fit", "grouped_vae", "--data=x.npy", "--group=subjects.npy", "--epochs=1", "--beta=u=0.5"),
        *("--target-rate=z=40", *words, "--out=run", "--json"),
    )
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["arrangement"] == {"group": str(tmp_path / "subjects.npy"), "size": 10}
    opened = ppl_vae.Run.open("run")
    assert opened.data.dataset.fingerprint == group_data(load("x.npy"), names).fingerprint


@PYRO
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grouped_vae"], "of 10 groups it gets 1; raise --validation, or part them by --max-members"),
        (["grouped_vae", "--max-members=-3"], "max_members must be 0 or more, but it is -3"),
        (["grouped_vae", "--max-members=1"], "every group has 1 member"),
        (["grouped_vae", "--group=nothing.csv"], "group must be labels, or a file with the group of each datum"),
        (["grouped_vae", "--condition=labels"], "grouped_vae takes none; leave --condition out, or choose cvae"),
        (["beta_vae", "--group=labels"], "beta_vae takes none; leave --group out, or choose grouped_vae"),
        (["grouped_vae", "--max-members=30", "--num-members=-1"], "num_members must be 0 or more, but it is -1"),
    ],
)
def test_mistakes_end_with_one_message(command, words, message):
    done = command("fit", *words, "--backend=pyro")
    assert done.code == 2
    assert message in " ".join(done.err.split())


@PYRO
def test_labels_are_needed_for_groups_by_labels(tmp_path):
    with pytest.raises(InputError, match="group labels needs data with labels, but array has none"):
        fit(np.zeros((40, 3)), backend="pyro", out=tmp_path / "run")
