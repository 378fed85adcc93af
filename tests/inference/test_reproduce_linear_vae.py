"""The programs on the linear VAE against closed forms by hand, other samplers and optimisers; and whole, at toy size."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from ppl_vae.data import load
from ppl_vae.errors import InputError
from tests.helpers import load_file, needs

