"""The registry: its entries say the truth about the readers, and its digests have the right form."""

import inspect
import re
from importlib import import_module

import pytest

from ppl_vae.data import embedded_names
from ppl_vae.data.collection.imports import OWN_NAME
from ppl_vae.data.collection.registry import REGISTRY, importable

LAYOUTS = [
    pytest.param(entry, layout, id=layout.reader) for entry in REGISTRY.values() for layout in entry.layouts
]


def test_names_can_be_folders_and_hide_nothing():
    assert {"mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "celeba", "omniglot"} <= set(importable())
    assert importable() == tuple(REGISTRY)
    for name, entry in REGISTRY.items():
        assert entry.name == name
        assert OWN_NAME.fullmatch(name)
        assert entry.title
        assert entry.package
        assert entry.licence
    assert not set(importable()) & set(embedded_names())


@pytest.mark.parametrize(("entry", "layout"), LAYOUTS)
def test_readers_exist_and_take_the_options(entry, layout):
    module, function = layout.reader.split(".")
    reader = getattr(import_module(f"ppl_vae.data.readers.{module}"), function)
    first, *others = inspect.signature(reader).parameters.values()
    assert first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(option.default is not inspect.Parameter.empty for option in others)
    assert set(entry.options) <= {option.name for option in others}


@pytest.mark.parametrize(("entry", "layout"), LAYOUTS)
def test_digests_are_sha256_of_files_of_the_layout(entry, layout):
    assert set(layout.sha256) <= set(layout.files)
    digests = [*layout.sha256.values(), *([entry.sha256] if entry.sha256 else [])]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    assert len(set(digests)) == len(digests)
