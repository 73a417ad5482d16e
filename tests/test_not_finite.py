"""Infinities and NaNs planted in data, loss, gradients and weights: each is stopped at, and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm import sources, training
from convlstm.backends import Array
from convlstm.checkpoint import saved_steps
from convlstm.config import Config
from convlstm.data.digits import digit_sequences
from convlstm.from_config import make_model
from convlstm.ledger import read_ledger
from convlstm.next_frame import NextFrame
from convlstm.not_finite import NotFinite, check_frames, check_results, check_weights, first_not_finite
from convlstm.optimizers import Adam
from convlstm.parameter_files import load_parameters
from convlstm.scoring import validation_mse
from convlstm.trainer import Trainer
from convlstm.training import Resumption, train
from tests.cupy_stand_in import stand_in_for_cupy
from tests.runs import TINY, changed

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")

CONFIG = changed(TINY, steps=4, batch_size=16, checkpoint_every=1, validation_sequences=0)
STEP, SEQUENCE = 2, 39  # the batch of step 2 is 32 … 47; the model starts from the mean of 0 … 31
BAD = [np.nan, np.inf, -np.inf]


# The checks by themselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", BAD)
def test_the_first_number_that_is_none_is_named(value: float) -> None:
    frames = np.zeros((3, 5, 1, 4, 4), np.float32)
    check_frames("data", frames, range(6, 9))
    frames[1, 2, 0, 3, 1] = frames[2, 0, 0, 0, 0] = value
    place = "frame 2, channel 0, row 3, column 1"
    with pytest.raises(NotFinite, match=rf"^data: sequence 7 of split train holds {value} at {place}$"):
        check_frames("data", frames, range(6, 9))


def test_the_first_array_is_named() -> None:
    sound, bad = np.ones(3, np.float32), np.array([1, np.nan], np.float32)
    assert first_not_finite({"a": sound, "b": sound}) is None
    assert first_not_finite({"a": sound, "b": bad, "c": bad}) == "b"
    assert first_not_finite({"none": np.zeros(0)}) is None


def test_what_is_finite_asks_for_nothing_more() -> None:
    again: list[int] = []

    def alone(n: int) -> tuple[float, dict[str, Array]]:
        again.append(n)
        return 0.5, {"W": np.ones(2)}

    check_results(0.5, {"W": np.ones(2)}, range(3), 0, alone)
    check_weights({"W": np.ones(2)}, range(3), 0)
    assert again == []


def test_what_no_sequence_does_alone_is_the_whole_batchs() -> None:
    with pytest.raises(NotFinite, match=r"^loss is inf at step 2, from sequences 6 … 8 of split train together; the"):
        check_results(np.inf, {}, range(6, 9), 2, lambda n: (1.0, {}))
    with pytest.raises(NotFinite, match="with sequence 4 of split train; it is taken back"):
        check_weights({"W": np.array([np.inf])}, range(4, 5), 4)


# A run that meets one -------------------------------------------------------------------------------------------------


def spoilt_data(patch: pytest.MonkeyPatch, value: float) -> None:
    def spoilt(split: Any, indices: Any, **named: Any) -> Any:
        frames = digit_sequences(split, indices, **named)
        for n, index in enumerate(indices):
            if (split, index) == ("train", SEQUENCE):
                frames[n, 1, 0, 2, 3] = value
        return frames

    patch.setattr(sources, "digit_sequences", spoilt)


def spoilt_results(spoil: Callable[[float, dict[str, Array]], float]) -> Callable[[pytest.MonkeyPatch, float], None]:
    """Let `spoil` change loss and gradients wherever the one sequence is among those that are computed."""

    def plant(patch: pytest.MonkeyPatch, value: float) -> None:
        bad = digit_sequences("train", [SEQUENCE], seed=5, frames=5, size=16)[0]
        compute = NextFrame.loss_and_gradients

        def spoilt(model: NextFrame, frames: Array, *arguments: Any, **named: Any) -> tuple[float, dict[str, Array]]:
            loss, gradients = compute(model, frames, *arguments, **named)
            if any(np.array_equal(one, bad) for one in frames):
                loss = loss + spoil(value, gradients)
            return loss, gradients

        patch.setattr(NextFrame, "loss_and_gradients", spoilt)

    return plant


def one_gradient(value: float, gradients: dict[str, Array]) -> float:
    gradients["readout.W"] = gradients["readout.W"].copy()
    gradients["readout.W"][1, 2, 0, 0] = value
    return 0.0


def spoilt_weight(patch: pytest.MonkeyPatch, value: float) -> None:
    move = Adam.step

    def spoilt(optimizer: Adam, parameters: dict[str, Array], gradients: Any) -> None:
        move(optimizer, parameters, gradients)
        if optimizer.steps == STEP + 1:
            parameters["layers.0.W_h"] = parameters["layers.0.W_h"] * np.float32(value)

    patch.setattr(Adam, "step", spoilt)


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch, float], None], str]] = {
    "data": (
        spoilt_data,
        r"data of step 2: sequence 39 of split train holds {} at frame 1, channel 0, row 2, column 3$",
    ),
    "loss": (
        spoilt_results(lambda value, gradients: value),
        r"loss is {} at step 2, from sequence 39 of split train; the weights before it are saved; try a smaller",
    ),
    "gradient": (
        spoilt_results(one_gradient),
        r"gradient to readout\.W is infinite or NaN at step 2, from sequence 39 of split train; the weights before it",
    ),
    "weight": (
        spoilt_weight,
        r"step 2 makes layers\.0\.W_h infinite or NaN, with sequences 32 … 47 of split train; it is taken back",
    ),
}


def begun(directory: Path, config: Config) -> Path:
    directory.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "draw_forecast", lambda config, model, path, source: None)
        train(config, directory, backend="numpy", report=lambda done, loss: None)
    return directory


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begun(tmp_path_factory.mktemp("sound") / "run", CONFIG)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("fault", FAULTS)
def test_it_stops_there_and_keeps_what_was_good(fault: str, value: float, sound: Path, tmp_path: Path) -> None:
    """And without the fault the run goes on from there to the end of one that never met it."""
    plant, message = FAULTS[fault]
    directory = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        plant(patch, value)
        with pytest.raises(NotFinite, match="^" + message.format(value)):
            begun(directory, CONFIG)
    assert read_ledger(directory / "ledger.jsonl") == read_ledger(sound / "ledger.jsonl")[:STEP]
    assert saved_steps(directory / "checkpoints") == [1, STEP]
    trainer = Trainer(CONFIG, "numpy")
    for _ in range(STEP):
        trainer.step(lambda *results: None)
    saved = load_parameters(directory / "weights.safetensors")
    assert {n: w.tobytes() for n, w in saved.items()} == {n: w.tobytes() for n, w in trainer.model.parameters.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "draw_forecast", lambda config, model, path, source: None)
        resumption = Resumption(say=lambda text: None)
        train(CONFIG, directory, backend="numpy", report=lambda done, loss: None, resumption=resumption)
    for name in ("ledger.jsonl", "weights.safetensors", "scores.json"):
        assert (directory / name).read_bytes() == (sound / name).read_bytes()


def test_a_full_disk_does_not_hide_it(tmp_path: Path) -> None:
    plant, message = FAULTS["loss"]

    def full(file: Path, weights: object) -> None:
        raise OSError(28, "No space left on device", str(file))

    with pytest.MonkeyPatch.context() as patch:
        plant(patch, np.nan)
        patch.setattr(training, "save_parameters", full)
        both = "^" + message.format("nan") + r".*; but .*weights\.safetensors could not be written: No space left on"
        with pytest.raises(NotFinite, match=both):
            begun(tmp_path / "run", CONFIG)


def test_data_on_a_device_is_checked_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in_for_cupy():
        spoilt_data(monkeypatch, np.nan)
        trainer = Trainer(changed(CONFIG, batch_size=40), "cupy")
        with pytest.raises(
            NotFinite, match=r"^data of step 0: sequence 39 of split train holds nan at frame 1, channel 0"
        ):
            trainer.step(lambda *results: None)


def test_a_step_that_fails_leaves_weights_and_optimizer_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whoever catches the error may go on: the next try of the same step has the same bits."""
    trainer, untouched = Trainer(CONFIG, "numpy"), Trainer(CONFIG, "numpy")

    def fail(*results: object) -> None:
        raise OSError("full")

    kept: list[Any] = []
    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            trainer.step(fail)
        for one in (trainer, untouched):
            one.step(lambda *results: kept.append(results))
    for one, other in zip(kept[::2], kept[1::2], strict=True):
        assert one[0] == other[0]
        assert {n: w.tobytes() for n, w in one[2].items()} == {n: w.tobytes() for n, w in other[2].items()}


def test_a_validation_error_that_is_not_finite_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, data=replace(CONFIG.data, validation_sequences=1))
    model = make_model(config, "numpy")
    assert validation_mse(config, model) is not None
    monkeypatch.setattr(model, "predict", lambda frames, horizon: np.full((1, 3, 1, 16, 16), np.nan, np.float32))
    assert validation_mse(config, model) is None
