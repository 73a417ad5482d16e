"""Scoring: in parts, so that memory does not grow with the number of sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm import scoring
from convlstm.backends import Array
from convlstm.data.source import Made
from convlstm.frame_model import FrameModel
from convlstm.from_config import make_model
from convlstm.not_finite import NotFinite
from convlstm.scoring import AT_ONCE, draw_forecast, evaluate, forecasts, validation_mse
from convlstm.sources import open_source
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
    assert validation_mse(MANY, model) == pytest.approx(validation, rel=1e-12)
    assert taken == [3, 3, 1] * 2


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
