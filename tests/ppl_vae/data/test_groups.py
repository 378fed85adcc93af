"""Data in groups: members in their places, groups parted and padded, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_vae.data import group_data, load
from ppl_vae.errors import InputError

X = np.arange(1.0, 15.0, dtype=np.float32).reshape(7, 2)
GROUPS = np.array([5, 2, 5, 9, 2, 5, 9])


def members(dataset):
    """The data of each group that are there."""
    return [row[present > 0].tolist() for row, present in zip(dataset.in_memory(), dataset.condition, strict=True)]


BY_NUMBER = [X[[1, 4]].tolist(), X[[0, 2, 5]].tolist(), X[[3, 6]].tolist()]


def test_a_row_holds_the_members_of_a_group():
    found = group_data(load(X), GROUPS)
    assert members(found) == BY_NUMBER
    assert (found.data_shape, found.condition_shape) == ((3, 2), (3,))
    assert found.labels is None
    # The taken places are the first ones, and the others are zeros.
    np.testing.assert_array_equal(found.condition, [[1, 1, 0], [1, 1, 1], [1, 1, 0]])
    assert not found.in_memory()[found.condition == 0].any()
    assert found.arrangement == {"group": None, "size": 3}


def test_groups_come_from_labels_strings_and_files(tmp_path):
    names = np.array(["a", "b", "c"])[np.searchsorted([2, 5, 9], GROUPS)]
    np.save(tmp_path / "numbers.npy", GROUPS[:, None])
    np.save(tmp_path / "names.npy", names)
    np.savez(tmp_path / "labels.npz", x=X, y=names)
    (tmp_path / "names.csv").write_text("\n".join(["label", *names]))
    (tmp_path / "numbers.csv").write_text("\n".join(map(str, GROUPS)))
    data = load(X, labels=names)
    sources = ["labels", list(names), *sorted(tmp_path.iterdir()), str(tmp_path / "names.csv")]
    assert len(sources) == 8
    for source in sources:
        found = group_data(data, source)
        assert members(found) == BY_NUMBER
        is_path = not isinstance(source, list) and source != "labels"
        wanted = str((tmp_path / source).resolve()) if is_path else "labels" if source == "labels" else None
        assert found.arrangement["group"] == wanted


def test_large_numbers_in_a_file_stay_apart(tmp_path):
    # In float32 they would be equal.
    np.save(tmp_path / "groups.npy", GROUPS + 2**40)
    assert members(group_data(load(X), tmp_path / "groups.npy")) == BY_NUMBER


@settings(max_examples=50, deadline=None)
@given(codes=st.lists(st.integers(0, 3), min_size=8, max_size=30), most=st.integers(2, 6))
def test_groups_are_parted_evenly_and_nothing_is_lost(codes, most):
    x = np.arange(1.0, len(codes) + 1.0)[:, None]
    found = group_data(load(x), codes, max_members=most, size=most)
    rows = [np.ravel(row).astype(int) - 1 for row in members(found)]
    assert sorted(np.concatenate(rows)) == list(range(len(codes)))
    by_code = {}
    for row in rows:
        (code,) = {codes[i] for i in row}
        by_code.setdefault(code, []).append(len(row))
    for code, sizes in by_code.items():
        assert len(sizes) == -(-codes.count(code) // most)
        assert max(sizes) - min(sizes) <= 1


def test_the_size_of_rows_arranges_other_data_alike():
    data = load("digits")
    first = group_data(data, "labels", max_members=30)
    assert first.data_shape == (30, 8, 8)
    again = group_data(data, "labels", size=first.arrangement["size"])
    assert again.fingerprint == first.fingerprint
    few = group_data(load(X, labels=GROUPS), "labels", size=4)
    assert few.data_shape == (4, 2)
    assert members(few) == BY_NUMBER
    # One group alone may be encoded, not fitted.
    assert group_data(load(X), np.zeros(7, int), size=7).num_data == 1


@pytest.mark.parametrize(
    ("group", "options", "message"),
    [
        ("labels", {}, "group labels needs data with labels, but array has none; pass the path"),
        (GROUPS[:3], {}, r"group must have shape \(7,\), one for each datum, but it has shape \(3,\)"),
        (GROUPS + 0.5, {}, "group must be whole numbers"),
        (GROUPS > 4, {}, "3 groups or more, to be split for a fit, but it makes 2; part them by --max-members"),
        (GROUPS, {"max_members": 1}, "every group has 1 member"),
        (np.arange(7), {}, "every group has 1 member"),
        (GROUPS, {"max_members": -1}, "max_members must be 0 or more, but it is -1"),
        (
            "label",
            {},
            "group must be labels, or a file with the group of each datum, but source label does not exist",
        ),
    ],
)
def test_groups_that_do_not_fit_are_refused(group, options, message):
    with pytest.raises(InputError, match=message):
        group_data(load(X), group, **options)
