"""Options that a signature declares."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl_vae.errors import InputError
from ppl_vae.options import (
    Option,
    check_options,
    describe,
    documented_arguments,
    options_of,
    parse_assignments,
    words_of,
)

Colour = Literal["red", "green"]
Size = Literal[1, 2]


def build(
    data_shape,
    *,
    seed: int = 0,
    units: int = 4,
    scale: float = 0.5,
    learn: bool = True,
    title: str = "none",
    colour: Colour = "red",
    sizes: list[int] = [8, 4],  # noqa: B006
):
    """Build.

    Args:
        data_shape: Shape of one datum.
        units: How many units
            there are, over two lines.
        scale: A scale: it has a colon.
        learn: Whether to learn.

    Returns:
        scale: this is no argument.
    """


def option(annotation, default=0):
    return Option("o", annotation, default, "")


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, "3", 3),
        (int, " -3 ", -3),
        (int, 3, 3),
        (int, 3.0, 3),
        (int, np.int64(3), 3),
        (float, "1e-3", 1e-3),
        (float, 2, 2.0),
        (float, np.float32(0.5), 0.5),
        (float, "inf", np.inf),  # whether that is allowed is the rule of the option's owner
        (str, "3", "3"),
        (str, "", ""),
        (bool, True, True),
        (bool, np.True_, True),
        (bool, 0, False),
        *[(bool, word, True) for word in ("true", "True", "1", "yes", "YES")],
        *[(bool, word, False) for word in ("false", "False", "0", "no")],
        (Colour, "green", "green"),
        (Size, "2", 2),
        (Size, 2, 2),
        (list[int], "8", [8]),
        (list[int], "8,4", [8, 4]),
        (list[int], (8, 4.0), [8, 4]),
        (list[int], [], []),
    ],
)
def test_values_and_texts_are_converted(annotation, value, expected):
    found = option(annotation).convert(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "words", "values"),
    [
        (
            int,
            "a whole number",
            ["x", "", "3.0", "1e3", 2.5, np.float32(2.5), np.nan, np.inf, True, None, [1], "9" * 5000],
        ),
        (float, "a number", ["x", "", "1,5", True, None, [1.0], 1j, 10**400]),
        (bool, "true or false", ["x", "", "2", 2, None, 0.5, [True]]),
        (str, "text", [3, None, ["x"], True]),
        (Colour, "one of red, green", ["blue", "", "RED", None, 0]),
        (list[int], "whole numbers", ["", "8,", "8;4", "8,x", 8, None, [1.5], [True]]),
    ],
)
def test_what_is_neither_is_refused_with_rule_value_and_remedy(annotation, words, values):
    for value in values:
        with pytest.raises(
            InputError, match=f"option o must be {words}, but it is .*; the default is 7"
        ) as caught:
            option(annotation, 7).convert(value)
        assert repr(value) in str(caught.value)


def test_a_misspelt_word_of_a_set_is_answered_with_the_nearest():
    with pytest.raises(
        InputError, match=r"option o must be one of red, green, but it is 'gren'; did you mean green\?"
    ):
        option(Colour).convert("gren")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Colour, ["red", "green"]),
        (Size, ["1", "2"]),
        (Colour | None, ["red", "green"]),
        (Annotated[Colour | None, "about"], ["red", "green"]),
        (str | None, []),
        (list[int], []),
    ],
)
def test_words_of_a_type(annotation, words):
    assert words_of(annotation) == words


@given(annotation=st.sampled_from([int, float, bool, str, Colour, list[int]]), text=st.text())
def test_no_text_raises_anything_else(annotation, text):
    try:
        option(annotation).convert(text)
    except InputError:
        pass


@given(st.integers())
def test_whole_numbers_survive_as_text(number):
    assert option(int).convert(str(number)) == number


@given(st.floats(allow_nan=False))
def test_numbers_survive_as_text(number):
    assert option(float).convert(repr(number)) == number


def test_options_are_what_the_signature_says():
    options = {o.name: o for o in options_of(build, without=("data_shape",))}
    assert list(options) == ["seed", "units", "scale", "learn", "title", "colour", "sizes"]
    assert (options["units"].type, options["units"].default) == (int, 4)
    assert options["colour"].type == Colour
    assert options["sizes"].default == [8, 4]


def test_help_is_what_the_docstring_says():
    assert documented_arguments(build) == {
        "data_shape": "Shape of one datum.",
        "units": "How many units there are, over two lines.",
        "scale": "A scale: it has a colon.",
        "learn": "Whether to learn.",
    }
    assert [o.help for o in options_of(build, without=("data_shape", "seed"))][3:] == ["", "", ""]


def test_a_dataclass_declares_options_in_its_attributes():
    @dataclass
    class Settings:
        """Settings.

        Attributes:
            rate: A rate.
        """

        rate: float = 0.5

    (found,) = options_of(Settings)
    assert (found.name, found.type, found.default, found.help) == ("rate", float, 0.5, "A rate.")


def test_a_function_without_docstring_has_options_without_help():
    def bare(*, units: int = 1):
        pass

    assert [o.help for o in options_of(bare)] == [""]


def without_default(*, units: int):
    pass


def without_annotation(*, units=1):
    pass


def with_a_type_that_is_none(*, units: dict[str, int] = {}):  # noqa: B006
    pass


def with_a_missing_type(*, units: "Missing" = 1):  # noqa: F821
    pass


def with_any_keyword(**units: int):
    pass


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (without_default, r"parameter units of without_default in .*test_options.py must have a default"),
        (without_annotation, r"parameter units of without_annotation in .*must be int, .*but it is None"),
        (with_a_type_that_is_none, r"must be int, float, bool, str, a Literal or list\[int\], but it is dict"),
        (with_a_missing_type, r"annotations of with_a_missing_type in .*name 'Missing' is not defined; import"),
        (with_any_keyword, r"parameter units of with_any_keyword .* must have a default"),
    ],
)
def test_a_signature_that_declares_no_options_is_refused_with_its_place(function, match):
    with pytest.raises(InputError, match=match):
        options_of(function)


def test_values_are_checked_by_name():
    options = options_of(build, without=("data_shape",))
    assert check_options(options, {"units": "5", "colour": "green"}, "x") == {"units": 5, "colour": "green"}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("unit", r"option 'unit' must be one of variant v, which has seed, units, .*; did you mean units\?"),
        ("epoch", r"did you mean epochs\?"),
        ("zzzz", r"; choose one of them, or leave it out"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, match):
    options = options_of(build, without=("data_shape",))
    with pytest.raises(InputError, match=match):
        check_options(options, {name: 1}, "variant v", elsewhere=["epochs"])


def test_assignments_are_split_at_the_first_sign():
    assert parse_assignments(["a=1", "b=x=y", "c="], "--loss-option") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        (["a"], "--beta must read key=value, but it is 'a'; write"),
        (["=1"], "must read key=value, but it is '=1'"),
        ([""], "must read key=value, but it is ''"),
        (["a=1", "a=1"], "--beta must set a key once, but a comes twice; remove one of the two"),
    ],
)
def test_what_is_no_assignment_is_refused(texts, match):
    with pytest.raises(InputError, match=match):
        parse_assignments(texts, "--beta")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [(int, "a whole number"), (Colour, "one of red, green"), (list[int], "whole numbers")],
)
def test_types_are_described_in_words(annotation, words):
    assert describe(annotation) == words
