"""Windows as a model reads them: scaled there and back, missing, padded and skipped pixels in no loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convlstm.data.climatology import climatology
from convlstm.data.frame_source import FrameSource, of_others, times_of
from convlstm.data.series import DataError, Series
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
        there = np.isfinite(raw)
        assert np.array_equal(batch.frames[n], np.where(there, expected, 0).astype(np.float32))
        assert batch.valid is not None
        assert np.array_equal(batch.valid[n], there)
        assert np.array_equal(batch.season[n], season, equal_nan=True)  # type: ignore[index]
    back = source.undo(batch.frames, batch.season)
    there = np.isfinite(batch.raw)
    assert np.allclose(back[there], batch.raw[there], rtol=0, atol=1e-4)


@pytest.mark.parametrize("patch", [1, 2, 3, 4])
def test_padding_is_not_valid_and_is_cut_off_again(patch: int) -> None:
    source = fit(sea(), patch=patch)
    batch, (C, H, W) = source.batch("test", range(2)), source.shape
    assert (C, H % patch, W % patch) == (1, 0, 0)
    assert 5 <= H < 5 + patch
    assert 7 <= W < 7 + patch
    assert batch.valid is not None
    assert batch.frames.shape == batch.valid.shape == (2, 5, 1, H, W)
    for outside in (np.s_[..., 5:, :], np.s_[..., 7:]):
        assert not batch.valid[outside].any()
        assert not batch.frames[outside].any()
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
    (series_of(field(9, 4, 6), months(9)), True, "knows the seasons, so it needs frames of 5×7 pixels with times"),
    (series_of(field()), True, "knows the seasons, so it needs frames of 5×7 pixels with times"),
    (series_of(field()[:4]), False, "no test window fits"),
])  # fmt: skip
def test_other_frames_that_the_model_cannot_read(series: Series, seasonal: bool, words: str) -> None:
    with pytest.raises(DataError, match=f"^sea: .*{words.replace('has? ', '')}"):
        others(series, seasonal=seasonal)
