import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_vae.errors import InputError
from ppl_vae.sweeps.grid import Point, make_points, paths, read_axis


def points_of(beta, seeds=(0,), sites=("z1", "z2"), max_runs=100):
    return make_points(beta, seeds, list(sites), max_runs=max_runs)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.1:10:log7", np.logspace(-1, 1, 7)),
        ("0:2:lin5", [0, 0.5, 1, 1.5, 2]),
        ("0.5,1,2", [0.5, 1, 2]),
        ("3", [3]),
        (3, [3]),
        ([0, 1.5], [0, 1.5]),
        (np.array([2.0]), [2]),
    ],
)
def test_an_axis_has_the_numbers_that_it_names(text, wanted):
    # Ranges are rounded to six significant digits.
    np.testing.assert_allclose(read_axis(text), wanted, rtol=5e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many", "betas must be numbers or a range, but they are 'many'; write 2"),
        ("1:2", "betas must be numbers or a range"),
        ("1:2:cube3", "betas must be numbers or a range"),
        (None, "betas must be numbers or a range, but they are None"),
        ("0:1:log3", "must rise from more than 0 to a larger number, but is 0:1:log3"),
        ("2:1:lin3", "must rise from 0 or more to a larger number"),
        ("-1:1:lin3", "must rise from 0 or more"),
        ("nan:1:lin3", "must rise from 0 or more"),
        ("1:2:lin1", "must have 2 to 10000 values, but 1:2:lin1 has 1"),
        ("1:2:lin10001", "must have 2 to 10000 values"),
        ("1:inf:lin3", "must rise from"),
        ("1,-2", "betas must be 0 or more and finite, but 1,-2 has -2.0"),
        ("nan", "betas must be 0 or more and finite"),
        ("1,2,1", "one or more different numbers, but they are 1,2,1"),
        ("1:1.0000001:lin3", "one or more different numbers"),
        ([], "one or more different numbers"),
    ],
)
def test_what_is_no_axis_is_refused(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_axis(text)


@given(st.text(alphabet="0123456789.,:linogex=- "))
def test_any_text_is_read_or_refused(text):
    try:
        numbers = read_axis(text)
    except InputError:
        return
    assert len(set(numbers)) == len(numbers) > 0
    assert all(0 <= beta < np.inf for beta in numbers)


def test_a_grid_is_every_combination_and_the_first_seed_comes_first():
    points = points_of({"z2": "1,2", "z1": [3, 4]}, seeds=(5, 6))
    assert [(p.seed, *p.betas.values()) for p in points] == [
        (seed, z1, z2) for seed in (5, 6) for z1 in (3, 4) for z2 in (1, 2)
    ]
    assert list(points[0].betas) == ["z1", "z2"]


def test_sites_that_are_not_named_have_beta_one():
    assert [p.betas for p in points_of({"z2": "2,3"})] == [{"z1": 1.0, "z2": 2.0}, {"z1": 1.0, "z2": 3.0}]


def test_betas_without_a_name_are_the_same_for_all_sites():
    assert [p.betas for p in points_of("2,3")] == [{"z1": 2.0, "z2": 2.0}, {"z1": 3.0, "z2": 3.0}]


def test_an_unknown_site_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match="which are z1, z2, but it names 'z3'"):
        points_of({"z3": "1,2"})


def test_a_grid_of_too_many_runs_is_refused_before_it_is_made():
    axes = dict.fromkeys(("z1", "z2"), "0.1:10:log10000")
    with pytest.raises(
        InputError, match=r"at most 100 runs, but 100000000 points .* 2 seeds make 200000000; .*--max"
    ):
        points_of(axes, seeds=(0, 1))


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=20, unique=True))
def test_names_of_folders_differ_where_points_do(betas):
    names = [point.name for point in points_of({"z1": betas})]
    assert len(set(names)) == len(betas)
    assert all(re.fullmatch(r"[\w.=+-]+", name) for name in names)


def test_names_of_folders_are_safe_for_any_site():
    assert Point({"layer/z 1": 0.5}, 0).name == "layer-z-1=0.5_seed=0"


def test_paths_rise_along_the_first_site_that_varies():
    found = paths(points_of({"z1": "2,1", "z2": "3,4"}, seeds=(0, 1)))
    assert [[(p.seed, *p.betas.values()) for p in path] for path in found] == [
        [(0, 1, 3), (0, 2, 3)],
        [(0, 1, 4), (0, 2, 4)],
        [(1, 1, 3), (1, 2, 3)],
        [(1, 1, 4), (1, 2, 4)],
    ]


def test_a_path_of_common_betas_rises_with_them():
    (path,) = paths(points_of("3,1,2"))
    assert [p.betas["z1"] for p in path] == [1, 2, 3]


def test_one_point_is_a_path():
    assert [len(path) for path in paths(points_of("1", seeds=(0, 1)))] == [1, 1]
