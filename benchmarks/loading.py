"""Time from imported Fashion-MNIST in the cache to the end of the first training step, imports not counted.

Each repetition is a process of its own, so that nothing is warm. JAX says how long it compiled. ``--record``
writes the table beside this file.
"""

import argparse
import json
import statistics
import subprocess
import sys

from benchmarks.threads import THREADS, record_path  # isort: skip  # before the backends

__all__ = ["main"]

PROGRAM = """
import json, sys, tempfile, time
import arviz, jax, pandas, pyro, numpyro, scipy.stats, sklearn.model_selection, torch, torch._inductor
import ppl_vae.training.fit
from ppl_vae import fit, load
from ppl_vae.training.numpyro_engine import NumPyroEngine
from ppl_vae.training.pyro_engine import PyroEngine

backend, data = sys.argv[1:]
compiled, seconds = [], {}
jax.monitoring.register_event_duration_secs_listener(
    lambda name, duration, **_: compiled.append(duration) if "compile_duration" in name else None
)
engine = {"pyro": PyroEngine, "numpyro": NumPyroEngine}[backend]
run_block = engine.run_block

def one_step(self, first, rows, betas):
    found = run_block(self, first, rows[:1], {site: values[:1] for site, values in betas.items()})
    seconds["first step"] = time.perf_counter() - start
    seconds["of it compilation"] = sum(compiled)
    print(json.dumps(seconds))
    raise SystemExit

engine.run_block = one_step
start = time.perf_counter()
dataset = load(data)
seconds["data in memory"] = time.perf_counter() - start
with tempfile.TemporaryDirectory() as folder:
    fit("beta_vae", dataset, backend=backend, out=f"{folder}/run", epochs=1, device="cpu")
"""


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its table.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="fashion-mnist", help="name of imported data")
    parser.add_argument("--rounds", type=int, default=5, help="processes for each backend")
    parser.add_argument("--record", action="store_true", help="write the table to loading.md")
    options = parser.parse_args(arguments)
    lines = [f"{options.data}; threads: {THREADS}; seconds, medians of {options.rounds} processes.", ""]
    lines += ["| backend | data in memory | first step done | of it compilation |", "|---|---|---|---|"]
    for backend in ("pyro", "numpyro"):
        runs = [_run(backend, options.data) for _ in range(options.rounds)]
        numbers = [statistics.median(run[name] for run in runs) for name in runs[0]]
        lines.append(f"| {backend} | {' | '.join(f'{number:.2f}' for number in numbers)} |")
    print("\n".join(lines))
    if options.record:
        record_path(__file__).write_text("\n".join(["# From the cache to the first step", "", *lines]) + "\n")


def _run(backend: str, data: str) -> dict[str, float]:
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM, backend, data]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
