"""Arguments as users give them: which numbers and dictionaries pass, and one line for all that do not."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from convlstm.arguments import as_integer, as_number, check_arrays

NO_NUMBERS: list[Any] = [
    "a", "1", None, [0.1], (0.1,), {}, True, np.True_, 1j, np.array(0.1), np.array([0.1, 0.2]), np.eye(9), math.nan,
    10**400, -(10**400),
]  # fmt: skip


@pytest.mark.parametrize("value", [2, 2.0, np.int8(2), np.uint64(2), np.float32(2), np.float64(2), np.float16(2)])
def test_every_kind_of_number_becomes_pythons(value: Any) -> None:
    found = as_number("n", value, "be > 1", lambda number: number > 1)
    assert (type(found), found) == (float, 2.0)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^n must be any number; got ") as caught:
        as_number("n", value, "be any number", lambda number: number <= math.inf)
    assert len(str(caught.value)) < 80
    assert "\n" not in str(caught.value)


def test_a_number_that_is_not_right_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^n must be > 1; got 1$"):
        as_number("n", 1, "be > 1", lambda number: number > 1)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_every_kind_of_integer_becomes_pythons(value: Any) -> None:
    found = as_integer("n", value, "≥ 3", lambda number: number >= 3)
    assert (type(found), found) == (int, 3)


@pytest.mark.parametrize("value", [*NO_NUMBERS[:-2], 3.0, 3.5, np.float64(3), math.inf, 2], ids=repr)
def test_what_is_no_integer_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^n must be an integer ≥ 3; got .+$") as caught:
        as_integer("n", value, "≥ 3", lambda number: number >= 3)
    assert "\n" not in str(caught.value)


def test_dictionaries_of_floats_pass() -> None:
    check_arrays("arrays", {})
    check_arrays("arrays", {"a": np.zeros((2, 0)), "b": np.float32(1), "c": np.array([math.nan])})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (None, "arrays must be a dictionary of arrays; got NoneType"),
        ([np.ones(1)], "arrays must be a dictionary of arrays; got list"),
        ({"b": np.ones(1), "a": [1.0]}, "arrays['a'] must be an array of float32 or float64; got list"),
        ({"a": None}, "arrays['a'] must be an array of float32 or float64; got NoneType"),
        ({"a": np.arange(3)}, "arrays['a'] must be an array of float32 or float64; got int64"),
        ({"a": np.ones(3, "float16")}, "arrays['a'] must be an array of float32 or float64; got float16"),
    ],
)
def test_other_dictionaries_are_refused(arrays: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        check_arrays("arrays", arrays)
