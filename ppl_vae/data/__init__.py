"""Named data sets, users' own files, splits and binarisation.

Data lead with their n rows, whatever follows is one datum: an (n, 8, 8) array is n images.
"""

from ppl_vae.data._binarise import BINARISE_MODES, binarise
from ppl_vae.data._dataset import Dataset
from ppl_vae.data._embedded import embedded_names
from ppl_vae.data._load import load
from ppl_vae.data._splits import Splits, make_splits

__all__ = ["BINARISE_MODES", "Dataset", "Splits", "binarise", "embedded_names", "load", "make_splits"]
