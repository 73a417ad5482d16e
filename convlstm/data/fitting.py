"""A run's own frames: split by time, scaling and climatology fitted on the training frames, and bad ones named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlstm.data.climatology import Climatology, ClimatologySums
from convlstm.data.damping import damping
from convlstm.data.facts import Facts
from convlstm.data.frame_source import FrameSource, Windows, ends, times_of
from convlstm.data.scaling import (
    Moments,
    check_something_to_learn,
    moments_of,
    moments_of_nothing,
    moments_with,
    read_in_chunks,
    scaling_from,
)
from convlstm.data.series import DataError, Series
from convlstm.data.source import Frames, Scored, Split
from convlstm.data.windows import split_runs, starts

PIECE = 2**20  # bytes of a file that are digested at once


def fitted(
    series: Series, windows: Windows, *, scaling: Literal["standard", "seasonal", "range", "none"],
    validation: int, test: int, most: Mapping[Scored, int], patch: int, seed: int,
) -> FrameSource:  # fmt: skip
    """Return a run's own source: split by time, the scaling fitted on the training frames.

    Args:
        series: the frames.
        windows: how they are cut.
        scaling: see `Scaling`; "seasonal" is "standard" of what differs from the climatology.
        validation, test: frames of these splits.
        most: windows that are scored, spread evenly over those that there are.
        patch, seed: see `FrameSource`.

    Raises:
        DataError: the series is too short, constant or without a value, or has no times for "seasonal"; the message
            begins with its name.
    """
    targets = split_runs(series.runs, validation, test, name=series.name)
    cut = {split: starts(split, ranges, series.runs, **asdict(windows), name=series.name)
           for split, ranges in targets.items() if ranges or split != "validation"}  # fmt: skip
    seen, seasonal = _survey(series, targets["train"]), scaling == "seasonal"
    cut["train"] = _with_a_value(series, cut["train"], windows, seen.valued)
    cut = {s: firsts if s == "train" else _spread(firsts, most[s]) for s, firsts in cut.items()}
    usual = seen.usual if seasonal else seen.usual.filled()
    anomalies = replace(series, read=_without_season(series, usual))
    values = _seasonal_moments(series, anomalies, targets["train"]) if seasonal else seen.moments
    _check_scored(series, targets)
    fit = scaling_from(values, "standard" if scaling == "seasonal" else scaling)
    factors = damping(anomalies, targets["train"], windows.gap + windows.horizon)[windows.gap :]
    facts = Facts(
        series.name, series.shape[1:], fit, tuple(seen.moments.lowest.tolist()), tuple(seen.moments.highest.tolist()),
        filling=tuple(((values.mean - fit.offset) / fit.scale).tolist()), damping=tuple(map(tuple, factors.tolist())),
        rows=ends(series.y), columns=ends(series.x), channels=series.channels, variable=series.variable,
        units=series.units,
        windows={split: len(of_split) for split, of_split in cut.items()}, sha256=digest(series),
    )  # fmt: skip
    return FrameSource(series, windows, facts, cut, climatology=usual, seasonal=seasonal, patch=patch, seed=seed)


def _seasonal_moments(series: Series, anomalies: Series, training: Sequence[range]) -> Moments:
    """Return the moments of what differs from the mean of the month."""
    _check_months(series, training)
    try:
        return moments_of(anomalies, training)
    except DataError:  # whatever is wrong with the values themselves was said before
        raise DataError(
            f"{series.name}: no training frame differs from the mean of its month, so with [data] scaling "
            '"seasonal" there is nothing to learn'
        ) from None


class Survey(NamedTuple):
    """What the training frames are like.

    Attributes:
        valued: which of all frames are training frames that have a value, (T,).
        moments: of their values.
        usual: their climatology.
    """

    valued: NDArray[np.bool_]
    moments: Moments
    usual: Climatology


def _survey(series: Series, training: Sequence[range]) -> Survey:
    """Read the training frames, once."""
    valued, moments, sums = np.zeros(series.shape[0], bool), moments_of_nothing(series), ClimatologySums(series)
    for numbers, frames in read_in_chunks(series, training):
        valued[numbers.start : numbers.stop] = ~np.isnan(frames).all(axis=(1, 2, 3))
        moments = moments_with(moments, series, numbers, frames)
        sums.add(numbers, frames)
    check_something_to_learn(series, moments)
    return Survey(valued, moments, sums.climatology())


def _with_a_value(
    series: Series, firsts: NDArray[np.int64], windows: Windows, valued: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the windows that hold a value to predict: a batch of others would have no loss."""
    ahead = firsts[:, None] + np.arange(windows.context + windows.gap, windows.length)
    kept: NDArray[np.int64] = firsts[valued[ahead].any(axis=1)]
    if not len(kept):
        raise DataError(f"{series.name}: no training window holds a value to predict")
    return kept


def _check_scored(series: Series, targets: Mapping[Split, Sequence[range]]) -> None:
    """Read what is scored: what cannot be read, or has no value, is to be named before training and not after it."""
    for _ in read_in_chunks(series, targets["validation"]):
        pass
    valued = [bool(np.isfinite(frames).any()) for _, frames in read_in_chunks(series, targets["test"])]
    if not any(valued):
        raise DataError(f"{series.name}: there is no value in any test frame: all are missing")


def _spread(of_split: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of the windows, evenly spread over all, the last among them."""
    count = min(most, len(of_split))
    return of_split[[len(of_split) * (n + 1) // count - 1 for n in range(count)]]


def digest(series: Series) -> str:
    """Return SHA-256 of the files of a series, one after the other."""
    sha256 = hashlib.sha256()
    for file in series.files:
        with file.open("rb") as stream:
            while piece := stream.read(PIECE):
                sha256.update(piece)
    return sha256.hexdigest()


def _without_season(series: Series, usual: Climatology) -> Callable[[int, int], Frames]:
    def read(first: int, stop: int) -> Frames:
        return series.read(first, stop) - usual.at(times_of(series)[first:stop])

    return read


def _check_months(series: Series, training: Sequence[range]) -> None:
    """Check that there is a mean of every month that occurs."""
    if series.times is None:
        raise DataError(f'{series.name}: [data] scaling "seasonal" needs the dates of its frames, and {series.undated}')
    months = series.times.astype("datetime64[M]").astype(np.int64) % 12
    lacking = set(months) - {month for part in training for month in months[part.start : part.stop]}
    if lacking:
        raise DataError(
            f"{series.name}: the training frames hold none of month {min(lacking) + 1}, "
            'so [data] scaling "seasonal" cannot know its mean'
        )
