"""A run's model as training left it, and what it forecasts of frames that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.backends.geometry import as_count
from convlstm.config import Config, load_config
from convlstm.data.climatology import Climatology
from convlstm.data.facts import Facts, read_facts
from convlstm.data.frame_source import times_of
from convlstm.data.series import Axis, DataError, Series
from convlstm.data.source import Source
from convlstm.forecast_files import Forecast
from convlstm.frame_model import FrameModel
from convlstm.from_config import untrained_model
from convlstm.metrics import persistence
from convlstm.parameter_files import ParameterMismatch, assign_parameters, load_parameters
from convlstm.recorded_run import NoRun
from convlstm.run_data import check_data, load_climatology
from convlstm.run_directory import CLIMATOLOGY, DATA
from convlstm.sources import open_others, open_source
from convlstm.time_axis import clock_after, times_after

NEEDED = ("config.toml", DATA, "weights.safetensors")


@dataclass(frozen=True)
class TrainedRun:
    """What a run directory holds of a trained model."""

    directory: Path
    config: Config
    facts: Facts
    climatology: Climatology | None
    backend: str

    def source(self, data: str | None = None) -> Source:
        """Return the run's own sequences, or those of other frames, all of them to test on.

        Raises:
            DataError: they cannot be read or used, or are not those that the run began with.
        """
        if data is not None:
            return open_others(self.config, data, self.facts, self.climatology)
        source = open_source(self.config)
        check_data(self.directory, source)
        return source

    def model(self, shape: tuple[int, int, int]) -> FrameModel:
        """Return the trained model, for frames of this shape.

        Raises:
            ValueError: its weights cannot be read, or are for frames of another size.
        """
        model = untrained_model(self.config, self.backend, shape=shape)
        file, (_, H, W) = self.directory / "weights.safetensors", shape
        try:
            assign_parameters(model.parameters, load_parameters(file), model.backend.asarray)
        except ParameterMismatch as error:
            raise ValueError(f"{file}: does not fit the model for frames of {H}×{W} pixels: {error}") from None
        return model


def trained_run(directory: Path, backend: str = "auto") -> TrainedRun:
    """Read a run directory.

    Raises:
        NoRun: a file is missing.
        ConfigError, DataError: a file cannot be read; the message names it.
    """
    if not directory.is_dir():
        raise NoRun(f"there is no run directory {directory}")
    for name in NEEDED:
        if not (directory / name).is_file():
            raise NoRun(f"{directory} holds no {name}, so there is no trained model in it")
    config, facts = load_config(str(directory / "config.toml")), read_facts(directory / DATA)
    usual = load_climatology(directory, facts)
    if usual is None and config.data.source == "frames" and config.data.scaling == "seasonal":
        raise NoRun(f"{directory} holds no {CLIMATOLOGY}, without which its model knows no seasons")
    return TrainedRun(directory, config, facts, usual, backend)


def predict(run: TrainedRun, data: str, horizon: int | None = None) -> Forecast:
    """Forecast what follows the last frames of a file, as many as the model was trained to read.

    Args:
        run: the trained model.
        data: see `open_series`.
        horizon: frames to forecast; None: as many as in training.

    Raises:
        DataError: the frames cannot be read or used, or are too few; the message begins with their name.
        ValueError: `horizon` is not an integer ≥ 1.
    """
    settings = run.config.data
    source = open_others(run.config, data, run.facts, run.climatology, whole=False)
    series, context = source.series, settings.context
    ahead = settings.horizon if horizon is None else as_count("horizon", horizon)
    last = series.runs[-1]
    if len(last) < context:
        raise DataError(f"{series.name}: the model reads {context} frames in a row; the last stretch has {len(last)}")
    raw = series.read(last.stop - context, last.stop)[None]  # (1, context, C, H, W)
    if np.isnan(raw).all():
        raise DataError(f"{series.name}: its last {context} frames hold no value")
    times = times_of(series)[last.stop - context : last.stop]
    batch = source.prepared(raw, times[None])
    model = run.model(source.shape)
    frames = model.predict(model.backend.asarray(batch.frames), settings.gap + ahead)
    coming = _times_ahead(series, settings.gap + ahead)[settings.gap :]
    values = source.undo(model.backend.to_numpy(frames)[:, settings.gap :], source.season(coming[None]))
    known = persistence(raw, ahead)[1]
    return Forecast(
        frames=np.where(known, values, np.float32(np.nan))[0], shown=raw[0], channels=series.channels,
        variable=series.variable, names=series.names, units=series.units,
        times=None if series.times is None else coming, clock=_clock_ahead(series, settings.gap, ahead),
        y=series.y, x=series.x,
        attributes={"source": Path(series.name).name, "run": run.directory.resolve().name},
    )  # fmt: skip


def _times_ahead(series: Series, horizon: int) -> NDArray[Any]:
    """Return the times after a series' last frame, or the numbers where it has none.

    Raises:
        DataError: it has the time of one frame alone.
    """
    if series.times is None:
        return np.arange(series.shape[0], series.shape[0] + horizon)
    return times_after(_last_times(series, series.times), horizon)


def _clock_ahead(series: Series, gap: int, horizon: int) -> Axis | None:
    """Return the clock of the frames after those that are skipped, None where the series has no clock.

    Raises:
        DataError: it has the time of one frame alone.
    """
    if series.clock is None:
        return None
    known = replace(series.clock, values=_last_times(series, series.clock.values))
    coming = clock_after(known, gap + horizon)
    return replace(coming, values=coming.values[gap:])


def _last_times(series: Series, times: NDArray[Any]) -> NDArray[Any]:
    """Return the times that tell a step: those of the last run, or all where that has one alone."""
    if len(times) < 2:
        raise DataError(f"{series.name}: it has one frame, so nobody can tell the times of those that follow")
    run = times[series.runs[-1].start :]
    return run if len(run) > 1 else times
