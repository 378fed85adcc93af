"""Copies of plug-in files, and what the fit of an edited copy says of each way to break one."""

import re

import numpy as np
import pytest

import ppl_vae.training.fit as fit_module
from ppl_vae.copying import copy_plugin, next_command
from ppl_vae.errors import InputError
from ppl_vae.plugins import find
from tests.helpers import BACKENDS, ROOT

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
SMALL = {"latent_dim": 3, "hidden_dim": 4, "num_hidden": 1, "epochs": 1, "batch_size": 10, "device": "cpu"}
# How the two model files write the same things.
WORDS = {
    "pyro": {
        "sample": "pyro.sample",
        "scale": "poutine.scale",
        "plate": "pyro.plate",
        "encoder": "self.encoder",
        "decoder": "self.decoder",
        "array": "Tensor",
        "zeros": "x.new_zeros(len(x), self.latent_dim)",
    },
    "numpyro": {
        "sample": "numpyro.sample",
        "scale": "handlers.scale",
        "plate": "numpyro.plate",
        "encoder": "encoder",
        "decoder": "decoder",
        "array": "Array",
        "zeros": "jnp.zeros((len(x), self.latent_dim), x.dtype)",
    },
}


def edited(folder, backend, *edits):
    """A copy of the beta-VAE with texts replaced; the words in angle brackets are those of the backend."""
    copy = copy_plugin("models", "beta_vae", backend=backend, new_name="mine", folder=folder)[0]
    text = copy.path.read_text()
    for pair in edits:
        old, new = (re.sub("<([a-z]+)>", lambda word: WORDS[backend][word[1]], part) for part in pair)
        assert old in text
        text = text.replace(old, new)
    copy.path.write_text(text)
    return copy


@pytest.fixture
def untrained(monkeypatch, tmp_path):
    """Lets ``fit`` return its checked engine in place of training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit_module, "_train", lambda *args: next(a for a in args if hasattr(a, "run_block")))
    return lambda copy, **options: fit_module.fit(copy.path, X, beta=2.0, **SMALL, **options)


# Copies.


@pytest.mark.parametrize(("kind", "name"), [("models", "beta_vae"), ("inference", "elbo")])
def test_a_copy_is_the_file_byte_for_byte(tmp_path, kind, name):
    copies = copy_plugin(kind, name, folder=tmp_path / "new" / "folder")
    assert [copy.backend for copy in copies] == ["numpyro", "pyro"]
    for copy in copies:
        assert copy.path == tmp_path / "new/folder" / f"{name}_{copy.backend}.py"
        assert copy.path.read_bytes() == (ROOT / kind / copy.path.name).read_bytes()


def test_a_copy_of_one_backend_under_another_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (copy,) = copy_plugin("models", "beta_vae", backend="pyro", new_name="my_vae")
    assert [path.name for path in tmp_path.iterdir()] == ["my_vae_pyro.py"]
    assert (copy.name, copy.sha256) == ("my_vae", find("models", "beta_vae", "pyro").sha256)


def test_a_copy_can_be_copied_by_its_path(tmp_path):
    (first,) = copy_plugin("models", "beta_vae", backend="pyro", folder=tmp_path)
    (second,) = copy_plugin("models", str(first.path), new_name="second", folder=tmp_path)
    assert second.path == tmp_path / "second_pyro.py"


@pytest.mark.parametrize("occupant", ["file", "folder", "link"])
def test_nothing_is_overwritten_and_no_twin_is_left_alone(tmp_path, occupant):
    taken = tmp_path / "beta_vae_pyro.py"
    {
        "file": lambda: taken.write_text("mine"),
        "folder": taken.mkdir,
        "link": lambda: taken.symlink_to(tmp_path / "nowhere"),
    }[occupant]()
    with pytest.raises(
        InputError, match=r"must not overwrite a file, but .*beta_vae_pyro.py exists; choose another"
    ):
        copy_plugin("models", "beta_vae", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [taken.name]
    assert occupant != "file" or taken.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": "beta_vea"}, r"variant must be one of .*, but it is 'beta_vea'; did you mean beta_vae\?"),
        ({"name": "beta_vae", "backend": "jax"}, "backend must be pyro or numpyro, but it is 'jax'"),
        ({"name": "./none_pyro.py"}, "variant must name a file that exists"),
        (
            {"name": "beta_vae", "new_name": "a/b"},
            "name must consist of letters, .*, but it is 'a/b'; leave folder",
        ),
        ({"name": "beta_vae", "new_name": "a.py"}, "name must consist of letters"),
        ({"name": "beta_vae", "new_name": ""}, "name must consist of letters"),
        ({"name": "beta_vae", "new_name": "a\n"}, "name must consist of letters"),
        ({"name": "beta_vae", "new_name": "a_numpyro"}, "must be without a backend, but it is 'a_numpyro'; leave"),
        ({"name": "beta_vae", "folder": "/dev/null/x"}, "cannot create the folder /dev/null/x"),
    ],
)
def test_a_wrong_copy_is_explained(arguments, match, tmp_path):
    with pytest.raises(InputError, match=match):
        copy_plugin("models", **{"folder": tmp_path, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_the_next_command_is_typed_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (model,) = copy_plugin("models", "beta_vae", backend="pyro", folder="a b")
    (loss,) = copy_plugin("inference", "elbo", backend="numpyro")
    assert next_command(model) == "ppl-vae fit 'a b/beta_vae_pyro.py'"
    assert next_command(loss) == "ppl-vae fit beta_vae --backend numpyro --loss ./elbo_numpyro.py"


# Edits that are sound.


ONE_MORE = ("    latent_dim: int = 10,\n", "    latent_dim: int = 10,\n    more: list[int] = [1],\n")
SOUND = {
    "no edit": [],
    "another name of the latent site": [('<sample>("z"', '<sample>("w"'), ('betas["z"]', 'betas["w"]')],
    "another name of the observed site": [('<sample>("x"', '<sample>("y"')],
    "a prior of another scale": [("zeros + 1.0", "zeros + 2.0")],
    "an option more": [ONE_MORE],
}


@BACKENDS
@pytest.mark.parametrize("edits", SOUND.values(), ids=SOUND)
def test_a_sound_edit_passes_all_checks(backend, edits, tmp_path, untrained):
    assert untrained(edited(tmp_path, backend, *edits)).notes == []


def test_an_option_without_a_text_says_so_in_the_help(tmp_path):
    from ppl_vae.training.programs import variant_options

    copy = edited(tmp_path, "pyro", ONE_MORE)
    helps = {option.name: option.help for option in variant_options(copy)}
    assert helps["more"] == "not described yet: add it to the Args of build in mine_pyro.py"
    assert helps["latent_dim"] == "Size of the latent variable z."


def test_modules_in_the_global_store_do_not_leak_from_fit_to_fit(tmp_path, monkeypatch):
    # `pyro.module` keeps parameters by name for the whole process; the second fit must not meet the first one's.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit_module, "_write_products", lambda run: None)
    copy = edited(tmp_path, "pyro", ("        local_module(", "        pyro.module("))
    runs = [fit_module.fit(copy.path, X, log_px_draws=10, **SMALL) for _ in range(2)]
    wanted = fit_module.fit("beta_vae", X, log_px_draws=10, **SMALL)
    for run in runs:
        assert run.metrics == wanted.metrics


# Edits that leave something untrained.

UNUSED = ("dist.Normal(*<encoder>(x))", "(<encoder>(x), dist.Normal(0.0 * x[..., :3], 1.0))[1]")


@BACKENDS
def test_a_network_that_no_site_depends_on_is_noted(backend, tmp_path, untrained):
    (note,) = untrained(edited(tmp_path, backend, UNUSED)).notes
    start, _, names = note.partition(": ")
    assert start == "never trained, for the loss does not depend on them"
    assert sorted(names.split(", ")) == [
        f"encoder.layers.{n}.{part}" for n in (0, 1) for part in ("bias", "weight")
    ]


@BACKENDS
def test_a_network_behind_a_stopped_gradient_is_noted(backend, tmp_path, untrained):
    stop = {"pyro": "torch.Tensor.detach", "numpyro": "__import__('jax').lax.stop_gradient"}[backend]
    edit = ("dist.Normal(*<encoder>(x))", f"dist.Normal(*map({stop}, <encoder>(x)))")
    (note,) = untrained(edited(tmp_path, backend, edit)).notes
    assert note.startswith("never trained, for the loss does not depend on them: encoder.")


def test_a_network_outside_the_module_is_refused(tmp_path, untrained):
    copy = edited(
        tmp_path,
        "pyro",
        (
            "self.encoder, self.decoder, self.likelihood = encoder,",
            "self.nets, self.decoder, self.likelihood = [encoder],",
        ),
        ("self.encoder(x)", "self.nets[0](x)"),
        ('        local_module("encoder", self.encoder)\n', ""),
    )
    match = (
        r"must belong to the model's module, but the loss depends on others, of shapes .*\(4, 6\).*; assign their"
    )
    with pytest.raises(InputError, match=match):
        untrained(copy)


def test_a_network_without_a_param_site_is_noted(tmp_path, untrained):
    lazy = 'encoder = lazy_module("encoder", lambda key: self.make_encoder(key=key), seed=self.seed)'
    copy = edited(tmp_path, "numpyro", (lazy, "encoder = self.make_encoder(key=__import__('jax').random.key(0))"))
    assert untrained(copy).notes == ["the guide declares no parameters of its own; make a network by lazy_module"]


def test_a_model_without_any_network_in_the_loss_is_noted(tmp_path, untrained):
    # The Gaussian's learned scale is all that is left to train.
    edits = [UNUSED, ("<decoder>(z)", "(<decoder>(z), 0.0 * x)[1]")]
    (note,) = untrained(edited(tmp_path, "pyro", *edits)).notes
    assert "encoder.layers.0.weight" in note
    assert note.endswith("more")


# Edits that give no finite number: Pyro validates parameters and names the line, JAX cannot.


def test_a_scale_that_is_nan_is_told_where(tmp_path, untrained):
    copy = edited(tmp_path, "pyro", ("zeros + 1.0", "zeros + float('nan')"))
    with pytest.raises(
        InputError, match=r"line \d+ raises ValueError: Expected parameter scale .* invalid values; "
    ):
        untrained(copy)


def test_a_scale_that_is_nan_in_jax_is_told_of_which_site(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = edited(tmp_path, "numpyro", ("zeros + 1.0", "zeros + float('nan')"))
    with pytest.raises(InputError, match=r"training must stay finite, but rate/z is nan \(site z\) at step 0; "):
        fit_module.fit(copy.path, X, **SMALL)


# Edits of a loss.

FAULTY = """\
from ppl_vae.objective import elbo


class ELBO(elbo.ELBO):
    def read(self, traces, program):
        return 1 / 0


"""

LOSSES = {
    "syntax": (
        ("def build_loss(", "def build_loss(*,,"),
        r"loss .*mine_\w+.py must run, but line \d+ raises Syntax",
    ),
    "no build_loss": (("def build_loss(", "def make_loss("), r"mine_\w+.py must define build_loss\(...\)"),
    "an option without default": (
        ("num_particles: int = 1", "num_particles: int"),
        "parameter num_particles of build_loss in .* must have a default",
    ),
    "no particles": (("=num_particles", "=num_particles - 1"), "num_particles must be at least 1, but it is 0"),
    "nothing built": (
        ("    return ", "    return None and "),
        r"mine_\w+.py must build a \w+Loss, which reports its terms, but it is a NoneType; wrap",
    ),
    "a fault in the loss": (
        ("from ppl_vae.objective.elbo import ELBO\n", FAULTY),
        r"loss .*mine_\w+.py must run, but line \d+ raises ZeroDivisionError: division by zero; correct",
    ),
}


@BACKENDS
@pytest.mark.parametrize("fault", LOSSES)
def test_a_broken_loss_is_told_where(backend, fault, tmp_path, untrained):
    edit, match = LOSSES[fault]
    copy = copy_plugin("inference", "elbo", backend=backend, new_name="mine", folder=tmp_path)[0]
    text = copy.path.read_text()
    assert edit[0] in text
    copy.path.write_text(text.replace(*edit))
    model = find("models", "beta_vae", backend)
    with pytest.raises(InputError, match=match):
        untrained(model, loss=copy.path)


def test_a_loss_of_the_other_backend_is_explained(tmp_path, untrained):
    (copy,) = copy_plugin("inference", "elbo", backend="numpyro", folder=tmp_path)
    match = "elbo_numpyro.py is for numpyro and the model is in pyro; pass --backend numpyro, or a loss for pyro"
    with pytest.raises(InputError, match=match):
        untrained(find("models", "beta_vae", "pyro"), loss=copy.path)


# Edits that break the contract: replaced texts, the message, and a text in the line that it must name.

PLATED = """\
            with <scale>(scale=betas["z"]):
                z = <sample>("z", dist.Normal(zeros, zeros + 1.0).to_event(1))
"""
OUTSIDE = """\
        with <scale>(scale=betas["z"]):
            z = <sample>("z", dist.Normal(<zeros>, 1.0).to_event(1))
"""
MODEL_SCALE = ('with <scale>(scale=betas["z"]):\n                z', "if True:\n                z")
GUIDE_SCALE = (', <scale>(scale=betas["z"])', "")
IN_GUIDE = '<sample>("z", dist.Normal(*'
BROKEN = {
    "syntax": (
        [("def model(self,", "def model(self,,")],
        r"variant .*mine_\w+.py must run, but line \d+ raises SyntaxError: ",
        "def model(",
    ),
    "a name that is not there": (
        [("zeros = ", "zeros = misspelt * ")],
        "but line .* raises NameError: name 'misspelt' is not defined; correct the file",
        "misspelt",
    ),
    "no build": (
        [("def build(", "def make(")],
        r"mine_\w+.py must define build\(...\), but it does not; copy",
        None,
    ),
    "no seed": (
        [("    seed: int = 0,\n    latent_dim", "    latent_dim")],
        r"build of .*mine_\w+.py must take data_shape and seed, but it lacks seed; begin it with",
        None,
    ),
    "an option without default": (
        [("hidden_dim: int = 128", "hidden_dim: int")],
        r"parameter hidden_dim of build in .*mine_\w+.py must have a default, but it has none; give it one",
        None,
    ),
    "an option of another type": (
        [("hidden_dim: int = 128", "hidden_dim: dict = 128")],
        "parameter hidden_dim of build in .* must be int, .*, but it is <class 'dict'>; annotate",
        None,
    ),
    "nothing built": (
        [("return BetaVAE(", "return None and BetaVAE(")],
        r"mine_\w+.py must give an object with methods model and guide .* its model does not .*; add or correct",
        None,
    ),
    "no guide": ([("def guide(", "def guides(")], "but its guide does not .*; add or correct the method", None),
    "a guide without betas": (
        [
            (
                'c: <array> | None = None, *, betas: Mapping[str, float]) -> None:\n        """Infer',
                ') -> None:\n        """Infer',
            )
        ],
        "but its guide does not .*'betas'.*; add or correct the method",
        None,
    ),
    "another site in the guide": (
        [(IN_GUIDE, IN_GUIDE.replace('"z"', '"w"'))],
        r"guide must sample every latent site of the model, but lacks 'z' \(it samples \['w'\]\); add the site",
        '"w"',
    ),
    "nothing observed": (
        [(", obs=x)", ")")],
        r"model must observe data, but no site has obs= \(it has \['z', 'x'\]\); observe x in the data plate",
        '"x"',
    ),
    "the data outside the plate": (
        [('            <sample>("x"', '        <sample>("x"')],
        "model must observe 'x' in the plate 'data', but does so outside: .*; name the plate so",
        '"x"',
    ),
    "another name of the plate": (
        [('"data"', '"batch"')],
        "model must observe 'x' in the plate 'data', but does so outside: .*, or name yours by the loss option",
        '"x"',
    ),
    "a latent outside the plate in the model": (
        [
            (PLATED, ""),
            (
                '        with <plate>("data", len(x)):\n            zeros',
                OUTSIDE + '        with <plate>("data", len(x)):\n            zeros',
            ),
        ],
        "model must sample 'z' in the plate 'data', but does so outside: its rate .*; move the statement into",
        "<zeros>, 1.0",
    ),
    "a latent outside the plate in the guide": (
        [('with <plate>("data", len(x)), <scale>', "with <scale>")],
        "guide must sample 'z' in the plate 'data', but does so outside",
        IN_GUIDE,
    ),
    "a beta in the guide only": (
        [MODEL_SCALE],
        "site 'z' must be scaled alike in model and guide, but beta is 1 in the model and .* in the guide; wrap",
        IN_GUIDE,
    ),
    "a beta in the model only": ([GUIDE_SCALE], "but beta is .* in the model and 1 in the guide; wrap", IN_GUIDE),
    "a beta nowhere": (
        [MODEL_SCALE, GUIDE_SCALE],
        r"site 'z' must be scaled by betas\['z'\], but with 1.5 there it is scaled by 1; put the site",
        IN_GUIDE,
    ),
    "a decoder of another size": (
        [("<decoder>(z)", "<decoder>(z)[..., :-1]")],
        r"site 'x' must have the shape of what it observes, \(2, 6\), but its distribution has \(2, 5\); correct",
        "[..., :-1]",
    ),
    "latents of another size": (
        [("self.latent_dim)", "self.latent_dim + 1)")],
        r"must run on data of this shape, but line|site 'z' must have one shape in model and guide, but it is",
        None,
    ),
    "a latent without to_event": (
        [("zeros + 1.0).to_event(1)", "zeros + 1.0)")],
        r"must run on data of this shape, but line \d+ raises ValueError: .*[Ss]hape",
        "zeros + 1.0",
    ),
    "a site twice": (
        [
            (
                '            <sample>("x"',
                '            <sample>("z", dist.Normal(zeros, 1.0).to_event(1))\n            <sample>("x"',
            )
        ],
        r"must run on data of this shape, but line \d+ raises .*(Multiple sample sites named 'z'|unique names)",
        None,
    ),
    "a guide that needs c": (
        [("<encoder>(x))", "<encoder>(x + c))")],
        "must run on data of this shape, but line .* raises TypeError: .*'NoneType'; correct the file",
        "x + c",
    ),
    "a discrete latent": (
        [
            ("dist.Normal(zeros, zeros + 1.0)", "dist.Bernoulli(zeros + 0.5)"),
            ("dist.Normal(*<encoder>(x))", "dist.Bernoulli(logits=<encoder>(x)[0])"),
        ],
        "site 'z' of the guide must have a reparameterised sampler, but Bernoulli has none; use a continuous",
        "logits=",
    ),
    "a default loss that is none": (
        [('"elbo"', '"elbow"')],
        r"loss must be one of .* 'elbow'; did you mean elbo\?",
        None,
    ),
}


@BACKENDS
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_edit_is_told_where(backend, fault, tmp_path, untrained):
    edits, match, place = BROKEN[fault]
    copy = edited(tmp_path, backend, *edits)
    with pytest.raises(InputError, match=match) as caught:
        untrained(copy)
    if place is not None:
        place = re.sub("<([a-z]+)>", lambda word: WORDS[backend][word[1]], place)
        lines = [number for number, text in enumerate(copy.path.read_text().splitlines(), 1) if place in text]
        named = re.search(r"line (\d+) raises|lines? ([\d, ]+)\)$", str(caught.value))
        assert {int(n) for n in (named[1] or named[2]).split(",")} & set(lines)
        assert str(copy.path) in str(caught.value)
    assert list(tmp_path.iterdir()) == [copy.path]  # no run folder is begun
