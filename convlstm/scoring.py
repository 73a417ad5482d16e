"""What a model's forecasts of sequences that it was not trained on are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from convlstm.backends import Array
from convlstm.config import Config
from convlstm.data.digits import Split
from convlstm.frame_model import FrameModel
from convlstm.from_config import sequences
from convlstm.not_finite import NotFinite
from convlstm.report import forecast_figure

SEQUENCES_SHOWN = 3


def evaluate(config: Config, model: FrameModel) -> dict[str, Any]:
    """Return mean squared errors on the test split, per pixel with brightness in 0 … 1: the model's and persistence's.

    Raises:
        NotFinite: a forecast is not finite.
    """
    shown, forecast, truth = forecasts(config, model, "test", config.data.test_sequences)
    given = {"model": forecast, "repeat_last_frame": shown[:, -1:]}
    errors = {name: (frames.astype(np.float64) - truth) ** 2 for name, frames in given.items()}
    if not np.isfinite(forecast).all():
        raise NotFinite(
            "the forecast after the last step is not finite; the weights are saved; try a smaller learning_rate"
        )
    return {
        "test_sequences": len(truth),
        "mse": {name: float(error.mean(dtype=np.float64)) for name, error in errors.items()},
        "mse_by_lead_time": {
            name: error.mean(axis=(0, 2, 3, 4), dtype=np.float64).tolist() for name, error in errors.items()
        },
    }


def validation_mse(config: Config, model: FrameModel) -> float | None:
    """Return the mean squared error on the split "validation"; None where it is not asked for or not finite."""
    if not config.data.validation_sequences:
        return None
    _, forecast, truth = forecasts(config, model, "validation", config.data.validation_sequences)
    mse = float(((forecast.astype(np.float64) - truth) ** 2).mean(dtype=np.float64))
    return mse if np.isfinite(mse) else None


def forecasts(config: Config, model: FrameModel, split: Split, count: int) -> tuple[Array, Array, Array]:
    """Return (shown, forecast, truth) of a split's first `count` sequences, NumPy arrays (count, T, 1, size, size)."""
    frames = sequences(config, model, split, range(count))
    context = config.data.context
    forecast = model.backend.to_numpy(model.predict(frames[:, :context], config.data.horizon))
    shown, truth = np.split(model.backend.to_numpy(frames), [context], axis=1)
    return shown, forecast, truth


def draw_forecast(config: Config, model: FrameModel, path: Path) -> None:
    """Draw the first test sequences: what was shown, and the forecast above the truth."""
    shown, forecast, truth = forecasts(config, model, "test", min(SEQUENCES_SHOWN, config.data.test_sequences))
    forecast_figure(path, shown[:, :, 0], forecast[:, :, 0], truth[:, :, 0])
