"""From a run directory to the page that shows it; what a page looks like is page.py's subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.checkpoint import read_checkpoint, saved_steps
from convlstm.data.source import Source
from convlstm.page import Page
from convlstm.page_films import Film
from convlstm.recorded_run import read_run
from convlstm.run_directory import CHECKPOINTS
from convlstm.scoring import Forecasts, forecasts
from convlstm.trained_run import TrainedRun

FILMS = 3  # sequences that move on the page
STEP_NAMES = {28: "month", 7: "week", 1: "day"}  # by the least number of days from one frame to the next


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
    validation = [(step, error) for step, error in _validation(run.directory) if error is not None]
    return Page(
        title=f"Forecasts of {Path(facts.name).name}",
        data=_described(run, source),
        facts=_facts(run, scores),
        films=_films(run, source),
        colours="grey" if made else "viridis",
        limits=(facts.lowest, facts.highest),
        units=facts.units,
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


def _facts(run: TrainedRun, scores: dict[str, Any]) -> list[tuple[str, str]]:
    model, training = run.config.model, run.config.training
    layers, kernel = ", ".join(map(str, model.hidden_channels)), f"{model.kernel_size}×{model.kernel_size}"
    return [
        ("model", f"{model.kind}, hidden channels {layers}, kernel {kernel}"),
        (
            "training",
            f"{training.steps} steps of {training.batch_size} sequences, {training.optimizer}, {training.loss}",
        ),
        ("scored on", f"{scores['sequences']} sequences that training never saw"),
    ]


def _films(run: TrainedRun, source: Source) -> list[Film]:
    """Return the first, the middle and the last test sequence, the first channel of each."""
    count = source.count("test")
    chosen = sorted({0, count // 2, count - 1})[:FILMS]
    model = run.model(source.shape)
    return [
        _film(f"test sequence {n + 1} of {count}", forecasts(run.config, model, source, "test", range(n, n + 1)))
        for n in chosen
    ]


def _film(name: str, made: Forecasts) -> Film:
    def first(frames: NDArray[np.float32]) -> NDArray[np.float32]:
        return frames[0, :, 0]

    return Film(name, first(made.shown), first(made.by["model"]), first(made.truth))


def _validation(directory: Path) -> list[tuple[int, float | None]]:
    """Return the validation errors of the checkpoints that are still there."""
    folder = directory / CHECKPOINTS
    return [(step, read_checkpoint(folder, step).validation_mse) for step in saved_steps(folder)]
