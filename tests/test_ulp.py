"""Distances between numbers, counted in numbers of their format."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.determinism.ulp import ulp_distance

FORMATS: list[type[np.floating[Any]]] = [np.float16, np.float32, np.float64]


@pytest.mark.parametrize("kind", FORMATS)
def test_next_numbers_lie_one_apart_and_so_on(kind: type[np.floating[Any]]) -> None:
    up = kind(np.inf)
    for start in (kind(1), kind(-1), kind(0), np.finfo(kind).smallest_subnormal, -np.finfo(kind).smallest_subnormal):
        a = b = start
        for steps in range(5):
            assert ulp_distance(a, b) == ulp_distance(b, a) == steps
            b = np.nextafter(b, up)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_ends_of_a_format(kind: type[np.floating[Any]]) -> None:
    """Between 1 and 2 lie as many numbers as the significand has patterns; from end to end almost all patterns."""
    assert ulp_distance(kind(1), kind(2)) == 2 ** np.finfo(kind).nmant
    finite = np.finfo(kind)
    exponents = 2**finite.bits // 2 - 2**finite.nmant  # patterns of one sign, without infinity and NaN
    assert ulp_distance(finite.min, finite.max) == 2 * (exponents - 1)


def test_zero_has_two_signs_and_one_place() -> None:
    assert ulp_distance(np.float32(0.0), np.float32(-0.0)) == 0
    tiny = np.finfo(np.float32).smallest_subnormal
    assert ulp_distance(tiny, np.float32(-0.0)) == 1
    assert ulp_distance(-tiny, tiny) == 2


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_has_no_distance(odd: float) -> None:
    for kind in FORMATS:
        assert ulp_distance(kind(odd), kind(1)) is None
        assert ulp_distance(kind(1), kind(odd)) is None
        assert ulp_distance(kind(odd), kind(odd)) is None


def test_a_format_of_more_bits_has_none_here() -> None:
    assert ulp_distance(np.longdouble(1), np.longdouble(2)) in (None, 2**52)  # on some machines it is float64


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_it_is_the_difference_of_places(a: float, b: float) -> None:
    """Through zero the way is the sum of both ways to it."""
    found = ulp_distance(np.float64(a), np.float64(b))
    to_zero = [ulp_distance(np.float64(x), np.float64(0)) for x in (a, b)]
    assert found is not None
    assert to_zero[0] is not None
    assert to_zero[1] is not None
    same_side = (a < 0) == (b < 0) or 0 in (a, b)
    assert found == (abs(to_zero[0] - to_zero[1]) if same_side else sum(map(abs, filter(None, to_zero))))
    assert (found == 0) == (a == b)
