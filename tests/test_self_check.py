"""This project's own gradients under its own check: a few variants, faults planted in them, the command."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from convlstm import NextFrame, cell, check_gradients, cli, from_config, recurrence, self_check
from convlstm.backends import Array, get_backend
from convlstm.backends.geometry import Geometry
from convlstm.config import Config, config_from
from convlstm.dropout import Draws
from convlstm.frame_model import FrameModel, Goal
from convlstm.from_config import untrained_model
from convlstm.parameter_files import save_parameters
from convlstm.parameters import KINDS
from convlstm.self_check import (
    WIDTH,
    Variant,
    check_script,
    check_variants,
    configured_variant,
    layer_variant,
    model_variant,
    stack_variant,
    variants,
)
from tests.numerical import directional_error

SMALL: dict[str, Any] = {"stride": (1, 2), "padding": "valid", "recurrent_kernel_size": (2, 1)}
CONFIG = """
[data]
size = 16
context = 3
horizon = 1
[model]
hidden_channels = [1]
kernel_size = 2
patch = 4
"""


def small_config(**more: dict[str, Any]) -> Config:
    tables: dict[str, dict[str, Any]] = {
        "data": {"size": 16, "context": 3, "horizon": 1},
        "model": {"hidden_channels": [1], "kernel_size": 2, "patch": 4},
        "training": {},
    }
    return config_from({name: {**table, **more.get(name, {})} for name, table in tables.items()})


# What is checked ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every() -> list[Variant]:
    return list(variants("numpy"))


def test_every_gradient_is_there_and_right_in_a_random_direction(every: list[Variant]) -> None:
    """To check them all element by element, as the command does, takes a minute or two."""
    for variant in every:
        found = variant.gradients(variant.parameters)
        assert list(found) == list(variant.parameters), variant.name
        for name, gradient in found.items():
            assert gradient.shape == variant.parameters[name].shape, (variant.name, name)
            assert gradient.dtype == np.float64
            assert np.abs(gradient).max() > 0, (variant.name, name)
        assert directional_error(variant.loss, variant.parameters, found) < 1e-6, variant.name


def test_variants_have_names_of_their_own_that_fit_the_table(every: list[Variant]) -> None:
    names = [variant.name for variant in every]
    assert len(set(names)) == len(names)
    assert all(len(name) <= WIDTH for name in names), max(names, key=len)


def test_variants_cover_every_setting(every: list[Variant]) -> None:
    names = "\n".join(variant.name for variant in every)
    for words in ("stride 2", "dilation 2", "padding valid", "no input", "mask", "dropout 0.3", "recurrent_dropout 0.3",
                  "recompute 1", "bidirectional True", "returns last", "loss mse", "loss mae", "loss bce", "context 1",
                  "sampled", "patch 2", "output sigmoid", "readout_bias False", "residual True",
                  "masked"):  # fmt: skip
        assert words in names
    for kind in ("layer: ", "stack: ", "next-frame: ", "encoder-forecaster: "):
        assert f"\n{kind}" in f"\n{names}"


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(["bias", "peephole", "layer_norm"], 2)))
def test_every_two_kinds_meet(every: list[Variant], one: str, other: str) -> None:
    for a, b in itertools.product(KINDS, KINDS):
        both = [variant.name for variant in every if {f"{one} {a}", f"{other} {b}"} <= settings_of(variant.name)]
        assert both, (one, a, other, b)


def settings_of(name: str) -> set[str]:
    return set(name.partition(": ")[2].split(", "))


def test_no_parameter_is_zero_where_it_is_checked(every: list[Variant]) -> None:
    for variant in every:
        for name, array in variant.parameters.items():
            assert np.count_nonzero(array) == array.size, (variant.name, name)


def test_another_seed_is_another_problem() -> None:
    first, second = (layer_variant("numpy", seed, {}, **SMALL) for seed in (0, 1))
    assert not np.array_equal(first.parameters["W_x"], second.parameters["W_x"])
    assert first.loss(first.parameters) != second.loss(second.parameters)


# Right and wrong ------------------------------------------------------------------------------------------------------


def test_layer_with_every_parameter_is_right() -> None:
    variant = layer_variant("numpy", 0, {}, **SMALL, bias="channel", peephole="channel")
    report = variant.check()
    assert report.ok, report
    assert [row.name for row in report.rows] == ["W_x", "W_h", "b", "p_i", "p_f", "p_o", "x", "h₀", "c₀"]


def test_stack_with_inputs_and_states_is_right() -> None:
    report = stack_variant("numpy", 0, {"recompute": 2}, hidden_channels=(1, 1), kernel_size=1).check()
    assert report.ok, report
    names = ["layers.0.W_x", "layers.0.W_h", "layers.0.b", "layers.1.W_x", "layers.1.W_h", "layers.1.b"]
    states = ["h₀ of layers.0", "c₀ of layers.0", "h₀ of layers.1", "c₀ of layers.1"]
    assert [row.name for row in report.rows] == [*names, "x", *states]


@pytest.mark.parametrize("kind", ["next-frame", "encoder-forecaster"])
def test_configured_model_is_right(kind: str) -> None:
    report = configured_variant(small_config(model={"kind": kind}), "numpy").check()
    assert report.ok, report


def lost_cell_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    step_backward = cell.step_backward

    def without_carry(*arguments: Any, **named: Any) -> Any:
        dx, dh, dc = step_backward(*arguments, **named)
        return dx, dh, 0 * dc

    monkeypatch.setattr(recurrence, "step_backward", without_carry)


def unrotated_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = type(get_backend("numpy"))
    gradient_input = backend.gradient_input

    def unrotated(dz: Array, W: Array, geometry: Geometry, height: int, width: int) -> Array:
        found: Array = gradient_input(dz, W[..., ::-1, ::-1], geometry, height, width)
        return found

    monkeypatch.setattr(backend, "gradient_input", staticmethod(unrotated))


def swapped_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forget gate's pre-activation and the candidate's, as a layout i, g, f, o would have them."""
    backend: Any = type(get_backend("numpy"))
    gradient_weights = backend.gradient_weights

    def swapped(x: Array, dz: Array, geometry: Geometry) -> Array:
        i, f, g, o = np.split(dz, 4, axis=1)
        found: Array = gradient_weights(x, np.concatenate([i, g, f, o], axis=1), geometry)
        return found

    monkeypatch.setattr(backend, "gradient_weights", staticmethod(swapped))


@pytest.mark.parametrize(
    ("plant", "wrong", "right"),
    [
        (unrotated_kernel, {"W_h", "b"}, set()),
        (swapped_gates, {"W_h"}, {"b"}),
    ],
)
def test_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], wrong: set[str], right: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the layer's gradients two are looked at: to check all takes seconds."""
    layer = layer_variant("numpy", 0, {}, **SMALL, bias="channel")
    few: dict[str, Array] = {name: layer.parameters[name] for name in ("W_h", "b")}
    plant(monkeypatch)
    report = check_gradients(
        lambda p: layer.loss({**layer.parameters, **p}),
        few,
        {name: layer.gradients(layer.parameters)[name] for name in few},
    )
    assert wrong <= set(report.faults)
    assert not right & set(report.faults)
    if plant is swapped_gates:
        assert "gates swapped: blocks 2 and 3 of 4 along axis 0" in report.faults["W_h"]


def every_element_counts_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    right = FrameModel._loss_gradient

    def all_of_them(model: FrameModel, z: Array, t: int, goal: Goal) -> Array:
        return right(model, z, t, goal._replace(valid=lambda t: None))

    monkeypatch.setattr(FrameModel, "_loss_gradient", all_of_them)


def divided_by_all_elements_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    right = FrameModel._loss_gradient

    def of_all(model: FrameModel, z: Array, t: int, goal: Goal) -> Array:
        return right(model, z, t, goal._replace(scale=goal.scale * 2 / 3))

    monkeypatch.setattr(FrameModel, "_loss_gradient", of_all)


def lost_direct_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a residual model adds its change to is taken as a constant."""
    right = NextFrame._backward

    def without(model: NextFrame, *arguments: Any, **named: Any) -> Any:
        model.residual = False
        try:
            return right(model, *arguments, **named)
        finally:
            model.residual = True

    monkeypatch.setattr(NextFrame, "_backward", without)


def forgotten_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward adds the change to a frame, the backward reads the change alone."""
    right = FrameModel._loss_gradient
    changed: Any = lambda model, z, t, goal: right(model, z - goal.frame(t - 1), t, goal)  # noqa: E731
    monkeypatch.setattr(FrameModel, "_loss_gradient", changed)


@pytest.mark.parametrize(
    ("plant", "of"),
    [
        (every_element_counts_backward, "masked"),
        (divided_by_all_elements_backward, "masked"),
        (forgotten_frame, "residual True"),
        (lost_direct_term, "next-frame: .*residual True"),
    ],
)
def test_planted_fault_of_the_loss_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], of: str, every: list[Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each variant that it concerns."""
    plant(monkeypatch)
    concerned = [variant for variant in every if re.search(of, variant.name)]
    assert len(concerned) >= 2
    for variant in concerned:
        found = variant.gradients(variant.parameters)
        assert directional_error(variant.loss, variant.parameters, found) > 1e-3, variant.name


# The commands ---------------------------------------------------------------------------------------------------------


def right_variant() -> Variant:
    x = {"x": np.arange(1.0, 4.0)}
    return Variant("layer: right", lambda p: float((p["x"] ** 2).sum()), x, lambda p: {"x": 2 * p["x"]})


def wrong_variant() -> Variant:
    return dataclasses.replace(right_variant(), name="layer: wrong", gradients=lambda p: {"x": -2 * p["x"]})


def test_table_grows_and_faults_stand_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def both(backend: str, seed: int = 0) -> Iterator[Variant]:
        yield right_variant()
        assert shown[-1].endswith("right")
        yield wrong_variant()

    monkeypatch.setattr(self_check, "variants", both)
    assert not check_variants("numpy", 0, shown.append)
    assert shown[0].startswith("backend numpy (")
    assert shown[1].split() == ["variant", "entries", "largest", "error", "verdict"]
    assert shown[2].split()[:3] == ["layer:", "right", "3"]
    assert shown[3].split()[-1] == "WRONG"
    assert "2.0e+00" in shown[3]
    assert len({line.rindex("  ") for line in shown[1:4]}) == 1
    assert shown[4].startswith("layer: wrong\nparameter")
    assert "x: wrong sign" in shown[4]
    assert shown[5:] == ["1 of 2 variants are wrong"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `convlstm gradcheck` in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["convlstm", "gradcheck", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_exit_code_says_whether_all_is_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    asked: list[tuple[str, int]] = []
    chosen = [right_variant()]

    def few(backend: str, seed: int = 0) -> list[Variant]:
        asked.append((backend, seed))
        return chosen

    monkeypatch.setattr(self_check, "variants", few)
    assert run(monkeypatch, "--backend", "numpy", "--seed", "7") == 0
    out, err = capsys.readouterr()
    assert out.startswith("backend numpy (")
    assert err == ""
    chosen.append(wrong_variant())
    assert run(monkeypatch, "--backend", "numpy") == 1
    out, err = capsys.readouterr()
    assert "x: wrong sign" in out
    assert err == ""
    assert asked == [("numpy", 7), ("numpy", 0)]


def test_configured_model_from_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:  # fmt: skip
    (tmp_path / "tiny.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    lost_cell_carry(monkeypatch)
    assert run(monkeypatch, "tiny.toml", "--backend", "numpy") == 1
    out, _ = capsys.readouterr()
    assert out.startswith("parameter ")
    assert "layers.0.W_x" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch.toml"], "convlstm: nosuch.toml: No such file or directory"),
        (["digit"], "convlstm: 'digit' is neither a preset"),
        (["--backend", "nosuch"], "convlstm: "),
        (["digits", "--backend", "nosuch"], "convlstm: "),
        (["--seed", "-1"], "convlstm: "),
        (["digits", "--seed", "-1"], "convlstm: [training] seed must be ≥ 0 and < 2**64; got -1"),
        (["digits", "--lengths", "7,banana"], "convlstm: --lengths belongs to a --script; got '7,banana'"),
        (["--lengths", ""], "convlstm: --lengths belongs to a --script; got ''"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    _, err = capsys.readouterr()
    assert err.startswith(said)
    assert err.count("\n") == 1


# A configured model ---------------------------------------------------------------------------------------------------


class Watched(NextFrame):
    """Keeps what it is asked for."""

    asked: ClassVar[list[tuple[Any, dict[str, Any]]]] = []

    def loss_and_gradients(self, frames: Array, *arguments: Any, **given: Any) -> tuple[float, dict[str, Array]]:
        Watched.asked.append((frames.shape, given))
        return super().loss_and_gradients(frames, *arguments, **given)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    monkeypatch.setitem(from_config.KINDS, "next-frame", Watched)
    Watched.asked.clear()
    return Watched.asked


def test_configured_model_shows_few_frames_and_feeds_few_back(asked: list[tuple[Any, dict[str, Any]]]) -> None:
    variant = configured_variant(small_config(data={"context": 9, "horizon": 9}), "numpy")
    assert math.isfinite(variant.loss(variant.parameters))
    assert all(array.dtype == np.float64 for array in variant.parameters.values())
    ((shape, given),) = asked
    assert shape == (2, 4, 1, 16, 16)
    assert given["context"] == 2


def test_configured_model_is_given_what_training_gives_it_but_no_truncation(
    asked: list[tuple[Any, dict[str, Any]]],
) -> None:
    """Frames that are drawn, half way through scheduled sampling; masks of dropout; chunks."""
    training = {"sampling_steps": 10, "recompute": 3, "truncate": 2, "seed": 4, "loss": "mse"}
    config = small_config(data={"horizon": 9}, model={"dropout": 0.5}, training=training)
    variant = configured_variant(config, "numpy")
    variant.loss(variant.parameters)
    ((_, given),) = asked
    assert given.keys() == {"loss", "recompute", "draws", "shown"}
    assert (given["loss"], given["recompute"], given["draws"]) == ("mse", 3, Draws(4, 5, 0))
    assert given["shown"].shape == (2, 3)
    plain = configured_variant(small_config(data={"horizon": 9}, training=training), "numpy")
    assert variant.loss(variant.parameters) != plain.loss(variant.parameters)


def test_given_weights_are_checked_as_they_are(tmp_path: Path) -> None:
    drawn = untrained_model(small_config(training={"seed": 9}), "numpy").parameters
    save_parameters(tmp_path / "w.npz", drawn)
    variant = configured_variant(small_config(model={"weights": str(tmp_path / "w.npz")}), "numpy")
    assert {name: array.dtype for name, array in variant.parameters.items()} == dict.fromkeys(drawn, np.float64)
    assert all((variant.parameters[name] == array).all() for name, array in drawn.items())
    assert variant.check().ok


@pytest.mark.parametrize("weights", ["nosuch.npz", "nan.npz", "other.npz"])
def test_given_weights_that_do_not_fit(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = untrained_model(small_config(), "numpy").parameters
    save_parameters("nan.npz", drawn | {"readout.b": np.full_like(drawn["readout.b"], np.nan)})
    save_parameters("other.npz", {"W": drawn["readout.W"]})
    with pytest.raises(
        ValueError, match=r"nosuch.npz: cannot be read|'readout.b' holds an infinity|unknown parameter 'W'"
    ):
        configured_variant(small_config(model={"weights": weights}), "numpy")


@pytest.mark.parametrize(("arguments", "seed"), [([], 4), (["--seed", "5"], 5), (["--seed", "0"], 0)])
def test_a_seed_overrides_that_of_the_file(
    arguments: list[str], seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(CONFIG + "[training]\nseed = 4\n")
    seeds: list[int] = []

    def check(config: Config, backend: str, show: Callable[[str], None]) -> bool:
        seeds.append(config.training.seed)
        return True

    monkeypatch.setattr(self_check, "check_configured", check)
    assert run(monkeypatch, str(tmp_path / "tiny.toml"), *arguments) == 0
    assert seeds == [seed]


def test_lengths_need_a_function_that_takes_one(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("def problem():\n    raise AssertionError\n")
    with pytest.raises(ValueError, match=r"^--lengths belongs to a function that takes one; .*s.py:problem takes no"):
        check_script(f"{tmp_path / 's.py'}:problem", "1,2", 0, lambda text: None)


def test_model_variant_reads_the_frames_fed_back() -> None:
    shown, fed = (model_variant("numpy", 0, "next-frame", {"context": context}) for context in (None, 2))
    assert shown.loss(shown.parameters) != fed.loss(fed.parameters)
