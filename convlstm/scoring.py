"""What a model's forecasts of sequences that it was not trained on are worth, beside forecasts that need no model.

Everything is scored in the data's own units, and only where each of the forecasts and the truth has a value:

    persistence         the last value of each pixel that was shown, again and again
    damped persistence  how far that is from the climatology, the less the further ahead, see data/damping.py
    climatology         the mean of the month in the training frames; of frames without times the mean of all

The last two are there where frames come from files.  Where channels have different units, values are divided by the
range that their channel has in training, so that one score can be made of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlstm.config import Config
from convlstm.data.facts import Facts
from convlstm.data.series import units_of_channels
from convlstm.data.source import Frames, Scored, Source
from convlstm.frame_model import FrameModel
from convlstm.metrics import Totals, persistence
from convlstm.not_finite import NotFinite
from convlstm.report import WIDE, forecast_figure
from convlstm.sources import open_source

SEQUENCES_SHOWN = 3
MOST_FRAMES, WIDEST = 10, 1800  # in a row of the picture: of each kind, and pixels of all together
# Sequences that are forecast together, so that memory grows neither with their number nor with their size.
AT_ONCE, ELEMENTS_AT_ONCE = 128, 2**26


class Forecasts(NamedTuple):
    """Some sequences in the data's own units; NaN where there is no value.

    Attributes:
        shown: (N, context, C, H, W).
        truth: (N, horizon, C, H, W).
        by: forecasts by who made them, "model" first, each as `truth`.
    """

    shown: Frames
    truth: Frames
    by: dict[str, Frames]

    def valid(self) -> NDArray[np.bool_]:
        """Return where truth and all forecasts have a value."""
        there = np.isfinite(self.truth)
        for name, frames in self.by.items():
            if name != "model":  # whose infinities are to be seen
                there &= np.isfinite(frames)
        return there


def evaluate(
    config: Config, model: FrameModel, source: Source | None = None,
    *, thresholds: Sequence[float] = (), structural: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return scores on the test split, the model's and the others', as scores.json has them.

    Args:
        config: the run.
        model: as trained.
        source: of the sequences; None: the run's own.
        thresholds: of CSI, POD and FAR, in the scores' units.
        structural: whether SSIM and PSNR are among the scores, which need scikit-image.

    Returns:
        ``sequences``; ``units`` of what is scored; ``overall`` and ``by_lead_time``, each by forecaster and score, see
        `Totals`.

    Raises:
        NotFinite: a forecast is not finite.
        ModuleNotFoundError: scikit-image is not installed.
    """
    source, horizon = source or open_source(config), config.data.horizon
    divisor, units, value_range = _one_unit(source.facts)
    totals: dict[str, Totals] = {}
    for made in _in_parts(config, model, source, "test"):
        valid = made.valid()
        if not np.isfinite(made.by["model"][valid]).all():
            raise NotFinite(
                "the forecast after the last step is not finite; the weights are saved; try a smaller learning_rate"
            )
        for name, frames in made.by.items():
            if name not in totals:
                totals[name] = Totals(horizon, value_range=value_range, thresholds=thresholds, structural=structural)
            totals[name].add(frames / divisor, made.truth / divisor, valid)
    return {
        "sequences": source.count("test"),
        "units": units,
        "overall": {name: total.overall() for name, total in totals.items()},
        "by_lead_time": {name: total.scores() for name, total in totals.items()},
    }


def validation_mse(config: Config, model: FrameModel, source: Source | None = None) -> float | None:
    """Return the mean squared error on the split "validation"; None where it is not asked for or not finite."""
    source = source or open_source(config)
    divisor = _one_unit(source.facts)[0]
    squares, count = 0.0, 0
    for made in _in_parts(config, model, source, "validation"):
        errors = (made.by["model"].astype(np.float64) - made.truth) / divisor
        for error, there in zip(errors, made.valid(), strict=True):  # one by one, so that no bit depends on the parts
            squares += float((error[there] ** 2).sum())
            count += int(there.sum())
    return squares / count if count and np.isfinite(squares) else None


def _one_unit(facts: Facts) -> tuple[Frames, str, float]:
    """Return what makes scores of all channels comparable.

    Returns:
        divisor: of each channel, (C, 1, 1).
        units: of what was divided by it.
        value_range: of that in training.
    """
    ranges = [high - low for low, high in zip(facts.lowest, facts.highest, strict=True)]
    if len(set(units_of_channels(facts.units, facts.shape[0]))) > 1:
        return np.array(ranges, np.float32)[:, None, None], "ranges of each channel in training", 1.0
    return np.ones((1, 1, 1), np.float32), facts.units, max(facts.highest) - min(facts.lowest)


def _in_parts(config: Config, model: FrameModel, source: Source, split: Scored) -> Iterator[Forecasts]:
    """Yield the `forecasts` of a split, a part after the other."""
    C, H, W = source.shape
    data, states = config.data, 2 * sum(config.model.hidden_channels) // config.model.patch**2
    elements = ((data.context + data.gap + data.horizon) * C + states) * H * W  # of a sequence
    count, at_once = source.count(split), max(1, min(AT_ONCE, ELEMENTS_AT_ONCE // elements))
    for start in range(0, count, at_once):
        yield forecasts(config, model, source, split, range(start, min(start + at_once, count)))


def forecasts(config: Config, model: FrameModel, source: Source, split: Scored, indices: range) -> Forecasts:
    """Return forecasts of these sequences of a split."""
    data, batch = config.data, source.batch(split, indices)
    shown, ahead = batch.raw[:, : data.context], slice(data.context + data.gap, None)
    frames = model.backend.asarray(np.ascontiguousarray(batch.frames[:, : data.context]))
    predicted = model.backend.to_numpy(model.predict(frames, data.gap + data.horizon))[:, data.gap :]
    season = None if batch.season is None else batch.season[:, ahead]
    by = {"model": source.undo(predicted, season)}
    by["persistence"] = persistence(shown, data.horizon)[0]
    if season is not None and batch.season is not None:
        anomaly = persistence(shown - batch.season[:, : data.context], data.horizon)[0]
        factors = np.array(source.facts.damping, np.float32)[:, :, None, None]  # (horizon, C, 1, 1)
        by["damped persistence"] = anomaly * factors + season
        by["climatology"] = season
    return Forecasts(shown, batch.raw[:, ahead], by)


def draw_forecast(config: Config, model: FrameModel, path: Path, source: Source | None = None) -> None:
    """Draw test sequences: what was shown, and the forecast above the truth; of each the first channel."""
    source = source or open_source(config)
    H, W = source.facts.shape[1:]
    shown_at_once = 1 if W > WIDE * H else SEQUENCES_SHOWN
    made = forecasts(config, model, source, "test", range(min(shown_at_once, source.count("test"))))
    there, lowest, highest = np.isfinite(made.truth), source.facts.lowest[0], source.facts.highest[0]
    shown, forecast, truth = (
        (frames[:, :, 0] - lowest) / (highest - lowest)
        for frames in (made.shown, np.where(there, made.by["model"], np.float32(np.nan)), made.truth)
    )
    last, ahead, every = _room(W, truth.shape[1])
    rows = slice(None, None, -every if source.south_first else every)
    thinned = (frames[..., rows, ::every] for frames in (shown[:, -last:], forecast[:, :ahead], truth[:, :ahead]))
    forecast_figure(path, *thinned, colours="grey" if source.facts.windows is None else "viridis")


def _room(width: int, horizon: int) -> tuple[int, int, int]:
    """Return how many shown frames and how many forecast ones a picture has room for, and every which pixel."""
    ahead = min(MOST_FRAMES, horizon)
    last = min(MOST_FRAMES, max(1, WIDEST // width - ahead))
    return last, ahead, -(-width * (last + ahead) // WIDEST)
