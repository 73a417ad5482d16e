"""What a model's forecasts of sequences that it was not trained on are worth."""

from __future__ import annotations

from collections.abc import Iterator
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
AT_ONCE = 128  # sequences that are forecast together, so that memory does not grow with their number


def evaluate(config: Config, model: FrameModel) -> dict[str, Any]:
    """Return mean squared errors on the test split, per pixel with brightness in 0 … 1: the model's and persistence's.

    Raises:
        NotFinite: a forecast is not finite.
    """
    names, data = ("model", "repeat_last_frame"), config.data
    sums, sums_by_lead_time = dict.fromkeys(names, 0.0), {name: np.zeros(data.horizon) for name in names}
    for shown, forecast, truth in _in_parts(config, model, "test", config.data.test_sequences):
        if not np.isfinite(forecast).all():
            raise NotFinite(
                "the forecast after the last step is not finite; the weights are saved; try a smaller learning_rate"
            )
        for name, frames in zip(names, (forecast, shown[:, -1:]), strict=True):
            squares = _squares(frames, truth)
            sums[name] += float(squares.sum())
            sums_by_lead_time[name] += squares.sum(axis=(0, 2, 3, 4))
    pixels = data.test_sequences * data.size**2
    return {
        "test_sequences": data.test_sequences,
        "mse": {name: sums[name] / (pixels * data.horizon) for name in names},
        "mse_by_lead_time": {name: (sums_by_lead_time[name] / pixels).tolist() for name in names},
    }


def validation_mse(config: Config, model: FrameModel) -> float | None:
    """Return the mean squared error on the split "validation"; None where it is not asked for or not finite."""
    data = config.data
    if not data.validation_sequences:
        return None
    parts = _in_parts(config, model, "validation", data.validation_sequences)
    squares = sum(float(_squares(forecast, truth).sum()) for _, forecast, truth in parts)
    mse = squares / (data.validation_sequences * data.horizon * data.size**2)
    return mse if np.isfinite(mse) else None


def _squares(frames: Array, truth: Array) -> Array:
    """Return squared errors in float64, (N, horizon, 1, size, size)."""
    return (frames.astype(np.float64) - truth) ** 2


def _in_parts(config: Config, model: FrameModel, split: Split, count: int) -> Iterator[tuple[Array, Array, Array]]:
    """Yield the `forecasts` of a split's first `count` sequences, a part after the other."""
    for start in range(0, count, AT_ONCE):
        yield forecasts(config, model, split, range(start, min(start + AT_ONCE, count)))


def forecasts(config: Config, model: FrameModel, split: Split, indices: range) -> tuple[Array, Array, Array]:
    """Return (shown, forecast, truth) of these sequences of a split, NumPy arrays (N, T, 1, size, size)."""
    frames = sequences(config, model, split, indices)
    context = config.data.context
    forecast = model.backend.to_numpy(model.predict(frames[:, :context], config.data.horizon))
    shown, truth = np.split(model.backend.to_numpy(frames), [context], axis=1)
    return shown, forecast, truth


def draw_forecast(config: Config, model: FrameModel, path: Path) -> None:
    """Draw the first test sequences: what was shown, and the forecast above the truth."""
    shown, forecast, truth = forecasts(config, model, "test", range(min(SEQUENCES_SHOWN, config.data.test_sequences)))
    forecast_figure(path, shown[:, :, 0], forecast[:, :, 0], truth[:, :, 0])
