"""Street View House Numbers, the cropped digits in MATLAB files (Netzer et al. 2011)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data.readers.folders import find_file, readable
from ppl_vae.data.readers.image_folder import to_unit
from ppl_vae.errors import InputError

__all__ = ["read_svhn"]


def read_svhn(path: Path) -> Raw:
    """Digits of the training and the test file; ``extra_32x32.mat`` is not read.

    Args:
        path: A folder with ``train_32x32.mat`` and ``test_32x32.mat``.

    Returns:
        Data, (n, 32, 32, 3) in [0, 1], the test part last, and the digits 0 to 9, (n,).

    Raises:
        InputError: A file is missing, broken or holds something else.
    """
    (train, train_labels), (test, test_labels) = (
        _part(find_file(path, f"{part}_32x32.mat")) for part in ("train", "test")
    )
    x = to_unit(np.concatenate([train, test]))
    return Raw(x, np.concatenate([train_labels, test_labels]), len(test))


def _part(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from scipy.io import loadmat, whosmat

    with readable(path, "a MATLAB file"):
        # Before loading, because SciPy can crash on numbers of a kind that these files do not have.
        held = {name: (shape, kind) for name, shape, kind in whosmat(path)}
        (*_, n), _ = x = held.get("X", ((0,), ""))
        y = held.get("y", ((0, 0), ""))
        if x != ((32, 32, 3, n), "uint8") or y[0] != (n, 1) or y[1] not in ("uint8", "double"):
            found = ", ".join(f"{name} {kind} {shape}" for name, (shape, kind) in held.items())
            raise InputError(
                f"source {path} must hold uint8 images X of shape (32, 32, 3, n) and digits y of shape (n, 1), "
                f"but it holds {found or 'nothing'}; get the file of cropped digits"
            )
        content = loadmat(path, variable_names=["X", "y"])
        images, labels = np.asarray(content["X"]), np.asarray(content["y"])[:, 0]
    if not np.isin(labels, np.arange(1, 11)).all():
        raise InputError(
            f"source {path} must have labels from 1 to 10, but they run from {labels.min()} to {labels.max()}; "
            "get the file again"
        )
    # The authors write 10 for the digit 0.
    return np.moveaxis(images, -1, 0), labels.astype(np.int64) % 10
