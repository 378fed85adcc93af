"""The number of threads of a benchmark, set before the backends are imported: import this first.

The environment variable PPL_VAE_THREADS chooses it, 1 by default. One thread is pinned to one core.
"""

import os
from pathlib import Path

__all__ = ["THREADS", "record_path"]

THREADS = int(os.environ.get("PPL_VAE_THREADS", "1"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)
if THREADS == 1:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
if hasattr(os, "sched_setaffinity"):
    # XLA takes as many threads as there are cores for the process.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-THREADS:])


def record_path(program: str) -> Path:
    """Where a benchmark keeps its table: beside it, apart for another number of threads than 1.

    Args:
        program: The benchmark's ``__file__``.
    """
    path = Path(program).with_suffix(".md")
    return path if THREADS == 1 else path.with_stem(f"{path.stem}_{THREADS}_threads")
