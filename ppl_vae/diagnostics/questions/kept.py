"""Answers that a run folder keeps, each with a key that says what it is of: ``diagnosis/<name>.json``."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np

import ppl_vae
from ppl_vae.diagnostics.questions.question import Case, Finding, Verdict
from ppl_vae.diagnostics.questions.registry import SUMMARY
from ppl_vae.files import storage_errors, write_json
from ppl_vae.training.programs import Program
from ppl_vae.training.run_folder import RunFolder

__all__ = ["FOLDER", "Passing", "answer_key", "read_answer", "write_answer"]

FOLDER = "diagnosis"
# Types of what a kept answer holds.
SUMMARY_FIELDS = {"numbers": dict, "page": str}
FINDING_FIELDS = {"verdict": str, "answer": str, "evidence": list, "cause": str, "numbers": dict}


@dataclass(frozen=True)
class Passing(Finding):
    """An answer that an error stands behind which may pass, as a full disk does: it is not kept."""


def answer_key(case: Case) -> dict[str, Any]:
    """What answers depend on.

    Args:
        case: What is asked about.
    """
    return {
        "weights": _digest_of_weights(case),
        "program": _digest_of_program(case.run.program),
        "code": _digest_of_code(),
        "data": case.run.record["data"]["fingerprint"],
        "backend": case.run.program.backend,
        "split": case.split,
        "seed": case.seed,
        "num_draws": case.num_draws,
    }


def _digest_of_weights(case: Case) -> str:
    """Of what answers: an engine may hold other weights than the run's files."""
    digest = hashlib.sha256()
    for name, value in sorted(case.engine.parameters().items()):
        array = np.asarray(value)
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _digest_of_program(program: Program) -> str:
    """Of the model's file, or of the class of an object that was given in its place."""
    if program.plugin is not None:
        return program.plugin.sha256
    kind = type(program.object)
    try:
        text = inspect.getsource(kind)
    except (OSError, TypeError):  # typed into an interpreter
        text = ""
    return hashlib.sha256(f"{kind.__module__} {kind.__qualname__} {text}".encode()).hexdigest()


@cache
def _digest_of_code() -> str:
    """Of the package: a version says little in a checkout."""
    folder, digest = Path(ppl_vae.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


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
    is_equal = isinstance(kept, dict) and kept.get("key") == key
    return kept["answer"] if is_equal and _is_answer(name, kept.get("answer")) else None


def _is_answer(name: str, answer: Any) -> bool:
    """Whether a file that is whole has what an answer has."""
    expected = SUMMARY_FIELDS if name == SUMMARY else FINDING_FIELDS
    if not isinstance(answer, dict) or answer.keys() != expected.keys():
        return False
    is_typed = all(isinstance(answer[field], kind) for field, kind in expected.items())
    return is_typed and (
        name == SUMMARY
        or (answer["verdict"] in get_args(Verdict) and all(isinstance(line, str) for line in answer["evidence"]))
    )


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
