"""Configurations: what is right is understood, what is wrong is named, and every setting does something."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm import training
from convlstm.config import (
    PRESETS,
    Config,
    ConfigError,
    Data,
    Model,
    Training,
    config_as_toml,
    config_from,
    load_config,
)
from convlstm.losses import LossName
from convlstm.parameter_files import load_parameters

TABLES = {"data": Data, "model": Model, "training": Training}


def write(directory: Path, text: str) -> str:
    file = directory / "run.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


# What is right ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load(name: str) -> None:
    assert load_config(name) == PRESETS[name]


def test_a_file_that_says_nothing_is_all_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == Config()


def test_a_file_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    model = '[model]\nhidden_channels = [8, 4]\npeephole = "pixel"\nbias = "none"\n'
    expected = Config(
        model=Model(hidden_channels=(8, 4), peephole="pixel", bias=None), training=Training(learning_rate=1.0, seed=0)
    )
    config = load_config(write(tmp_path, model + "[training]\nlearning_rate = 1\nseed = 0\n"))
    assert config == expected
    assert type(config.training.learning_rate) is float


def sizes(*, most: int = 64) -> st.SearchStrategy[int]:
    return st.integers(1, most)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    patch = draw(sizes(most=8))
    loss = draw(st.sampled_from(get_args(LossName)))
    return Config(
        Data(patch * draw(sizes()), draw(sizes()), draw(sizes()), draw(sizes())),
        Model(
            hidden_channels=tuple(draw(st.lists(sizes(), min_size=1, max_size=4))),
            kernel_size=draw(sizes()),
            patch=patch,
            bias=draw(st.sampled_from([None, "channel", "pixel"])),
            peephole=draw(st.sampled_from([None, "channel", "pixel"])),
            output="sigmoid" if loss == "bce" else draw(st.sampled_from(["linear", "sigmoid"])),
        ),
        Training(
            steps=draw(sizes()),
            batch_size=draw(sizes()),
            seed=draw(st.integers(0, 2**64 - 1)),
            loss=loss,
            optimizer=draw(st.sampled_from(["sgd", "adam"])),
            learning_rate=draw(st.floats(min_value=0, exclude_min=True, allow_infinity=False)),
            schedule=draw(st.sampled_from(["constant", "linear"])),
            clipping=draw(st.sampled_from(["none", "tensor", "global"])),
        ),
    )


@settings(deadline=None)
@given(config=configs())
def test_a_configuration_comes_back_from_its_toml(config: Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert load_config(write(tmp_path_factory.mktemp("toml"), config_as_toml(config))) == config


# What is wrong ------------------------------------------------------------------------------------------------------

TRAINING = ", ".join(field.name for field in dataclasses.fields(Training))
WRONG = {
    # An unknown name, and the nearest that is known.
    "[modell]": "unknown table [modell]; known are data, model, training; did you mean model?",
    "[zzz]": "unknown table [zzz]; known are data, model, training",
    "steps = 3": "unknown table [steps]; known are data, model, training",
    "[training]\nlearning_rat = 1": f"unknown setting learning_rat in [training]; known are {TRAINING}; did you mean"
    " learning_rate?",
    "[data]\nq = 1": "unknown setting q in [data]; known are size, context, horizon, test_sequences",
    "model = 3": "model must be a table of settings; got 3",
    "[[model]]": "model must be a table of settings; got [{}]",
    # A value of another type.  To Python True is an integer; to a reader of a configuration it is not.
    "[training]\nsteps = true": "[training] steps must be an integer; got True",
    "[training]\nsteps = 3.0": "[training] steps must be an integer; got 3.0",
    '[training]\nsteps = "3"': "[training] steps must be an integer; got '3'",
    "[training]\nlearning_rate = true": "[training] learning_rate must be a number; got True",
    '[training]\nlearning_rate = "fast"': "[training] learning_rate must be a number; got 'fast'",
    "[model]\nhidden_channels = 64": "[model] hidden_channels must be a list of integers > 0; got 64",
    "[model]\nhidden_channels = []": "[model] hidden_channels must be a list of integers > 0; got []",
    "[model]\nhidden_channels = [8, 0]": "[model] hidden_channels must be a list of integers > 0; got [8, 0]",
    "[model]\nhidden_channels = [8, true]": "[model] hidden_channels must be a list of integers > 0; got [8, True]",
    '[training]\noptimizer = "adm"': "[training] optimizer must be one of 'sgd', 'adam'; got 'adm'; did you mean adam?",
    '[model]\nbias = "pixl"': "[model] bias must be one of 'channel', 'pixel', 'none'; got 'pixl'; did you mean pixel?",
    "[model]\npeephole = false": "[model] peephole must be one of 'channel', 'pixel', 'none'; got False",
    # A number out of its range.
    "[training]\nsteps = 0": "[training] steps must be > 0; got 0",
    "[data]\nhorizon = -1": "[data] horizon must be > 0; got -1",
    "[training]\nseed = -1": "[training] seed must be ≥ 0; got -1",
    "[training]\nlearning_rate = 0": "[training] learning_rate must be > 0 and finite; got 0.0",
    "[training]\nlearning_rate = nan": "[training] learning_rate must be > 0 and finite; got nan",
    "[training]\nlearning_rate = inf": "[training] learning_rate must be > 0 and finite; got inf",
    # Settings that do not go together.
    "[data]\nsize = 30\n[model]\npatch = 4": "[model] patch must divide [data] size; got 4 and 30",
    '[model]\noutput = "linear"': "[training] loss 'bce' needs [model] output 'sigmoid'; got 'linear'",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_what_is_wrong_is_named_with_its_file(text: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=f"^{re.escape(file)}: {re.escape(message)}$"):
        load_config(file)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digitz", "'digitz' is neither a preset (digits) nor a .toml file; did you mean digits?"),
        ("run.json", "'run.json' is neither a preset (digits) nor a .toml file"),
        ("", "'' is neither a preset (digits) nor a .toml file"),
        ("missing.toml", "missing.toml: No such file or directory"),
        ("folder.toml", "folder.toml: Is a directory"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.toml").mkdir()
    Path("run.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load_config(name)


@pytest.mark.parametrize("content", [b"[model", b"a = 1\na = 2", b"\xff\xfe", b"\x00"])
def test_a_file_that_is_not_toml(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(file))}: .+"):
        load_config(str(file))


def test_the_checks_hold_for_a_config_made_in_python() -> None:
    with pytest.raises(ConfigError, match=r"\[training\] steps must be > 0; got 0"):
        dataclasses.replace(Config(), training=Training(steps=0))


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4)
table_names = st.sampled_from([*TABLES, "modle", ""])
setting_names = st.sampled_from([field.name for kind in TABLES.values() for field in dataclasses.fields(kind)] + ["x"])


@settings(deadline=None)
@given(st.dictionaries(table_names, anything | st.dictionaries(setting_names, anything)))
def test_anything_at_all_is_a_configuration_or_a_config_error(tables: dict[str, Any]) -> None:
    """No other exception, whatever a file may hold."""
    try:
        config = config_from(tables)
    except ConfigError:
        return
    assert config_from(tables) == config


# Every setting does something -----------------------------------------------------------------------------------------

# A run so short and steep that even clipping matters.
BASE = Config(
    Data(size=16, context=2, horizon=2, test_sequences=2),
    Model(hidden_channels=(2,), kernel_size=3, patch=4, output="linear"),
    Training(
        steps=2, batch_size=2, loss="mse", optimizer="sgd", learning_rate=1000.0, schedule="constant", clipping="none"
    ),
)
CHANGES: dict[str, dict[str, Any]] = {
    "data": {"size": 20, "context": 1, "horizon": 1, "test_sequences": 1},
    "model": {
        "hidden_channels": (2, 2), "kernel_size": 1, "patch": 2, "bias": "pixel", "peephole": "channel",
        "output": "sigmoid", "weights": "base/weights.safetensors",
    },
    "training": {
        "steps": 1, "batch_size": 1, "seed": 1, "loss": "mae", "optimizer": "adam", "learning_rate": 1.0,
        "schedule": "linear", "clipping": "global",
    },
}  # fmt: skip


def run(config: Config, directory: Path) -> tuple[bytes, list[str], bytes]:
    """Train; return the ledger, the weights' names and shapes, and the scores."""
    directory.mkdir()
    training.train(config, directory, backend="numpy", report=lambda done, loss: None)
    weights = load_parameters(directory / "weights.safetensors")
    shapes = sorted(f"{name} {w.shape}" for name, w in weights.items())
    return (directory / "ledger.jsonl").read_bytes(), shapes, (directory / "scores.json").read_bytes()


def no_figure(*arguments: object) -> None:
    """Stand in for `forecast_figure`: a picture takes longer than these runs."""


def test_every_setting_changes_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    monkeypatch.setattr(training, "forecast_figure", no_figure)
    monkeypatch.chdir(tmp_path)
    assert {table: set(settings) for table, settings in CHANGES.items()} == {
        table: {field.name for field in dataclasses.fields(kind)} for table, kind in TABLES.items()
    }
    reference = run(BASE, tmp_path / "base")
    assert run(BASE, tmp_path / "again") == reference
    for table, changes in CHANGES.items():
        for setting, value in changes.items():
            part = dataclasses.replace(getattr(BASE, table), **{setting: value})
            changed = run(dataclasses.replace(BASE, **{table: part}), tmp_path / f"{table}.{setting}")
            assert changed != reference, f"[{table}] {setting} = {value!r} changes nothing"
