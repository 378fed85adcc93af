"""Named data sets, users' own files, splits and binarisation.

Data lead with their n rows, whatever follows is one datum: an (n, 8, 8) array is n images.
"""

from ppl_vae.data._binarise import BINARISE_MODES, BinarisedRows, binarise
from ppl_vae.data._condition import (
    CONDITIONS,
    Conditioned,
    ConditionedRows,
    add_condition,
    condition_of,
    join_quadrants,
)
from ppl_vae.data._dataset import Dataset
from ppl_vae.data._embedded import embedded_names
from ppl_vae.data._groups import group_data
from ppl_vae.data._load import is_data_name, load
from ppl_vae.data._rows import Rows, SelectedRows, row_blocks, rows_per_block
from ppl_vae.data._splits import Splits, make_splits

__all__ = [
    "BINARISE_MODES",
    "CONDITIONS",
    "BinarisedRows",
    "Conditioned",
    "ConditionedRows",
    "Dataset",
    "Rows",
    "SelectedRows",
    "Splits",
    "add_condition",
    "binarise",
    "condition_of",
    "embedded_names",
    "group_data",
    "is_data_name",
    "join_quadrants",
    "load",
    "make_splits",
    "row_blocks",
    "rows_per_block",
]
