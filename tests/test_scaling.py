"""Scaling: what is measured on which frames, how exactly, and what cannot be scaled."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from convlstm.data import scaling
from convlstm.data.scaling import Kind, Scaling, fit_scaling, merged, moments_of, moments_of_frame, read_in_chunks
from convlstm.data.series import DataError, Series

KINDS: tuple[Kind, ...] = get_args(Kind)
NUMBERS = np.random.Generator(np.random.Philox(key=7))


def series_of(frames: NDArray[Any], channels: tuple[str, ...] = ()) -> Series:
    """A series (T, C, H, W)."""
    frames = frames.astype(np.float32)
    T, C, H, W = frames.shape
    return Series("sst.nc", (T, C, H, W), lambda start, stop: frames[start:stop].copy(), (range(T),), channels)


def noise(*shape: int, missing: float = 0.0) -> NDArray[np.float32]:
    values = NUMBERS.normal(size=shape).astype(np.float32)
    values[NUMBERS.random(shape) < missing] = np.nan
    return values


# What is measured -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(("offset", "spread"), [(0, 1), (273.15, 8), (1e8, 64), (-1e-3, 1e-6)])
def test_scaling_is_what_numpy_finds_on_all_frames_at_once(offset: float, spread: float, missing: float) -> None:
    frames = (offset + spread * noise(40, 3, 5, 7, missing=missing)).astype(np.float32)
    known = frames.astype(np.float64)
    series = series_of(frames)
    standard = fit_scaling(series, [range(40)], "standard", at_once=7)
    np.testing.assert_allclose(standard.offset, np.nanmean(known, axis=(0, 2, 3)), rtol=1e-14, atol=1e-14 * spread)
    # A mean's rounding is that of its size; sums of squares would lose the square of offset / spread.
    rounding = 1e-15 * max(1e3, abs(offset) / spread)
    np.testing.assert_allclose(standard.scale, np.nanstd(known, axis=(0, 2, 3)), rtol=rounding)
    bounds = fit_scaling(series, [range(40)], "range", at_once=7)
    lowest, highest = np.nanmin(known, axis=(0, 2, 3)), np.nanmax(known, axis=(0, 2, 3))
    assert bounds == Scaling(tuple(lowest.tolist()), tuple((highest - lowest).tolist()))
    assert fit_scaling(series, [range(40)], "none") == Scaling((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_frames_that_are_named_count(kind: Kind) -> None:
    frames = noise(20, 1, 4, 4)
    frames[[0, 1, 9, 10, 11, 19]] = [[[[1e6]]]]
    frames[10] = np.inf
    kept = np.concatenate([frames[2:9], frames[12:19]])
    found = fit_scaling(series_of(frames), [range(2, 9), range(12, 19)], kind, at_once=4)
    assert found == fit_scaling(series_of(kept), [range(14)], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_depends_on_the_chunks(kind: Kind) -> None:
    series = series_of(300 + noise(23, 2, 9, 130, missing=0.2))
    found = {fit_scaling(series, [range(11), range(11, 23)], kind, at_once=n) for n in (1, 2, 5, 12, 23, 100, None)}
    assert len(found) == 1


def test_one_part_in_a_hundred_million_is_still_seen() -> None:
    """Sums of squares would lose it: (1e8)² has no digits left for 1."""
    frames = 1e8 + np.array([-1.0, 1.0, 1.0, -1.0]).reshape(4, 1, 1, 1)
    moments = moments_of_frame(frames[0])
    for frame in frames[1:]:
        moments = merged(moments, moments_of_frame(frame))
    assert moments.count.tolist() == [4]
    assert moments.mean.tolist() == pytest.approx([1e8], abs=1e-7)
    assert moments.squares.tolist() == pytest.approx([4.0], rel=1e-7)
    whole = moments_of_frame(frames.reshape(1, 4, 1))
    assert (whole.mean.item(), whole.squares.item()) == (1e8, 4.0)


VALUES = arrays(np.float64, (1, 1, 6), elements=st.floats(-1e3, 1e3) | st.just(math.nan))


@given(VALUES, VALUES)
def test_merged_moments_are_those_of_all_values(one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    both = merged(moments_of_frame(one), moments_of_frame(other))
    known = np.concatenate([one, other], axis=None)
    known = known[~np.isnan(known)]
    assert both.count.tolist() == [len(known)]
    if len(known):
        np.testing.assert_allclose(both.mean, [known.mean()], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(both.squares, [((known - known.mean()) ** 2).sum()], rtol=1e-9, atol=1e-9)
        assert (both.lowest.item(), both.highest.item()) == (known.min(), known.max())


def test_scaled_frames_have_the_moments_that_were_asked_for() -> None:
    frames = 280 + 10 * noise(30, 2, 6, 6, missing=0.1)
    standard = fit_scaling(series_of(frames), [range(30)], "standard").apply(frames).astype(np.float64)
    np.testing.assert_allclose(np.nanmean(standard, axis=(0, 2, 3)), 0, atol=1e-7)
    np.testing.assert_allclose(np.nanstd(standard, axis=(0, 2, 3)), 1, rtol=1e-7)
    bounded = fit_scaling(series_of(frames), [range(30)], "range").apply(frames)
    assert np.nanmin(bounded, axis=(0, 2, 3)).tolist() == [0, 0]
    assert np.nanmax(bounded, axis=(0, 2, 3)).tolist() == [1, 1]


def test_frames_are_read_a_few_at_a_time_and_once() -> None:
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> NDArray[np.float32]:
        asked.append((start, stop))
        return noise(stop - start, 1, 2, 2)

    series = Series("x", (30, 1, 2, 2), read, (range(30),))
    moments_of(series, [range(2, 9), range(9), range(20, 23)], at_once=4)
    assert asked == [(2, 6), (6, 9), (0, 4), (4, 8), (8, 9), (20, 23)]


def test_by_default_chunks_have_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "ELEMENTS_AT_ONCE", 50)
    series = series_of(noise(9, 2, 2, 3))
    assert [chunk for chunk, _ in read_in_chunks(series, [range(9)])] == [range(0, 4), range(4, 8), range(8, 9)]
    monkeypatch.setattr(scaling, "ELEMENTS_AT_ONCE", 1)
    assert len(list(read_in_chunks(series, [range(9)]))) == 9


# There and back -------------------------------------------------------------------------------------------------------

SCALINGS = st.builds(lambda offset, scale: Scaling((offset,), (scale,)), st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
FRAMES = arrays(np.float32, (2, 1, 2, 2), elements=st.floats(-1e6, 1e6, width=32) | st.just(math.nan))


@given(SCALINGS, FRAMES)
def test_undo_undoes_apply(scaling: Scaling, frames: NDArray[np.float32]) -> None:
    scaled = scaling.apply(frames)
    assert scaled.dtype == np.float32
    back = scaling.undo(scaled)
    assert back.dtype == np.float32
    rounding = 2.0**-23 * (np.abs(np.nan_to_num(frames.astype(np.float64))).max() + abs(scaling.offset[0]))
    np.testing.assert_allclose(back, frames, rtol=0, atol=rounding + 1e-30)


def test_each_channel_has_its_own_numbers_and_missing_values_stay() -> None:
    frames = np.array([[[[1.0, np.nan]], [[10.0, 30.0]]]], np.float32)  # (1, 2, 1, 2)
    frames.setflags(write=False)
    scaling = Scaling((1.0, 10.0), (2.0, 5.0))
    np.testing.assert_array_equal(scaling.apply(frames), [[[[0, np.nan]], [[0, 4]]]])
    np.testing.assert_array_equal(scaling.undo(frames), [[[[3, np.nan]], [[60, 160]]]])
    np.testing.assert_array_equal(scaling.apply(frames[None]), scaling.apply(frames)[None])
    np.testing.assert_array_equal(scaling.apply(frames[0]), scaling.apply(frames)[0])


def test_a_scaled_value_is_rounded_once() -> None:
    """273.15 ± hundredths: in float32 alone, offset and quotient would be rounded, too."""
    frames = (273.15 + 0.01 * noise(1, 1, 50, 50)).astype(np.float32)
    scaling = Scaling((273.15,), (0.01,))
    exact = (frames.astype(np.float64) - 273.15) / 0.01
    np.testing.assert_array_equal(scaling.apply(frames), exact.astype(np.float32))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4, 4), (3, 1, 1)])
def test_frames_of_other_channels(shape: tuple[int, ...]) -> None:
    scaling = Scaling((0.0, 0.0), (1.0, 1.0))
    for call in (scaling.apply, scaling.undo):
        with pytest.raises(ValueError, match=r"frames must have shape \(…, 2, H, W\); got \("):
            call(np.zeros(shape, np.float32))


# JSON -----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(-1e300, 1e300), st.floats(5e-324, 1e300)), min_size=1, max_size=4))
def test_json_keeps_every_bit(numbers: list[tuple[float, float]]) -> None:
    offset, scale = (tuple(each) for each in zip(*numbers, strict=True))
    scaling = Scaling(offset, scale)
    assert Scaling.from_json(json.loads(json.dumps(scaling.as_json()))) == scaling


def test_whole_numbers_become_floats() -> None:
    scaling = Scaling.from_json({"offset": [3], "scale": [1]})
    assert scaling == Scaling((3.0,), (1.0,))
    assert all(type(number) is float for number in (*scaling.offset, *scaling.scale))


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (None, 'a scaling must have "offset" and "scale" and nothing else; got None'),
        ({"offset": [0.0]}, 'a scaling must have "offset" and "scale" and nothing else'),
        ({"offset": [0.0], "scale": [1.0], "kind": 1}, "and nothing else"),
        ({"offset": 0.0, "scale": [1.0]}, '"offset" of a scaling must be a list of numbers; got 0.0'),
        ({"offset": [0.0], "scale": ["1"]}, '"scale" of a scaling must be a list of numbers'),
        ({"offset": [0.0], "scale": [True]}, '"scale" of a scaling must be a list of numbers'),
        ({"offset": [], "scale": []}, "offset and scale must have one number per channel"),
        ({"offset": [0.0], "scale": [1.0, 2.0]}, "offset and scale must have one number per channel"),
        ({"offset": [math.nan], "scale": [1.0]}, "offset must be finite; got"),
        ({"offset": [0.0], "scale": [0.0]}, "scale must be finite and > 0; got"),
        ({"offset": [0.0], "scale": [-1.0]}, "scale must be finite and > 0; got"),
        ({"offset": [0.0], "scale": [math.inf]}, "scale must be finite and > 0; got"),
        ({"offset": [10**400], "scale": [1.0]}, '"offset" of a scaling must be a list of numbers'),
    ],
)
def test_json_of_another_form(plain: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scaling.from_json(plain)


# What goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_without_values(kind: Kind) -> None:
    frames = noise(6, 2, 3, 3)
    frames[:4, 1] = np.nan
    with pytest.raises(DataError) as caught:
        fit_scaling(series_of(frames, ("sst", "ice")), [range(4)], kind)
    assert str(caught.value) == "sst.nc: channel 1 (ice) has no value in any training frame: all are missing"
    fit_scaling(series_of(frames), [range(5)], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_that_never_changes(kind: Kind) -> None:
    frames = np.full((6, 1, 3, 3), 273.15)
    frames[0, 0, 0, 0] = np.nan
    frames[5, 0, 1, 1] = 273.2
    with pytest.raises(DataError) as caught:
        fit_scaling(series_of(frames), [range(5)], kind)
    assert str(caught.value) == "sst.nc: channel 0 is 273.15 in every training frame: there is nothing to learn"
    fit_scaling(series_of(frames), [range(6)], kind)


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_an_infinite_value(infinite: float) -> None:
    frames = noise(6, 2, 3, 3)
    frames[4, 1, 2, 0] = infinite
    with pytest.raises(DataError) as caught:
        fit_scaling(series_of(frames), [range(1, 6)], "range", at_once=2)
    assert str(caught.value) == "sst.nc: channel 1 is infinite in frame 4"


def test_wrong_arguments() -> None:
    series = series_of(noise(3, 1, 2, 2))
    with pytest.raises(ValueError, match="kind must be one of none, range, standard; got 'minmax'"):
        fit_scaling(series, [range(3)], "minmax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at_once must be an integer ≥ 1; got 0"):
        fit_scaling(series, [range(3)], "range", at_once=0)
