"""From names, files and objects to models, losses and engines; what a wrong one is told."""

import shutil
import sys
from types import SimpleNamespace

import pytest

from ppl_vae.errors import InputError
from ppl_vae.plugins import find
from ppl_vae.training.programs import build_loss, build_program, make_engine, twin, variant_options
from tests.helpers import BACKENDS, ROOT, load_file
from tests.toy_fits import write_model

BUILD = "def build(data_shape, *, seed=0{options}):\n    {body}\n"


def model_file(folder, options="", body="return None", name="mine_pyro.py"):
    path = folder / name
    path.write_text(BUILD.format(options=options, body=body))
    return path


def build(program, backend=None, shape=(6,), **options):
    return build_program(program, shape, backend=backend, options=options, seed=0)


@BACKENDS
def test_a_variant_by_name_is_recorded_with_every_option(backend):
    program = build("beta_vae", backend, (8, 8), latent_dim="3")
    record = program.record
    assert (record["name"], record["backend"], program.default_loss) == ("beta_vae", backend, "elbo")
    assert (record["file"], record["sha256"]) == (
        f"beta_vae_{backend}.py",
        find("models", "beta_vae", backend).sha256,
    )
    assert record["options"]["latent_dim"] == 3
    assert record["options"].keys() == {option.name for option in variant_options(program.plugin)}


@BACKENDS
def test_an_object_names_its_backend_itself(backend):
    program = load_file(f"models/beta_vae_{backend}.py").build((6,))
    built = build(program)
    assert (built.backend, built.name, built.plugin) == (backend, "BetaVAE", None)
    assert built.record["file"] is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"latent_dims": 3},
            r"option 'latent_dims' must be one of variant beta_vae, .*; did you mean latent_dim\?",
        ),
        ({"epoch": 3}, r"did you mean epochs\?"),
        ({"latent_dim": "x"}, "option latent_dim must be a whole number, but it is 'x'; the default is 10"),
        ({"latent_dim": 0}, "latent_dim and the size of a datum must be at least 1"),
        ({"num_hidden": -1}, "num_hidden must be at least 0"),
        ({"scale": float("nan")}, "scale must be positive and finite, but it is nan"),
        ({"activation": "gelu"}, "option activation must be one of relu, tanh, softplus"),
        (
            {"latent_dim": 10**15},
            "variant .*beta_vae_pyro.py must build with its options, but line .* raises RuntimeError",
        ),
        ({"latent_dim": 10**30}, "variant .*beta_vae_pyro.py must build with its options, but line .* raises"),
    ],
)
def test_wrong_options_of_a_variant_are_explained(options, match):
    with pytest.raises(InputError, match=match):
        build("beta_vae", **options)


def test_options_of_a_built_object_are_refused():
    program = load_file("models/beta_vae_pyro.py").build((6,))
    with pytest.raises(InputError, match="must be settings of the fit for an object .*, but latent_dim are none"):
        build(program, latent_dim=3)


@pytest.mark.parametrize(
    ("options", "body", "match"),
    [
        (", units", "pass", "parameter units of build in .*mine_pyro.py must have a default, but it has none"),
        (", units=3", "pass", r"parameter units of build in .* must be int, .*, but it is None; annotate it"),
        (", units: dict = {}", "pass", r"must be int, .*, but it is <class 'dict'>"),
        (", units: Missing = 1", "pass", "must run, but line 1 raises NameError: name 'Missing' is not defined"),
        (", units: 'Missing' = 1", "pass", "annotations of build in .* name 'Missing' is not defined"),
        (", epochs: int = 3", "pass", "option epochs of .*mine_pyro.py must have a name of its own.*; rename it"),
        (", beta: float = 1.0", "pass", "option beta of .* must have a name of its own"),
        ("", "raise ValueError('no')", "must build with its options, but line 2 raises ValueError: no; correct"),
        (
            "",
            "return None",
            r"mine_pyro.py must give an object with methods model and guide that take \(x, c=None",
        ),
    ],
)
def test_a_file_that_is_no_variant_is_explained(tmp_path, options, body, match):
    path = model_file(tmp_path, options, body)
    with pytest.raises(InputError, match=match):
        build(path)


def test_build_takes_shape_and_seed(tmp_path):
    path = tmp_path / "mine_pyro.py"
    path.write_text("def build(shape):\n    pass\n")
    with pytest.raises(InputError, match="must take data_shape and seed, but it lacks data_shape, seed; begin it"):
        build(path)


@pytest.mark.parametrize(
    ("model", "guide", "match"),
    [
        (None, lambda x, c=None, *, betas: None, "but its model does not"),
        (lambda x, c=None, *, betas: None, 3, "but its guide does not"),
        (lambda x: None, lambda x, c=None, *, betas: None, r"its model does not \(.*'betas'\); add or correct"),
        (lambda x, c, d, *, betas: None, lambda x, c=None, *, betas: None, r"its model does not \(missing"),
    ],
)
def test_an_object_that_is_no_program_is_explained(model, guide, match):
    with pytest.raises(InputError, match=f"the object of class SimpleNamespace must give .*{match}"):
        build(SimpleNamespace(model=model, guide=guide))


def test_a_pyro_program_is_a_torch_module():
    def program(x, c=None, *, betas):
        pass

    with pytest.raises(InputError, match="must give a torch module for the backend pyro, but it gives a SimpleN"):
        build(SimpleNamespace(model=program, guide=program), "pyro")


@BACKENDS
def test_an_error_inside_a_program_names_its_line(backend, tmp_path):
    path = write_model(tmp_path, backend, model="loc = loc[:, :4] + x")
    line = 1 + path.read_text()[: path.read_text().index("loc[:, :4]")].count("\n")
    program = build(path)
    with pytest.raises(
        InputError, match=f"small_{backend}.py must run on data of this shape, but line {line} raises"
    ):
        make_engine(program, (6,), seed=0, device="cpu")


def test_an_error_inside_an_object_stays_what_it_is():
    program = load_file("models/beta_vae_pyro.py").build((6,))
    program.decoder = None
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute"):
        make_engine(build(program), (6,), seed=0, device="cpu")


def test_a_missing_package_of_the_engine_is_named(monkeypatch):
    program = build("beta_vae", "numpyro")
    monkeypatch.delitem(sys.modules, "ppl_vae.training.numpyro_engine", raising=False)
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(InputError, match="backend numpyro needs the package optax, which is not installed"):
        make_engine(program, (6,), seed=0, device="cpu")


@BACKENDS
def test_a_loss_by_name_is_recorded(backend):
    loss = build_loss("elbo", backend, {"num_particles": "2"})
    assert loss.object.objective.num_particles == 2
    assert loss.record["options"] == {
        "num_particles": 2,
        "free_bits": "0",
        "balance": "off",
        "allow_unbounded": False,
        "data_plate": "data",
    }
    assert (loss.record["name"], loss.record["file"], loss.record["base"]) == ("elbo", f"elbo_{backend}.py", None)


WRAPPER = """
from ppl_vae.objective.pyro_program import PyroLoss


class Wrapper(PyroLoss):
    def __init__(self, base, weight):
        super().__init__(base.objective)
        self.base, self.weight = base, weight


def build_loss(*, weight: float = 1.0, base{default}):
    return Wrapper(base, weight)
"""


@pytest.fixture
def wrapper(tmp_path):
    path = tmp_path / "wrapper_pyro.py"
    path.write_text(WRAPPER.format(default="=None"))
    return path


def test_a_loss_wraps_another(wrapper):
    loss = build_loss(wrapper, "pyro", {"weight": 2}, base="elbo")
    assert (type(loss.object).__name__, type(loss.object.base).__name__) == ("Wrapper", "PyroLoss")
    assert loss.record["options"] == {"weight": 2.0}
    assert loss.record["base"]["name"] == "elbo"
    assert [plugin.name for plugin in loss.plugins] == ["wrapper", "elbo"]


def test_wrong_losses_are_explained(wrapper, tmp_path):
    other = build_loss("elbo", "numpyro", {}).object
    own = build_loss("elbo", "pyro", {}).object
    cases = [
        (("elbow", {}, None), r"loss must be one of .*; did you mean elbo\?"),
        (
            ("elbo", {"particles": 2}, None),
            r"option 'particles' must be one of loss elbo, which has num_particles",
        ),
        (("elbo", {"num_particles": 0}, None), "num_particles must be at least 1"),
        (
            ("elbo", {}, "elbo"),
            "base loss must go with a loss that wraps one, but elbo wraps none; leave --base-loss",
        ),
        ((wrapper, {}, own), "base loss must be a name or a path, but it is a PyroLoss; wrap the object"),
        (
            (own, {"num_particles": 2}, None),
            "must be left out for a loss that is built already, but they are num_p",
        ),
        ((own, {}, "elbo"), "must be left out for a loss that is built already, but they are base"),
        (
            (other, {}, None),
            "loss must be a name, a path or a PyroLoss, which reports its terms, but it is a NumPyroLoss",
        ),
        ((3, {}, None), "loss must be a name, a path or a PyroLoss, .*, but it is a int"),
    ]
    for (loss, options, base), match in cases:
        with pytest.raises(InputError, match=match):
            build_loss(loss, "pyro", options, base=base)
    wrapper.write_text(WRAPPER.format(default=""))
    with pytest.raises(InputError, match="loss wrapper wraps another one, but none is named; pass --base-loss"):
        build_loss(wrapper, "pyro", {})
    stock = __import__("pyro").infer.Trace_ELBO()
    with pytest.raises(InputError, match="but it is a Trace_ELBO; wrap your objective in that class"):
        build_loss(stock, "pyro", {})


def test_a_twin_stands_beside_the_file_or_is_the_suites(tmp_path):
    suite = find("models", "beta_vae", "pyro")
    expected = ROOT / "models/beta_vae_numpyro.py"
    assert twin(suite, "pyro", suite.path) is suite
    assert twin(suite, "numpyro", suite.path).path == expected
    # A run's copy of the suite's file, whose original is gone.
    shutil.copy(suite.path, tmp_path)
    copy = find("models", tmp_path / suite.path.name)
    assert twin(copy, "numpyro", tmp_path / "gone_pyro.py").path == expected
    beside = model_file(tmp_path, name="beta_vae_numpyro.py")
    assert twin(copy, "numpyro", copy.path).path == beside


def test_an_edited_file_has_no_twin_in_the_suite(tmp_path):
    edited = model_file(tmp_path, name="beta_vae_pyro.py")
    match = (
        "variant beta_vae must have a file for numpyro, but it was fitted with a file of your own and .*; put its"
    )
    with pytest.raises(InputError, match=match):
        twin(find("models", edited), "numpyro", edited)
