"""Named data sets, users' own files, splits and binarisation.

Data lead with their n rows, whatever follows is one datum: an (n, 8, 8) array is n images.
"""

from ppl_vae.data._binarise import BINARISE_MODES, BinarisedRows, binarise
from ppl_vae.data._dataset import Dataset
from ppl_vae.data._embedded import embedded_names
from ppl_vae.data._load import is_data_name, load
from ppl_vae.data._rows import Rows, SelectedRows, row_blocks, rows_per_block
from ppl_vae.data._splits import Splits, make_splits

__all__ = [
    "BINARISE_MODES",
    "BinarisedRows",
    "Dataset",
    "Rows",
    "SelectedRows",
    "Splits",
    "binarise",
    "embedded_names",
    "is_data_name",
    "load",
    "make_splits",
    "row_blocks",
    "rows_per_block",
]
