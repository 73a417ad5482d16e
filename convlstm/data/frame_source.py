"""Sequences that are windows of a series of frames: scaled, filled where values are missing, padded to whole patches.

    scaled = (value - season - offset) / scale           season: the mean of the frame's calendar month, or 0
    value  = scaled · scale + offset + season

A missing value is read as 0, the mean of what training saw, and counts in no loss and no score.  So do the pixels that
are added to the right and below where a patch does not divide the size of a frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from convlstm.data.climatology import Climatology, climatology
from convlstm.data.facts import Facts
from convlstm.data.scaling import moments_of, read_in_chunks, scaling_from
from convlstm.data.series import DataError, Series, south_first
from convlstm.data.source import Batch, Frames, Scored, Split
from convlstm.data.windows import split_runs, starts, windows_of

PIECE = 2**20  # bytes of a file that are digested at once


@dataclass(frozen=True)
class Windows:
    """How windows are cut out of a series: `context` frames shown, `gap` skipped, `horizon` predicted."""

    context: int
    gap: int
    horizon: int
    stride: int

    @property
    def length(self) -> int:
        """Frames of a window."""
        return self.context + self.gap + self.horizon


class FrameSource:
    """Windows of a series, by split."""

    def __init__(
        self, series: Series, windows: Windows, facts: Facts, starts: Mapping[Split, NDArray[np.int64]],
        *, patch: int, seed: int, climatology: Climatology | None, seasonal: bool,
    ) -> None:  # fmt: skip
        """Take a series whose scaling is known; see `fitted` and `of_others`.

        Args:
            series: the frames.
            windows: how they are cut.
            facts: of the frames that the scaling was fitted on.
            starts: the first frame of each window of each split.
            climatology: of the training frames; None where it is not known.
            seasonal: whether it is taken off before scaling.
            patch: what height and width are padded to a multiple of.
            seed: of the order of training windows.
        """
        self.series, self.windows, self.facts = series, windows, facts
        self._starts, self.climatology, self._seasonal, self._seed = starts, climatology, seasonal, seed
        self.south_first = south_first(series.y)
        C, H, W = facts.shape
        self.shape = (C, H + -H % patch, W + -W % patch)

    def count(self, split: Scored) -> int:
        """Return how many windows of a split are scored."""
        return len(self._starts[split]) if split in self._starts else 0

    def batch(self, split: Split, indices: range) -> Batch:
        """Return windows: of the split train shuffled, each once in an epoch; of the others in order of time."""
        firsts = self._firsts(split, indices)
        raw = np.stack([self.series.read(first, first + self.windows.length) for first in firsts])
        return self.prepared(raw, self.times(split, indices))

    def times(self, split: Split, indices: range) -> NDArray[Any]:
        """Return the `times_of` windows, (N, T)."""
        frames = self._firsts(split, indices)[:, None] + np.arange(self.windows.length)
        times: NDArray[Any] = times_of(self.series)[frames]
        return times

    def _firsts(self, split: Split, indices: range) -> NDArray[np.int64]:
        """Return the first frame of each window."""
        of_split = self._starts[split]
        chosen = windows_of(indices, len(of_split), seed=self._seed) if split == "train" else list(indices)
        return of_split[chosen]

    def prepared(self, raw: Frames, times: NDArray[Any]) -> Batch:
        """Return frames (N, T, C, H, W) in their own units, and the `times_of` them (N, T), as a model reads them."""
        season = self.season(times)
        scaled = self.facts.scaling.apply(raw if season is None or not self._seasonal else raw - season)
        there = np.isfinite(scaled)
        padding = [(0, full - size) for full, size in zip(self.shape[1:], raw.shape[3:], strict=True)]
        valid = np.pad(there, [(0, 0)] * 3 + padding)
        valid[:, self.windows.context : self.windows.context + self.windows.gap] = False
        frames = np.pad(np.where(there, scaled, np.float32(0)), [(0, 0)] * 3 + padding)
        return Batch(frames, valid, raw, season)

    def season(self, times: NDArray[Any]) -> Frames | None:
        """Return the climatology at some of the `times_of` a series, (…, C, H, W)."""
        return None if self.climatology is None else self.climatology.at(times)

    def undo(self, frames: Frames, season: Frames | None) -> Frames:
        """Return a model's frames in the data's own units and size."""
        H, W = self.facts.shape[1:]
        values = self.facts.scaling.undo(frames[..., :H, :W])
        return values + season if self._seasonal and season is not None else values


def times_of(series: Series) -> NDArray[Any]:
    """Return what a climatology is asked with: the frames' times, or their numbers where these are not known."""
    return np.arange(series.shape[0]) if series.times is None else series.times


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
    cut = {s: firsts if s == "train" else _spread(firsts, most[s]) for s, firsts in cut.items()}
    cut["train"] = _with_a_value(series, cut["train"], windows, targets["train"])
    usual, seasonal = climatology(series, targets["train"]).filled(), scaling == "seasonal"
    values = changing = moments_of(series, targets["train"])
    if seasonal:
        _check_months(series, targets["train"])
        changing = moments_of(replace(series, read=_without_season(series, usual)), targets["train"])
    fit = scaling_from(changing, "standard" if scaling == "seasonal" else scaling)
    _check_scored(series, targets)
    lowest, highest = float(values.lowest.min()), float(values.highest.max())
    facts = Facts(
        series.name, series.shape[1:], fit, lowest, highest, series.channels, series.units,
        {split: len(of_split) for split, of_split in cut.items()}, digest(series),
    )  # fmt: skip
    return FrameSource(series, windows, facts, cut, climatology=usual, seasonal=seasonal, patch=patch, seed=seed)


def of_others(
    series: Series, windows: Windows, facts: Facts,
    *, climatology: Climatology | None, seasonal: bool, patch: int, whole: bool = True,
) -> FrameSource:  # fmt: skip
    """Return a source of other frames than those that a run was trained on, all windows of which are in the split test.

    Args:
        series: the frames.
        windows: how they are cut.
        facts: of the run; frames of another size are scaled alike.
        climatology: of the run's training frames; None where it has none.
        seasonal: whether it is taken off before scaling.
        patch: see `FrameSource`.
        whole: whether there must be a whole window.

    Raises:
        DataError: they have other channels, or too few frames, or, where the model knows the seasons, another size or
            no times; the message begins with their name.
    """
    _check_like(series, facts)
    if seasonal and (series.times is None or series.shape[1:] != facts.shape):
        right = "×".join(map(str, facts.shape[1:]))
        raise DataError(f"{series.name}: the model knows the seasons, so it needs frames of {right} pixels with times")
    if climatology is not None and (
        series.shape[1:] != facts.shape or (series.times is None and len(climatology.means) > 1)
    ):
        climatology = None
    cut = (
        starts("test", series.runs, series.runs, **asdict(windows), name=series.name)
        if whole
        else np.zeros(0, np.int64)
    )
    return FrameSource(
        series, windows, replace(facts, name=series.name, shape=series.shape[1:]), {"test": cut},
        climatology=climatology, seasonal=seasonal, patch=patch, seed=0,
    )  # fmt: skip


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


def _check_scored(series: Series, targets: Mapping[Split, Sequence[range]]) -> None:
    """Read what is scored: what cannot be read, or has no value, is to be named before training and not after it."""
    for _ in read_in_chunks(series, targets["validation"]):
        pass
    valued = [bool(np.isfinite(frames).any()) for _, frames in read_in_chunks(series, targets["test"])]
    if not any(valued):
        raise DataError(f"{series.name}: there is no value in any test frame: all are missing")


def _with_a_value(
    series: Series, firsts: NDArray[np.int64], windows: Windows, training: Sequence[range]
) -> NDArray[np.int64]:
    """Return the windows that hold a value to predict: a batch of others would have no loss."""
    valued = np.zeros(series.shape[0], bool)
    for chunk, frames in read_in_chunks(series, training):
        valued[chunk.start : chunk.stop] = np.isfinite(frames).any(axis=(1, 2, 3))
    ahead = firsts[:, None] + np.arange(windows.context + windows.gap, windows.length)
    kept: NDArray[np.int64] = firsts[valued[ahead].any(axis=1)]
    if valued.any() and not len(kept):
        raise DataError(f"{series.name}: no training window holds a value to predict")
    return kept


def _check_months(series: Series, training: Sequence[range]) -> None:
    """Check that there is a mean of every month that occurs."""
    if series.times is None:
        raise DataError(f'{series.name}: its frames have no times, which [data] scaling "seasonal" needs')
    months = series.times.astype("datetime64[M]").astype(np.int64) % 12
    lacking = set(months) - {month for part in training for month in months[part.start : part.stop]}
    if lacking:
        raise DataError(
            f"{series.name}: the training frames hold none of month {min(lacking) + 1}, "
            'so [data] scaling "seasonal" cannot know its mean'
        )


def _check_like(series: Series, facts: Facts) -> None:
    """Check that a model of these facts can read the series."""
    if series.shape[1] != facts.shape[0]:
        raise DataError(f"{series.name}: its frames have {series.shape[1]} channels; the model reads {facts.shape[0]}")
    if series.units and facts.units and series.units != facts.units:
        raise DataError(f"{series.name}: its values are in {series.units}; the model learnt them in {facts.units}")
