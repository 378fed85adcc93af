"""Answers that a run folder keeps, each with a key that says what it is of: ``diagnosis/<name>.json``."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.files import storage_errors, write_json
from ppl_vae.training.reopen import FINAL
from ppl_vae.training.run_folder import RunFolder

__all__ = ["FOLDER", "answer_key", "read_answer", "write_answer"]

FOLDER = "diagnosis"


def answer_key(case: Case) -> dict[str, Any]:
    """What answers depend on.

    Args:
        case: What is asked about.
    """
    weights = case.run.path / f"checkpoint-{FINAL}.safetensors"
    with storage_errors("read", weights), weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        package = version("ppl-vae")
    except PackageNotFoundError:  # run from a checkout that is not installed
        package = "unknown"
    return {
        "weights": digest,
        "data": case.run.record["data"]["fingerprint"],
        "backend": case.run.program.backend,
        "split": case.split,
        "seed": case.seed,
        "num_draws": case.num_draws,
        "version": package,
    }


def read_answer(folder: RunFolder, name: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer that was kept under this key, or None: there is none, it is of another key, or damaged.

    Args:
        folder: The run folder.
        name: Name of the question.
        key: As of ``answer_key``.
    """
    path = folder.path / FOLDER / f"{name}.json"
    if not path.is_file():
        return None
    with storage_errors("read", path):
        content = path.read_bytes()
    try:
        kept = json.loads(content)
    except ValueError:
        return None
    is_equal = isinstance(kept, dict) and kept.get("key") == key and isinstance(kept.get("answer"), dict)
    return kept["answer"] if is_equal else None


def write_answer(folder: RunFolder, name: str, key: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Keep an answer; the run's lock is held.

    Args:
        folder: The run folder.
        name: Name of the question.
        key: As of ``answer_key``.
        answer: Plain values.

    Raises:
        InputError: The operating system refused.
    """
    path = folder.path / FOLDER / f"{name}.json"
    with storage_errors("create", path.parent):
        path.parent.mkdir(exist_ok=True)
    write_json(path, {"key": key, "answer": answer})
