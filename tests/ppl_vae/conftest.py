"""Fitted runs that several files share, and what spares a fit the parts that a test does not look at."""

import os
from types import SimpleNamespace

import pytest

from tests.helpers import needs
from tests.toy_fits import TOY, toy_data

# Before torch is imported: small networks gain nothing from a second thread, and wait for it on shared cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("pyro", marks=needs("torch", "pyro")),
        pytest.param("numpyro", marks=needs("jax", "numpyro", "equinox", "optax")),
    ],
)
def fitted(request, tmp_path_factory):
    """A finished run of each backend, three epochs on 200 digits with labels, and what it was made of."""
    import ppl_vae

    x, labels = toy_data()
    out = tmp_path_factory.mktemp("runs") / request.param
    records = []
    run = ppl_vae.fit(
        "beta_vae",
        x,
        labels=labels,
        backend=request.param,
        beta=2.0,
        epochs=3,
        batch_size=32,
        checkpoint_seconds=0,
        out=out,
        report=lambda record, done: records.append((record, done)),
        **TOY,
    )
    return SimpleNamespace(run=run, backend=request.param, x=x, labels=labels, reports=records)


@pytest.fixture
def no_products(monkeypatch):
    """Leaves out posterior.nc and overview.png, which take most of the time of a short fit."""
    import ppl_vae.training.fit as fit_module

    monkeypatch.setattr(fit_module, "_write_products", lambda run: None)


@pytest.fixture
def training_only(monkeypatch, no_products):
    """Leaves out the result too."""
    import ppl_vae.training.fit as fit_module

    monkeypatch.setattr(fit_module, "evaluate_splits", lambda *args, **options: {})


@pytest.fixture
def shell(capsys):
    """Runs the command's words: exit code, standard output and standard error."""
    from ppl_vae.cli import main

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main(words)
        return SimpleNamespace(code=end.value.code or 0, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def command(shell, tmp_path, monkeypatch):
    """The same in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return shell
