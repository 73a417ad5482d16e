"""Small recorded runs for the tests of verify and diff, and faults that strike one element of one array of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convlstm import training
from convlstm.backends import Array
from convlstm.config import Config, Data, Model, Training
from convlstm.training import train

TINY = Config(
    Data(size=16, context=2, horizon=3, test_sequences=1),
    Model(hidden_channels=(3,), kernel_size=3, patch=4, output="sigmoid"),
    Training(steps=3, batch_size=2, seed=5, loss="bce", optimizer="adam", schedule="constant", clipping="none"),
)


def changed(config: Config, **settings: Any) -> Config:
    """Return a configuration with other settings, whichever tables they stand in."""
    parts = {table: getattr(config, table) for table in ("data", "model", "training")}
    return Config(**{
        table: replace(part, **{name: value for name, value in settings.items() if hasattr(part, name)})
        for table, part in parts.items()
    })  # fmt: skip


def trained(directory: Path, config: Config = TINY, backend: str = "numpy") -> Path:
    """Train into a directory, without a picture, which takes longer than such a run."""
    directory.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "draw_forecast", lambda config, model, path, source: None)
        train(config, directory, backend=backend, report=lambda done, loss: None)
    return directory


def nudged(array: Array, at: tuple[int, ...], ulps: int = 1) -> Array:
    """Return a copy with the same order of memory and one element so many numbers of its format further from zero."""
    copy = array.copy(order="K")
    copy.view(f"i{array.dtype.itemsize}")[at] += ulps
    return copy


def at_call(number: int, function: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return the function with what it returns changed, but only in its call of this number."""
    calls = iter(range(10**9))

    def counted(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        return change(result) if next(calls) == number else result

    return counted
