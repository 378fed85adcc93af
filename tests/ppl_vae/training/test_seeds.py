"""Seeds of different uses of one run must not meet."""

from typing import get_args

import numpy as np

from ppl_vae.training.seeds import Purpose, child_seed


def test_no_two_uses_share_a_stream():
    streams = [
        np.random.default_rng(child_seed(seed, p)).random(4) for seed in range(20) for p in get_args(Purpose)
    ]
    streams += [np.random.default_rng(seed).random(4) for seed in range(20)]
    assert len({tuple(stream) for stream in streams}) == len(streams)
    assert all(0 <= child_seed(seed, p) < 2**32 for seed in (0, 2**32 - 1) for p in get_args(Purpose))
