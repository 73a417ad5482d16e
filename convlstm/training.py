"""From a configuration to a run directory: make the model, train it step by step, score it on the test split.

    DIR/config.toml          every setting, resolved
    DIR/environment.json     what the numbers may depend on
    DIR/ledger.jsonl         one line a step, see ledger.py
    DIR/checkpoints/         what the run can be continued from, see checkpoint.py
    DIR/weights.safetensors  the parameters after the last step
    DIR/scores.json          test error beside that of repeating the last frame
    DIR/forecast.png         forecasts above the truth

Files but the ledger, which grows by whole lines, appear whole or not at all.  A run that ended early, however it did,
is continued from its newest checkpoint, and comes to the bits of one that never stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convlstm.backends import Array, Backend
from convlstm.checkpoint import (
    Checkpoint,
    CheckpointError,
    delete_old_checkpoints,
    fact_file,
    newest_checkpoint,
    write_checkpoint,
)
from convlstm.config import Config, config_as_toml
from convlstm.determinism.forbid import forbid_uninitialised
from convlstm.environment import machine
from convlstm.frame_model import FrameModel
from convlstm.from_config import clip, learning_rate, make_model, make_optimizer, sequences, step_arguments
from convlstm.interrupts import interruptible
from convlstm.ledger import Ledger, LedgerError, Position
from convlstm.not_finite import NotFinite, check_frames, check_results, check_weights, without_overflow_warnings
from convlstm.optimizers import restore
from convlstm.parameter_files import assign_parameters, load_parameters, save_parameters
from convlstm.run_directory import CHECKPOINTS, RunDirectoryError, half_written
from convlstm.scoring import draw_forecast, evaluate, validation_mse
from convlstm.whole_files import write_whole

__all__ = [
    "NotFinite",
    "Outcome",
    "Resumption",
    "Trainer",
    "check_config",
    "environment",
    "evaluate",
    "to_numpy",
    "train",
]

Record = Callable[[float, dict[str, Array], dict[str, Array]], object]  # takes loss, gradients, weights
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
    config: Config, directory: Path, *, backend: str, report: Report, resumption: Resumption | None = None
) -> Outcome:
    """Train and fill the run directory.

    Args:
        config: the run.
        directory: from `make_run_directory`; to continue a run, the one that holds it, with this configuration.
        backend: see `get_backend`.
        report: called after each step with the number of steps done and the step's loss.
        resumption: continue the run that is there.

    Raises:
        NotFinite: data, a loss, a gradient, a weight or the forecast was not finite; the last weights that were are
            saved, and so are the checkpoints before.
        RunDirectoryError: a file could not be written, as on a full disk; those that are there are whole.
        CheckpointError, LedgerError: of a run to be continued, its checkpoint and another file of it contradict each
            other, or another process goes on with it; nothing has been changed.
        BackendUnavailable, ValueError, ModuleNotFoundError: as `check_config`; nothing has been trained.
    """
    try:
        with forbid_uninitialised():
            if resumption is not None and (directory / "scores.json").is_file():
                return _finish(config, directory, backend)
            return _train(config, directory, backend, report, resumption)
    except BrokenPipeError:  # of whoever reads the reports, not of a file
        raise
    except OSError as error:
        raise RunDirectoryError(f"cannot write to {error.filename or directory}: {error.strerror or error}") from error


def _train(config: Config, directory: Path, backend: str, report: Report, resumption: Resumption | None) -> Outcome:
    trainer = Trainer(config, backend)
    model, settings = trainer.model, config.training
    begun = resumption if (directory / "config.toml").is_file() else None
    checkpoint = _newest(directory, begun) if begun else None
    with closing(_ledger(directory, checkpoint)) as ledger, without_overflow_warnings():
        if checkpoint is not None:
            trainer.restore(checkpoint)
        if begun is None:  # config.toml last: without it nothing has begun
            write_whole(directory / "environment.json", _json(environment(model.backend)))
            write_whole(directory / "config.toml", config_as_toml(config).encode())
        elif begun.changed:
            _note_changes(directory / "environment.json", ledger.steps, begun.changed)
        saved = ledger.steps
        for left in half_written(directory):
            left.unlink()
        try:
            with interruptible() as interrupted:
                while ledger.steps < settings.steps and not interrupted():
                    loss = trainer.step(ledger.append)
                    report(ledger.steps, loss)
                    if settings.checkpoint_every and ledger.steps % settings.checkpoint_every == 0:
                        _save(trainer, config, directory, ledger)
                        saved = ledger.steps
                if saved < ledger.steps:
                    _save(trainer, config, directory, ledger)
                elif saved == settings.steps:  # whoever was killed after that may have left old ones
                    delete_old_checkpoints(directory / CHECKPOINTS, saved, settings.keep_checkpoints)
        finally:
            save_parameters(directory / "weights.safetensors", to_numpy(model, model.parameters))
        ended_by = interrupted()
        if ended_by is not None:
            return Outcome(ledger.steps, ended_by, scores=None)
        scores = evaluate(config, model)
    write_whole(directory / "scores.json", _json(scores))
    return _draw(config, model, directory, Outcome(ledger.steps, None, scores))


def _newest(directory: Path, resumption: Resumption) -> Checkpoint | None:
    """Return the newest sound checkpoint of the run, and say which it is."""
    checkpoint = newest_checkpoint(directory / CHECKPOINTS, resumption.say)
    if checkpoint is None:
        resumption.say(f"{directory} holds no checkpoint to go on from; going on from step 0, to the same bits")
        return None
    file = fact_file(directory / CHECKPOINTS, checkpoint.step)
    if checkpoint.configuration != _configuration(directory):
        raise CheckpointError(f"{directory / 'config.toml'} has changed since {file} was saved")
    resumption.say(f"going on from {file}")
    return checkpoint


def _ledger(directory: Path, checkpoint: Checkpoint | None) -> Ledger:
    """Open the ledger where the checkpoint has it, or at its beginning."""
    path = directory / "ledger.jsonl"
    if checkpoint is None:
        return Ledger(path)
    try:
        return Ledger(path, checkpoint.ledger)
    except LedgerError as error:
        raise LedgerError(f"{error}; {fact_file(directory / CHECKPOINTS, checkpoint.step)} needs it so") from None


def _note_changes(file: Path, step: int, changed: Sequence[str]) -> None:
    """Put into environment.json from which step on what was different."""
    recorded = json.loads(file.read_text(encoding="utf-8"))
    recorded.setdefault("resumed", []).append({"step": step, "changed": list(changed)})
    write_whole(file, _json(recorded))


def _save(trainer: Trainer, config: Config, directory: Path, ledger: Ledger) -> None:
    """Save a checkpoint, and when it is safe delete those that it makes superfluous."""
    folder = directory / CHECKPOINTS
    score = validation_mse(config, trainer.model)
    ledger.bring_down()  # before what needs its lines
    write_checkpoint(folder, trainer.checkpoint(ledger.position, _configuration(directory), score))
    delete_old_checkpoints(folder, ledger.steps, config.training.keep_checkpoints)


def _configuration(directory: Path) -> str:
    return hashlib.sha256((directory / "config.toml").read_bytes()).hexdigest()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _draw(config: Config, model: FrameModel, directory: Path, outcome: Outcome) -> Outcome:
    """Draw the picture; matplotlib is an extra, and a run is complete without it."""
    try:
        draw_forecast(config, model, directory / "forecast.png")
    except ModuleNotFoundError as error:
        return replace(outcome, no_forecast=str(error))
    return outcome


def _finish(config: Config, directory: Path, backend: str) -> Outcome:
    """Draw what a run lacks that was ended after its scores."""
    scores = json.loads((directory / "scores.json").read_text(encoding="utf-8"))
    model = make_model(config, backend)
    assign_parameters(model.parameters, load_parameters(directory / "weights.safetensors"), model.backend.asarray)
    return _draw(config, model, directory, Outcome(config.training.steps, None, scores))


def check_config(config: Config, backend: str) -> None:
    """Predict one frame of one sequence, so that what cannot work is named before a run directory is made for it.

    Raises:
        BackendUnavailable: see `get_backend`.
        ValueError: a setting; the message names it.
        ModuleNotFoundError: the package that brings the data is missing.
    """
    model = make_model(config, backend)
    make_optimizer(config)
    model.predict(sequences(config, model, "train", range(1))[:, :1], 1)


class Trainer:
    """A model, its optimizer and its data, one step after the other from the first.

    Attributes:
        model: as the steps so far have made it.
        steps: how many these are, which is the number of the next.
    """

    def __init__(self, config: Config, backend: str) -> None:
        """Take the model of `make_model`; arguments and errors as there."""
        self.model = make_model(config, backend)
        self.steps = 0
        self._config = config
        self._optimizer = make_optimizer(config)

    def loss_and_gradients(self) -> tuple[float, dict[str, Array]]:
        """Return what the next step computes before it moves the weights.

        Raises:
            NotFinite: the step's data, the loss or a gradient is not.
        """
        indices = self._indices()
        frames = sequences(self._config, self.model, "train", indices)
        check_frames(f"data of step {self.steps}", frames, indices, self.model.backend.to_numpy)
        loss, gradients = self._compute(frames, indices)
        check_results(
            loss, gradients, indices, self.steps, lambda n: self._compute(frames[n : n + 1], indices[n : n + 1])
        )
        return loss, gradients

    def _indices(self) -> range:
        """Return which sequences of the split train the next step takes."""
        batch = self._config.training.batch_size
        return range(self.steps * batch, (self.steps + 1) * batch)

    def _compute(self, frames: Array, indices: range) -> tuple[float, dict[str, Array]]:
        """Return loss and gradients of these sequences in the next step, all of its batch or one alone."""
        return self.model.loss_and_gradients(frames, **step_arguments(self._config, indices, self.steps))

    def step(self, record: Record) -> float:
        """Take the next step, hand loss, gradients and new weights to `record`, and return the loss.

        If `record` fails, as on a full disk, weights and optimizer stay those before the step.

        Raises:
            NotFinite: the step's data, the loss, a gradient, or a weight after the step, is not.
        """
        loss, gradients = self.loss_and_gradients()
        optimizer, weights = self._optimizer, self.model.parameters
        before = dict(weights), optimizer.steps, optimizer.moments
        optimizer.learning_rate = learning_rate(self._config, self.steps)
        try:
            optimizer.step(weights, clip(self._config, gradients))
            check_weights(weights, self._indices(), self.steps)
            record(loss, to_numpy(self.model, gradients), to_numpy(self.model, weights))
        except BaseException:  # a second Ctrl-C, too
            weights.update(before[0])
            optimizer.steps, optimizer.moments = before[1:]
            raise
        self.steps += 1
        return loss

    @property
    def position(self) -> dict[str, Any]:
        """What else the next step depends on, as a checkpoint's JSON has it.

        Random numbers are addressed, not drawn one after the other: their position is the seed and the step.
        """
        settings = self._config.training
        return {
            "random": {"seed": settings.seed, "step": self.steps},
            "data": {"split": "train", "next_sequence": self._indices()[0]},
            "optimizer": {"name": settings.optimizer, "steps": self._optimizer.steps},
            "schedule": {"name": settings.schedule, "step": self.steps, "steps": settings.steps},
        }

    def checkpoint(self, ledger: Position, configuration: str, score: float | None = None) -> Checkpoint:
        """Return all that `restore` needs; `ledger`, `configuration` and `score` as `Checkpoint` has them."""
        weights = to_numpy(self.model, self.model.parameters)
        moments = {kind: to_numpy(self.model, named) for kind, named in self._optimizer.moments.items()}
        return Checkpoint(self.steps, weights, moments, self.position, ledger, configuration, score)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go where the trainer stood that made the checkpoint: every step from there has the same bits.

        Raises:
            CheckpointError, ValueError: its configuration was another one.
        """
        to_device = self.model.backend.asarray
        moments = {kind: _each(to_device, named) for kind, named in checkpoint.moments.items()}
        assign_parameters(self.model.parameters, dict(checkpoint.weights), to_device)
        taken = checkpoint.position["optimizer"]["steps"]
        restore(self._optimizer, taken, moments, self.model.parameters)
        self.steps = checkpoint.step
        if self.position != checkpoint.position:
            raise CheckpointError(f"the checkpoint stands at {checkpoint.position}; this run at {self.position}")


def environment(backend: Backend) -> dict[str, Any]:
    """Return what the numbers of a run may depend on."""
    prefixes = ("CONVLSTM_", "OPENBLAS_", "OMP_")
    return {
        "backend": backend.name,
        "backend_description": backend.description,
        **machine(("convlstm", "numpy", "chainer", "scikit-learn", "cupy-cuda12x", "cupy-cuda13x", "safetensors")),
        "variables": {name: value for name, value in os.environ.items() if name.startswith(prefixes)},
    }


def to_numpy(model: FrameModel, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return a model's arrays on the host."""
    return _each(model.backend.to_numpy, arrays)


def _each(convert: Callable[[Array], Array], arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: convert(array) for name, array in arrays.items()}
