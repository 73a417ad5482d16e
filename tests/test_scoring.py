"""Scoring: in parts, so that memory does not grow with the number of sequences."""

from __future__ import annotations

import numpy as np
import pytest

from convlstm import scoring
from convlstm.backends import Array
from convlstm.frame_model import FrameModel
from convlstm.from_config import make_model
from convlstm.scoring import AT_ONCE, evaluate, forecasts, validation_mse
from tests.runs import TINY, changed

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")

MANY = changed(TINY, test_sequences=7, validation_sequences=7)


@pytest.fixture
def model() -> FrameModel:
    return make_model(MANY, "numpy")


def squares(frames: Array, truth: Array) -> Array:
    return (frames.astype(np.float64) - truth) ** 2


def test_scores_of_one_part_are_means_over_all(model: FrameModel) -> None:
    """To the bit, as runs of earlier versions recorded them."""
    assert AT_ONCE >= 100  # the default of test_sequences
    shown, forecast, truth = forecasts(MANY, model, "test", range(7))
    errors = {"model": squares(forecast, truth), "repeat_last_frame": squares(shown[:, -1:], truth)}
    assert evaluate(MANY, model) == {
        "test_sequences": 7,
        "mse": {name: error.mean() for name, error in errors.items()},
        "mse_by_lead_time": {name: error.mean(axis=(0, 2, 3, 4)).tolist() for name, error in errors.items()},
    }
    _, forecast, truth = forecasts(MANY, model, "validation", range(7))
    assert validation_mse(MANY, model) == squares(forecast, truth).mean()


def test_no_more_are_forecast_at_once_and_all_are_scored(model: FrameModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, validation = evaluate(MANY, model), validation_mse(MANY, model)
    taken: list[int] = []
    predict = model.predict

    def counted(frames: Array, horizon: int) -> Array:
        taken.append(len(frames))
        return predict(frames, horizon)

    monkeypatch.setattr(scoring, "AT_ONCE", 3)
    monkeypatch.setattr(model, "predict", counted)
    parts = evaluate(MANY, model)
    assert parts["test_sequences"] == 7
    for name in ("model", "repeat_last_frame"):
        assert parts["mse"][name] == pytest.approx(whole["mse"][name], rel=1e-12)
        assert parts["mse_by_lead_time"][name] == pytest.approx(whole["mse_by_lead_time"][name], rel=1e-12)
    assert validation_mse(MANY, model) == pytest.approx(validation, rel=1e-12)
    assert taken == [3, 3, 1] * 2
