"""This project's own gradients under its own check: a few variants, faults planted in them, the command."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from convlstm import cell, check_gradients, cli, recurrence, self_check
from convlstm.backends import Array, get_backend
from convlstm.backends.geometry import Geometry
from convlstm.config import Config, config_from
from convlstm.self_check import Variant, check_variants, configured_variant, layer_variant, model_variant, variants

SMALL = {"stride": (1, 2), "padding": "valid", "recurrent_kernel_size": (3, 1)}
CONFIG = """
[data]
size = 4
context = 3
horizon = 1
[model]
hidden_channels = [1]
kernel_size = 3
patch = 1
"""


def small_config() -> Config:
    tables = {
        "data": {"size": 4, "context": 3, "horizon": 1},
        "model": {"hidden_channels": [1], "kernel_size": 3, "patch": 1},
    }
    return config_from(tables)


# What is checked ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every() -> list[Variant]:
    return list(variants("numpy"))


def test_every_variant_can_be_computed(every: list[Variant]) -> None:
    """Loss and gradients of each, once: to check them all takes a minute."""
    for variant in every:
        assert math.isfinite(variant.loss(variant.parameters)), variant.name
        found = variant.gradients(variant.parameters)
        assert set(found) == set(variant.parameters), variant.name
        for name, gradient in found.items():
            assert gradient.shape == variant.parameters[name].shape, (variant.name, name)
            assert gradient.dtype == np.float64


def test_variants_have_names_of_their_own_that_fit_the_table(every: list[Variant]) -> None:
    names = [variant.name for variant in every]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 64 for name in names), max(names, key=len)


def test_variants_cover_biases_peepholes_losses_and_feedback(every: list[Variant]) -> None:
    names = "\n".join(variant.name for variant in every)
    for words in ("bias None, peephole None", "bias pixel, peephole pixel", "stride 2", "dilation 2", "loss mse",
                  "loss mae", "loss bce", "all shown", "2 shown"):  # fmt: skip
        assert words in names
    assert every[-1].name == "model: loss mse, output sigmoid, patch 2, kernel 1, 1 shown"
    assert max(array.ndim for array in every[-1].parameters.values()) == 4


def test_no_parameter_is_zero_where_it_is_checked(every: list[Variant]) -> None:
    for variant in every:
        for name, array in variant.parameters.items():
            assert np.count_nonzero(array) == array.size, (variant.name, name)


def test_another_seed_is_another_problem() -> None:
    first, second = (layer_variant("numpy", seed, **SMALL) for seed in (0, 1))
    assert not np.array_equal(first.parameters["W_x"], second.parameters["W_x"])
    assert first.loss(first.parameters) != second.loss(second.parameters)


# Right and wrong ------------------------------------------------------------------------------------------------------


def test_layer_with_every_parameter_is_right() -> None:
    variant = layer_variant("numpy", 0, **SMALL, bias="channel", peephole="channel")
    report = variant.check()
    assert report.ok, report
    assert [row.name for row in report.rows] == ["W_x", "W_h", "b", "p_i", "p_f", "p_o", "x", "h₀", "c₀"]


def test_configured_model_is_right() -> None:
    report = configured_variant(small_config(), "numpy").check()
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
    layer = layer_variant("numpy", 0, **SMALL, bias="channel")
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


def test_configured_model_shows_few_frames_and_feeds_few_back() -> None:
    config = config_from(
        {
            "data": {"size": 4, "context": 9, "horizon": 9},
            "model": {"hidden_channels": [1], "kernel_size": 3, "patch": 1},
        }
    )
    variant = configured_variant(config, "numpy")
    assert math.isfinite(variant.loss(variant.parameters))
    assert all(array.dtype == np.float64 for array in variant.parameters.values())


def test_model_variant_reads_the_frames_fed_back() -> None:
    shown, fed = (model_variant("numpy", 0, "mse", context) for context in (None, 2))
    assert shown.loss(shown.parameters) != fed.loss(fed.parameters)
