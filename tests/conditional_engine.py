"""The exact engine given a condition: what diagnostics of conditional models are tested with."""

from types import SimpleNamespace

import numpy as np

from tests.exact_engine import ExactEngine


class ConditionalEngine(ExactEngine):
    """The exact engine, of data whose condition is added to them: the mean of x is the condition."""

    condition_shape = (6,)

    def inspect(self, x, **options):
        return super().inspect(np.asarray(x) - x.condition, **options)

    def generate(self, num_draws, *, condition, **options):
        found = super().generate(num_draws, **options)
        return SimpleNamespace(latents=found.latents, mean=found.mean + condition, x=found.x + condition)
