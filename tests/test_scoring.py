"""Scoring: in parts, so that memory does not grow with the number of sequences."""

from __future__ import annotations

import numpy as np
import pytest

from convlstm import scoring
from convlstm.backends import Array
from convlstm.frame_model import FrameModel
from convlstm.from_config import make_model
from convlstm.scoring import AT_ONCE, evaluate, forecasts, validation_mse
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
