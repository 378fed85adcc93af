"""A diagnosis, as plain values and as a page for people."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ppl_vae.diagnostics.questions.question import WORST_FIRST, Finding
from ppl_vae.diagnostics.summary_page import WIDTH

__all__ = ["Diagnosis"]

INDENT = 9


@dataclass(frozen=True)
class Diagnosis:
    """What was asked of a run, and answered.

    Attributes:
        setting: What of: run, variant, backend, data, split, num_data, seed.
        texts: Questions in a user's words, by name, in reading order.
        findings: Answers by name, in reading order.
        not_asked: Why others were not asked, by name, such as "needs about 40 s".
        kept: Names of the answers that an earlier diagnosis had found.
        summary: The numbers of a ``Summary`` as plain values, or None where it was not asked for.
        summary_page: The same as a table for people.
    """

    setting: Mapping[str, Any]
    texts: Mapping[str, str]
    findings: Mapping[str, Finding]
    not_asked: Mapping[str, str]
    kept: tuple[str, ...]
    summary: Mapping[str, Any] | None
    summary_page: str

    def to_dict(self) -> dict[str, Any]:
        """The summary's numbers, beside ``setting``, ``findings``, ``not_asked`` and ``kept``."""
        findings = {n: {"question": self.texts[n], **asdict(found)} for n, found in self.findings.items()}
        own = {"setting": dict(self.setting), "findings": findings, "not_asked": dict(self.not_asked)}
        return {**(self.summary or {}), **own, "kept": list(self.kept)}

    def table(self) -> str:
        """A page of at most 100 columns for people."""
        about = self.setting
        head = (
            f"{about['variant']} ({about['backend']})  run={about['run']}  data={about['data']}  "
            f"split={about['split']} n={about['num_data']}  seed={about['seed']}"
        )
        blocks = ["\n".join([head, *self._verdicts()])] if self.texts else []
        blocks += [_block(name, self.texts[name], found) for name, found in self.findings.items()]
        if self.not_asked:
            reasons = "; ".join(f"{name} {why}" for name, why in self.not_asked.items())
            blocks.append(_wrapped(f"not asked: {reasons}", "  "))
        if self.kept:
            names = ", ".join(self.kept)
            blocks.append(_wrapped(f"kept from an earlier diagnosis: {names}; --again asks anew", "  "))
        return "\n\n".join([*blocks, *([self.summary_page] if self.summary_page else [])])

    def _verdicts(self) -> list[str]:
        """A line that names the questions by verdict, the worst first, where there are several."""
        if len(self.findings) < 2:
            return []
        names = {v: [n for n, found in self.findings.items() if found.verdict == v] for v in WORST_FIRST}
        return [_wrapped("; ".join(f"{v}: {', '.join(found)}" for v, found in names.items() if found), "  ")]


def _block(name: str, text: str, found: Finding) -> str:
    lines = [f"{found.verdict:<{INDENT}}{text} [{name}]", _wrapped(" " * INDENT + found.answer, " " * INDENT)]
    lines += [_wrapped(f"{' ' * INDENT}- {line}", " " * (INDENT + 2)) for line in found.evidence]
    if found.cause:
        lines.append(_wrapped(f"{' ' * INDENT}cause: {found.cause}", " " * (INDENT + 2)))
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, width=WIDTH, subsequent_indent=indent)
