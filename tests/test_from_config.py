"""What a configuration stands for: every setting is read, and read as what it is called."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from convlstm import from_config, sources, training
from convlstm.backends import Array
from convlstm.clipping import CLIPPINGS
from convlstm.config import Config, Data, Model, Training, overridden
from convlstm.data import moving_mnist
from convlstm.data.digits import digit_sequences
from convlstm.data.source import Made
from convlstm.dropout import Draws
from convlstm.from_config import (
    clip,
    learning_rate,
    make_model,
    make_optimizer,
    shown_frames,
    step_arguments,
    untrained_model,
)
from convlstm.optimizers import SGD, Adam, AdamW, Momentum, RMSProp
from convlstm.randomness import generator
from convlstm.schedules import SCHEDULES, learning_rate_factor
from convlstm.settings import settings
from convlstm.sources import open_source

# Optimizer, learning rate, clipping -----------------------------------------------------------------------------------

OPTIMIZERS: dict[str, tuple[type[Any], dict[str, float]]] = {
    "sgd": (SGD, {}),
    "momentum": (Momentum, {"momentum": 0.5}),
    "rmsprop": (RMSProp, {"decay": 0.6, "epsilon": 0.1}),
    "adam": (Adam, {"beta1": 0.7, "beta2": 0.8, "epsilon": 0.2}),
    "adamw": (AdamW, {"beta1": 0.75, "beta2": 0.85, "epsilon": 0.3, "weight_decay": 0.4}),
}


def configured(**training: Any) -> Config:
    return Config(training=Training(**training))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_has_the_settings_of_the_configuration(name: str) -> None:
    kind, given = OPTIMIZERS[name]
    made = make_optimizer(configured(optimizer=name, learning_rate=0.25, **given))
    assert type(made) is kind
    assert {setting: getattr(made, setting) for setting in given} == given
    assert made.learning_rate == 0.25


def test_every_optimizer_that_can_be_configured_is_tested_and_made() -> None:
    assert set(OPTIMIZERS) == set(from_config.OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_configured_optimizer_has_the_defaults_that_it_has_in_python(name: str) -> None:
    """One default for each, wherever it is asked for."""
    made, default = make_optimizer(configured(optimizer=name, learning_rate=0.1)), OPTIMIZERS[name][0](0.1)
    assert vars(made) == vars(default)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_is_the_schedules_share_of_the_configured_one(schedule: Any) -> None:
    given: dict[str, Any] = {"step_every": 2, "step_factor": 0.5} if schedule == "step" else {}
    config = configured(schedule=schedule, steps=9, warmup_steps=3, learning_rate=8.0, **given)
    rates = [learning_rate(config, step) for step in range(9)]
    assert rates == [8 * learning_rate_factor(schedule, step, 9, warmup_steps=3, **given) for step in range(9)]
    assert rates[0] < rates[2]  # it warms up


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_gradients_are_clipped_at_what_is_configured(clipping: Any) -> None:
    gradients = {"a": np.array([3.0, 0.1]), "b": np.array([0.2])}
    limit = {} if clipping == "none" else {"clip_at": 0.15}
    clipped = clip(configured(clipping=clipping, **limit), gradients)
    expected = CLIPPINGS[clipping](gradients, 0.15)
    assert {name: g.tobytes() for name, g in clipped.items()} == {name: g.tobytes() for name, g in expected.items()}


# What a step computes -------------------------------------------------------------------------------------------------


def test_a_step_is_given_what_is_configured() -> None:
    config = Config(Data(context=2, horizon=3), training=Training(seed=7, loss="mae", truncate=2, recompute=3))
    assert step_arguments(config, range(8, 12), 2) == {
        "context": 2, "loss": "mae", "truncate": 2, "recompute": 3, "draws": Draws(seed=7, step=2, first=8),
    }  # fmt: skip
    default = step_arguments(Config(), range(4), 0)
    assert (default["truncate"], default["recompute"]) == (None, None)
    assert "truncate" not in step_arguments(Config(model=Model(kind="encoder-forecaster")), range(4), 0)


def test_a_step_is_told_which_elements_count() -> None:
    valid = np.zeros((4, 10, 1, 32, 32), bool)
    for config in (Config(), configured(sampling_steps=9)):
        assert step_arguments(config, range(4), 0, valid)["valid"] is valid
        assert "valid" not in step_arguments(config, range(4), 0)


def test_frames_that_are_skipped_may_be_shown_too() -> None:
    config = Config(Data(context=2, gap=3, horizon=4), training=Training(sampling_steps=9))
    assert shown_frames(config, range(64), 0).shape == (64, 8)
    assert shown_frames(config, range(64), 0).all()


def test_true_frames_after_the_context_become_rarer_and_end() -> None:
    config = Config(Data(context=3, horizon=9), training=Training(sampling_steps=4))
    shares = []
    for step in range(4):
        arguments = step_arguments(config, range(64), step)
        assert "context" not in arguments
        assert arguments["shown"].shape == (64, 11)
        assert arguments["shown"][:, :3].all()
        shares.append(arguments["shown"][:, 3:].mean())
    assert shares == pytest.approx([1, 0.75, 0.5, 0.25], abs=0.1)
    assert shares[0] == 1
    after = step_arguments(config, range(64), 4)
    assert (after["context"], "shown" in after) == (3, False)


def test_a_sequence_is_shown_the_same_frames_in_any_batch_and_others_at_other_steps() -> None:
    config = Config(Data(context=1, horizon=9), training=Training(sampling_steps=9))
    whole, part = shown_frames(config, range(8, 16), 4), shown_frames(config, range(10, 12), 4)
    assert (whole[2:4] == part).all()
    assert not (shown_frames(config, range(8, 16), 5) == whole).all()
    assert not (whole[0] == whole[1:]).all()
    other = overridden(config, {"training.seed": 1})
    assert not (shown_frames(other, range(8, 16), 4) == whole).all()


# The model ------------------------------------------------------------------------------------------------------------

TINY = Config(Data(size=16), Model(hidden_channels=(2,), kernel_size=3, patch=4), Training(seed=3))


def test_a_drawn_model_first_predicts_the_mean_brightness_of_its_training_frames() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    made = make_model(TINY, "numpy")
    frames = open_source(TINY).batch("train", range(from_config.SEQUENCES_FOR_MEAN)).frames
    b = made.parameters["readout.b"]
    assert 1 / (1 + np.exp(-b)) == pytest.approx(np.full(16, frames.mean()), rel=1e-5)
    assert not untrained_model(TINY, "numpy").parameters["readout.b"].any()


def source_of(made: Callable[[int], Array], gap: range) -> Made:
    """Sequences of one brightness a frame, from the number of sequences to (N, T)."""

    def make(split: str, indices: range) -> Array:
        return np.broadcast_to(made(len(indices))[:, :, None, None, None], (len(indices), 4, 1, 16, 16)).copy()

    return Made("made", make, 16, {"validation": 0, "test": 1}, gap)


@pytest.mark.parametrize(("gap", "mean"), [(range(0), 0.375), (range(2, 3), 0.25)], ids=["all", "without a gap"])
def test_only_elements_that_count_are_in_the_mean(gap: range, mean: float) -> None:
    source = source_of(lambda N: np.tile(np.array([0.25, 0.25, 0.75, 0.25], np.float32), (N, 1)), gap)
    b = make_model(TINY, "numpy", source).parameters["readout.b"]
    assert 1 / (1 + np.exp(-b)) == pytest.approx(np.full(16, mean), rel=1e-5)


def test_a_model_of_changes_first_predicts_none() -> None:
    config = Config(TINY.data, replace(TINY.model, output="linear", residual=True), Training(loss="mse"))
    source = source_of(lambda N: np.full((N, 4), 0.25, np.float32), range(0))
    assert not make_model(config, "numpy", source).parameters["readout.b"].any()
    plain = overridden(config, {"model.residual": False})
    assert make_model(plain, "numpy", source).parameters["readout.b"] == pytest.approx(np.full(16, 0.25))


def test_a_model_has_the_channels_and_the_size_of_its_frames() -> None:
    config = overridden(TINY, {"model.bias": "pixel"})
    made = untrained_model(config, "numpy", shape=(3, 8, 20)).parameters
    assert made["layers.0.W_x"].shape[1] == 3 * 4 * 4
    assert made["layers.0.b"].shape[-2:] == (2, 5)
    assert made["readout.b"].shape == (3 * 4 * 4,)


def test_a_model_without_read_out_bias_starts_as_it_is_drawn() -> None:
    config = overridden(TINY, {"model.readout_bias": False})
    assert "readout.b" not in make_model(config, "numpy").parameters


# Every setting does something -----------------------------------------------------------------------------------------

# A run so short and steep that even clipping matters.
BASE = Config(
    Data(size=16, context=2, horizon=2, test_sequences=2, validation_sequences=2),
    Model(hidden_channels=(2,), kernel_size=3, patch=4, output="linear"),
    Training(
        steps=3, batch_size=2, loss="mse", optimizer="sgd", learning_rate=1.0, schedule="constant", clipping="none",
        checkpoint_every=1, keep_checkpoints=2,
    ),
)  # fmt: skip
# In the folder in which all run: the weights of a run of another seed, a test file as Toronto's, and two folders each
# with files like MNIST's and a series of frames, in which each source finds its own.
WEIGHTS, TORONTO, MINE, OTHER = "given/weights.safetensors", "toronto.npy", "mine", "other"
# For every setting another value, as TOML has it.
CHANGES: dict[str, object] = {
    "data.source": "moving-mnist",
    "data.path": OTHER,
    "data.variable": "warmth",
    "data.axes": "TWH",
    "data.missing": 7.0,
    "data.scaling": "none",
    "data.rule": "shi2015",
    "data.test_file": TORONTO,
    "data.size": 36,
    "data.context": 1,
    "data.gap": 1,
    "data.horizon": 1,
    "data.stride": 2,
    "data.validation_frames": 6,
    "data.test_frames": 12,
    "data.test_sequences": 1,
    "data.validation_sequences": 1,
    "model.kind": "encoder-forecaster",
    "model.hidden_channels": [2, 2],
    "model.kernel_size": 1,
    "model.recurrent_kernel_size": 1,
    "model.patch": 2,
    "model.bias": "pixel",
    "model.forget_bias": -1.0,
    "model.peephole": "channel",
    "model.layer_norm": "channel",
    "model.dropout": 0.5,
    "model.recurrent_dropout": 0.5,
    "model.readout_bias": False,
    "model.residual": True,
    "model.output": "sigmoid",
    "model.weights": WEIGHTS,
    "training.steps": 2,
    "training.batch_size": 1,
    "training.seed": 1,
    "training.loss": "mae",
    "training.optimizer": "adam",
    "training.learning_rate": 0.5,
    "training.momentum": 0.5,
    "training.decay": 0.5,
    "training.beta1": 0.5,
    "training.beta2": 0.5,
    "training.epsilon": 0.5,
    "training.weight_decay": 0.5,
    "training.schedule": "linear",
    "training.warmup_steps": 2,
    "training.step_every": 1,
    "training.step_factor": 0.5,
    "training.clipping": "normalise",
    "training.clip_at": 1e-6,
    "training.sampling_steps": 2,
    "training.truncate": 1,
    "training.recompute": 2,
    "training.checkpoint_every": 3,
    "training.keep_checkpoints": 1,
}
# What each source needs.
NEEDS: dict[object, dict[str, object]] = {
    "digits": {},
    "moving-mnist": {"data.path": MINE, "data.size": 32},
    "frames": {"data.path": MINE, "data.variable": "cold", "data.size": Data.size},
}
# What else has to hold for it to matter, beside what `read_where` names, and what changes along with it.
BESIDE: dict[str, dict[str, object]] = {
    "data.test_file": {"data.size": 64},
    "training.clipping": {"training.learning_rate": 1000.0, "training.batch_size": 1},
    "training.step_factor": {"training.step_every": 1},
}
ALONG: dict[str, dict[str, object]] = {"data.source": NEEDS["moving-mnist"]}
# Where it is seen; all others, in the ledger.
SEEN = {
    "data.test_file": "scores",
    "data.test_sequences": "scores",
    "data.validation_sequences": "validation",
    "training.recompute": "recompute",
    "training.checkpoint_every": "files",
    "training.keep_checkpoints": "files",
}


TINY_TORONTO = (4, 2, 64, 64)  # frames, sequences, pixels


class Seen(NamedTuple):
    """What a run came to."""

    ledger: bytes
    scores: bytes
    files: tuple[str, ...]
    validation: tuple[int, ...]  # sequences that were asked for
    recompute: tuple[object, ...]  # what the model was told, each step


def run(config: Config, directory: Path) -> Seen:
    """Train in a new folder, without a picture, which takes longer than these runs."""
    validation: list[int] = []
    recompute: list[object] = []
    digits: Callable[..., Array] = digit_sequences
    kind = type(untrained_model(config, "numpy"))
    gradients: Callable[..., Any] = kind.loss_and_gradients

    def spied_digits(split: str, indices: range, **named: Any) -> Array:
        validation.extend(indices if split == "validation" else ())
        return digits(split, indices, **named)

    def spied_gradients(*arguments: Any, **named: Any) -> Any:
        recompute.append(named.get("recompute"))
        return gradients(*arguments, **named)

    directory.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "draw_forecast", lambda config, model, path, source: None)
        patch.setattr(sources, "digit_sequences", spied_digits)
        patch.setattr(kind, "loss_and_gradients", spied_gradients)
        training.train(config, directory, backend="numpy", report=lambda done, loss: None)
    files = tuple(sorted(str(path.relative_to(directory)) for path in directory.rglob("*")))
    ledger, scores = (directory / "ledger.jsonl").read_bytes(), (directory / "scores.json").read_bytes()
    return Seen(ledger, scores, files, tuple(validation), tuple(recompute))


def cases() -> list[tuple[str, dict[str, object]]]:
    """Return every setting, once for each way in which it is read, with what has to hold then."""
    found: list[tuple[str, dict[str, object]]] = []
    for table, described in settings():
        name, ways = f"{table}.{described.name}", described.metadata["read_where"]
        beside = BESIDE.get(name, {})
        for condition, allowed in ways.items():
            full = condition if "." in condition else f"{table}.{condition}"
            found += [(name, {full: value, **NEEDS.get(value, {}), **beside}) for value in allowed]
        if not ways:
            found.append((name, beside))
    return found


def write_inputs(folder: Path) -> None:
    """Write what the runs read, small: noise in the form of each kind of file."""
    draws = generator(0, "test/inputs")
    np.save(folder / TORONTO, (256 * draws.random(TINY_TORONTO)).astype(np.uint8))
    for name in (MINE, OTHER):
        made = folder / name
        made.mkdir()
        for file, count in (("train-images-idx3-ubyte", 3000), ("t10k-images-idx3-ubyte", 500)):
            images = (256 * draws.random((count, 28, 28))).astype(np.uint8)
            (made / file).write_bytes(struct.pack(">4i", 0x0803, *images.shape) + images.tobytes())
        cold, warmth = draws.random((2, 24, 16, 16)).astype(np.float32)
        cold[3, 0, 0] = CHANGES["data.missing"]
        np.savez(made / "frames.npz", cold=cold, warmth=warmth)


def label(value: object) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value.values())) if isinstance(value, dict) else ""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Config], Seen]:
    """Return what trains each configuration once, in a folder of this module."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    folder = tmp_path_factory.mktemp("runs")
    write_inputs(folder)
    done: dict[Config, Seen] = {}
    run(overridden(BASE, {"training.seed": 9}), folder / "given")

    def trained(config: Config) -> Seen:
        if config not in done:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                for module in (sources, moving_mnist):
                    patch.setattr(module, "TORONTO_SHAPE", TINY_TORONTO)
                done[config] = run(config, folder / str(len(done)))
        return done[config]

    return trained


def test_every_setting_has_a_change() -> None:
    assert list(CHANGES) == [f"{table}.{described.name}" for table, described in settings()]
    assert {*BESIDE, *ALONG, *SEEN} <= {*CHANGES}


@pytest.mark.parametrize(("name", "beside"), cases(), ids=label)
def test_every_setting_changes_the_run(name: str, beside: dict[str, object], runs: Callable[[Config], Seen]) -> None:
    base = overridden(BASE, beside)
    changed = overridden(base, {name: CHANGES[name], **ALONG.get(name, {})})
    assert changed != base
    where = SEEN.get(name, "ledger")
    assert getattr(runs(changed), where) != getattr(runs(base), where), f"{name} = {CHANGES[name]} changes no {where}"


def test_without_a_change_nothing_differs(runs: Callable[[Config], Seen], tmp_path: Path) -> None:
    assert run(BASE, tmp_path / "again") == runs(BASE)


@pytest.mark.parametrize(("name", "beside"), [case for case in cases() if case[0] in SEEN], ids=label)
def test_what_is_not_about_training_leaves_the_ledger(
    name: str, beside: dict[str, object], runs: Callable[[Config], Seen]
) -> None:
    base = overridden(BASE, beside)
    assert runs(overridden(base, {name: CHANGES[name]})).ledger == runs(base).ledger
