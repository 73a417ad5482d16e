"""From a configuration to a run directory: make the model, train it step by step, score it on the test split.

    DIR/config.toml          every setting, resolved
    DIR/environment.json     what the numbers may depend on
    DIR/ledger.jsonl         one line a step, see ledger.py
    DIR/weights.safetensors  the parameters after the last step
    DIR/scores.json          test error beside that of repeating the last frame
    DIR/forecast.png         forecasts above the truth

Files but the ledger, which grows by whole lines, appear whole or not at all.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlstm.backends import Array, Backend
from convlstm.clipping import CLIPPINGS
from convlstm.config import Config, config_as_toml
from convlstm.determinism.forbid import forbid_uninitialised
from convlstm.environment import machine
from convlstm.from_config import make_model, make_optimizer, sequences
from convlstm.ledger import Ledger
from convlstm.model import NextFrame
from convlstm.parameter_files import save_parameters
from convlstm.report import forecast_figure
from convlstm.run_directory import RunDirectoryError
from convlstm.schedules import SCHEDULES
from convlstm.whole_files import write_whole

Record = Callable[[float, dict[str, Array], dict[str, Array]], object]  # takes loss, gradients, weights

SEQUENCES_SHOWN = 3


class NotFinite(ArithmeticError):
    """Training met an infinity or a NaN; the message names the step."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    steps: int
    interrupted: bool
    scores: dict[str, Any] | None  # as scores.json; None where the run was interrupted
    no_forecast: str | None = None  # what a finished run lacks to draw forecast.png, and what mends it


def train(config: Config, directory: Path, *, backend: str, report: Callable[[int, float], None]) -> Outcome:
    """Train and fill the run directory.

    Args:
        config: the run.
        directory: from `make_run_directory`.
        backend: see `get_backend`.
        report: called after each step with the number of steps done and the step's loss.

    Raises:
        NotFinite: a loss, a weight or the forecast was not finite; the last weights that were are saved.
        RunDirectoryError: a file could not be written, as on a full disk; those that are there are whole.
        BackendUnavailable, ValueError, ModuleNotFoundError: as `check_config`; nothing has been trained.
    """
    try:
        with forbid_uninitialised():
            return _train(config, directory, backend, report)
    except BrokenPipeError:  # of whoever reads the reports, not of a file
        raise
    except OSError as error:
        raise RunDirectoryError(f"cannot write to {error.filename or directory}: {error.strerror or error}") from error


def _train(config: Config, directory: Path, backend: str, report: Callable[[int, float], None]) -> Outcome:
    trainer = Trainer(config, backend)
    model = trainer.model
    write_whole(directory / "config.toml", config_as_toml(config).encode())
    write_whole(directory / "environment.json", (json.dumps(environment(model.backend), indent=1) + "\n").encode())
    with closing(Ledger(directory / "ledger.jsonl")) as ledger, _without_overflow_warnings():
        try:
            with _interruptible() as interrupted:
                while ledger.steps < config.training.steps and not interrupted():
                    loss = trainer.step(ledger.append)
                    report(ledger.steps, loss)
        finally:
            save_parameters(directory / "weights.safetensors", to_numpy(model, model.parameters))
        if interrupted():
            return Outcome(ledger.steps, interrupted=True, scores=None)
        scores = evaluate(config, model)
    write_whole(directory / "scores.json", (json.dumps(scores, indent=1) + "\n").encode())
    try:
        draw_forecast(config, model, directory / "forecast.png")
    except ModuleNotFoundError as error:  # matplotlib is an extra; a run is complete without a picture
        return Outcome(ledger.steps, interrupted=False, scores=scores, no_forecast=str(error))
    return Outcome(ledger.steps, interrupted=False, scores=scores)


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
    """

    def __init__(self, config: Config, backend: str) -> None:
        """Take the model of `make_model`; arguments and errors as there."""
        self.model = make_model(config, backend)
        self._config = config
        self._optimizer = make_optimizer(config)
        self._next = 0

    def loss_and_gradients(self) -> tuple[float, dict[str, Array]]:
        """Return what the next step computes before it moves the weights.

        Raises:
            NotFinite: the loss is not.
        """
        settings, step = self._config.training, self._next
        first = step * settings.batch_size
        frames = sequences(self._config, self.model, "train", range(first, first + settings.batch_size))
        loss, gradients = self.model.loss_and_gradients(frames, self._config.data.context, settings.loss)
        if not np.isfinite(loss):
            raise NotFinite(
                f"loss is {loss} at step {step}; the weights before it are saved; try a smaller learning_rate"
            )
        return loss, gradients

    def step(self, record: Record) -> float:
        """Take the next step, hand loss, gradients and new weights to `record`, and return the loss.

        If `record` fails, as on a full disk, the weights stay those before the step.

        Raises:
            NotFinite: the loss, or a weight after the step, is not.
        """
        settings, step = self._config.training, self._next
        clip, schedule = CLIPPINGS[settings.clipping], SCHEDULES[settings.schedule]
        loss, gradients = self.loss_and_gradients()
        before = dict(self.model.parameters)
        self._optimizer.learning_rate = settings.learning_rate * schedule(step, settings.steps)
        try:
            self._optimizer.step(self.model.parameters, clip(gradients))
            _check_finite(self.model.parameters, step)
            record(loss, to_numpy(self.model, gradients), to_numpy(self.model, self.model.parameters))
        except BaseException:  # a second Ctrl-C, too
            self.model.parameters.update(before)
            raise
        self._next += 1
        return loss


def _check_finite(weights: dict[str, Array], step: int) -> None:
    for name, w in weights.items():
        if not np.isfinite(w).all():
            raise NotFinite(f"step {step} makes {name} infinite or NaN; it is taken back; try a smaller learning_rate")


def evaluate(config: Config, model: NextFrame) -> dict[str, Any]:
    """Return mean squared errors on the test split, per pixel with brightness in 0 … 1: the model's and persistence's.

    Raises:
        NotFinite: a forecast is not finite.
    """
    shown, forecast, truth = forecast_test(config, model, config.data.test_sequences)
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


def forecast_test(config: Config, model: NextFrame, count: int) -> tuple[Array, Array, Array]:
    """Return (shown, forecast, truth) of the first `count` test sequences, NumPy arrays (count, T, 1, size, size)."""
    frames = sequences(config, model, "test", range(count))
    context = config.data.context
    forecast = model.backend.to_numpy(model.predict(frames[:, :context], config.data.horizon))
    shown, truth = np.split(model.backend.to_numpy(frames), [context], axis=1)
    return shown, forecast, truth


def draw_forecast(config: Config, model: NextFrame, path: Path) -> None:
    """Draw the first test sequences: what was shown, and the forecast above the truth."""
    shown, forecast, truth = forecast_test(config, model, min(SEQUENCES_SHOWN, config.data.test_sequences))
    forecast_figure(path, shown[:, :, 0], forecast[:, :, 0], truth[:, :, 0])


def environment(backend: Backend) -> dict[str, Any]:
    """Return what the numbers of a run may depend on."""
    prefixes = ("CONVLSTM_", "OPENBLAS_", "OMP_")
    return {
        "backend": backend.name,
        "backend_description": backend.description,
        **machine(("convlstm", "numpy", "chainer", "scikit-learn", "cupy-cuda12x", "cupy-cuda13x", "safetensors")),
        "variables": {name: value for name, value in os.environ.items() if name.startswith(prefixes)},
    }


def to_numpy(model: NextFrame, arrays: dict[str, Array]) -> dict[str, Array]:
    """Return a model's arrays on the host."""
    return {name: model.backend.to_numpy(array) for name, array in arrays.items()}


@contextmanager
def _without_overflow_warnings() -> Iterator[None]:
    """Silence NumPy's warnings of what `NotFinite` says once; np.errstate would not reach the worker threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(overflow|invalid value|divide by zero) encountered", RuntimeWarning)
        yield


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C only be noted, so that a step is never left half done; a second one raises as usual.

    Off the main thread, where Python allows no handlers, and in a job whose shell has it ignored, Ctrl-C does what it
    did before.
    """
    seen = False

    def note(number: int, frame: object) -> None:
        nonlocal seen
        seen = True
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or before in (signal.SIG_IGN, None):  # None: a handler that is not Python's
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, before)
