"""Both backends in float64, for tests that compare them."""

import pytest

from tests.backends import CLASSES


@pytest.fixture
def float64():
    """Both backends in float64."""
    with CLASSES["pyro"]().float64(), CLASSES["numpyro"]().float64():
        yield
