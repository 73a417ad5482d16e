"""Configurations: what is right is understood, what is wrong is named, and every setting does something."""

from __future__ import annotations

import dataclasses
import re
import sys
from dataclasses import Field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.config import (
    PRESETS,
    TABLES,
    Config,
    ConfigError,
    Data,
    Model,
    Training,
    config_as_toml,
    config_from,
    described_settings,
    load_config,
    overridden,
    parse_setting,
)
from convlstm.data.moving_mnist import TORONTO_SHAPE
from convlstm.settings import LARGEST, RANGES, SMALLEST, as_toml, differing_settings
from convlstm.settings import settings as all_settings
from tests.wrong_settings import WRONG

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


NAMES = ", ".join(PRESETS)


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


def numbers(kind: type, within: str) -> st.SearchStrategy[Any]:
    """Whatever a number of this range may be."""
    every = st.integers(0, 64) if kind is int else st.floats(allow_nan=False, allow_infinity=False)
    if within == "≥ 0 and < 1":
        every = st.floats(0, 1, exclude_max=True)
    elif within.endswith("float32"):
        every = st.floats(SMALLEST, LARGEST) | st.floats(-LARGEST, LARGEST)
    return every.filter(RANGES[within])


def values(table: str, described: Field[Any]) -> st.SearchStrategy[Any]:
    """Whatever a setting may be by itself."""
    kind = get_type_hints(TABLES[table])[described.name]
    by_name = {
        "seed": st.integers(0, 2**64 - 1),
        "patch": st.sampled_from([1, 2, 4]),
        "size": st.integers(4, 16).map(lambda n: 4 * n),
        "hidden_channels": st.lists(st.integers(1, 64), min_size=1, max_size=4).map(tuple),
        "missing": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    }
    if described.name in by_name:
        return by_name[described.name]
    if kind is str:
        return st.text(st.characters(codec="utf-8"))
    if kind is bool:
        return st.booleans()
    if kind in (int, float):
        return numbers(kind, described.metadata["within"])
    parts = get_args(kind) if type(None) in get_args(kind) else (kind,)
    return st.sampled_from([name for part in parts for name in (get_args(part) or [None])])


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any configuration at all: what does not go together is put right."""
    tables: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "training": {}}
    for table, described in all_settings():
        tables[table][described.name] = draw(values(table, described))
    data, model, to = tables.values()
    if data["test_file"]:
        data["size"] = TORONTO_SHAPE[2]
    for table, described in all_settings():
        for condition, allowed in described.metadata["read_where"].items():
            where, _, key = condition.rpartition(".")
            if tables[where or table][key] not in allowed:
                tables[table][described.name] = described.default
    if model["residual"] or (data["source"] == "frames" and data["scaling"] in ("standard", "seasonal")):
        model["output"] = "linear"
    if to["loss"] == "bce" and model["output"] == "linear":
        to["loss"] = "mse"
    if data["gap"] + data["horizon"] == 1:
        to["sampling_steps"] = 0
    to["warmup_steps"] %= to["steps"]
    if model["weights"] and model["bias"] is not None:
        model["forget_bias"] = Model.forget_bias
    return Config(Data(**data), Model(**model), Training(**to))


@settings(deadline=None, max_examples=50)
@given(config=configs())
def test_a_configuration_comes_back_from_its_toml(config: Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = config_as_toml(config)
    assert load_config(write(tmp_path_factory.mktemp("toml"), text)) == config
    assert config_as_toml(config) == text


def test_a_written_configuration_says_of_every_setting_what_it_is() -> None:
    lines = config_as_toml(Config(model=Model(weights="w" * 99))).splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[data]", "[model]", "[training]"]
    assert "context = 5                # frames that are shown" in lines
    assert 'loss = "bce"           # what is made small, a mean over pixels and frames; one of mse, mae, bce' in lines
    for _, described in all_settings():
        (line,) = [line for line in lines if line.startswith(f"{described.name} = ")]
        assert f"  # {described.metadata['help']}" in line


@pytest.mark.parametrize(("table", "described"), all_settings(), ids=lambda of: getattr(of, "name", of))
def test_a_setting_has_one_line_of_help_and_a_default_that_may_be(table: str, described: Field[Any]) -> None:
    help = described.metadata["help"]
    assert help
    assert "\n" not in help
    assert not help.endswith(".")
    default: Any = described.default
    if type(default) in (int, float):
        assert RANGES[described.metadata["within"]](default)
    for condition, allowed in described.metadata["read_where"].items():
        where, _, key = condition.rpartition(".")
        assert set(allowed) < set(get_args(get_type_hints(TABLES[where or table])[key]))


def test_no_two_tables_share_a_setting() -> None:
    """What is looked for in the wrong table is found by its name."""
    names = [described.name for _, described in all_settings()]
    assert len(set(names)) == len(names)


# What is wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_what_is_wrong_is_named_with_its_file(text: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=f"^{re.escape(file)}: {re.escape(message)}$"):
        load_config(file)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digitz", f"'digitz' is neither a preset ({NAMES}) nor a .toml file; did you mean digits?"),
        ("run.json", f"'run.json' is neither a preset ({NAMES}) nor a .toml file"),
        (
            "a.nc",
            f"'a.nc' is neither a preset ({NAMES}) nor a .toml file; if it holds frames: train frames --data a.nc",
        ),
        ("", f"'' is neither a preset ({NAMES}) nor a .toml file"),
        ("missing.toml", "missing.toml: No such file or directory"),
        ("folder.toml", "folder.toml: Is a directory"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.toml").mkdir()
    Path("a.nc").touch()
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load_config(name)


@pytest.mark.parametrize(
    "content",
    [b"[model", b"a = 1\na = 2", b"\xff\xfe", b"\x00", b"a = " + 2000 * b"[", b"[data]\nsize = " + 5000 * b"9"],
    ids=lambda content: repr(content[:9]),
)
def test_a_file_that_is_not_toml(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(file))}: .+"):
        load_config(str(file))


def test_a_run_directory_is_led_to_its_configuration(tmp_path: Path) -> None:
    run = tmp_path / "a"
    run.mkdir()
    (run / "config.toml").touch()
    message = f"'{run}' is a directory; its configuration is in {run / 'config.toml'}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load_config(str(run))


def test_frames_scaled_to_0_and_1_go_with_a_sigmoid() -> None:
    for scaling in ("range", "none"):
        assert Config(Data(source="frames", scaling=scaling)).model.output == "sigmoid"


@pytest.mark.parametrize(("written", "missing"), [("-9999", -9999.0), ("1e20", 1e20), ("none", None), ('"none"', None)])
def test_a_missing_value_is_a_number_or_none(written: str, missing: float | None) -> None:
    config = overridden(load_config("frames"), dict([parse_setting(f"data.missing={written}")]))
    assert config.data.missing == missing


def test_frames_that_are_skipped_are_fed_back_too() -> None:
    """With a gap there is a frame after the context that may be a true one, although one alone is scored."""
    assert Config(Data(gap=1, horizon=1), training=Training(sampling_steps=9)).training.sampling_steps == 9


def test_a_constant_forget_bias_goes_with_weights() -> None:
    """Weights without bias do not hold it."""
    made = Config(model=Model(weights="w.npz", bias=None, forget_bias=3.0))
    assert config_from({"model": {"weights": "w.npz", "bias": "none", "forget_bias": 3}}) == made


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


# Changed from the command line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("model.peephole=pixel", "model.peephole", "pixel"),
        ('model.peephole="pixel"', "model.peephole", "pixel"),
        ("model.hidden_channels=[32,16]", "model.hidden_channels", [32, 16]),
        ("training.learning_rate=1e-3", "training.learning_rate", 1e-3),
        ("training.steps= 7", "training.steps", 7),
        (" training.steps =5", "training.steps", 5),
        ("model.readout_bias=false", "model.readout_bias", False),
        ("model.weights=runs/a=b/weights.npz", "model.weights", "runs/a=b/weights.npz"),
        ("model.weights=", "model.weights", ""),
        ("model.weights=1\nx = 2", "model.weights", "1\nx = 2"),  # not a second line of TOML
    ],
)
def test_a_setting_as_the_command_line_gives_it(text: str, name: str, value: object) -> None:
    assert parse_setting(text) == (name, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.stesp=3", "unknown setting 'training.stesp'; did you mean training.steps?"),
        ("trainin.steps=3", "unknown setting 'trainin.steps'; did you mean training.steps?"),
        ("data.steps=3", "unknown setting 'data.steps'; did you mean training.steps?"),
        ("steps=3", "unknown setting 'steps'; did you mean training.steps?"),
        ("zzz=3", "unknown setting 'zzz'"),
        ("=3", "unknown setting ''"),
        (" =3", "unknown setting ''"),
        ("training.loss=" + 3000 * "[", "training.loss: brackets are nested too deeply"),
        ("training.steps", "a setting is given as TABLE.KEY=VALUE; got 'training.steps'"),
    ],
)
def test_a_wrong_name_on_the_command_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        parse_setting(text)


texts = st.text(st.characters(codec="utf-8"))
numbers_of_toml = st.integers() | st.floats(allow_nan=False)
values_of_toml = st.recursive(
    st.booleans() | numbers_of_toml | texts | st.dates() | st.datetimes() | st.times(),
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=4,
)


@given(value=values_of_toml)
def test_a_value_comes_back_from_its_toml(value: object) -> None:
    text = as_toml(value)
    assert "\n" not in text
    assert tomllib.loads(f"value = {text}") == {"value": value}


def test_what_toml_cannot_hold_is_written_too() -> None:
    assert as_toml((32, None, {3})) == '[32, "none", {3}]'


def test_settings_that_differ_are_said_in_toml() -> None:
    one, other = Config(), Config(model=Model(hidden_channels=(8,), peephole="pixel", readout_bias=False))
    assert differing_settings(one, other, ": {} became {}") == [
        "[model] hidden_channels: [32] became [8]",
        '[model] peephole: "none" became "pixel"',
        "[model] readout_bias: true became false",
    ]


def deep_list(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def test_settings_are_changed_all_at_once_and_no_others() -> None:
    """Each by itself would not go with the rest."""
    changes = {"model.output": "linear", "training.loss": "mse", "training.warmup_steps": 400, "training.steps": 500}
    given = Config(data=Data(horizon=7), training=Training(steps=9, seed=3))
    expected = Config(given.data, Model(output="linear"), Training(loss="mse", warmup_steps=400, steps=500, seed=3))
    assert overridden(given, changes) == expected
    assert overridden(given, {}) == given


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.steps": "many"}, '[training] steps must be an integer; got "many"'),
        ({"training.steps": 0}, "[training] steps must be > 0; got 0"),
        (
            {"training.loss": "mse", "model.output": "tanh"},
            '[model] output must be one of "linear", "sigmoid"; got "tanh"',
        ),
        ({"training.optimizer": "momentum", "training.beta2": 0.5}, "[training] beta2 is read only where optimizer is"),
        ({"training.loss": deep_list(2000)}, "brackets are nested too deeply"),
        ({"training.stesp": 3}, "unknown setting 'stesp' in [training]; did you mean steps?"),
    ],
)
def test_a_wrong_value_on_the_command_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        overridden(Config(), changes)


# What the documentation says ------------------------------------------------------------------------------------------


def markdown(table: str) -> str:
    """The table of docs/configuration.md for one table of settings."""
    rows = [
        f"| `{one.key}` | {one.kind.removeprefix('one of ')} | `{one.default}` | {one.help} |"
        for one in described_settings(table)
    ]
    return "\n".join(["| setting | type | default | what it is |", "|---|---|---|---|", *rows, ""])


@pytest.mark.parametrize("table", TABLES)
def test_the_documentation_lists_every_setting_as_it_is(table: str) -> None:
    text = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    found = text.partition(f"### [{table}]\n\n")[2].partition("\n\n")[0] + "\n"
    assert found == markdown(table), f"docs/configuration.md, [{table}], must be:\n{markdown(table)}"
