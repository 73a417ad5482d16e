"""From a configuration to a run directory: make the model, train it step by step, score it on the test split.

    DIR/config.toml          every setting, resolved
    DIR/environment.json     what the numbers may depend on
    DIR/data.json            what the model must know of its frames, to be used on others: their scaling, size, digest
    DIR/ledger.jsonl         one line a step, see ledger.py
    DIR/checkpoints/         what the run can be continued from, see checkpoint.py
    DIR/weights.safetensors  the parameters after the last step
    DIR/scores.json          scores on the test split beside those of persistence
    DIR/forecast.png         forecasts above the truth

Files but the ledger, which grows by whole lines, appear whole or not at all.  A run that ended early, however it did,
is continued from its newest checkpoint, and comes to the bits of one that never stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convlstm.backends import Backend
from convlstm.checkpoint import (
    Checkpoint,
    delete_old_checkpoints,
    fact_file,
    newest_checkpoint,
    write_checkpoint,
)
from convlstm.config import Config, config_as_toml
from convlstm.data.source import Source
from convlstm.determinism.forbid import forbid_uninitialised
from convlstm.event_files import EventFile
from convlstm.frame_model import FrameModel
from convlstm.from_config import learning_rate
from convlstm.interrupts import interruptible
from convlstm.ledger import BEGINNING, Ledger, LedgerError, open_locked
from convlstm.not_finite import NotFinite, without_overflow_warnings
from convlstm.parameter_files import load_parameters, save_parameters
from convlstm.run_data import check_data, save_data
from convlstm.run_directory import CHECKPOINTS, EVENTS, RunDirectoryError, half_written, has_begun, was_scored
from convlstm.run_environment import check_initial_weights, environment, initial_weights_digest, read_environment
from convlstm.scoring import draw_forecast, evaluate, validation_mse
from convlstm.sources import open_source
from convlstm.trainer import Trainer, to_numpy
from convlstm.whole_files import write_whole

Report = Callable[[int, float], None]  # takes the number of steps done and the last one's loss


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    steps: int
    interrupted: signal.Signals | None  # what ended it early
    scores: dict[str, Any] | None  # as scores.json; None where the run was interrupted
    no_forecast: str | None = None  # what a finished run lacks to draw forecast.png, and what mends it


@dataclass(frozen=True)
class Resumption:
    """How a run is continued.

    Attributes:
        say: told from which checkpoint, and which are damaged.
        changed: what bits may depend on and is different now, a line each; environment.json is to have it.
    """

    say: Callable[[str], None]
    changed: Sequence[str] = ()


def train(
    config: Config, directory: Path, *, backend: str, report: Report, resumption: Resumption | None = None,
    source: Source | None = None, events: bool = False,
) -> Outcome:  # fmt: skip
    """Train and fill the run directory.

    Args:
        config: the run.
        directory: from `make_run_directory`; to continue a run, the one that holds it, with this configuration.
        backend: see `get_backend`.
        report: called after each step with the number of steps done and the step's loss.
        resumption: continue the run that is there.
        source: of its sequences; None: it is opened here.
        events: whether to write an event file for TensorBoard, too.

    Raises:
        NotFinite: data, a loss, a gradient, a weight or the forecast was not finite; the last weights that were are
            saved, and so are the checkpoints before.
        RunDirectoryError: a file could not be written, as on a full disk; those that are there are whole.
        CheckpointError, LedgerError, DataError: of a run to be continued, its checkpoint or its data and another file
            of it contradict each other, or a file cannot be read, or another process goes on with it; nothing has been
            changed.
        BackendUnavailable, ValueError, ModuleNotFoundError: as `check_config`, or tensorboardX is missing; nothing has
            been trained.
    """
    source = source or open_source(config)
    try:
        with forbid_uninitialised(), closing(open_locked(directory / "ledger.jsonl")) as file:
            if resumption is not None and was_scored(directory):
                return _finish(config, directory, backend, source)
            start = _start(config, directory, resumption, source)
            trainer = Trainer(config, backend, start.checkpoint, source)
            ledger = start.ledger(directory, file)
            with EventFile(directory / EVENTS, first_step=trainer.steps) if events else nullcontext() as shown:
                start.note(config, directory, trainer)
                ended_by = _take_steps(trainer, config, directory, ledger, report, shown)
            if ended_by is not None:
                return Outcome(ledger.steps, ended_by, scores=None)
            return _draw(trainer, directory, _score(trainer, directory))
    except BrokenPipeError:  # of whoever reads the reports, not of a file
        raise
    except OSError as error:
        raise RunDirectoryError(f"cannot write to {error.filename or directory}: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Start:
    """Where a run stands before it is trained: new, begun without a checkpoint, or at a checkpoint.

    Attributes:
        begun: how it is continued; None for a new one.
        checkpoint: what it goes on from; None: from step 0.
    """

    begun: Resumption | None = None
    checkpoint: Checkpoint | None = None

    def ledger(self, directory: Path, file: io.FileIO) -> Ledger:
        """Return the ledger, cut off where the checkpoint has it, or at its beginning."""
        path = directory / "ledger.jsonl"
        if self.checkpoint is None:
            return Ledger(path, file, BEGINNING)
        try:
            return Ledger(path, file, self.checkpoint.ledger)
        except LedgerError as error:
            needing = fact_file(directory / CHECKPOINTS, self.checkpoint.step)
            raise LedgerError(f"{error}; {needing} needs it so") from None

    def note(self, config: Config, directory: Path, trainer: Trainer) -> None:
        """Write what a new run begins with; of one that goes on say from where, and write what is different."""
        backend = trainer.model.backend
        for left in half_written(directory):
            left.unlink()
        if self.begun is None:  # config.toml last: without it nothing has begun
            save_data(directory, trainer.source)
            write_whole(directory / "environment.json", _json(environment(backend) | initial_weights_digest(config)))
            write_whole(directory / "config.toml", config_as_toml(config).encode())
            return
        if self.checkpoint is None:
            step, place = 0, f"{directory} holds no checkpoint to go on from; going on from step 0, to the same bits"
        else:
            step = self.checkpoint.step
            place = f"going on from {fact_file(directory / CHECKPOINTS, step)}"
        self.begun.say(place)
        if self.begun.changed:
            _note_changes(directory, step, self.begun.changed, backend)


def _start(config: Config, directory: Path, resumption: Resumption | None, source: Source) -> _Start:
    """Decide where the run stands."""
    if resumption is None or not has_begun(directory):
        return _Start()
    check_data(directory, source)
    checkpoint = newest_checkpoint(directory / CHECKPOINTS, _configuration(directory), resumption.say)
    if checkpoint is None:
        check_initial_weights(config, _recorded_environment(directory) or {})
    return _Start(resumption, checkpoint)


def _take_steps(
    trainer: Trainer, config: Config, directory: Path, ledger: Ledger, report: Report, events: EventFile | None
) -> signal.Signals | None:
    """Take all steps that are left, and save checkpoints and weights; return the signal that ended it early."""
    settings, saved = config.training, ledger.steps
    with interruptible() as interrupted, without_overflow_warnings(), _weights_saved_after(trainer.model, directory):
        while ledger.steps < settings.steps and not interrupted():
            loss = trainer.step(ledger.append)
            report(ledger.steps, loss)
            if events is not None:
                events.scalar("loss/train", loss, ledger.steps)
                events.scalar("learning rate", learning_rate(config, ledger.steps - 1), ledger.steps)
            if settings.checkpoint_every and ledger.steps % settings.checkpoint_every == 0:
                _save(trainer, config, directory, ledger, events)
                saved = ledger.steps
        if saved < ledger.steps:
            _save(trainer, config, directory, ledger, events)
        elif saved == settings.steps:  # whoever was killed after that may have left old ones
            delete_old_checkpoints(directory / CHECKPOINTS, saved, settings.keep_checkpoints)
    return interrupted()


@contextmanager
def _weights_saved_after(model: FrameModel, directory: Path) -> Iterator[None]:
    """Save the weights, however what is inside ends."""

    def save() -> None:
        save_parameters(directory / "weights.safetensors", to_numpy(model, model.parameters))

    try:
        yield
    except NotFinite as error:
        try:
            save()
        except OSError as refused:  # neither is to hide the other
            raise NotFinite(f"{error}; but {refused.filename} could not be written: {refused.strerror}") from refused
        raise
    except BaseException:
        save()
        raise
    save()


def _note_changes(directory: Path, step: int, changed: Sequence[str], backend: Backend) -> None:
    """Put into environment.json from which step on what was different; one that is lost is written anew."""
    recorded = _recorded_environment(directory) or environment(backend)
    resumed = [*recorded.get("resumed", []), {"step": step, "changed": list(changed)}]
    write_whole(directory / "environment.json", _json({**recorded, "resumed": resumed}))


def _recorded_environment(directory: Path) -> dict[str, Any] | None:
    """Return what environment.json says; None where it is lost, which is no reason not to go on."""
    try:
        return read_environment(directory)
    except RunDirectoryError:
        return None


def _save(trainer: Trainer, config: Config, directory: Path, ledger: Ledger, events: EventFile | None) -> None:
    """Save a checkpoint, and when it is safe delete those that it makes superfluous."""
    folder = directory / CHECKPOINTS
    score = validation_mse(config, trainer.model, trainer.source)
    if events is not None and score is not None:
        events.scalar("MSE/validation", score, ledger.steps)
    ledger.bring_down()  # before what needs its lines
    write_checkpoint(folder, trainer.checkpoint(ledger.position, _configuration(directory), score))
    delete_old_checkpoints(folder, ledger.steps, config.training.keep_checkpoints)


def _configuration(directory: Path) -> str:
    return hashlib.sha256((directory / "config.toml").read_bytes()).hexdigest()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _score(trainer: Trainer, directory: Path) -> dict[str, Any]:
    """Write down what the trained model is worth."""
    with without_overflow_warnings():
        scores = evaluate(trainer.config, trainer.model, trainer.source)
    write_whole(directory / "scores.json", _json(scores))
    return scores


def _draw(trainer: Trainer, directory: Path, scores: dict[str, Any]) -> Outcome:
    """Draw the picture; matplotlib is an extra, and a run is complete without it."""
    outcome = Outcome(trainer.config.training.steps, None, scores)
    try:
        draw_forecast(trainer.config, trainer.model, directory / "forecast.png", trainer.source)
    except ModuleNotFoundError as error:
        return replace(outcome, no_forecast=str(error))
    return outcome


def _finish(config: Config, directory: Path, backend: str, source: Source) -> Outcome:
    """Draw what a run lacks that was ended after its scores; score it again where these are damaged."""
    check_data(directory, source)
    trainer = Trainer(config, backend, source=source, trained=load_parameters(directory / "weights.safetensors"))
    return _draw(trainer, directory, _recorded_scores(directory / "scores.json") or _score(trainer, directory))


def _recorded_scores(file: Path) -> dict[str, Any] | None:
    """Return what a scores.json says; None where it is damaged."""
    try:
        scores: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        sound = all(isinstance(scores["overall"][name]["mse"], float) for name in ("model", "persistence"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return scores if sound else None
