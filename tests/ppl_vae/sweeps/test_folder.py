import json
import re
import subprocess
import sys

import pytest

from ppl_vae.errors import InputError
from ppl_vae.sweeps.folder import SweepFolder, new_sweep_path

RECORD = {"created": "now", "num_runs": 2, "betas": {"z": [1.0, 0.1]}, "settings": {"epochs": 3, "seed": 0}}


@pytest.fixture
def folder(tmp_path):
    return SweepFolder(tmp_path / "sweep")


def test_a_sweep_begins_in_a_new_folder_and_continues_there(folder):
    with folder.lock():
        assert not folder.open_or_create(RECORD)
        assert folder.open_or_create({**RECORD, "created": "later"})
    assert folder.record["created"] == "now"


def test_another_sweep_is_refused_with_what_differs(folder):
    other = {**RECORD, "betas": {"z": [1.0]}, "settings": {"epochs": 4, "seed": 0}}
    with folder.lock():
        folder.open_or_create(RECORD)
        message = (
            r"another sweep: betas.z \[1.0, 0.1\] there and \[1.0\] here, settings.epochs 3 there and 4 here;"
        )
        with pytest.raises(InputError, match=message):
            folder.open_or_create(other)
    assert folder.record["settings"] == RECORD["settings"]


def test_many_differences_are_counted(folder):
    with folder.lock():
        folder.open_or_create(RECORD)
        with pytest.raises(InputError, match="here and 2 more differences; choose another --out"):
            folder.open_or_create({"num_runs": 3, "settings": {"epochs": 4, "seed": 1, "batch_size": 2}})


def test_a_folder_with_other_files_is_refused(folder):
    folder.path.mkdir()
    (folder.path / "notes.txt").write_text("mine")
    with folder.lock(), pytest.raises(InputError, match="holds other files, such as notes.txt; choose another"):
        folder.open_or_create(RECORD)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"schema_version": 99})])
def test_a_damaged_record_is_refused(folder, content):
    folder.path.mkdir()
    (folder.path / "sweep.json").write_text(content)
    with pytest.raises(
        InputError, match=re.escape("sweep.json must be a record of a sweep with schema_version 1")
    ):
        folder.open_or_create(RECORD)


def test_a_file_in_the_place_of_the_folder_is_refused(folder):
    folder.path.write_text("")
    with pytest.raises(InputError, match="cannot create the sweep folder"), folder.lock():
        pass


def test_a_sweep_has_one_writer(folder):
    code = (
        "from pathlib import Path; import sys\nfrom ppl_vae.sweeps.folder import SweepFolder\n"
        "with SweepFolder(Path(sys.argv[1])).lock():\n    pass"
    )
    with folder.lock():
        done = subprocess.run([sys.executable, "-c", code, folder.path], capture_output=True, text=True)
    assert "InputError: a sweep must have one writer, but another process is writing" in done.stderr
    with folder.lock():
        pass


def test_new_folders_count_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(new_sweep_path("vae-pyro")) == "sweeps/vae-pyro-1"
    (tmp_path / "sweeps/vae-pyro-1").mkdir(parents=True)
    assert str(new_sweep_path("vae-pyro")) == "sweeps/vae-pyro-2"
