"""From a file's values to numbers of the size that networks learn with, and back: one offset and scale per channel.

What they are is measured on the training frames alone: a scaling fitted on all frames would tell a model about the
frames that it is tested on.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from convlstm.backends.geometry import as_count
from convlstm.data.series import DataError, Series

Kind = Literal["none", "range", "standard"]

ELEMENTS_AT_ONCE = 2**22  # of a series that are read: 16 MiB


@dataclass(frozen=True)
class Scaling:
    """scaled = (value - offset) / scale, for each channel; NaN stays NaN.

    Attributes:
        offset: one for each channel, finite.
        scale: one for each channel, finite and > 0.

    Raises:
        ValueError: they are not that.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.offset or len(self.offset) != len(self.scale):
            raise ValueError(f"offset and scale must have one number per channel; got {self.offset} and {self.scale}")
        if not all(math.isfinite(offset) for offset in self.offset):
            raise ValueError(f"offset must be finite; got {self.offset}")
        if not all(0 < scale < math.inf for scale in self.scale):
            raise ValueError(f"scale must be finite and > 0; got {self.scale}")

    def apply(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return frames (…, C, H, W) scaled, computed in float64 and rounded once to float32."""
        offset, scale = self._columns(frames)
        return ((frames.astype(np.float64) - offset) / scale).astype(np.float32)

    def undo(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scaled frames (…, C, H, W) in the units of the file, computed in float64 and rounded once."""
        offset, scale = self._columns(frames)
        return (frames.astype(np.float64) * scale + offset).astype(np.float32)

    def as_json(self) -> dict[str, list[float]]:
        """Return what `from_json` reads; JSON keeps every bit of the numbers."""
        return {"offset": list(self.offset), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, plain: object) -> Scaling:
        """Return the scaling that `as_json` wrote.

        Raises:
            ValueError: it is of another form; the message does not name the file, which its reader knows.
        """
        if not isinstance(plain, Mapping) or set(plain) != {"offset", "scale"}:
            raise ValueError(f'a scaling must have "offset" and "scale" and nothing else; got {reprlib.repr(plain)}')
        for key, numbers in plain.items():
            if not isinstance(numbers, list) or not all(map(_is_number, numbers)):
                raise ValueError(f'"{key}" of a scaling must be a list of numbers; got {reprlib.repr(numbers)}')
        return cls(tuple(map(float, plain["offset"])), tuple(map(float, plain["scale"])))

    def _columns(self, frames: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return offset and scale with the axes (C, 1, 1)."""
        if frames.ndim < 3 or frames.shape[-3] != len(self.offset):
            raise ValueError(f"frames must have shape (…, {len(self.offset)}, H, W); got {frames.shape}")
        return np.array(self.offset)[:, None, None], np.array(self.scale)[:, None, None]


@dataclass(frozen=True)
class Moments:
    """What a scaling is made of, one number for each channel, (C,); of values that are not NaN.

    Attributes:
        count: how many.
        mean: their mean, 0 where there are none.
        squares: the sum of their squared distances to it.
        lowest, highest: the bounds, +∞ and -∞ where there are none.
    """

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]


def fit_scaling(series: Series, frames: Sequence[range], kind: Kind, *, at_once: int | None = None) -> Scaling:
    """Return the scaling that some frames of a series ask for, NaN left out.

    Args:
        series: the frames.
        frames: which to look at: those of the training split.
        kind: ``"range"``: the lowest value becomes 0, the highest 1; ``"standard"``: mean 0, standard deviation 1 (of
            the frames themselves: divided by their number); ``"none"``: values stay what they are.
        at_once: frames in memory at a time, ≥ 1; no bit of the result depends on it.

    Raises:
        ValueError: ``kind`` or ``at_once`` is none of these.
        DataError: a channel has no value, an infinite one, or the same one everywhere.
    """
    return scaling_from(moments_of(series, frames, at_once=at_once), kind)


def moments_of(series: Series, frames: Sequence[range], *, at_once: int | None = None) -> Moments:
    """Return the moments of some frames of a series, merged frame by frame, so that chunks change no bit.

    Raises:
        ValueError, DataError: as `fit_scaling`.
    """
    moments = moments_of_nothing(series)
    for numbers, values in read_in_chunks(series, frames, at_once):
        moments = moments_with(moments, series, numbers, values)
    check_something_to_learn(series, moments)
    return moments


def moments_of_nothing(series: Series) -> Moments:
    """Return the moments of none of a series' frames."""
    return moments_of_frame(np.full((series.shape[1], 1, 1), np.nan))


def moments_with(moments: Moments, series: Series, numbers: range, frames: NDArray[np.float32]) -> Moments:
    """Return the moments with those of more frames, (n, C, H, W), which have these numbers.

    Raises:
        DataError: one of them holds an infinity.
    """
    for number, frame in zip(numbers, frames, strict=True):
        _check_finite(series, number, frame)
        moments = merged(moments, moments_of_frame(frame))
    return moments


def scaling_from(moments: Moments, kind: Kind) -> Scaling:
    """Return the scaling of a kind, see `fit_scaling`, from what `moments_of` returned."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}; got {kind!r}")
    channels = len(moments.mean)
    if kind == "none":
        return Scaling((0.0,) * channels, (1.0,) * channels)
    if kind == "range":
        return Scaling(tuple(moments.lowest.tolist()), tuple((moments.highest - moments.lowest).tolist()))
    deviation = np.sqrt(moments.squares / moments.count)
    return Scaling(tuple(moments.mean.tolist()), tuple(deviation.tolist()))


def read_in_chunks(
    series: Series, frames: Sequence[range], at_once: int | None = None
) -> Iterator[tuple[range, NDArray[np.float32]]]:
    """Yield frame numbers and the frames (n, C, H, W), at most ``at_once`` at a time, by default 16 MiB of them."""
    if at_once is None:
        at_once = max(1, ELEMENTS_AT_ONCE // math.prod(series.shape[1:]))
    at_once = as_count("at_once", at_once)
    for stretch in frames:
        for start in range(stretch.start, stretch.stop, at_once):
            chunk = range(start, min(start + at_once, stretch.stop))
            yield chunk, series.read(chunk.start, chunk.stop)


def merged(one: Moments, other: Moments) -> Moments:
    """Return the moments of two sets of values from the moments of each.

    With δ = mean₂ - mean₁ and n = n₁ + n₂: mean = mean₁ + δ n₂ / n, squares = squares₁ + squares₂ + δ² n₁ n₂ / n.  No
    large numbers are subtracted from each other, as Σx² - (Σx)²/n would.

    Source: T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance: analysis and
    recommendations", The American Statistician 37(3), 1983.
    """
    count = one.count + other.count
    share = other.count / np.maximum(count, 1)
    delta = other.mean - one.mean
    return Moments(
        count,
        one.mean + delta * share,
        one.squares + other.squares + delta * delta * one.count * share,
        np.minimum(one.lowest, other.lowest),
        np.maximum(one.highest, other.highest),
    )


def moments_of_frame(frame: NDArray[np.float32] | NDArray[np.float64]) -> Moments:
    """Return the moments of one frame (C, H, W)."""
    values = np.ascontiguousarray(frame, np.float64).reshape(len(frame), -1)  # (C, H·W)
    there = ~np.isnan(values)
    count = there.sum(axis=1)
    mean = np.where(there, values, 0).sum(axis=1) / np.maximum(count, 1)
    away = np.where(there, values - mean[:, None], 0)
    return Moments(
        count.astype(np.int64),
        mean,
        (away * away).sum(axis=1),
        np.where(there, values, np.inf).min(axis=1),
        np.where(there, values, -np.inf).max(axis=1),
    )


def _is_number(value: object) -> bool:
    """Say whether a value from JSON is a number that a float can hold."""
    return type(value) is float or (type(value) is int and abs(value) < 2**1023)


def _check_finite(series: Series, number: int, frame: NDArray[np.float32]) -> None:
    infinite = np.isinf(frame).any(axis=(1, 2))  # (C,)
    if infinite.any():
        raise DataError(f"{series.name}: {_channel(series, int(infinite.argmax()))} is infinite in frame {number}")


def check_something_to_learn(series: Series, moments: Moments) -> None:
    """Check that training frames of these moments have values, and not the same everywhere.

    Raises:
        DataError: a channel has none, or one alone.
    """
    for c, count in enumerate(moments.count):
        if not count:
            raise DataError(f"{series.name}: {_channel(series, c)} has no value in any training frame: all are missing")
        if moments.lowest[c] == moments.highest[c]:
            value = f"{np.float32(moments.lowest[c])!s}"
            raise DataError(
                f"{series.name}: {_channel(series, c)} is {value} in every training frame: there is nothing to learn"
            )


def _channel(series: Series, c: int) -> str:
    return f"channel {c} ({series.channels[c]})" if series.channels else f"channel {c}"
