"""Configurations as text: TOML files and NAME=VALUE in, TOML and descriptions of the settings out.

What there is to set, and what goes together, is settings.py's subject.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from convlstm.presets import PRESETS
from convlstm.settings import TABLES, Config, ConfigError, Data, Model, Training, as_toml, settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "PRESETS",
    "TABLES",
    "Config",
    "ConfigError",
    "Data",
    "Model",
    "Training",
    "config_as_toml",
    "config_from",
    "described_settings",
    "load_config",
    "overridden",
    "parse_setting",
]

WIDEST = 40  # characters that a longer setting does not push the comments of the others beyond

# Reading --------------------------------------------------------------------------------------------------------------


def load_config(name: str) -> Config:
    """Return a preset, or what a TOML file says.

    Raises:
        ConfigError: there is no such preset or file, the file is not TOML, or a table, key or value in it is not known;
            the message names the nearest that is.
    """
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.is_dir() and (path / "config.toml").is_file():
        raise ConfigError(f"{name!r} is a directory; its configuration is in {path / 'config.toml'}")
    if path.suffix != ".toml":
        presets, there = ", ".join(PRESETS), bool(name) and path.exists()
        hint = f"; if it holds frames: train frames --data {shlex.quote(name)}" if there else _nearest(name, PRESETS)
        raise ConfigError(f"{name!r} is neither a preset ({presets}) nor a .toml file{hint}")
    try:
        return config_from(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{name}: brackets are nested too deeply") from None
    except ValueError as error:  # not UTF-8, not TOML, an integer of thousands of digits, or no configuration
        raise ConfigError(f"{name}: {error}") from None


def config_from(tables: Mapping[str, Any]) -> Config:
    """Return the configuration that nested dictionaries describe.

    Raises:
        ConfigError: as `load_config`.
    """
    known = typing.get_type_hints(Config)
    for table in tables:
        if table not in known:
            raise ConfigError(f"unknown table {table!r}{_right(table, known)}")
    try:
        return Config(**{table: _table(table, known[table], values) for table, values in tables.items()})
    except RecursionError:  # in the words about a value that is wrong in any case
        raise ConfigError("brackets are nested too deeply") from None


def _table(table: str, kind: type, given: object) -> Any:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{table} must be a table of settings; got {as_toml(given)}")
    types_of = typing.get_type_hints(kind)
    values = {}
    for key, value in given.items():
        if key not in types_of:
            raise ConfigError(f"unknown setting {key!r} in [{table}]{_right(key, types_of)}")
        values[key] = _value(f"[{table}] {key}", types_of[key], value)
    return kind(**values)


def _value(name: str, kind: Any, value: Any) -> Any:
    """Return `value` if it has the setting's type.  TOML has no null: "none" stands for None."""
    if type(value) is int and abs(value) > (sys.float_info.max if kind is float else 2**64):
        raise ConfigError(f"{name} is too large; got an integer of {value.bit_length()} bits")
    if kind is float and type(value) is int:
        return float(value)
    if typing.get_origin(kind) is tuple:  # first: to Python 3.10 tuple[int, ...] is a type
        if isinstance(value, list) and value and all(type(item) is int and item > 0 for item in value):
            return tuple(value)
        raise ConfigError(f"{name} must be a list of integers > 0; got {as_toml(value)}")
    if isinstance(kind, type):
        if type(value) is kind:
            return value
        raise ConfigError(f"{name} must be {_words(kind)}; got {as_toml(value)}")
    if kind == float | None:
        if value != "none" and type(value) not in (int, float):
            raise ConfigError(f'{name} must be a number or "none"; got {as_toml(value)}')
        return None if value == "none" else float(value)
    named = _named(kind)
    if isinstance(value, str) and value in named:
        return named[value]
    right = ", ".join(map(as_toml, named))
    raise ConfigError(f"{name} must be one of {right}; got {as_toml(value)}{_nearest(str(value), named)}")


def _named(kind: Any) -> dict[str, str | None]:
    """Return what a setting with choices may be, by what a file calls it."""
    choices = [choice for part in _alternatives(kind) for choice in (typing.get_args(part) or [part])]
    return {"none" if choice is type(None) else choice: None if choice is type(None) else choice for choice in choices}


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _words(kind: type) -> str:
    return {int: "an integer", float: "a number", str: "a text", bool: "true or false"}[kind]


def _right(unknown: str, known: Mapping[str, object]) -> str:
    """Say what is nearest to an unknown name: the same in another table, a similar one here, or else all there are."""
    for table, described in settings():
        if unknown == described.name:
            return f"; did you mean {unknown} in [{table}]?"
    return _nearest(unknown, known) or f"; known are {', '.join(known)}"


def _nearest(given: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


# From the command line ------------------------------------------------------------------------------------------------


def parse_setting(text: str) -> tuple[str, object]:
    """Return name and value of ``TABLE.KEY=VALUE``; a VALUE that is not TOML, as a bare word, is a text.

    Raises:
        ConfigError: there is no such setting, no "=", or the VALUE is nested too deeply.
    """
    name, equals, written = text.partition("=")
    name = name.strip()
    known = [f"{table}.{described.name}" for table, described in settings()]
    if not equals:
        raise ConfigError(f"a setting is given as TABLE.KEY=VALUE; got {text!r}")
    if name not in known:
        keys = {one.partition(".")[2]: one for one in known}  # learning_rate, without its table, is near enough
        near = keys.get(name.rpartition(".")[2]) or next(iter(difflib.get_close_matches(name, known, n=1)), None)
        raise ConfigError(f"unknown setting {name!r}" + (f"; did you mean {near}?" if near else ""))
    try:
        (value,) = tomllib.loads(f"value = {written}").values()
    except RecursionError:
        raise ConfigError(f"{name}: brackets are nested too deeply") from None
    except ValueError:  # not TOML, or more than one line of it
        value = written
    return name, value


def overridden(config: Config, changes: Mapping[str, object]) -> Config:
    """Return the configuration with other values, all changed at once.

    Args:
        config: what holds for every other setting.
        changes: TOML's values by ``"table.key"``.

    Raises:
        ConfigError: as `config_from`.
    """
    tables = _as_tables(config)
    for name, value in changes.items():
        table, _, key = name.partition(".")
        tables.setdefault(table, {})[key] = value
    return config_from(tables)


# Writing --------------------------------------------------------------------------------------------------------------


def config_as_toml(config: Config) -> str:
    """Return the configuration as the text of a TOML file, every setting with its help beside it.

    `load_config` reads the same configuration from it.
    """
    lines: list[str] = []
    for table, values in _as_tables(config).items():
        written = {key: f"{key} = {as_toml(value)}" for key, value in values.items()}
        width = min(max(map(len, written.values())), WIDEST)
        lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
        lines += [f"{written[one.key]:{width}}  # {_comment(one)}" for one in described_settings(table)]
    return "\n".join(lines) + "\n"


def _comment(setting: Described) -> str:
    """Return the help and what a value does not show: what else it may be."""
    return f"{setting.help}; {setting.kind}" if setting.kind.startswith("one of") else setting.help


class Described(NamedTuple):
    """A setting in words."""

    key: str
    kind: str  # its type and range, or what it may be
    default: str  # as TOML
    help: str


def described_settings(table: str) -> Iterator[Described]:
    """Yield every setting of a table in words."""
    types_of = typing.get_type_hints(TABLES[table])
    for described in dataclasses.fields(TABLES[table]):
        words = [described.metadata["help"], *map(_condition, described.metadata["read_where"].items())]
        kind = _kind(types_of[described.name], described.metadata["within"])
        yield Described(described.name, kind, as_toml(described.default), "; ".join(words))


def _condition(where: tuple[str, tuple[str, ...]]) -> str:
    return f"only with {where[0]} {' or '.join(where[1])}"


def _kind(kind: Any, within: str) -> str:
    if typing.get_origin(kind) is tuple:
        return "list of integers > 0"
    if kind == float | None:
        return "number or none"
    if kind in (int, float):  # what float32 can hold goes without saying where nothing is wrong
        return re.sub(r"( and)? finite in float32$", "", f"{_words(kind).split()[1]} {within}")
    return _words(kind).removeprefix("a ") if isinstance(kind, type) else f"one of {', '.join(_named(kind))}"


def _as_tables(config: Config) -> dict[str, dict[str, Any]]:
    """Return the configuration as `config_from` takes it."""
    return {
        table: {key: _as_toml_value(value) for key, value in values.items()}
        for table, values in dataclasses.asdict(config).items()
    }


def _as_toml_value(value: Any) -> Any:
    return "none" if value is None else list(value) if isinstance(value, tuple) else value
