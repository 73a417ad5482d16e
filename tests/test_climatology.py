"""Climatology: which frames make a month's mean, and which frame is usual at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm.data.climatology import climatology
from convlstm.data.series import Series

NUMBERS = np.random.Generator(np.random.Philox(key=3))


def series_of(frames: NDArray[Any], times: NDArray[np.datetime64] | None) -> Series:
    frames = frames.astype(np.float32)
    T, C, H, W = frames.shape
    return Series("x.nc", (T, C, H, W), lambda start, stop: frames[start:stop].copy(), (range(T),), times=times)


def dates(first: str, count: int, unit: str) -> NDArray[np.datetime64]:
    return (np.array(first, f"datetime64[{unit}]") + np.arange(count)).astype("datetime64[ns]")


def test_monthly_frames_have_one_mean_for_each_calendar_month() -> None:
    frames = NUMBERS.normal(size=(54, 2, 3, 4)).astype(np.float32)
    times = dates("1965-11", 54, "M")  # before 1970, too
    found = climatology(series_of(frames, times), [range(30), range(32, 40)])
    assert found.means.shape == (12, 2, 3, 4)
    assert found.means.dtype == np.float32
    for month in range(12):
        own = [t for t in (*range(30), *range(32, 40)) if str(times[t])[5:7] == f"{month + 1:02d}"]
        np.testing.assert_allclose(found.means[month], frames[own].astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(found.at(times)[:14], found.means[[10, 11, *range(12)]])


def test_daily_and_hourly_frames_have_months_as_well() -> None:
    times = dates("2023-12-30", 70, "D")
    frames = np.arange(70.0).reshape(70, 1, 1, 1)
    found = climatology(series_of(frames, times), [range(70)])
    assert found.means[[11, 0, 1, 2], 0, 0, 0].tolist() == [0.5, 17.0, 47.0, 65.5]
    hours = np.array(["2040-01-31T23:59", "2040-02-01T00:00"], "datetime64[m]")
    assert found.at(hours)[:, 0, 0, 0].tolist() == [17.0, 47.0]


def test_missing_values_are_left_out_and_months_without_any_are_nan() -> None:
    frames = np.array([[[[1.0, np.nan]]], [[[5.0, 7.0]]], [[[3.0, np.nan]]]])  # January, February, January
    times = np.array(["2001-01-10", "2001-02-10", "2002-01-10"], "datetime64[ns]")
    found = climatology(series_of(frames, times), [range(3)])
    np.testing.assert_array_equal(found.means[:3, 0, 0], [[2.0, np.nan], [5.0, 7.0], [np.nan, np.nan]])
    assert np.isnan(found.means[2:]).all()
    filled = found.filled().means  # with what is usual in the months that a pixel has
    np.testing.assert_array_equal(filled[:2, 0, 0], [[2.0, 7.0], [5.0, 7.0]])
    assert (filled[2:, 0, 0] == [3.5, 7.0]).all()
    assert np.isnan(climatology(series_of(np.full_like(frames, np.nan), times), [range(3)]).filled().means).all()


def test_without_times_it_is_the_mean_frame() -> None:
    frames = NUMBERS.normal(size=(9, 2, 3, 4)).astype(np.float32)
    frames[4, 0, 1, 1] = np.nan
    found = climatology(series_of(frames, None), [range(6)])
    assert found.means.shape == (1, 2, 3, 4)
    np.testing.assert_allclose(found.means[0], np.nanmean(frames[:6].astype(np.float64), axis=0), rtol=1e-6)
    np.testing.assert_array_equal(
        found.at(np.arange(6).reshape(2, 3)), np.broadcast_to(found.means[0], (2, 3, 2, 3, 4))
    )


def test_times_of_any_shape_have_frames_of_that_shape() -> None:
    times = dates("2000-01", 24, "M")
    found = climatology(series_of(NUMBERS.normal(size=(24, 2, 3, 4)), times), [range(24)])
    windows = times[np.arange(3)[:, None] + np.arange(5)]  # (N, T)
    assert found.at(windows).shape == (3, 5, 2, 3, 4)
    np.testing.assert_array_equal(found.at(windows)[2, 4], found.means[6])


@pytest.mark.parametrize("with_times", [False, True])
def test_no_bit_depends_on_the_chunks(with_times: bool) -> None:
    times = dates("2000-01", 40, "M") if with_times else None
    series = series_of(300 + NUMBERS.normal(size=(40, 1, 5, 5)), times)
    found = {climatology(series, [range(40)], at_once=n).means.tobytes() for n in (1, 3, 12, 40, None)}
    assert len(found) == 1


def test_what_is_no_time() -> None:
    found = climatology(series_of(np.ones((2, 1, 1, 1)), dates("2000-01", 2, "M")), [range(2)])
    with pytest.raises(ValueError, match="times must be datetime64; got int64"):
        found.at(np.arange(2))
    with pytest.raises(ValueError, match="times must all be times; got NaT"):
        found.at(np.array(["2000-01", "NaT"], "datetime64[ns]"))
