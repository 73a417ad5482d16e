"""Values as float32: each dtype exactly, NaN where missing, refused where they are not finite numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.data.series import DataError
from convlstm.data.values import as_frames, check_dtype, equal_to, is_number

NUMBERS = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i2", ">f4", ">f8", "g"]
OTHERS = ["c8", "c16", "S3", "U3", "M8[s]", "m8[s]", "O", "V4", [("a", "f4")]]


def frames_of(values: list[Any], dtype: Any) -> Any:
    array = np.array(values, dtype)[:, None, None, None]
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_become_float32_in_a_new_array(dtype: str) -> None:
    raw = frames_of([0, 1, 1, 0], dtype)
    frames = as_frames("a.npy", raw, 0, None)
    assert frames.dtype == np.float32
    assert frames.dtype.isnative
    assert type(frames) is np.ndarray
    assert frames.flags.writeable
    assert not np.shares_memory(frames, raw)
    assert frames.ravel().tolist() == [0, 1, 1, 0]
    assert is_number(np.dtype(dtype))
    check_dtype("a.npy", np.dtype(dtype))


@pytest.mark.parametrize("dtype", OTHERS)
def test_what_is_no_number_is_refused(dtype: Any) -> None:
    with pytest.raises(DataError, match=r"^a\.npy: has dtype .*; right are bool, integers and floating-point numbers$"):
        check_dtype("a.npy", np.dtype(dtype))
    assert not is_number(np.dtype(dtype))


@pytest.mark.parametrize(("dtype", "missing"), [("i2", -999), ("u1", 255), ("f4", -999.9), ("f8", -999.9), ("f2", 0.1)])
def test_the_missing_value_is_nan(dtype: str, missing: float) -> None:
    frames = as_frames("a.npy", frames_of([1, missing, 2], dtype), 0, missing)
    assert np.isnan(frames.ravel()).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", ["i2", "f2", "?", "f8"])
def test_a_missing_value_that_the_dtype_has_not_is_nowhere(dtype: str) -> None:
    raw = frames_of([0, 1], dtype)
    assert not equal_to(raw, -1e30).any()
    assert not np.isnan(as_frames("a.npy", raw, 0, -1e30)).any()


def test_what_is_too_large_for_float16_is_not_its_infinity() -> None:
    assert equal_to(np.array([np.inf], np.float16), 1e30).tolist() == [False]
    assert equal_to(np.array([np.inf, 1]), math.inf).tolist() == [True, False]


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39, -4e38])
def test_a_value_beyond_float32_is_refused_with_its_frame(value: float) -> None:
    with pytest.raises(DataError, match=r"^a\.npy: frame 12 \(counted from 0\) holds .*; right are finite numbers"):
        as_frames("a.npy", frames_of([np.nan, 1, value, value], "f8"), 10, None)


def test_infinity_may_stand_for_missing() -> None:
    assert np.isnan(as_frames("a.npy", frames_of([np.inf, np.nan], "f4"), 0, math.inf)).all()


@given(st.lists(st.one_of(st.floats(width=32, allow_infinity=False), st.just(math.nan)), min_size=1))
def test_float32_passes_bit_for_bit(values: list[float]) -> None:
    raw = frames_of(values, "f4")
    np.testing.assert_array_equal(as_frames("a.npy", raw, 0, None), raw)
