"""Windows as a model reads them: scaled there and back, missing, padded and skipped pixels filled and in no loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convlstm.data.climatology import Climatology, climatology
from convlstm.data.frame_source import FrameSource, of_others, times_of
from convlstm.data.series import Axis, DataError, Series
from convlstm.data.source import Batch
from tests.field_runs import TRAINING, WINDOWS, field, fit, months, sea, series_of


@pytest.mark.parametrize("scaling", ["standard", "seasonal", "range", "none"])
def test_scaled_as_the_equation_says_and_back(scaling: Any) -> None:
    source = fit(sea(), scaling=scaling)
    batch, usual = source.batch("test", range(source.count("test"))), climatology(sea(), [TRAINING]).filled()
    firsts = [28 + n for n in range(5)]  # of the windows that predict frames 30 … 35 alone
    for n, first in enumerate(firsts):
        raw = field()[first - 1 : first + 4, None]
        assert np.array_equal(batch.raw[n], raw, equal_nan=True)
        season = usual.at(months()[first - 1 : first + 4])
        taken_off = season if scaling == "seasonal" else np.float32(0)
        offset, scale = source.facts.scaling.offset[0], source.facts.scaling.scale[0]
        expected = ((raw - taken_off).astype(np.float64) - offset) / scale
        there, never = np.isfinite(raw), source.facts.filling[0]  # what is missing here is land
        assert np.array_equal(batch.frames[n], np.where(there, expected, never).astype(np.float32))
        assert batch.valid is not None
        assert np.array_equal(batch.valid[n], there)
        assert np.array_equal(batch.season[n], season, equal_nan=True)  # type: ignore[index]
    back = source.undo(batch.frames, batch.season)
    there = np.isfinite(batch.raw)
    assert np.allclose(back[there], batch.raw[there], rtol=0, atol=1e-4)


@pytest.mark.parametrize("scaling", ["standard", "none"])
@pytest.mark.parametrize("patch", [1, 2, 3, 4])
def test_padding_is_not_valid_and_is_cut_off_again(patch: int, scaling: Any) -> None:
    source = fit(sea(), patch=patch, scaling=scaling)
    batch, (C, H, W) = source.batch("test", range(2)), source.shape
    assert (C, H % patch, W % patch) == (1, 0, 0)
    assert 5 <= H < 5 + patch
    assert 7 <= W < 7 + patch
    assert batch.valid is not None
    assert batch.frames.shape == batch.valid.shape == (2, 5, 1, H, W)
    for outside in (np.s_[..., 5:, :], np.s_[..., 7:]):
        assert not batch.valid[outside].any()
        assert (batch.frames[outside] == np.float32(source.facts.filling[0])).all()
    assert np.array_equal(batch.valid[..., :5, :7], np.isfinite(batch.raw))
    assert source.undo(batch.frames, None).shape == batch.raw.shape == (2, 5, 1, 5, 7)


def test_skipped_frames_are_not_valid_and_stay_as_they_are() -> None:
    source = fit(sea(), windows=replace(WINDOWS, gap=2), test=8)
    batch = source.batch("train", range(4))
    assert batch.valid is not None
    assert batch.frames.shape[1] == 7
    assert not batch.valid[:, 3:5].any()
    assert batch.frames[:, 3:5].any()
    for t in (0, 1, 2, 5, 6):
        assert np.array_equal(batch.valid[:, t], np.isfinite(batch.raw[:, t]))


# What is missing ------------------------------------------------------------------------------------------------------


def with_holes(seed: int, missing: float = 0.5) -> Any:
    """Return three windows of frames of two channels, (3, 5, 2, 5, 7), NaN at random places."""
    rng = np.random.default_rng(seed)
    frames = (290 + rng.normal(size=(3, 5, 2, 5, 7)) * [[[1]], [[50]]]).astype(np.float32)
    frames[rng.random(frames.shape) < missing] = np.nan
    return frames


def two_channels(scaling: Any) -> FrameSource:
    """Return a source of two channels that differ in size."""
    return fit(series_of(np.stack([field(), 1000 - 50 * field()], 1), months()), scaling=scaling)


def read_of(source: FrameSource, raw: Any) -> Batch:
    """Return three windows of frames, those of January to May, as a model reads them."""
    return source.prepared(raw, np.stack([months(5)] * 3))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scaling", ["standard", "seasonal", "range", "none"])
def test_what_is_missing_is_read_as_the_pixels_last_value_before(scaling: Any, seed: int) -> None:
    source, raw = two_channels(scaling), with_holes(seed)
    raw[0, 2] = raw[:, :3, :, 0, 0] = np.nan  # the last frame that is shown, and a pixel throughout
    whole = source.facts.scaling.apply(raw - (read_of(source, raw).season if scaling == "seasonal" else np.float32(0)))
    batch = read_of(source, raw)
    assert np.array_equal(batch.valid, np.isfinite(whole))  # type: ignore[arg-type]
    for n, c, y, x in np.ndindex(3, 2, 5, 7):
        last = np.float32(source.facts.filling[c])
        for t in range(5):
            last = whole[n, t, c, y, x] if np.isfinite(whole[n, t, c, y, x]) else last
            assert batch.frames[n, t, c, y, x] == last


@pytest.mark.parametrize("scaling", ["standard", "seasonal", "range", "none"])
def test_what_was_never_seen_is_the_mean_of_training(scaling: Any) -> None:
    """In the model's numbers: 0 where these have the mean 0, else somewhere among them, and never far from all."""
    source = two_channels(scaling)
    training = source.prepared(source.series.read(0, 27)[None], months(27)[None])
    assert training.valid is not None
    for c, filling in enumerate(source.facts.filling):
        values = training.frames[:, :, c][training.valid[:, :, c]].astype(np.float64)
        assert filling == pytest.approx(values.mean(), rel=1e-6, abs=1e-5)
        assert values.min() < filling < values.max()
    means = np.zeros((3, 5, 2, 5, 7), np.float32) + np.array(source.facts.filling, np.float32)[:, None, None]
    never = read_of(source, np.full_like(with_holes(0), np.nan))
    assert np.array_equal(never.frames, means)
    assert not never.valid.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("t", range(5))
def test_no_frame_tells_of_those_before(t: int) -> None:
    """What stands in a later frame, NaN or a number, changes nothing of an earlier one; nor does another window."""
    source, raw = two_channels("standard"), with_holes(1)
    usual = read_of(source, raw).frames
    for value in (np.nan, 1e6):
        other = raw.copy()
        other[1, t:] = value
        changed = read_of(source, other).frames
        assert np.array_equal(changed[:, :t], usual[:, :t])
        assert np.array_equal(changed[[0, 2]], usual[[0, 2]])
        assert not np.array_equal(changed[1, t:], usual[1, t:])


def test_times_of_a_series_without_them_are_its_frames_numbers() -> None:
    assert np.array_equal(times_of(series_of(field())), np.arange(36))
    assert np.array_equal(times_of(sea()), months())


def others(series: Series, *, seasonal: bool = False, **changes: Any) -> FrameSource:
    """Return other frames as a run sees them that was trained on `sea`."""
    own = fit(sea(units="K"), scaling="seasonal" if seasonal else "standard")
    given: dict[str, Any] = {"climatology": own.climatology, "seasonal": seasonal, "patch": 1, **changes}
    return of_others(series, WINDOWS, own.facts, **given)


def test_other_frames_are_scaled_as_the_runs_own_and_all_tested_on() -> None:
    own = fit(sea(units="K"))
    other = others(series_of(field(9, 4, 6), units="K"))
    assert other.facts.scaling == own.facts.scaling
    assert (other.facts.shape, other.shape, other.count("test")) == ((1, 4, 6), (1, 4, 6), 5)
    assert other.climatology is None  # it is of frames of another size
    same = others(series_of(field()[:9], months(9), units="K"))
    assert same.climatology is not None
    assert np.array_equal(same.batch("test", range(1)).frames[0], own.prepared(
        field()[None, :5, None], months(5)[None]).frames[0])  # fmt: skip
    assert others(series_of(field()[:9])).climatology is None  # there are no times to ask it with


@pytest.mark.parametrize(("series", "seasonal", "words"), [
    (series_of(np.stack([field(), field()], 1)), False, "has? 2 channels; the model reads 1"),
    (series_of(field(), months(), units="degC"), False, "values are in degC; the model learnt them in K"),
    (series_of(field(9, 4, 6), months(9)), True,
     "knows the seasons of each pixel: these frames are of another map than 5×7 pixels where it learnt; got 4×6"),
    (series_of(field()), True, "knows the seasons of each pixel: its frames have no times"),
    (series_of(field()[:4]), False, "no test window fits"),
])  # fmt: skip
def test_other_frames_that_the_model_cannot_read(series: Series, seasonal: bool, words: str) -> None:
    with pytest.raises(DataError, match=f"^sea: .*{words.replace('has? ', '')}"):
        others(series, seasonal=seasonal)


# Other maps -----------------------------------------------------------------------------------------------------------

ROWS, COLUMNS = np.linspace(-20.0, 20.0, 5), np.linspace(100.0, 160.0, 7)


def on_a_map(y: Any = ROWS, x: Any = COLUMNS, frames: Any = None, first: str = "2010-03", **named: Any) -> Series:
    """Return nine months of frames that lie somewhere."""
    frames = field()[:9] if frames is None else frames
    axes = {"y": Axis("latitude", np.asarray(y), "degrees_north"), "x": Axis("longitude", np.asarray(x))}
    return series_of(frames, months(len(frames), first), **axes, **named)


def mapped(scaling: Any = "standard", y: Any = ROWS, x: Any = COLUMNS, **named: Any) -> FrameSource:
    """Return the source of a run whose frames lie somewhere."""
    return fit(on_a_map(y, x, field(36, len(y), len(x)), "2001-01", **named), scaling=scaling)


def as_seen_by(own: FrameSource, series: Series, *, seasonal: bool) -> FrameSource:
    return of_others(series, WINDOWS, own.facts, climatology=own.climatology, seasonal=seasonal, patch=1)


def test_what_is_known_of_the_map_is_kept() -> None:
    assert (mapped().facts.rows, mapped().facts.columns) == ((-20, 20), (100, 160))
    assert (mapped(y=ROWS[::-1]).facts.rows, fit(sea()).facts.rows, fit(sea()).facts.columns) == ((20, -20), None, None)
    named = fit(sea(y=Axis("station", np.array(list("abcde"))), x=Axis("x", np.array([np.nan, 1, 2, 3, 4, 5, 6]))))
    assert (named.facts.rows, named.facts.columns) == (None, None)


SAME_MAPS: dict[str, dict[str, Any]] = {
    "the same": {},
    "in float32": {"y": ROWS.astype(np.float32), "x": (COLUMNS / 3).astype(np.float32) * 3},
    "in integers": {"y": ROWS.astype(int)},
    "a hair away": {"x": COLUMNS + 0.5},  # of pixels that are 10 wide
}


@pytest.mark.parametrize("seasonal", [False, True])
@pytest.mark.parametrize("case", SAME_MAPS)
def test_the_same_map(case: str, seasonal: bool) -> None:
    own = mapped("seasonal" if seasonal else "standard")
    other = as_seen_by(own, on_a_map(**SAME_MAPS[case]), seasonal=seasonal)
    assert other.climatology is own.climatology
    assert other.batch("test", range(1)).season is not None


def test_one_column_in_float32_is_the_same_map() -> None:
    own = mapped(x=[0.1])
    for x, same in ((np.array([0.1], np.float32), True), ([0.2], False)):
        other = as_seen_by(own, on_a_map(x=x, frames=field(9, 5, 1)), seasonal=False)
        assert (other.climatology is not None) == same


OTHER_MAPS: dict[str, dict[str, Any]] = {
    "another region": {"y": ROWS + 30},
    "another width": {"x": 100 + (COLUMNS - 100) * 2},
    "one pixel on": {"x": COLUMNS + 10},
    "rolled": {"x": COLUMNS - 180},
    "rolled, with a jump": {"x": np.roll(COLUMNS, 3)},
}


@pytest.mark.parametrize("case", OTHER_MAPS)
def test_frames_of_another_map_are_forecast_and_have_no_known_climatology(case: str) -> None:
    series = on_a_map(**OTHER_MAPS[case])
    other = as_seen_by(mapped(), series, seasonal=False)
    assert other.climatology is None
    assert other.batch("test", range(1)).season is None
    with pytest.raises(DataError, match=r"^sea: the model knows the seasons of each pixel: .* another map .* learnt$"):
        as_seen_by(mapped("seasonal"), series, seasonal=True)


def test_one_pixel_of_a_fine_map_is_another_map() -> None:
    own = mapped(y=[0.0, 1.0], x=np.arange(1000, 2440) / 4)
    shifted = on_a_map([0, 1], np.arange(1001, 2441) / 4, field(9, 2, 1440))
    assert as_seen_by(own, shifted, seasonal=False).climatology is None


@pytest.mark.parametrize("seasonal", [False, True])
@pytest.mark.parametrize(("axes", "words"), [
    ({"y": ROWS[::-1]}, "its rows go from 20 to -20; the model's the other way"),
    ({"x": COLUMNS[::-1]}, "its columns go from 160 to 100; the model's the other way"),
    ({"y": np.linspace(60, 40, 5)}, "its rows go from 60 to 40; the model's the other way"),
])  # fmt: skip
def test_a_map_the_other_way_round_is_refused(axes: dict[str, Any], words: str, seasonal: bool) -> None:
    with pytest.raises(DataError, match=f"^sea: {words}$"):
        as_seen_by(mapped("seasonal" if seasonal else "standard"), on_a_map(**axes), seasonal=seasonal)


def test_channels_in_another_order_are_refused() -> None:
    both = np.stack([field(), -field()], 1)
    own = fit(series_of(both, months(), channels=("u", "v")))
    with pytest.raises(DataError, match=r"^sea: its channels are v, u; the model reads u, v$"):
        as_seen_by(own, series_of(both[:, ::-1], months(), channels=("v", "u")), seasonal=False)
    for channels in (("u", "v"), ()):
        assert as_seen_by(own, series_of(both, months(), channels=channels), seasonal=False).count("test")


def test_months_that_training_never_saw_are_refused() -> None:
    """Three times January to August: the model knows neither November's mean nor what differs from it."""
    times = np.concatenate([months(8, f"{year}-01") for year in range(2001, 2007)])
    series = series_of(field(48), times, runs=tuple(range(8 * n, 8 * n + 8) for n in range(6)))
    own = fit(series, scaling="seasonal", test=8)
    words = "^sea: the model was trained on no frames of some of the months that it needs$"
    for first, fine in (("2010-01", True), ("2010-04", True), ("2010-05", False), ("2010-11", False)):
        other = as_seen_by(own, series_of(field()[:5], months(5, first)), seasonal=True)
        if fine:
            assert np.isfinite(other.batch("test", range(1)).frames).all()
            continue
        with pytest.raises(DataError, match=words):
            other.batch("test", range(1))
    with pytest.raises(DataError, match=words):
        own.season(np.array(["2010-08", "2010-09"], "M8[ns]"))  # as of coming times
    plain = fit(series, test=8)
    assert np.isfinite(plain.season(months(12))[:, 0, 0, 0]).all()  # type: ignore[index]


def test_facts_of_other_lead_times_are_no_facts_of_this_run() -> None:
    own = mapped()
    for damping in ((), own.facts.damping[:1]):
        with pytest.raises(DataError, match=rf"^sea: .*data\.json holds is the damping of {len(damping)} lead times"):
            of_others(on_a_map(), WINDOWS, replace(own.facts, damping=damping), climatology=own.climatology,
                      seasonal=False, patch=1)  # fmt: skip


def test_a_season_of_a_pixel_that_was_never_seen_is_nothing() -> None:
    """A seasonal model knows nothing of a pixel in a month that training did not show: no forecast, and no fault."""
    frames = field()
    frames[5:27:12, 4, 4] = np.nan
    own = fit(series_of(frames, months()), scaling="seasonal")
    assert isinstance(own.climatology, Climatology)
    assert np.isnan(own.climatology.means[5, 0, 4, 4])
    batch = own.batch("test", range(own.count("test")))  # of windows from April on
    assert np.isfinite(batch.frames).all()
    assert batch.valid is not None
    june = own.prepared(field()[None, 29:30, None], months()[None, 29:30])
    assert not june.valid[0, 0, 0, 4, 4]  # type: ignore[index]
    assert june.frames[0, 0, 0, 4, 4] == np.float32(own.facts.filling[0])
    assert np.isnan(own.undo(june.frames, june.season)[0, 0, 0, 4, 4])
