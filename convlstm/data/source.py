"""Where a run's sequences come from, the same to whoever trains or scores: made, or windows of frames from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from convlstm.data.facts import Facts
from convlstm.data.scaling import Scaling

Frames = NDArray[np.float32]
Split = Literal["train", "validation", "test"]
Scored = Literal["validation", "test"]


class Batch(NamedTuple):
    """Some sequences; T = context + gap + horizon.

    Attributes:
        frames: as a model reads them, scaled and finite, (N, T, C, H, W); H and W are multiples of its patch.
        valid: where they count in a loss, of the same shape; None: everywhere.
        raw: the same frames in their own units and size, NaN where a value is missing, (N, T, C, h, w).
        season: what is usual at each frame's time, see climatology.py, as `raw`; None where frames are made.
    """

    frames: Frames
    valid: NDArray[np.bool_] | None
    raw: Frames
    season: Frames | None = None


class Source(Protocol):
    """Sequences by split and index.

    Attributes:
        facts: what a model must know of them.
        shape: (C, H, W) of the frames that the model reads.
        south_first: whether a picture must turn the order of rows round to have north on top.
    """

    facts: Facts
    shape: tuple[int, int, int]
    south_first: bool

    def count(self, split: Scored) -> int:
        """Return how many sequences of a split are scored."""

    def batch(self, split: Split, indices: range) -> Batch:
        """Return sequences; those of "train" have indices without end, of the others 0 … count - 1."""

    def undo(self, frames: Frames, season: Frames | None) -> Frames:
        """Return frames (N, T, C, H, W) that a model made, in the data's own units and size."""


class Made:
    """Sequences that are made from their index: grey frames with brightness 0 … 1."""

    def __init__(
        self, name: str, make: Callable[[Split, range], Frames], size: int, counts: Mapping[Scored, int], gap: range
    ) -> None:
        """Take what makes them.

        Args:
            name: what they are.
            make: from split and indices to (N, T, 1, size, size).
            size: height and width.
            counts: how many are scored.
            gap: frames of a sequence that are neither shown nor scored.
        """
        self.facts = Facts(name, (1, size, size), Scaling((0.0,), (1.0,)), (0.0,), (1.0,), filling=(0.0,))
        self.shape, self.south_first = self.facts.shape, False
        self._make, self._counts, self._gap = make, counts, gap

    def count(self, split: Scored) -> int:
        """Return how many sequences of a split are scored."""
        return self._counts[split]

    def batch(self, split: Split, indices: range) -> Batch:
        """Return sequences."""
        frames = self._make(split, indices)
        if not self._gap:
            return Batch(frames, None, frames)
        valid = np.ones(frames.shape, bool)
        valid[:, self._gap.start : self._gap.stop] = False
        return Batch(frames, valid, frames)

    def undo(self, frames: Frames, season: Frames | None) -> Frames:
        """Return them as they are."""
        return frames
