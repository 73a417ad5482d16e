"""Sequences that are windows of a series of frames: scaled, filled where values are missing, padded to whole patches.

    scaled = (value - season - offset) / scale           season: the mean of the frame's calendar month, or 0
    value  = scaled · scale + offset + season

A missing value is read as the last one of its pixel in the window, or, where it had none yet, as the mean of what
training saw; it counts in no loss and no score.  No more do the pixels that are added to the right and below where a
patch does not divide the size of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.data.climatology import Climatology
from convlstm.data.facts import Facts
from convlstm.data.series import Axis, DataError, Series, south_first
from convlstm.data.source import Batch, Frames, Scored, Split
from convlstm.data.windows import starts, windows_of


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
        """Take a series whose scaling is known; see `fitting.fitted` and `of_others`.

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
        filled = _filled(scaled, there, self.facts.filling)
        padding = [(0, full - size) for full, size in zip(self.shape[1:], raw.shape[3:], strict=True)]
        valid = np.pad(there, [(0, 0)] * 3 + padding)
        valid[:, self.windows.context : self.windows.context + self.windows.gap] = False
        H, W = raw.shape[3:]
        frames = np.zeros(valid.shape, np.float32) + np.array(self.facts.filling, np.float32)[:, None, None]
        frames[..., :H, :W] = filled
        return Batch(frames, valid, raw, season)

    def season(self, times: NDArray[Any]) -> Frames | None:
        """Return the climatology at some of the `times_of` a series, (…, C, H, W).

        Raises:
            DataError: the model knows the seasons, but not that of all these times.
        """
        if self.climatology is None:
            return None
        season = self.climatology.at(times)
        if self._seasonal and np.isnan(season).all(axis=(-3, -2, -1)).any():
            raise DataError(
                f"{self.series.name}: the model was trained on no frames of some of the months that it needs"
            )
        return season

    def undo(self, frames: Frames, season: Frames | None) -> Frames:
        """Return a model's frames in the data's own units and size."""
        H, W = self.facts.shape[1:]
        values = self.facts.scaling.undo(frames[..., :H, :W])
        return values + season if self._seasonal and season is not None else values


def _filled(frames: Frames, there: NDArray[np.bool_], never: tuple[float, ...]) -> Frames:
    """Return frames (N, T, C, H, W) with the last value of a pixel where none is there, or `never` of its channel."""
    last = np.broadcast_to(np.array(never, np.float32)[:, None, None], frames[:, 0].shape)
    filled = np.zeros_like(frames)
    for t in range(frames.shape[1]):
        last = filled[:, t] = np.where(there[:, t], frames[:, t], last)
    return filled


def times_of(series: Series) -> NDArray[Any]:
    """Return what a climatology is asked with: the frames' times, or their numbers where these are not known."""
    return np.arange(series.shape[0]) if series.times is None else series.times


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
    same_map = series.shape[1:] == facts.shape and _same_place(series, facts)
    if seasonal and (series.times is None or not same_map):
        raise DataError(f"{series.name}: the model knows the seasons of each pixel: {_lacking(series, facts)}")
    if climatology is not None and len(facts.damping) != windows.horizon:
        known = f"the damping of {len(facts.damping)} lead times, and {windows.horizon} are predicted"
        raise DataError(f"{series.name}: cannot be scored: what the run's data.json holds is {known}")
    if not same_map or (climatology is not None and len(climatology.means) > 1 and series.times is None):
        climatology = None  # it tells nothing of these frames
    cut = np.zeros(0, np.int64)
    if whole:
        cut = starts("test", series.runs, series.runs, **asdict(windows), name=series.name)
    return FrameSource(
        series, windows, replace(facts, name=series.name, shape=series.shape[1:], sha256=""), {"test": cut},
        climatology=climatology, seasonal=seasonal, patch=patch, seed=0,
    )  # fmt: skip


def _check_like(series: Series, facts: Facts) -> None:
    """Check that a model of these facts can read the series."""
    name = series.name
    if series.shape[1] != facts.shape[0]:
        raise DataError(f"{name}: its frames have {series.shape[1]} channels; the model reads {facts.shape[0]}")
    if series.channels and facts.channels and series.channels != facts.channels:
        given, right = ", ".join(series.channels), ", ".join(facts.channels)
        raise DataError(f"{name}: its channels are {given}; the model reads {right}")
    if series.units and facts.units and series.units != facts.units:
        raise DataError(f"{name}: its values are in {series.units}; the model learnt them in {facts.units}")
    for what, axis, other in (("rows", series.y, facts.rows), ("columns", series.x, facts.columns)):
        own = ends(axis) if _one_way(axis) else None
        if own is not None and other is not None and (own[1] - own[0]) * (other[1] - other[0]) < 0:
            raise DataError(f"{name}: its {what} go from {own[0]:g} to {own[1]:g}; the model's the other way")


def _one_way(axis: Axis | None) -> bool:
    """Say whether an axis grows, or shrinks, throughout; longitudes 0 … 180, -179 … -1 do neither."""
    if axis is None or ends(axis) is None:
        return False
    steps = np.diff(axis.values.astype(np.float64))
    return bool((steps > 0).all() or (steps < 0).all())


def _same_place(series: Series, facts: Facts) -> bool:
    """Say whether nothing speaks against frames of the same size being of the same map, to a tenth of a pixel."""
    sizes = series.shape[2:]
    for size, own, other in zip(sizes, (ends(series.y), ends(series.x)), (facts.rows, facts.columns), strict=True):
        if own is None or other is None:
            continue
        pixel = abs(other[1] - other[0]) / max(size - 1, 1)
        if not np.allclose(own, other, rtol=1e-6, atol=0.1 * pixel):  # a lone row may have been rounded to float32
            return False
    return True


def _lacking(series: Series, facts: Facts) -> str:
    """Say what frames lack to have known seasons."""
    if series.times is None:
        return series.undated
    given, right = ("×".join(map(str, shape[1:])) for shape in (series.shape[1:], facts.shape))
    return f"these frames are of another map than {right} pixels where it learnt" + (
        f"; got {given}" if given != right else ""
    )


def ends(axis: Axis | None) -> tuple[float, float] | None:
    """Return where the first and the last row or column lie; None where that is not known, or not a number."""
    if axis is None or axis.values.dtype.kind not in "iuf" or not np.isfinite(axis.values[[0, -1]]).all():
        return None
    return float(axis.values[0]), float(axis.values[-1])
