"""Fetches a data set from OpenML, by scikit-learn's client, into the cache.

The client's network code is the only one here, and it was tested on recorded answers only.
"""

import re
import warnings
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any
from urllib.error import HTTPError, URLError

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data.checks import as_real
from ppl_vae.data.collection.cache import pack, store
from ppl_vae.errors import InputError
from ppl_vae.files import storage_errors

__all__ = ["fetch_data"]

# Tables whose rows are images of 8 bits: the shape in which a row lies there, and its axes, channels last.
IMAGES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mnist_784": ((28, 28), (0, 1)),
    "fashion-mnist": ((28, 28), (0, 1)),
    "kuzushiji-mnist": ((28, 28), (0, 1)),
    "cifar_10": ((3, 32, 32), (1, 2, 0)),
}


def fetch_data(name: str) -> dict[str, Any]:
    """Fetch a table and store it in the cache as ``openml-NAME``; needs the network.

    The rows of the 8-bit image tables known here become images in [0, 1]; other tables keep their numbers.
    All rows are kept in OpenML's order, without an official test part.

    Args:
        name: OpenML's name of the data set, such as ``mnist_784``, or its number.

    Returns:
        What the cache records of it.

    Raises:
        InputError: There is no such data set, the network failed, a feature is not a finite number, or the
            cache cannot be written.
    """
    bunch = _bunch(name)
    details = bunch.details
    stored = "openml-" + re.sub("[^a-z0-9_-]", "-", str(details["name"]).lower())
    what = f"OpenML's {details['name']}"
    raw = Raw(_images(_numbers(bunch.data, what), stored.removeprefix("openml-"), what), _labels(bunch.target))
    about = {
        "title": f"{details['name']}, version {details['version']}",
        "source": "OpenML",
        "package": f"OpenML data set {details['id']}",
        "licence": details.get("licence") or "not stated at OpenML",
        "verified": True,
        "source_sha256": {},
        "source_md5": details["md5_checksum"],
        "options": {},
    }
    return store(stored, pack(raw, what), about)


def _bunch(name: str) -> Any:
    with storage_errors("keep what is fetched in", Path(gettempdir())):
        return _answered(name)


def _answered(name: str) -> Any:
    """The client's answer; what it raises, but for a refusal of the disk, as one message."""
    remedy = "check the name or the number"
    try:
        with TemporaryDirectory() as folder:
            return _fetch(name, folder)
    except HTTPError as error:
        raise InputError(
            f"OpenML must have a data set {name!r}, but it answered {error.code} ({error.reason}); {remedy}, "
            "or try again later"
        ) from error
    except (URLError, ConnectionError, TimeoutError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"OpenML must be reachable to fetch {name!r}, but the network failed ({reason}); try again later, or "
            "import files that you have by `ppl-vae data import`"
        ) from error
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"OpenML must have {name!r} as a dense table, but scikit-learn's client says: {error}; {remedy}"
        ) from error


def _fetch(name: str, folder: str) -> Any:
    from sklearn.datasets import fetch_openml

    which: dict[str, Any] = {"data_id": int(name)} if name.isdecimal() else {"name": name}
    with warnings.catch_warnings():
        # That it tries again, and that a name has several versions: the record says which one came.
        warnings.simplefilter("ignore")
        try:
            return fetch_openml(**which, as_frame=True, data_home=folder)
        except TypeError:
            # scikit-learn 1.9 with pandas 3.1 fails at classes that are numbers; its other parser is slower.
            return fetch_openml(**which, as_frame=True, data_home=folder, parser="liac-arff")


def _numbers(table: Any, what: str) -> NDArray[Any]:
    """The features as they are, (n, d)."""
    import pandas as pd

    for column, dtype in table.dtypes.items():
        if not pd.api.types.is_numeric_dtype(dtype):
            raise InputError(
                f"{what} must have numbers only, but its column {column!r} is {dtype}; fetch it yourself, encode "
                "that column, and pass the array"
            )
    return as_real(table.to_numpy(np.float32, na_value=np.nan), what)


def _images(x: NDArray[Any], name: str, what: str) -> NDArray[Any]:
    if name not in IMAGES:
        return x
    shape, axes = IMAGES[name]
    if x.shape[1] != np.prod(shape) or not (x.min() >= 0 and x.max() <= 255):
        raise InputError(
            f"{what} must have {int(np.prod(shape))} grey values from 0 to 255 in a row, but it has {x.shape[1]} "
            f"from {x.min():.6g} to {x.max():.6g}; fetch another version of it by its number"
        )
    grey = x.astype(np.float32) / np.float32(255)
    return grey.reshape(-1, *shape).transpose(0, *(axis + 1 for axis in axes))


def _labels(target: Any) -> NDArray[Any] | None:
    """Classes where the target has categories; a number to be predicted is no class."""
    if target is None or getattr(target, "ndim", 1) != 1 or target.dtype.name != "category":
        return None
    labels = target.to_numpy()
    return labels if labels.dtype.kind in "iu" else labels.astype(str)
