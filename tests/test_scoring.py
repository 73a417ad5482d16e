"""Scoring: in parts, so that memory does not grow with the number of sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm import scoring
from convlstm.backends import Array
from convlstm.data.frame_source import FrameSource
from convlstm.data.source import Made
from convlstm.frame_model import FrameModel
from convlstm.from_config import make_model
from convlstm.not_finite import NotFinite
from convlstm.scoring import AT_ONCE, draw_forecast, evaluate, forecasts, validation_mse
from convlstm.sources import open_source
from convlstm.trainer import Trainer
from tests.field_runs import WINDOWS, config_of, field, fit, months, series_of
from tests.runs import TINY, changed

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")

MANY = changed(TINY, test_sequences=7, validation_sequences=7)


@pytest.fixture
def model() -> FrameModel:
    return make_model(MANY, "numpy")


def squares(frames: Array, truth: Array) -> Array:
    return (frames.astype(np.float64) - truth) ** 2


def test_scores_of_one_part_are_means_over_all(model: FrameModel) -> None:
    assert AT_ONCE >= 100  # the default of test_sequences
    made, scores = forecasts(MANY, model, open_source(MANY), "test", range(7)), evaluate(MANY, model)
    assert (scores["sequences"], scores["units"]) == (7, "")
    assert list(made.by) == list(scores["overall"]) == ["model", "persistence"]
    assert np.array_equal(made.by["persistence"], np.repeat(made.shown[:, -1:], 3, axis=1))
    for name, frames in made.by.items():
        error = squares(frames, made.truth)
        assert scores["overall"][name]["mse"] == pytest.approx(error.mean(), rel=1e-12)
        assert scores["by_lead_time"][name]["mse"] == pytest.approx(error.mean(axis=(0, 2, 3, 4)), rel=1e-12)
    of_validation = forecasts(MANY, model, open_source(MANY), "validation", range(7))
    error = squares(of_validation.by["model"], of_validation.truth)
    assert validation_mse(MANY, model) == pytest.approx(error.mean(), rel=1e-12)


def test_no_more_are_forecast_at_once_and_all_are_scored(model: FrameModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, validation = evaluate(MANY, model), validation_mse(MANY, model)
    taken: list[int] = []
    predict = model.predict

    def counted(frames: Array, horizon: int) -> Array:
        taken.append(len(frames))
        return predict(frames, horizon)

    monkeypatch.setattr(scoring, "AT_ONCE", 3)
    monkeypatch.setattr(model, "predict", counted)
    assert evaluate(MANY, model) == whole
    assert validation_mse(MANY, model) == validation
    assert taken == [3, 3, 1] * 2


@pytest.mark.parametrize(("hidden", "gap", "elements", "sizes"), [
    (3, 0, 5 * 256 * 3, [3, 3, 1]),
    (3, 0, 5 * 256 * 3 - 1, [2, 2, 2, 1]),
    (3, 1, 6 * 256 * 3 - 1, [2, 2, 2, 1]),
    (3, 0, 1, [1] * 7),
    (16, 0, 5 * 256 * 3, [2, 2, 2, 1]),  # states h and c of 16 channels and 4×4 pixels are two more frames
])  # fmt: skip
def test_large_sequences_are_forecast_a_few_at_once_and_no_bit_changes(
    hidden: int, gap: int, elements: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(MANY, hidden_channels=(hidden,), gap=gap)
    model = make_model(config, "numpy")
    whole, validation = evaluate(config, model), validation_mse(config, model)
    taken: list[int] = []
    predict = model.predict

    def counted(frames: Array, horizon: int) -> Array:
        taken.append(len(frames))
        return predict(frames, horizon)

    monkeypatch.setattr(scoring, "ELEMENTS_AT_ONCE", elements)
    monkeypatch.setattr(model, "predict", counted)
    assert evaluate(config, model) == whole
    assert validation_mse(config, model) == validation
    assert taken == sizes * 2


def test_frames_of_a_gap_are_predicted_and_not_scored(model: FrameModel) -> None:
    config = changed(MANY, gap=2, horizon=1)  # as long as `MANY`, so that its last frame is scored alone
    whole, made = (forecasts(one, model, open_source(one), "test", range(7)) for one in (MANY, config))
    assert np.array_equal(made.by["model"], whole.by["model"][:, 2:])
    assert np.array_equal(made.truth, whole.truth[:, 2:])
    assert np.array_equal(made.shown, whole.shown)
    for name in ("model", "persistence"):
        scores, of_last = evaluate(config, model)["overall"][name], evaluate(MANY, model)["by_lead_time"][name]
        assert scores["mse"] == pytest.approx(of_last["mse"][2], rel=1e-12)


class WithHoles(Made):
    """Digits with a value missing from each frame that is to be predicted."""

    def batch(self, split: str, indices: range) -> Any:
        made = super().batch(split, indices)  # type: ignore[arg-type]
        raw = made.raw.copy()
        raw[:, 2:, 0, 3, 4] = np.nan
        return made._replace(raw=raw)


@pytest.fixture
def with_holes() -> WithHoles:
    def make(split: str, indices: range) -> Array:
        return open_source(MANY).batch(split, indices).frames  # type: ignore[arg-type]

    return WithHoles("digits", make, 16, {"validation": 7, "test": 7}, range(0))


def test_what_is_missing_is_in_no_score(model: FrameModel, with_holes: WithHoles) -> None:
    made, scores = forecasts(MANY, model, with_holes, "test", range(7)), evaluate(MANY, model, with_holes)
    there = np.ones(made.truth.shape, bool)
    there[:, :, 0, 3, 4] = False
    assert np.array_equal(made.valid(), there)
    for name, frames in made.by.items():
        error = squares(frames, made.truth)[there]
        assert scores["overall"][name]["mse"] == pytest.approx(error.mean(), rel=1e-12)
    of_validation = forecasts(MANY, model, with_holes, "validation", range(7))
    error = squares(of_validation.by["model"], of_validation.truth)[there]
    assert validation_mse(MANY, model, with_holes) == pytest.approx(error.mean(), rel=1e-12)


def test_an_infinity_where_nothing_is_scored_is_no_fault(
    model: FrameModel, with_holes: WithHoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = model.predict

    def infinite_at(row: int) -> None:
        def spoiled(frames: Array, horizon: int) -> Array:
            made = predict(frames, horizon).copy()
            made[0, 1, 0, row, 4] = np.inf
            return made

        monkeypatch.setattr(model, "predict", spoiled)

    whole = evaluate(MANY, model, with_holes)
    infinite_at(3)
    assert evaluate(MANY, model, with_holes) == whole
    infinite_at(5)
    with pytest.raises(NotFinite, match="the forecast after the last step is not finite"):
        evaluate(MANY, model, with_holes)


def test_a_picture_shows_what_there_is_room_for(
    model: FrameModel, with_holes: WithHoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forecast has the same holes as the truth, or they would look like errors."""
    drawn: list[Array] = []
    monkeypatch.setattr(scoring, "forecast_figure", lambda path, *frames, colours: drawn.extend(frames))
    draw_forecast(MANY, model, Path("none.png"), with_holes)
    shown, forecast, truth = drawn
    assert (shown.shape, forecast.shape, truth.shape) == ((3, 2, 16, 16), (3, 3, 16, 16), (3, 3, 16, 16))
    assert np.isfinite(shown).all()
    assert np.array_equal(np.isnan(forecast), np.isnan(truth))
    assert np.isnan(truth).sum() == 9


# Frames from files ----------------------------------------------------------------------------------------------------


def two_kinds(units: str, factor: float = 1, gap: int = 0, scaling: Any = "standard") -> FrameSource:
    """Return a source of two channels, the second of them measured in a unit that is so much smaller."""
    warmth = field(36, 9, 10)
    noise = np.random.default_rng(7).normal(size=warmth.shape).astype(np.float32)
    other = np.float32(factor) * (3 + noise + 0.5 * np.roll(warmth - 290, 3, axis=2)[:, ::-1])
    series = series_of(np.stack([warmth, other], 1), months(), units=units)
    return fit(series, patch=2, windows=replace(WINDOWS, gap=gap), test=8, validation=5, scaling=scaling)


def model_of(source: FrameSource, **settings: Any) -> tuple[Any, FrameModel]:
    """Return the configuration and the untrained model of a source."""
    config = config_of("sea", **{"scaling": "standard", **settings})
    return config, Trainer(config, "numpy", source=source).model


def ranges_of(source: FrameSource) -> NDArray[np.float64]:
    return (np.array(source.facts.highest) - source.facts.lowest)[:, None, None]


@pytest.mark.parametrize("units", ["K, m", "1, Pa"])
def test_channels_of_different_units_are_scored_in_ranges_of_each(units: str) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    source = two_kinds(units, 1000)
    config, model = model_of(source)
    scores = evaluate(config, model, source, structural=True, thresholds=[0.5])
    assert scores["units"] == "ranges of each channel in training"
    assert len(set(np.log10(ranges_of(source)).round().flat)) == 2
    made = forecasts(config, model, source, "test", range(source.count("test")))
    there = made.valid()
    for name, frames in made.by.items():
        error = np.where(there, squares(frames, made.truth) / ranges_of(source) ** 2, np.nan)
        found = scores["overall"][name]
        assert found["mse"] == pytest.approx(np.nanmean(error), rel=1e-4)
        psnr = -10 * np.log10(np.nanmean(error, axis=(3, 4)))
        assert found["psnr"] == pytest.approx(psnr.mean(), rel=1e-4)
        assert abs(found["ssim"]) < 0.9  # in the range of the larger the smaller would be the same everywhere
        saw = (made.truth / ranges_of(source) >= 0.5) & there
        pod = ((frames / ranges_of(source) >= 0.5) & saw).sum() / saw.sum()
        assert found["pod >= 0.5"] == pytest.approx(pod, abs=0.002)
    validation = forecasts(config, model, source, "validation", range(source.count("validation")))
    error = squares(validation.by["model"], validation.truth) / ranges_of(source) ** 2
    assert validation_mse(config, model, source) == pytest.approx(error[validation.valid()].mean(), rel=1e-4)


def test_no_score_depends_on_the_unit_in_which_a_channel_is_measured() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    one, other = (
        evaluate(*model_of(source), source, structural=True)["overall"]
        for source in (two_kinds("K, km"), two_kinds("K, m", 1000))
    )
    for name, scores in one.items():
        for score in ("mse", "mae", "rmse", "ssim", "psnr"):
            assert scores[score] == pytest.approx(other[name][score], rel=1e-3), (name, score)


@pytest.mark.parametrize("units", ["K", "", "K, K", "°C, as a buoy measures it, at noon"])
def test_channels_of_one_unit_are_scored_in_it(units: str) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    source = two_kinds(units)
    config, model = model_of(source)
    scores = evaluate(config, model, source, structural=True)
    assert scores["units"] == units
    made = forecasts(config, model, source, "test", range(source.count("test")))
    there, facts = made.valid(), source.facts
    for name, frames in made.by.items():
        error = np.where(there, squares(frames, made.truth), np.nan)
        assert scores["overall"][name]["mse"] == pytest.approx(np.nanmean(error), rel=1e-9)
        psnr = 10 * np.log10((max(facts.highest) - min(facts.lowest)) ** 2 / np.nanmean(error, axis=(3, 4)))
        assert scores["overall"][name]["psnr"] == pytest.approx(psnr.mean(), rel=1e-9)
    validation = forecasts(config, model, source, "validation", range(source.count("validation")))
    error = squares(validation.by["model"], validation.truth)[validation.valid()]
    assert validation_mse(config, model, source) == pytest.approx(error.mean(), rel=1e-9)


def test_channels_and_what_is_padded_count_in_how_many_are_forecast_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = two_kinds("K, m")
    config, model = model_of(source)
    whole, batch = evaluate(config, model, source), source.batch
    taken: list[int] = []

    def counted(split: Any, indices: range) -> Any:
        taken.append(len(indices))
        return batch(split, indices)

    monkeypatch.setattr(source, "batch", counted)
    monkeypatch.setattr(scoring, "ELEMENTS_AT_ONCE", 3 * (5 * 2 + 1) * 10 * 10)
    assert evaluate(config, model, source) == whole
    assert taken == [3, 3, 1]
    monkeypatch.setattr(scoring, "ELEMENTS_AT_ONCE", 3 * (5 * 2 + 1) * 10 * 10 - 1)
    evaluate(config, model, source)
    assert taken == [3, 3, 1, 2, 2, 2, 1]


@pytest.mark.parametrize("scaling", ["standard", "seasonal"])
@pytest.mark.parametrize("gap", [0, 2])
def test_damped_persistence(gap: int, scaling: Any) -> None:
    """Each channel at each lead time has its own factor; what is shown last is known, of the gap nothing is."""
    source = two_kinds("K, m", 1000, gap, scaling)
    config, model = model_of(source, gap=gap, scaling=scaling)
    made = forecasts(config, model, source, "test", range(source.count("test")))
    assert list(made.by) == ["model", "persistence", "damped persistence", "climatology"]
    usual, frames = source.climatology, source.series.read(0, 36)
    assert usual is not None
    assert len({round(factor, 2) for of_channels in source.facts.damping for factor in of_channels}) == 4
    for n, first in enumerate(range(28, 28 + len(made.truth))):
        last, ahead = first - gap - 1, slice(first, first + 2)
        assert np.array_equal(made.truth[n], frames[ahead], equal_nan=True)
        anomaly = frames[last].astype(np.float64) - usual.at(months()[last])
        factors = np.array(source.facts.damping)[:, :, None, None]
        expected = factors * anomaly + usual.at(months()[ahead])
        found = made.by["damped persistence"][n] / ranges_of(source)
        assert np.allclose(found, expected / ranges_of(source), rtol=0, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("scaling", ["standard", "seasonal"])
def test_the_error_of_validation_is_a_number_where_training_never_saw_a_pixel(scaling: Any) -> None:
    """Neither then does the climatology know it, so it is scored for none, in validation as in the test."""
    frames = field()
    frames[:27, 4, 4] = np.nan
    source = fit(series_of(frames, months()), patch=2, scaling=scaling)
    config, model = model_of(source, scaling=scaling)
    for split in ("validation", "test"):
        made = forecasts(config, model, source, split, range(source.count(split)))
        assert np.isfinite(made.truth[..., 4, 4]).all()
        assert not made.valid()[..., 4, 4].any()
        error = squares(made.by["model"], made.truth)[made.valid()].mean()
        score = validation_mse(config, model, source)
        if split == "test":
            score = evaluate(config, model, source)["overall"]["model"]["mse"]
        assert score == pytest.approx(error, rel=1e-9)
