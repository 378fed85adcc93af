"""The pages of the documentation: every block of code runs, in the order of its page, as a reader would run it."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT, needs

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *(DOCS / "papers").glob("*.md")])
BLOCK = re.compile(r"^```([\w{}-]+)\n(.*?)^```$", re.M | re.S)
RUN = {"python", "sh"}
SHOWN = {"text", "json"}  # what a command prints, or what needs files that a reader brings
DIRECTIVES = {"{toctree}", "{eval-rst}"}
QUICK = {"theory"}  # the others fit for a quarter of a minute and more


def blocks(page):
    return BLOCK.findall(page.read_text())


def test_there_are_pages_and_every_block_says_what_it_is():
    assert len(PAGES) >= 5
    for page in PAGES:
        assert page.read_text().count("```") == 2 * len(blocks(page)), page.name
        assert {kind for kind, _ in blocks(page)} <= RUN | SHOWN | DIRECTIVES, page.name


@needs("torch", "pyro", "jax", "numpyro", "arviz")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=[] if p.stem in QUICK else pytest.mark.slow, id=p.stem)
        for p in PAGES
        if RUN & {kind for kind, _ in blocks(p)}
    ],
)
def test_the_code_of_a_page_runs(page, tmp_path):
    command = tmp_path / "bin" / "ppl-vae"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore -m ppl_vae.cli "$@"\n')
    command.chmod(0o755)
    folder = tmp_path / "reader"
    folder.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        # Programs of this size take longer to optimise than to run.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "MPLBACKEND": "agg",
    }
    # One Python process a page and one shell a block: names live on in Python, files in both.
    steps = "\n".join(
        code if kind == "python" else f"subprocess.run(['bash', '-euc', {code!r}], check=True)"
        for kind, code in blocks(page)
        if kind in RUN
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import subprocess\n{steps}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
