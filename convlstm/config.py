"""What a training run is made of: every setting with its default, its meaning, and a check.

A configuration is a TOML file with the tables below; what it does not say keeps its default.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from convlstm.clipping import ClippingName
from convlstm.losses import LossName
from convlstm.parameters import Kind
from convlstm.schedules import ScheduleName

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class ConfigError(ValueError):
    """A configuration that cannot be read or says something impossible; the message names the setting."""


@dataclass(frozen=True)
class Data:
    """[data]: two digits that drift and bounce; see data/digits.py."""

    size: int = 32  # height and width of a frame, pixels
    context: int = 5  # frames that are shown
    horizon: int = 5  # frames to predict
    test_sequences: int = 100  # scored after training


@dataclass(frozen=True)
class Model:
    """[model]: see `NextFrame`."""

    hidden_channels: tuple[int, ...] = (32,)  # of each layer
    kernel_size: int = 5
    patch: int = 2  # P×P pixels become one with P·P channels
    bias: Kind = "channel"
    peephole: Kind = None
    output: Literal["linear", "sigmoid"] = "sigmoid"
    weights: str = ""  # start from these: .npz, .safetensors or a folder of text files; "" draws them from the seed


@dataclass(frozen=True)
class Training:
    """[training]: one step is one batch."""

    steps: int = 300
    batch_size: int = 4  # sequences
    seed: int = 0
    loss: LossName = "bce"
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 5e-3
    schedule: ScheduleName = "linear"  # of the learning rate: "constant", or "linear" down to 0
    clipping: ClippingName = "global"  # "tensor": any |g| > 1 divides its tensor by its norm; "global": to norm 1


@dataclass(frozen=True)
class Config:
    """A whole run."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        for table in ("data", "model", "training"):
            for setting in dataclasses.fields(getattr(self, table)):
                value = getattr(getattr(self, table), setting.name)
                if isinstance(value, (int, float)):
                    _check_number(f"[{table}] {setting.name}", value, zero=setting.name == "seed")
        if self.data.size % self.model.patch:
            raise ConfigError(f"[model] patch must divide [data] size; got {self.model.patch} and {self.data.size}")
        if self.training.loss == "bce" and self.model.output != "sigmoid":
            raise ConfigError(f"[training] loss 'bce' needs [model] output 'sigmoid'; got {self.model.output!r}")


def _check_number(name: str, value: float, *, zero: bool) -> None:
    if not (value > 0 or (zero and value == 0)) or value == math.inf:
        least = f"{'≥' if zero else '>'} 0{' and finite' if isinstance(value, float) else ''}"
        raise ConfigError(f"{name} must be {least}; got {value}")


PRESETS = {"digits": Config()}


def load_config(name: str) -> Config:
    """Return a preset, or what a TOML file says.

    Raises:
        ConfigError: there is no such preset or file, the file is not TOML, or a table, key or value in it is not known;
            the message names the nearest that is.
    """
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix != ".toml":
        presets = ", ".join(PRESETS)
        raise ConfigError(f"{name!r} is neither a preset ({presets}) nor a .toml file{_nearest(name, PRESETS)}")
    try:
        return config_from(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{name}: {error}") from None


def config_from(tables: Mapping[str, Any]) -> Config:
    """Return the configuration that nested dictionaries describe.

    Raises:
        ConfigError: as `load_config`.
    """
    known = typing.get_type_hints(Config)
    for table in tables:
        if table not in known:
            raise ConfigError(f"unknown table [{table}]; known are {', '.join(known)}{_nearest(table, known)}")
    return Config(**{table: _table(table, known[table], settings) for table, settings in tables.items()})


def _table(table: str, kind: type, settings: object) -> Any:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{table} must be a table of settings; got {settings!r}")
    types_of = typing.get_type_hints(kind)
    values = {}
    for key, value in settings.items():
        if key not in types_of:
            right = f"known are {', '.join(types_of)}{_nearest(key, types_of)}"
            raise ConfigError(f"unknown setting {key} in [{table}]; {right}")
        values[key] = _value(f"[{table}] {key}", types_of[key], value)
    return kind(**values)


def _value(name: str, kind: Any, value: Any) -> Any:
    """Return `value` if it has the setting's type.  TOML has no null: "none" stands for None."""
    choices = [choice for part in _alternatives(kind) for choice in (typing.get_args(part) or [part])]
    if kind is float and type(value) is int:
        return float(value)
    if typing.get_origin(kind) is tuple:  # first: to Python 3.10 tuple[int, ...] is a type
        if isinstance(value, list) and value and all(type(item) is int and item > 0 for item in value):
            return tuple(value)
        raise ConfigError(f"{name} must be a list of integers > 0; got {value!r}")
    if isinstance(kind, type):
        if type(value) is kind:
            return value
        raise ConfigError(f"{name} must be {_words(kind)}; got {value!r}")
    named: dict[Any, Any] = {"none" if choice is type(None) else choice: choice for choice in choices}
    if isinstance(value, str) and value in named:
        return None if named[value] is type(None) else value
    right = ", ".join(map(repr, named))
    raise ConfigError(f"{name} must be one of {right}; got {value!r}{_nearest(str(value), named)}")


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _words(kind: type) -> str:
    return {int: "an integer", float: "a number", str: "a text", bool: "true or false"}[kind]


def _nearest(given: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def config_as_toml(config: Config) -> str:
    """Return the configuration as the text of a TOML file; `load_config` reads the same one from it."""
    tables = {
        table: {key: "none" if value is None else value for key, value in settings.items()}
        for table, settings in dataclasses.asdict(config).items()
    }
    return tomli_w.dumps(tables)
