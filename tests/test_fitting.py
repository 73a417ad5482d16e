"""A run's own frames: nothing of what is scored in training, and what cannot be learnt from named."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convlstm.data import scaling as scaling_module
from convlstm.data.fitting import digest
from convlstm.data.frame_source import Windows
from convlstm.data.series import DataError, Series
from tests.field_runs import TRAINING, WINDOWS, field, fit, months, sea, series_of
from tests.plain_scores import plain_damping


def test_standard_and_seasonal_scaling_leave_mean_0_and_deviation_1_in_training() -> None:
    for scaling in ("standard", "seasonal"):
        source = fit(sea(), scaling=scaling)
        training = source.prepared(field()[None, TRAINING.start : TRAINING.stop, None], months()[None, :27])
        values = training.frames[training.valid].astype(np.float64)
        assert abs(values.mean()) < 1e-5
        assert values.std() == pytest.approx(1, abs=1e-5)


def numbered(length: int) -> Series:
    """Return frames whose every pixel is their number."""
    return series_of(np.arange(length)[:, None, None] + np.zeros((length, 2, 2)))


@given(
    length=st.integers(20, 40), validation=st.integers(3, 6), test=st.integers(3, 6), gap=st.integers(0, 1),
    stride=st.integers(1, 3), seed=st.integers(0, 2**64 - 1),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_an_epoch_has_each_training_window_once_and_no_frame_that_is_scored(
    length: int, validation: int, test: int, gap: int, stride: int, seed: int
) -> None:
    windows = Windows(3, gap, 2, stride)
    source = fit(numbered(length), windows=windows, validation=validation, test=test, seed=seed)
    assert source.facts.windows is not None
    count, most = source.facts.windows["train"], length - validation - test
    for epoch in range(2):
        raw = source.batch("train", range(epoch * count, (epoch + 1) * count)).raw
        firsts = raw[:, 0, 0, 0, 0]
        assert sorted(firsts) == sorted(set(firsts))
        assert raw.max() == most - 1
        assert count == len(range(most - windows.length, -1, -stride))
    for split, (first, stop) in {"validation": (most, most + validation), "test": (length - test, length)}.items():
        predicted = source.batch(split, range(source.count(split))).raw[:, 3 + gap :]  # type: ignore[arg-type]
        assert first <= predicted.min()
        assert predicted.max() == stop - 1


def test_no_window_spans_a_hole_in_time() -> None:
    source = fit(replace(numbered(36), runs=(range(10), range(10, 36))))
    batch = source.batch("train", range(source.facts.windows["train"]))  # type: ignore[index]
    firsts = sorted(batch.raw[:, 0, 0, 0, 0].astype(int))
    assert firsts == [*range(6), *range(10, 23)]


@pytest.mark.parametrize("scaling", ["standard", "seasonal", "range"])
def test_nothing_is_fitted_on_frames_that_are_scored(scaling: Any) -> None:
    planted = field()
    planted[27:] = 1e30
    one, other = (fit(series_of(frames, months()), scaling=scaling) for frames in (field(), planted))
    assert one.facts == other.facts  # its bounds, its filling and how anomalies fade among them
    assert one.climatology is not None
    assert other.climatology is not None
    assert one.climatology.means.tobytes() == other.climatology.means.tobytes()
    planted[26] = 1e3  # and the last training frame does change it
    changed = fit(series_of(planted, months()), scaling=scaling).facts
    for name in ("scaling", "highest", "filling", "damping"):
        if name != "filling" or scaling == "range":  # of the others it is 0
            assert getattr(changed, name) != getattr(one.facts, name)


def test_at_most_so_many_windows_are_scored_spread_over_all_with_the_last() -> None:
    source = fit(numbered(40), test=20, validation=0, most={"validation": 0, "test": 4})
    batch = source.batch("test", range(source.count("test")))
    assert list(batch.raw[:, -1, 0, 0, 0]) == [24, 29, 34, 39]
    assert source.count("validation") == 0


def test_channels_are_scaled_each_for_itself() -> None:
    frames = np.stack([field(), 1000 - 50 * field()], 1)
    source = fit(series_of(frames, months(), channels=("a", "b")))
    first, second = source.batch("test", range(3)).frames.transpose(2, 0, 1, 3, 4)
    assert np.allclose(first, -second, atol=1e-3)
    assert source.facts.channels == ("a", "b")
    assert source.facts.lowest == tuple(float(np.nanmin(frames[TRAINING, c])) for c in (0, 1))
    assert source.facts.highest == tuple(float(np.nanmax(frames[TRAINING, c])) for c in (0, 1))


@pytest.mark.parametrize(("frames", "times", "words"), [
    (field(), None, '.data. scaling "seasonal" needs the dates of its frames, and its frames have no times'),
    (field()[:20], months(20), "none of month 12"),
])  # fmt: skip
def test_seasonal_scaling_needs_every_month(frames: Any, times: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"^sea: .*{words}"):
        fit(series_of(frames, times), scaling="seasonal")


def periodic(length: int = 36) -> NDArray[np.float32]:
    """Return twelve frames again and again."""
    return np.tile(field(12), (-(-length // 12), 1, 1))[:length]


@pytest.mark.parametrize(("frames", "times"), [
    (periodic(), months()),
    (field(30), np.array([*months(15), *months(15, "2010-03")])),  # of each month but three one frame in training
])  # fmt: skip
def test_seasonal_scaling_needs_something_that_differs_from_the_season(frames: Any, times: Any) -> None:
    words = 'no training frame differs from the mean of its month, so with .data. scaling "seasonal" there is nothing'
    test, validation = (6, 3) if len(frames) == 36 else (15, 3)
    series = series_of(frames, times, runs=(range(len(frames)),))
    with pytest.raises(DataError, match=f"^sea: {words} to learn$"):
        fit(series, scaling="seasonal", test=test, validation=validation)
    assert fit(series, test=test, validation=validation).facts.windows  # which the usual scaling needs not


# How anomalies fade ---------------------------------------------------------------------------------------------------


def twofold() -> NDArray[np.float32]:
    """Return frames of two channels, the second with other holes and other changes."""
    second = 1000 - 50 * field()
    second[3::4, 2] = np.nan
    second += np.random.default_rng(7).normal(size=second.shape).astype(np.float32) * 60
    return np.stack([field(), second], 1)


@pytest.mark.parametrize(("scaling", "timed"), [("standard", True), ("standard", False), ("seasonal", True)])
@pytest.mark.parametrize("gap", [0, 2])
def test_the_damping_is_of_the_lead_times_that_are_predicted(gap: int, scaling: Any, timed: bool) -> None:
    runs = (range(8), range(8, 36))
    series = series_of(twofold(), months() if timed else None, runs=runs)
    source = fit(series, windows=replace(WINDOWS, gap=gap), test=8, validation=1 + gap + 2, scaling=scaling)
    assert source.climatology is not None
    stop = 36 - 8 - 3 - gap
    usual = source.climatology.at(months(stop) if timed else np.arange(stop))
    expected = plain_damping(twofold()[:stop] - usual, [range(8), range(8, stop)], gap + 2)[gap:]
    assert np.allclose(source.facts.damping, expected, rtol=1e-12)
    assert len({round(factor, 3) for of_channels in source.facts.damping for factor in of_channels}) == 4


def test_no_bit_depends_on_how_many_frames_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(series_of(twofold(), months()), scaling="seasonal")
    monkeypatch.setattr(scaling_module, "ELEMENTS_AT_ONCE", 3 * 2 * 5 * 7)
    assert fit(series_of(twofold(), months()), scaling="seasonal").facts == whole.facts


def test_a_pixel_without_a_season_fades_and_fills_nothing() -> None:
    """The one value of a pixel in a month is its own mean, and no anomaly; the pixel without one has none."""
    frames = field()
    frames[5:27:12, 4, 4] = np.nan
    assert fit(series_of(frames, months())).facts.damping != fit(sea()).facts.damping
    seasonal = fit(series_of(frames, months()), scaling="seasonal")
    assert np.isnan(seasonal.climatology.means[5, 0, 4, 4])  # type: ignore[union-attr]
    assert np.isfinite(seasonal.facts.damping).all()
    assert np.isfinite(seasonal.facts.filling).all()


def test_the_digest_is_of_all_files_in_order(tmp_path: Path) -> None:
    for name, data in (("a", b"1" * 3), ("b", b"2" * 5)):
        (tmp_path / name).write_bytes(data)
    series = replace(numbered(3), files=(tmp_path / "a", tmp_path / "b"))
    assert digest(series) == hashlib.sha256(b"11122222").hexdigest()


def test_training_windows_without_a_value_to_predict_are_left_out() -> None:
    frames = numbered(36).read(0, 36)
    frames[6:20] = np.nan
    source = fit(series_of(frames))
    batch = source.batch("train", range(source.facts.windows["train"]))  # type: ignore[index]
    assert batch.valid is not None
    assert batch.valid[:, 3:].any(axis=(1, 2, 3, 4)).all()
    predicted = [[first + 3, first + 4] for first in range(23)]
    assert len(batch.raw) == sum(any(t < 6 or t >= 20 for t in times) for times in predicted) == 10
    frames[3:27] = np.nan
    with pytest.raises(DataError, match=r"^sea: no training window holds a value to predict"):
        fit(series_of(frames))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_scored_is_read_before_training(value: float) -> None:
    frames = field()
    frames[30:] = value
    series = series_of(frames, months())

    def read(start: int, stop: int) -> NDArray[np.float32]:
        if stop > 30 and np.isinf(value):
            raise DataError("sea: frame 30 holds inf")
        return series.read(start, stop)

    with pytest.raises(DataError, match=r"^sea: (there is no value in any test frame|frame 30 holds inf)"):
        fit(replace(series, read=read))
