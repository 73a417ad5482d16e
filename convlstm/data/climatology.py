"""What is usual: the mean frame of each calendar month, a forecast that any model of the seasons has to beat.

It takes the month from a frame's time alone, so monthly, daily and hourly frames are all served: January's mean is
that of every training frame dated in a January.  The climatology of a daily series changes at the first of a month, not
smoothly.  A series without times has no months, and its climatology is one frame, the mean of all training frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.data.scaling import read_in_chunks
from convlstm.data.series import Series

MONTHS = 12


@dataclass(frozen=True)
class Climatology:
    """Mean frames in the units of the file.

    Attributes:
        means: (12, C, H, W), January first, or (1, C, H, W) of a series without times; NaN where no training frame
            of that month has a value.
    """

    means: NDArray[np.float32]

    def at(self, times: NDArray[Any]) -> NDArray[np.float32]:
        """Return the usual frames at some times.

        Args:
            times: datetime64 of any shape (…); of a series without times anything of that shape, such as its frames'
                numbers.

        Returns:
            Shape (…, C, H, W).

        Raises:
            ValueError: there are means of months, and ``times`` are not all times.
        """
        if len(self.means) == 1:
            return self.means[np.zeros(times.shape, np.int64)]
        return self.means[_months(times)]

    def filled(self) -> Climatology:
        """Return it with the mean of the months that a pixel has in place of those that it has not."""
        there = ~np.isnan(self.means)
        total = np.where(there, self.means, 0).sum(axis=0, dtype=np.float64) / np.maximum(there.sum(axis=0), 1)
        usual = np.where(there.any(axis=0), total, np.nan)
        return Climatology(np.where(there, self.means, usual).astype(np.float32))


class ClimatologySums:
    """Sums over as many frames as are added, NaN left out, for each pixel and, where they have times, each month."""

    def __init__(self, series: Series) -> None:
        """Begin with no frame of a series.

        Raises:
            ValueError: one of the times is none (NaT).
        """
        rows = np.zeros(series.shape[0], np.int64) if series.times is None else _months(series.times)
        self._rows: NDArray[np.int64] = rows  # (T,)
        self._sums = np.zeros((1 if series.times is None else MONTHS, *series.shape[1:]))
        self._counts = np.zeros(self._sums.shape, np.int64)

    def add(self, numbers: range, frames: NDArray[np.float32]) -> None:
        """Add the frames with these numbers, (n, C, H, W); no bit depends on how many at once."""
        for row, frame in zip(self._rows[numbers.start : numbers.stop], frames, strict=True):
            there = ~np.isnan(frame)
            self._sums[row] += np.where(there, frame, 0)
            self._counts[row] += there

    def climatology(self) -> Climatology:
        """Return the means."""
        means = np.where(self._counts > 0, self._sums / np.maximum(self._counts, 1), np.nan)
        return Climatology(means.astype(np.float32))


def climatology(series: Series, frames: Sequence[range], *, at_once: int | None = None) -> Climatology:
    """Return the means of some frames of a series.

    Args:
        series: the frames.
        frames: which to look at: those of the training split.
        at_once: frames in memory at a time, ≥ 1; no bit of the result depends on it.

    Raises:
        ValueError: ``at_once`` is not an integer ≥ 1, or one of the times is none (NaT).
    """
    sums = ClimatologySums(series)
    for numbers, values in read_in_chunks(series, frames, at_once):
        sums.add(numbers, values)
    return sums.climatology()


def _months(times: NDArray[Any]) -> NDArray[np.int64]:
    """Return calendar months, 0 for January, of times (…)."""
    if times.dtype.kind != "M":
        raise ValueError(f"times must be datetime64; got {times.dtype}")
    if np.isnat(times).any():
        raise ValueError("times must all be times; got NaT")
    return times.astype("datetime64[M]").astype(np.int64) % MONTHS
