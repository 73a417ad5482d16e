"""`convlstm config`, and settings that `convlstm train` takes from its command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from convlstm import sources, trainer, training
from convlstm.cli import app
from convlstm.config import (
    PRESETS,
    TABLES,
    Config,
    ConfigError,
    Data,
    Training,
    described_settings,
    load_config,
    overridden,
)
from convlstm.data.source import Made
from convlstm.run_directory import RunDirectoryError

FILE = '[model]\nbias = "none"\nhidden_channels = [8, 4]\n[training]\nsteps = 9\nschedule = "step"\nstep_every = 3\n'


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    return str(path)


def convlstm(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


# convlstm config ------------------------------------------------------------------------------------------------------


def test_all_settings_are_listed_with_type_default_and_help() -> None:
    result = convlstm("config")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    for table in TABLES:
        (heading,) = [number for number, line in enumerate(lines) if line.startswith(f"[{table}]")]
        for number, one in enumerate(described_settings(table)):
            first, second = lines[heading + 1 + 2 * number : heading + 3 + 2 * number]
            assert first.split(maxsplit=3)[:3] == [one.key, "=", one.default]
            assert first.endswith(f"  {one.kind}")
            assert second.strip() == one.help


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_shown_of_a_preset_is_a_file_of_the_same(preset: str, tmp_path: Path) -> None:
    result = convlstm("config", "--show", preset)
    assert result.exit_code == 0
    (tmp_path / "shown.toml").write_text(result.output, encoding="utf-8")
    assert load_config(str(tmp_path / "shown.toml")) == PRESETS[preset]


def test_what_is_shown_of_a_file_is_a_file_of_the_same(file: str, tmp_path: Path) -> None:
    shown = convlstm("config", "--show", file).output
    (tmp_path / "shown.toml").write_text(shown, encoding="utf-8")
    assert load_config(str(tmp_path / "shown.toml")) == load_config(file) != Config()
    assert "batch_size = 4 " in shown  # what the file does not say


def test_a_configuration_that_is_none_is_not_shown() -> None:
    result = convlstm("config", "--show", "digitz")
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).endswith("did you mean digits?")
    assert result.output == ""


# convlstm train --set -------------------------------------------------------------------------------------------------


class Checked(Exception):
    """Holds the configuration that a run would have had."""


def resolved(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Config:
    """Return what `convlstm train` makes of its arguments; train nothing."""

    def opened(config: Config) -> Any:
        raise Checked(config)

    monkeypatch.setattr(sources, "open_source", opened)
    result = convlstm("train", *arguments, "--backend", "numpy")
    assert isinstance(result.exception, Checked), result.exception
    (config,) = result.exception.args
    assert isinstance(config, Config)
    return config


def test_the_command_line_overrides_the_file_and_leaves_the_rest(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("--set", "model.bias=pixel", "--set", "model.hidden_channels=[16]", "--set", "data.size=64")
    config = resolved(monkeypatch, file, *settings)
    assert (config.model.bias, config.model.hidden_channels, config.data) == ("pixel", (16,), Data(size=64))
    assert config.training == Training(steps=9, schedule="step", step_every=3)


def test_of_two_values_the_last_counts_and_flags_count_most(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = ("--set", "training.batch_size=7", "--set", "training.batch_size=8")
    beside = ("--steps", "5", "--set", "training.steps=6", "--seed", "2", "--set", "training.seed=3")
    weights = ("--weights", "w.npz", "--set", "model.weights=v.npz")
    config = resolved(monkeypatch, file, *twice, *beside, *weights)
    assert (config.training.batch_size, config.training.steps, config.training.seed) == (8, 5, 2)
    assert config.model.weights == str(Path("w.npz").absolute())


@pytest.mark.parametrize("preset", ["frames", "sst", "shi2015", "openstl-s"])
def test_the_frames_of_a_preset_are_named_by_a_flag(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("--set", "data.path=other")
    config = resolved(monkeypatch, preset, "--data", "frames.npy", *settings)
    assert config == overridden(PRESETS[preset], {"data.path": str(Path("frames.npy").absolute())})


def test_paths_are_saved_so_that_the_run_goes_on_from_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"data.path": "mnist", "data.test_file": "toronto.npy", "model.weights": "w.npz"}
    settings = [part for name, path in given.items() for part in ("--set", f"{name}={path}")]
    config = resolved(monkeypatch, "openstl-s", *settings)
    assert {name: config.value(name) for name in given} == {
        name: str(Path(path).absolute()) for name, path in given.items()
    }


def test_a_file_of_a_package_is_found_from_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolved(monkeypatch, "sst").data.path == PRESETS["sst"].data.path
    assert resolved(monkeypatch, "frames", "--data", "package:p/f.nc").data.path == "package:p/f.nc"


def test_frames_go_with_no_preset_that_makes_its_own() -> None:
    result = convlstm("train", "digits", "--data", "frames.npy")
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith('[data] path is read only where source is "frames" or "moving-mnist"')


@pytest.mark.parametrize("preset", ["frames", "openstl-s"])
def test_a_preset_without_frames_says_which_flag_names_them(preset: str) -> None:
    result = convlstm("train", preset)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("[data] path is empty: give the f")
    assert "--data" in str(result.exception)


class Trained(Exception):
    """Holds what `train` was called with."""


@pytest.mark.parametrize("more", [[], ["--tensorboard"]], ids=["", "tensorboard"])
def test_what_is_for_tensorboard_is_asked_for(
    more: list[str], file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*arguments: Any, **named: Any) -> Any:
        raise Trained(named)

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(trainer, "check_config", lambda config, backend, source: None)
    result = convlstm("train", file, "--backend", "numpy", "--out", str(tmp_path / "run"), *more)
    assert isinstance(result.exception, Trained), result.exception
    assert result.exception.args[0]["events"] == bool(more)


@pytest.mark.parametrize(
    ("preset", "named"),
    [
        ("frames", ["--data", "{run}/frames.npy"]),
        ("openstl-s", ["--data", ".", "--set", "data.test_file={run}/t.npy"]),
        ("digits", ["--weights", "{run}/weights.safetensors"]),
    ],
)
def test_what_the_run_reads_is_never_overwritten(
    preset: str, named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "ledger.jsonl").touch()
    none = Made("none", lambda split, indices: np.zeros((len(indices), 1, 1, 1, 1), np.float32), 1, {}, range(0))
    monkeypatch.setattr(sources, "open_source", lambda config: none)
    monkeypatch.setattr(trainer, "check_config", lambda config, backend, source: None)
    given = [part.format(run=run) for part in named]
    result = convlstm("train", preset, *given, "--backend", "numpy", "--out", str(run), "--overwrite")
    assert isinstance(result.exception, RunDirectoryError), result.exception
    assert (
        str(result.exception) == f"{run} holds {given[-1].split('=')[-1]}, which the run is to use; name another --out"
    )
    assert [path.name for path in run.iterdir()] == ["ledger.jsonl"]


def test_flags_and_settings_are_put_in_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 steps of warm-up are too many for the preset's 300 steps, and none too many for 500."""
    config = resolved(monkeypatch, "digits", "--set", "training.warmup_steps=400", "--steps", "500")
    assert (config.training.warmup_steps, config.training.steps) == (400, 500)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.stesp=3", "unknown setting 'training.stesp'; did you mean training.steps?"),
        ("training.loss=msee", 'must be one of "mse", "mae", "bce"; got "msee"; did you mean mse?'),
        ("training.momentum=0.5", '[training] momentum is read only where optimizer is "momentum"; it is "adam"'),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    result = convlstm("train", "digits", "--set", setting)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


@pytest.mark.parametrize("option", ["--backend", "--weights", "--out", "--data"])
@pytest.mark.parametrize("more", [[], ["--resume"]], ids=["", "resume"])
def test_an_empty_option_is_not_its_default(
    option: str, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = convlstm("train", "digits", option, "", *more)
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == f"{option} is empty; leave it out for its default"
    assert list(tmp_path.iterdir()) == []


def test_help_leads_to_the_settings() -> None:
    shown = " ".join(convlstm("train", "--help").output.split())
    assert "--set TABLE.KEY=VALUE" in shown
    assert "All settings, with their defaults and what they mean: convlstm config" in shown
