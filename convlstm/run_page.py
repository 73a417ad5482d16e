"""From a run directory to the page that shows it; what a page looks like is page.py's subject."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convlstm.checkpoint import read_checkpoint, saved_steps
from convlstm.data.frame_source import FrameSource
from convlstm.data.source import Source
from convlstm.page.document import Page
from convlstm.page.films import Film
from convlstm.recorded_run import read_run
from convlstm.run_directory import CHECKPOINTS
from convlstm.scoring import forecasts
from convlstm.trained_run import TrainedRun

FILMS = 3  # sequences that move on the page
EXTREME = (0.5, 99.5)  # per cent of the values; those beyond have the colours of these
DAY = 24
STEPS = (  # names and hours of what is from one frame to the next
    ("minute", 1 / 60, 1 / 60), ("hour", 1, 1), ("day", DAY, DAY), ("week", 7 * DAY, 7 * DAY),
    ("month", 28 * DAY, 31 * DAY), ("year", 365 * DAY, 366 * DAY),
)  # fmt: skip


def page_of(run: TrainedRun, scores: dict[str, Any], source: Source) -> Page:
    """Return what a page shows of a run.

    Args:
        run: the trained model.
        scores: as `convlstm.scoring.evaluate` returns them.
        source: of the sequences that were scored.

    Raises:
        NoRun, LedgerError: a file of the run is missing or cannot be read.
    """
    recorded, config, facts = read_run(run.directory), run.config, source.facts
    made = bool(facts.windows is None)
    films = _films(run, source)
    validation = [(step, error) for step, error in _validation(run.directory) if error is not None]
    return Page(
        title=f"Forecasts of {Path(facts.name).name}",
        data=_described(run, source),
        facts=_facts(run, scores, len(recorded.ledger)),
        films=films,
        colours="grey" if made else "viridis",
        limits=(facts.lowest[0], facts.highest[0]) if made else _limits(films),
        units=facts.units if scores["units"] == facts.units else "",  # scores and pictures must have the same
        step_name=_step_name(source),
        scores=scores["by_lead_time"],
        overall=scores["overall"],
        losses=[entry.loss for entry in recorded.ledger],
        loss_name=config.training.loss,
        validation=validation,
        config=(run.directory / "config.toml").read_text(encoding="utf-8"),
        environment=recorded.environment,
        steps=len(recorded.ledger),
        digest=recorded.ledger[-1].digest if recorded.ledger else "",
        directory=str(run.directory),
    )


def _described(run: TrainedRun, source: Source) -> str:
    """Return one line on what was learnt on."""
    facts, data = source.facts, run.config.data
    C, H, W = facts.shape
    name = facts.name if facts.windows is None else Path(facts.name).name
    channels = f"{C} channels of " if C > 1 else ""
    return f"{name}, {channels}{H}×{W} pixels; {data.context} frames shown, {data.horizon} forecast"


def _limits(films: Sequence[Film]) -> tuple[float, float] | None:
    """Return the values between which colours change: not the most extreme, which would take them all, as in rain."""
    values = np.concatenate([frames[np.isfinite(frames)] for film in films for frames in (film.shown, film.truth)])
    low, high = (float(value) for value in np.percentile(values, EXTREME)) if values.size else (0.0, 0.0)
    return (low, high) if low < high else None


def _facts(run: TrainedRun, scores: dict[str, Any], steps: int) -> list[tuple[str, str]]:
    model, training = run.config.model, run.config.training
    layers, kernel = ", ".join(map(str, model.hidden_channels)), f"{model.kernel_size}×{model.kernel_size}"
    count = scores["sequences"]
    done = f"{steps} steps" if steps == training.steps else f"{steps} of {training.steps} steps"
    return [
        ("model", f"{model.kind}, hidden channels {layers}, kernel {kernel}"),
        (
            "training",
            f"{done} of {training.batch_size} sequences, {training.optimizer}, {training.loss}",
        ),
        ("scored on", f"{count} {'forecast' if count == 1 else 'forecasts'} of frames that training never saw"),
    ]


def _films(run: TrainedRun, source: Source) -> list[Film]:
    """Return the first, the middle and the last test sequence, the first channel of each, north on top."""
    count, model = source.count("test"), run.model(source.shape)
    channel = f"{source.facts.channels[0]}, " if len(source.facts.channels) > 1 else ""

    def film(n: int) -> Film:
        made = forecasts(run.config, model, source, "test", range(n, n + 1))
        shown, forecast, truth = (
            frames[0, :, 0, ::-1] if source.south_first else frames[0, :, 0]
            for frames in (made.shown, made.by["model"], made.truth)
        )
        return Film(
            f"{channel}test sequence {n + 1} of {count}", shown, forecast, truth, _names_of_times(source, n, run)
        )

    return [film(n) for n in sorted({0, count // 2, count - 1})[:FILMS]]


def _names_of_times(source: Source, n: int, run: TrainedRun) -> list[str]:
    """Return what a test sequence's times are called, as coarse as tells them apart; none where they are unknown."""
    if not isinstance(source, FrameSource) or source.series.times is None:
        return []
    times, data = source.times("test", range(n, n + 1))[0], run.config.data
    unit = next((unit for unit in ("M", "D", "h") if len(set(times.astype(f"datetime64[{unit}]"))) == len(times)), "m")
    names = [str(time).replace("T", " ") for time in times.astype(f"datetime64[{unit}]")]
    return names[: data.context] + names[data.context + data.gap :]


def _step_name(source: Source) -> str:
    """Return what one step of time is called."""
    times = source.series.times if isinstance(source, FrameSource) else None
    if times is None or len(times) < 2:
        return "frame"
    step = np.median(np.diff(times)) / np.timedelta64(1, "h")
    return next((name for name, low, high in STEPS if low <= step <= high), "frame")


def _validation(directory: Path) -> list[tuple[int, float | None]]:
    """Return the validation errors of the checkpoints that are still there."""
    folder = directory / CHECKPOINTS
    return [(step, read_checkpoint(folder, step).validation_mse) for step in saved_steps(folder)]
