"""The classifier of a data set, by what scikit-learn says of it, and its place in the cache."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, recall_score

import ppl_vae
from ppl_vae.data import Dataset, load, make_splits
from ppl_vae.errors import InputError
from ppl_vae.files import read_arrays, write_arrays
from tests.helpers import ROOT, needs
from tests.toy_fits import TOY

pytestmark = needs("torch")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """A cache of this file's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPL_VAE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def digits(cache):
    """The digits, their classifier, and the rows that it was not fitted to."""
    from ppl_vae.classifier import house_classifier

    dataset = load("digits")
    return dataset, house_classifier(dataset, device="cpu"), make_splits(dataset)


def stripes(num_data=60, shape=(8, 8), labels=(3, 7), seed=0, num_test=0):
    """Dark and bright images under noise; easy to tell apart."""
    rng = np.random.default_rng(seed)
    codes = np.resize(labels, num_data)
    level = np.where(codes == labels[0], 0.2, 0.8).reshape(-1, *[1] * len(shape))
    x = np.clip(level + 0.1 * rng.normal(size=(num_data, *shape)), 0.0, 1.0).astype(np.float32)
    return Dataset("stripes", x, codes.astype(np.int64), "stripes", None, num_test)


def trained(dataset, **options):
    from ppl_vae.classifier import house_classifier

    return house_classifier(dataset, device="cpu", **options)


# How good it is.


def test_digits_are_told_apart(digits):
    dataset, classifier, splits = digits
    linear = LogisticRegression(max_iter=2000)
    flat = dataset.x.reshape(len(dataset.x), -1)
    linear.fit(flat[splits.train], dataset.labels[splits.train])
    # 96 % is what a linear classifier reaches; of 360 test images that is known to 1 %.
    assert classifier.accuracy >= max(0.96, linear.score(flat[splits.test], dataset.labels[splits.test]))


def test_the_record_says_what_scikit_learn_says(digits):
    dataset, classifier, splits = digits
    record, labels = classifier.record, dataset.labels[splits.test]
    p = classifier.probabilities(dataset.x[splits.test])
    predicted = p.argmax(axis=1)
    assert classifier.accuracy == record.accuracy == accuracy_score(labels, predicted)
    # Shares and means of 360 numbers: only rounding may differ.
    np.testing.assert_allclose(record.class_accuracy, recall_score(labels, predicted, average=None), rtol=1e-12)
    np.testing.assert_allclose(record.cross_entropy, log_loss(labels, p), rtol=1e-9)
    assert (record.num_train, record.num_validation, record.num_test) == tuple(
        len(part) for part in (splits.train, splits.validation, splits.test)
    )
    assert not record.own_test_part
    assert f"accuracy {record.accuracy:.4f}" in record.table()


def test_features_and_probabilities_belong_together(digits):
    import torch

    dataset, classifier, _ = digits
    x = dataset.x[:700]  # more than one batch
    features, p = classifier.read(x)
    weight, bias = (classifier.network.state_dict()[f"head.{name}"].numpy() for name in ("weight", "bias"))
    logits = features @ weight.T + bias
    # The layer runs in float32.
    np.testing.assert_allclose(p, torch.from_numpy(logits).softmax(-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(classifier.features(x), features)
    # A batch changes the order of sums in float32, no more: batch normalisation is that of training.
    np.testing.assert_allclose(classifier.features(x[600:601])[0], features[600], atol=1e-4)


def test_the_epoch_with_the_best_validation_is_kept():
    lines = []
    record = trained(stripes(), seed=1, report=lines.append).record
    losses = [float(line.split("cross-entropy ")[1].split()[0]) for line in lines]
    assert len(losses) == record.epochs
    assert losses[record.best_epoch - 1] == min(losses)


@pytest.mark.parametrize("shape", [(28, 14), (8, 8, 3), (32, 32, 3)])
def test_shifts_move_whole_images(shape):
    from scipy.ndimage import shift

    from ppl_vae.classifier.train import shifted

    images = np.random.default_rng(0).random((200, *shape), np.float32)
    moved = shifted(images, np.random.default_rng(1))
    most = max(shape) // 14
    offsets = [(i, j) for i in range(-most, most + 1) for j in range(-most, most + 1)]
    found = []
    for before, after in zip(images, moved, strict=True):
        moves = [shift(before, (*o, *[0] * len(shape[2:])), order=0, mode="nearest") for o in offsets]
        found += [o for o, move in zip(offsets, moves, strict=True) if np.array_equal(move, after)]
    # Each image is one move of itself, and of 200 images (25 moves at most) each move has some.
    assert len(found) == 200
    assert set(found) == set(offsets)


def test_training_reads_no_test_row():
    import torch

    from ppl_vae.classifier.train import train_network

    dataset, read = stripes(), set()

    class Watched:
        shape = dataset.x.shape

        def __len__(self):
            return len(dataset.x)

        def __getitem__(self, rows):
            read.update(np.arange(len(self))[rows].tolist())
            return dataset.x[rows]

    splits, targets = make_splits(dataset), (dataset.labels == 7).astype(np.int64)
    device = torch.device("cpu")
    train_network(Watched(), targets, splits.train, splits.validation, seed=0, device=device, report=len)
    assert read == {*splits.train.tolist(), *splits.validation.tolist()}


def test_the_test_part_of_the_data_set_is_used():
    dataset = stripes(num_test=20)
    record = trained(dataset).record
    assert (record.num_test, record.own_test_part) == (20, True)
    assert trained(stripes()).record.num_test == 12


@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3), (64, 64, 1), (8, 64)])
def test_any_image_size(shape):
    classifier = trained(stripes(40, shape))
    features, p = classifier.read(stripes(5, shape, seed=1).x)
    assert features.shape == (5, 128 if shape[2:] == (3,) else 64)
    assert p.shape == (5, 2)
    # Bright against dark: at the least a mean over the image is learnt.
    assert classifier.accuracy == 1.0


def test_labels_need_not_count_from_zero():
    classifier = trained(stripes(labels=(7, -2)))
    assert classifier.class_names == ["-2", "7"]
    assert classifier.accuracy == 1.0
    named = load(stripes().x, labels=np.where(stripes().labels == 3, "dark", "bright"))
    assert trained(named).class_names == ["bright", "dark"]


def test_constant_channels_do_no_harm():
    x = stripes(shape=(8, 8, 3)).x.copy()
    x[..., 1] = 0.5
    classifier = trained(Dataset("flat", x, stripes().labels, "flat"))
    assert np.isfinite(classifier.features(x)).all()
    assert classifier.accuracy == 1.0


# The cache.


def test_equal_seeds_give_equal_weights(tmp_path, monkeypatch):
    def weights(seed, folder):
        monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path / folder))
        return trained(stripes(), seed=seed).network.state_dict()

    first, again, other = weights(0, "a"), weights(0, "b"), weights(1, "c")
    assert all(value.equal(again[name]) for name, value in first.items())
    assert not first["head.weight"].equal(other["head.weight"])


def test_it_is_trained_once(digits, monkeypatch):
    dataset, classifier, _ = digits
    monkeypatch.setattr("ppl_vae.classifier.store.train_network", None)
    again = trained(load("digits"))
    assert again.record == classifier.record
    np.testing.assert_array_equal(again.probabilities(dataset.x[:50]), classifier.probabilities(dataset.x[:50]))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def without_a_weight(path):
    arrays, meta = read_arrays(path)
    arrays.pop("head.bias")
    write_arrays(path, arrays, meta)


def of_other_data(path):
    arrays, meta = read_arrays(path)
    write_arrays(path, arrays, {**meta, "fingerprint": "0" * 64})


def without_its_accuracy(path):
    arrays, meta = read_arrays(path)
    meta.pop("accuracy")
    write_arrays(path, arrays, meta)


@pytest.mark.parametrize("damage", [truncated, without_a_weight, of_other_data, without_its_accuracy])
def test_a_damaged_file_is_made_again(damage, tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path))
    first = trained(stripes())
    (path,) = (tmp_path / "classifiers").iterdir()
    damage(path)
    lines = []
    again = trained(stripes(), report=lines.append)
    assert "cannot be used and is made again" in lines[0]
    assert again.network.state_dict()["head.bias"].equal(first.network.state_dict()["head.bias"])
    opened = []
    assert trained(stripes(), report=opened.append).record == again.record
    assert opened == []


def test_a_cache_that_cannot_be_written_is_found_before_the_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("ppl_vae.classifier.store.train_network", None)
    with pytest.raises(InputError, match="cannot create the cache folder .*file"):
        trained(stripes())


# Mistakes.


def changed(**fields):
    return Dataset(**{"name": "odd", "x": stripes().x, "labels": stripes().labels, "source": "odd", **fields})


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (changed(labels=None), "data must have labels.*odd has none; .*--classifier-data"),
        (changed(labels=np.zeros(60, np.int64)), "two classes or more .* but odd has 1, the smallest of 60"),
        (changed(labels=np.arange(60) // 4), "of 5 images or more each, but odd has 15, the smallest of 4"),
        (changed(x=2.0 * stripes().x), r"data must lie in \[0, 1\].*odd has values from"),
        (changed(x=stripes().x[:, :7]), r"8 to 64 pixels a side.*data_shape is \(7, 8\)"),
        (changed(x=stripes(60, (65, 8)).x), r"data_shape is \(65, 8\)"),
        (changed(x=stripes(60, (8, 8, 5)).x), r"1 to 4 channels.*data_shape is \(8, 8, 5\)"),
        (changed(x=stripes(60, (64,)).x), r"data must be images.*data_shape is \(64,\); reshape"),
    ],
)
def test_refuses_data(dataset, message):
    with pytest.raises(InputError, match=message):
        trained(dataset)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 8, 9)), r"images of shape \(8, 8\), as .* trained on digits, but it has shape \(3, 8, 9\)"),
        (np.zeros((0, 8, 8)), r"it has shape \(0, 8, 8\)"),
        (np.full((2, 8, 8), np.nan), "x must be finite"),
    ],
)
def test_refuses_images(digits, x, message):
    with pytest.raises(InputError, match=message):
        digits[1].read(x)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    from ppl_vae.classifier import house_classifier

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="device cuda needs a CUDA device"):
        house_classifier(stripes(), device="cuda")


def test_it_knows_nothing_of_the_models(tmp_path):
    code = "import ppl_vae.classifier, sys; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    loaded = set(done.stdout.split())
    parts = {".".join(name.split(".")[:2]) for name in loaded}
    assert "torch" in loaded
    assert not {"pyro", "jax"} & loaded
    assert not {f"ppl_vae.{part}" for part in ("nets", "objective", "likelihoods", "plugins", "training")} & parts


# The commands.


def test_the_command_prints_what_is_kept(digits, capsys):
    from ppl_vae.cli import main

    with pytest.raises(SystemExit) as end:
        main(["classifier", "digits"])
    assert end.value.code == 0
    assert capsys.readouterr().out == digits[1].record.table() + "\n"


def test_the_command_scores_a_run(digits, tmp_path, capsys):
    from ppl_vae.cli import main

    run = ppl_vae.fit("beta_vae", "digits", backend="pyro", epochs=1, batch_size=128, out=tmp_path / "run", **TOY)
    capsys.readouterr()
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main(["score", str(run.path), "--num-draws", "100", "--device", "cpu", *options])
        assert end.value.code == 0
        out, err = capsys.readouterr()
        assert "100 images a set, through the classifier of digits" in out or json.loads(out)["num_images"] == 100
        assert err == ""  # the classifier comes from the cache


def test_the_command_refuses_unknown_data(capsys):
    from ppl_vae.cli import main

    with pytest.raises(SystemExit) as end:
        main(["classifier", "digitz"])
    assert end.value.code == 2
    assert "did you mean digits?" in capsys.readouterr().err
