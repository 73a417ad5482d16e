"""From a configuration to a run directory: make the model, train it step by step, score it on the test split.

    DIR/config.toml          every setting, resolved
    DIR/environment.json     what the numbers may depend on
    DIR/ledger.jsonl         one line a step, see ledger.py
    DIR/weights.safetensors  the parameters after the last step
    DIR/scores.json          test error beside that of repeating the last frame
    DIR/forecast.png         forecasts above the truth
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlstm.backends import Array, Backend
from convlstm.clipping import CLIPPINGS
from convlstm.config import Config, config_as_toml
from convlstm.data.digits import Split, digit_sequences
from convlstm.ledger import Ledger
from convlstm.model import NextFrame
from convlstm.optimizers import SGD, Adam, Optimizer
from convlstm.parameter_files import save_parameters
from convlstm.report import forecast_figure

RUN_FILES = ("config.toml", "environment.json", "ledger.jsonl", "weights.safetensors", "scores.json", "forecast.png")
SEQUENCES_SHOWN = 3


class RunDirectoryError(ValueError):
    """A run directory that cannot be used; the message names it."""


class NotFinite(ArithmeticError):
    """Training met a loss that is not a number; the message names the step."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    steps: int
    interrupted: bool
    scores: dict[str, Any] | None  # as scores.json; None where the run was interrupted


def train(config: Config, directory: Path, *, backend: str, report: Callable[[int, float], None]) -> Outcome:
    """Train and fill the run directory.

    Args:
        config: the run.
        directory: from `make_run_directory`.
        backend: see `get_backend`.
        report: called after each step with the number of steps done and the step's loss.

    Raises:
        NotFinite: a loss was not finite; the weights before that step are saved.
        BackendUnavailable, ValueError: the backend or a setting; nothing has been trained.
    """
    model = make_model(config, backend)
    _write(directory / "config.toml", config_as_toml(config))
    _write(directory / "environment.json", json.dumps(environment(model.backend), indent=1) + "\n")
    ledger = Ledger(directory / "ledger.jsonl")
    try:
        with _interruptible() as interrupted:
            _steps(config, model, ledger, report, interrupted)
    finally:
        ledger.close()
        save_parameters(directory / "weights.safetensors", _to_numpy(model, model.parameters))
    if interrupted():
        return Outcome(ledger.steps, interrupted=True, scores=None)
    scores = evaluate(config, model)
    _write(directory / "scores.json", json.dumps(scores, indent=1) + "\n")
    draw_forecast(config, model, directory / "forecast.png")
    return Outcome(ledger.steps, interrupted=False, scores=scores)


def _steps(
    config: Config, model: NextFrame, ledger: Ledger, report: Callable[[int, float], None], interrupted: Callable[[], bool]
) -> None:
    """The training loop."""
    settings = config.training
    optimizer = make_optimizer(config)
    clip = CLIPPINGS[settings.clipping]
    for step in range(settings.steps):
        first = step * settings.batch_size
        frames = sequences(config, model, "train", range(first, first + settings.batch_size))
        loss, gradients = model.loss_and_gradients(frames, config.data.context, settings.loss)
        if not np.isfinite(loss):
            raise NotFinite(f"loss is {loss} at step {step}; the weights before it are saved; try a smaller learning_rate")
        optimizer.step(model.parameters, clip(gradients))
        ledger.append(loss, _to_numpy(model, gradients), _to_numpy(model, model.parameters))
        report(step + 1, loss)
        if interrupted():
            return


def evaluate(config: Config, model: NextFrame) -> dict[str, Any]:
    """Return mean squared errors on the test split, per pixel with brightness in 0 … 1: the model's and persistence's."""
    frames = sequences(config, model, "test", range(config.data.test_sequences))
    context = config.data.context
    forecast = model.backend.to_numpy(model.predict(frames[:, :context], config.data.horizon))
    shown, truth = np.split(model.backend.to_numpy(frames), [context], axis=1)
    errors = {"model": (forecast - truth) ** 2, "repeat_last_frame": (shown[:, -1:] - truth) ** 2}
    return {
        "test_sequences": len(truth),
        "mse": {name: float(error.mean(dtype=np.float64)) for name, error in errors.items()},
        "mse_by_lead_time": {
            name: error.mean(axis=(0, 2, 3, 4), dtype=np.float64).tolist() for name, error in errors.items()
        },
    }


def draw_forecast(config: Config, model: NextFrame, path: Path) -> None:
    """Draw the first test sequences: what was shown, and the forecast above the truth."""
    frames = sequences(config, model, "test", range(min(SEQUENCES_SHOWN, config.data.test_sequences)))
    context = config.data.context
    forecast = model.backend.to_numpy(model.predict(frames[:, :context], config.data.horizon))
    shown, truth = np.split(model.backend.to_numpy(frames), [context], axis=1)
    forecast_figure(path, shown[:, :, 0], forecast[:, :, 0], truth[:, :, 0])


def make_model(config: Config, backend: str) -> NextFrame:
    """Return the model with its initial parameters."""
    model, side = config.model, config.data.size // config.model.patch
    return NextFrame(
        1, model.hidden_channels, model.kernel_size, patch=model.patch, output=model.output, bias=model.bias,
        peephole=model.peephole, spatial_shape=(side, side), backend=backend, seed=config.training.seed,
    )  # fmt: skip


def make_optimizer(config: Config) -> Optimizer:
    """Return the optimizer before its first step."""
    return {"sgd": SGD, "adam": Adam}[config.training.optimizer](config.training.learning_rate)


def sequences(config: Config, model: NextFrame, split: Split, indices: range) -> Array:
    """Return whole sequences on the model's backend, (N, context + horizon, 1, size, size)."""
    data = config.data
    host = digit_sequences(
        split, indices, seed=config.training.seed, frames=data.context + data.horizon, size=data.size
    )
    return model.backend.asarray(host)


def make_run_directory(directory: Path | None, preset: str, *, overwrite: bool) -> Path:
    """Make the directory and return it; without a name the first free of runs/PRESET-1, runs/PRESET-2, …

    Raises:
        RunDirectoryError: it exists and `overwrite` was not said, or what is there is not a run, or it cannot be made.
    """
    try:
        if directory is None:
            return _first_free(Path("runs"), preset)
        if directory.is_dir() and any(directory.iterdir()):
            _clear(directory, overwrite)
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"cannot use {error.filename or directory} as a run directory: {error.strerror}") from None
    return directory


def _first_free(parent: Path, preset: str) -> Path:
    number = 1
    while True:
        directory = parent / f"{preset}-{number}"
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            number += 1


def _clear(directory: Path, overwrite: bool) -> None:
    """Delete an earlier run's files, and nothing else, if told to."""
    if not overwrite:
        raise RunDirectoryError(f"{directory} exists; name another --out, or say --overwrite to replace the run in it")
    strangers = sorted(path.name for path in directory.iterdir() if path.name not in RUN_FILES)
    if strangers:
        raise RunDirectoryError(f"{directory} holds {strangers[0]}, which is no part of a run; it is left as it is")
    shutil.rmtree(directory)


def environment(backend: Backend) -> dict[str, Any]:
    """Return what the numbers of a run may depend on."""
    packages = ("convlstm", "numpy", "chainer", "scikit-learn", "cupy-cuda12x", "cupy-cuda13x", "safetensors")
    return {
        "backend": backend.name,
        "backend_description": backend.description,
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name))},
        "variables": {name: value for name, value in os.environ.items() if name.startswith(("CONVLSTM_", "OPENBLAS_", "OMP_"))},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _to_numpy(model: NextFrame, arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: model.backend.to_numpy(array) for name, array in arrays.items()}


def _write(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(beside, path)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C only be noted, so that a step is never left half done; a second one raises as usual.

    Off the main thread, where Python allows no handlers, Ctrl-C does what it did before.
    """
    seen = False

    def note(number: int, frame: object) -> None:
        nonlocal seen
        seen = True
        signal.signal(signal.SIGINT, before)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:
        yield lambda: False
        return
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, before)
