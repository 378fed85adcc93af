"""HDF5 files: AnnData (.h5ad, cells by genes) in its three layouts, and plain ones (.h5, .hdf5)."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data._rows import FileRows, stays_on_disk
from ppl_vae.data.readers.folders import readable
from ppl_vae.errors import InputError

__all__ = ["read_hdf5"]

_MAX_DENSE_BYTES = 4 * 10**9


def read_hdf5(path: Path, *, label: str | None = None) -> Raw:
    """The matrix ``X`` of an AnnData file, or the array of a plain one.

    Args:
        path: ``.h5ad``, or any other suffix for a plain file: its dataset ``x``, or the only dataset of
            numbers with two axes or more.
        label: For ``.h5ad`` the column of ``obs`` that holds the labels; by default the only categorical
            one, and no labels where there are several. For a plain file the dataset, by default ``y``.

    Returns:
        Data, (n, *data_shape), float32 where the file holds a sparse matrix; labels, (n,), if any.

    Raises:
        InputError: A broken file, no matrix or no such label, a missing label, or a sparse matrix of more
            than 4 GB when dense.

    Source:
        The layouts are described in the AnnData documentation, "On-disk format".
    """
    import h5py

    with readable(path, "an HDF5 file"), h5py.File(path, "r") as file:
        if path.suffix.lower() == ".h5ad":
            return Raw(_matrix(file, path), _obs_labels(file, path, label))
        datasets = _datasets(file)
        x = _only_array(datasets, path)
        if label is not None and label not in datasets:
            raise InputError(f"label must be a dataset of {path}, but {label!r} is none; {_held(datasets)}")
        y = datasets.get(label or "y")
        return Raw(_rows(x, path), None if y is None else _values(y))


def _datasets(file: Any) -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}
    file.visititems(lambda name, node: found.update({name: node}) if isinstance(node, h5py.Dataset) else None)
    return found


def _held(datasets: dict[str, Any]) -> str:
    shown = [f"{name} {node.shape} {node.dtype}" for name, node in datasets.items()]
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"the file holds: {', '.join(shown[:12]) or 'nothing'}{more}"


def _only_array(datasets: dict[str, Any], path: Path) -> Any:
    if "x" in datasets:
        return datasets["x"]
    arrays = [node for node in datasets.values() if node.dtype.kind in "biuf" and len(node.shape or ()) >= 2]
    if len(arrays) != 1:
        raise InputError(
            f"source {path} must hold its data in a dataset x, or in its only dataset of numbers with two axes or "
            f"more, but it has {len(arrays)} such; write x. Now {_held(datasets)}"
        )
    return arrays[0]


def _rows(dataset: Any, path: Path) -> Any:
    """All of a dense dataset, or, where it is large and lies in one piece, its rows on the disk."""
    offset = dataset.id.get_offset()  # None for one in chunks
    if stays_on_disk(dataset.shape, dataset.dtype) and offset is not None:
        return FileRows(path, offset, dataset.shape, dataset.dtype)
    _check_size(
        dataset.shape, path, "write it without chunks and compression, or as .npy, and it stays on the disk"
    )
    return np.asarray(dataset[()])


def _check_size(shape: tuple[int, ...], path: Path, remedy: str) -> None:
    num_bytes = 4 * math.prod(shape)
    if num_bytes > _MAX_DENSE_BYTES:
        raise InputError(
            f"source {path} must need at most {_MAX_DENSE_BYTES / 1e9:g} GB as a dense matrix, but its "
            f"{' x '.join(map(str, shape))} entries need {num_bytes / 1e9:.1f} GB; {remedy}"
        )


def _matrix(file: Any, path: Path) -> Any:
    """Cells by genes."""
    import h5py

    x = file.get("X")
    if isinstance(x, h5py.Dataset) and len(x.shape or ()) == 2:
        return _rows(x, path)
    if isinstance(x, h5py.Group) and {"data", "indices", "indptr"} <= set(x):
        return _dense(x, path)
    raise InputError(
        f"source {path} must hold a matrix X, dense or sparse, but it does not; write it with AnnData.write. Now "
        f"{_held(_datasets(file))}"
    )


def _dense(group: Any, path: Path) -> NDArray[np.float32]:
    from scipy import sparse

    # The second name of each is that before AnnData 0.7.
    attrs = {**group.attrs}
    form = str(attrs.get("encoding-type", attrs.get("h5sparse_format")))[:3]
    shape = tuple(int(length) for length in attrs.get("shape", attrs.get("h5sparse_shape", ())))
    if form not in ("csr", "csc") or len(shape) != 2:
        raise InputError(f"source {path} must hold a sparse X as csr or csc, but it is {form} of shape {shape}")
    _check_size(shape, path, "keep the most variable genes or fewer cells")
    with np.errstate(over="ignore"):
        data = group["data"][()].astype(np.float32)
    build = sparse.csr_matrix if form == "csr" else sparse.csc_matrix
    matrix = build((data, group["indices"][()], group["indptr"][()]), shape=shape)
    # SciPy does not look at the indices by itself, and would write outside the array.
    matrix.check_format(full_check=True)
    return matrix.toarray(order="C")


def _obs_labels(file: Any, path: Path, label: str | None) -> NDArray[Any] | None:
    columns = _columns(file)
    if label is None:
        categorical = [name for name in columns if _categories(file, name) is not None]
        if len(categorical) != 1:
            return None
        label = categorical[0]
    if label not in columns:
        raise InputError(
            f"label must be a column of obs in {path}, but {label!r} is none; choose one of "
            f"{', '.join(columns) or 'none, for there are none'}"
        )
    column, categories = file["obs"][label], _categories(file, label)
    if categories is None:
        return _values(column)
    codes = np.asarray(column["codes"][()] if hasattr(column, "keys") else column[()])
    if (codes < 0).any():
        raise InputError(
            f"source {path} must have a label for every cell, but {label!r} lacks {int((codes < 0).sum())}; fill "
            "them, or choose another column of obs"
        )
    return categories[codes]


def _columns(file: Any) -> list[str]:
    """Names of the columns of obs, without its index."""
    obs = file.get("obs", {})
    if getattr(obs, "dtype", None) is not None:
        return [name for name in obs.dtype.names or () if name != "index"]
    return [name for name in obs if name not in ("__categories", obs.attrs.get("_index"))]


def _categories(file: Any, name: str) -> NDArray[Any] | None:
    """What the codes of a categorical column stand for, None for a column of another kind."""
    obs = file["obs"]
    if not hasattr(obs, "keys"):  # before AnnData 0.7: one table of named fields
        node = file.get(f"uns/{name}_categories")
    elif hasattr(obs[name], "keys"):  # since AnnData 0.8: a group for each column
        node = obs[name].get("categories")
    else:  # between them
        node = obs.get(f"__categories/{name}")
    return None if node is None else _values(node)


def _values(node: Any) -> NDArray[Any]:
    """A column as numbers or strings; strings and whole numbers with gaps are groups in newer files."""
    if hasattr(node, "keys"):
        if np.any(node["mask"][()]):
            raise InputError(f"labels must be there in every row, but {node.name} has gaps; fill them")
        node = node["values"]
    values = np.asarray(node[()] if hasattr(node, "shape") else node)
    if values.dtype.kind in "SO":
        return np.array([v.decode() if isinstance(v, bytes) else v for v in values.ravel()]).reshape(values.shape)
    return values
