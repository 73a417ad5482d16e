"""Frames in order of time that are read when they are asked for, whatever file or folder they lie in."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Read = Callable[[int, int], NDArray[np.float32]]

OPEN_FILES = 4  # of a folder, at a time
LONGEST_STEP = 1.5  # times the median step; a longer one is a hole
GREGORIAN = ("", "standard", "gregorian", "proleptic_gregorian")  # calendars that datetime64 knows, some years of them


class DataError(ValueError):
    """Frames that cannot be read or used; the message begins with the file's name.

    Names in damaged files can hold anything: what is not printable, a line break too, is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(each if each.isprintable() else repr(each)[1:-1] for each in message))


@dataclass(frozen=True, eq=False)
class Axis:
    """An axis of a map, such as latitude: the place of each row or column; or of time, in a calendar of its own."""

    name: str
    values: NDArray[Any]  # (H,), (W,) or (T,)
    units: str = ""
    calendar: str = ""  # of time, as the file names it


def south_first(y: Axis | None) -> bool:
    """Say whether a map's first row is its southernmost: its rows have units, as latitude has, and grow."""
    return y is not None and bool(y.units) and bool(y.values[0] < y.values[-1])


@dataclass(frozen=True, eq=False)
class Series:
    """Frames in order of time.

    Each run is a stretch of frames that follow one another; together they are 0 … T - 1, in order.  Files stay open as
    long as somebody holds the series.
    """

    name: str  # the file or folder as the user named it
    shape: tuple[int, int, int, int]  # (T, C, H, W)
    read: Read  # (start, stop) -> frames start … stop - 1, (n, C, H, W), a new array, NaN where missing
    runs: tuple[range, ...]
    channels: tuple[str, ...] = ()  # a name for each, or none
    units: str = ""  # of the values; of channels that differ each, see `units_of_channels`
    times: NDArray[np.datetime64] | None = None  # (T,), datetime64[ns]
    clock: Axis | None = None  # (T,), numbers, where the file's times are none that datetime64 knows
    y: Axis | None = None
    x: Axis | None = None
    files: tuple[Path, ...] = ()  # all that it is read from
    sequences: bool = False  # it has an axis N: its frames go on in no other file
    variable: str = ""  # what the file calls the frames; "" where they are several variables, or have no name
    names: Mapping[str, str] = field(default_factory=dict)  # the variable's standard_name and long_name, if it has them

    @property
    def undated(self) -> str:
        """Why its frames have no `times`, to end a message with: "its frames have no times"; "" where they have."""
        if self.times is not None:
            return ""
        if self.clock is None:
            return "its frames have no times"
        if self.clock.calendar.lower() not in GREGORIAN:
            return f"its times are in the calendar {self.clock.calendar}"
        if not self.clock.units:
            return "its times have no units"
        return f"its times, in {self.clock.units}, are no dates from 1678 to 2262"


def units_of_channels(units: str, channels: int) -> tuple[str, ...]:
    """Return the units of each channel of a `Series.units`, which names all, "K, m s-1", where they differ."""
    each = units.split(", ")
    return tuple(each) if len(each) == channels else (units,) * channels


@dataclass(frozen=True)
class Wanted:
    """What a user says about a file beside its name."""

    variable: str = ""  # which array of it; "" is the only one that can be meant
    axes: str = ""  # letters of N, T, C, H, W in the file's order; "" goes by the number of axes
    missing: float | None = None  # the value that stands for missing, beside NaN
    in_folder: bool = False  # one of several files, which may hold one frame without an axis of time


@contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Let whatever a library raises on a damaged file be a DataError of this name, and its warnings be silent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DataError, MemoryError):
        raise
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or in_one_line(error)}") from error
    except Exception as error:  # damage can show anywhere
        raise DataError(f"{name}: cannot be read: {in_one_line(error)}") from error


def in_one_line(error: BaseException) -> str:
    """Return the words of an error without line breaks."""
    return " ".join(f"{error}".split()) or type(error).__name__


def check_range(series: str, start: int, stop: int, T: int) -> None:
    """Check that frames start … stop - 1 are some of T frames.

    Raises:
        ValueError: there is none, or they are not all there.
    """
    if not 0 <= start < stop <= T:
        raise ValueError(f"{series}: frames must lie in 0 … {T}, one at least; got start {start}, stop {stop}")


# Time -----------------------------------------------------------------------------------------------------------------


def runs_of_times(name: str, times: NDArray[Any]) -> tuple[range, ...]:
    """Return the stretches of frames without a hole between; a hole is a step of over 1.5 times the median step.

    Args:
        name: of the file, for messages.
        times: (T,), datetime64 or numbers.

    Raises:
        DataError: a time is missing, is not later than the one before, or stands twice.
    """
    if np.isnat(times).any() if times.dtype.kind == "M" else not np.isfinite(times).all():
        raise DataError(f"{name}: a frame has no time")
    # Nanoseconds as integers: float64 would make neighbours of two times equal.
    steps: NDArray[Any] = np.diff(times.astype(np.int64) if times.dtype.kind == "M" else times.astype(np.float64))
    if (steps <= 0).any():
        k = int(np.argmax(steps <= 0))
        fault = f"frames {k} and {k + 1} have the same time, {_said(times[k])}"
        if steps[k] < 0:
            fault = f"frame {k + 1} is of {_said(times[k + 1])}, earlier than the frame before it, {_said(times[k])}"
        raise DataError(f"{name}: times must increase; {fault}")
    longest = LONGEST_STEP * float(np.median(steps)) if len(steps) else 0.0
    starts = [0, *(np.flatnonzero(steps > longest) + 1).tolist()]
    return tuple(range(start, stop) for start, stop in zip(starts, [*starts[1:], len(times)], strict=True))


def _said(time: Any) -> str:
    return str(np.datetime_as_string(time, unit="s")) if isinstance(time, np.datetime64) else f"{time:g}"


# Several files --------------------------------------------------------------------------------------------------------


def concatenated(name: str, parts: Sequence[Callable[[], Series]]) -> Series:
    """Return the frames of several files one after another.

    Where all files know the times, those say what is a run.  Else a file's first frame follows the last of the file
    before, unless they hold sequences, each of its own.

    Args:
        name: of the whole, for messages.
        parts: each opens a file; all are opened once here and again, a few at a time, when their frames are read.

    Raises:
        DataError: a part cannot be opened, or is of other frames than the first.
    """
    first = parts[0]()
    described = [_described(first)]
    for part in parts[1:]:
        described.append(_described(part()))
        _check_fit(described[0], described[-1])
    lengths = [part.shape[0] for part in described]
    starts = [0, *np.cumsum(lengths).tolist()]
    times, clock = _times_together(described)
    known = times if clock is None else clock.values
    runs = _runs_together(described, starts) if known is None else runs_of_times(name, known)
    same = all(part.variable == first.variable for part in described)
    return replace(
        first, name=name, shape=(starts[-1], *first.shape[1:]), read=_reading_parts(name, parts, starts), runs=runs,
        times=times, clock=clock, files=tuple(file for part in described for file in part.files),
        sequences=all(part.sequences for part in described),
        variable=first.variable if same else "", names=first.names if same else {},
    )  # fmt: skip


def _described(series: Series) -> Series:
    """Return a series that holds no file open and cannot be read."""

    def read(start: int, stop: int) -> NDArray[np.float32]:
        raise AssertionError("a description has no frames")

    return replace(series, read=read)


def _reading_parts(name: str, parts: Sequence[Callable[[], Series]], starts: list[int]) -> Read:
    opened = functools.lru_cache(maxsize=OPEN_FILES)(lambda i: parts[i]())

    def read(start: int, stop: int) -> NDArray[np.float32]:
        check_range(name, start, stop, starts[-1])
        first = int(np.searchsorted(starts, start, side="right")) - 1
        pieces = []
        for i in range(first, len(parts)):
            if starts[i] >= stop:
                break
            pieces.append(opened(i).read(max(start, starts[i]) - starts[i], min(stop, starts[i + 1]) - starts[i]))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    return read


def _runs_together(parts: Sequence[Series], starts: list[int]) -> tuple[range, ...]:
    """Return the runs of all parts; the last of one goes on in the next, unless these are sequences."""
    runs: list[range] = []
    for start, part in zip(starts, parts, strict=False):
        own = [range(start + run.start, start + run.stop) for run in part.runs]
        if runs and not part.sequences:
            own[0] = range(runs.pop().start, own[0].stop)
        runs += own
    return tuple(runs)


def _times_together(parts: Sequence[Series]) -> tuple[NDArray[np.datetime64] | None, Axis | None]:
    """Return the times of all parts where all know them, else their clocks where all count since the same moment."""
    times = [part.times for part in parts if part.times is not None]
    if len(times) == len(parts):
        return np.concatenate(times), None
    clocks = [part.clock for part in parts if part.clock is not None]
    alike = len({(clock.units, clock.calendar) for clock in clocks}) == 1 and " since " in clocks[0].units
    if len(clocks) == len(parts) and alike:
        return None, replace(clocks[0], values=np.concatenate([clock.values for clock in clocks]))
    return None, None


def _check_fit(first: Series, other: Series) -> None:
    def differs(what: str, got: object, right: object) -> DataError:
        return DataError(f"{other.name}: has {what} {got}; {first.name} has {right}, and all files must be alike")

    if other.shape[1:] != first.shape[1:]:
        raise differs("frames (C, H, W) of shape", other.shape[1:], first.shape[1:])
    if other.channels != first.channels:
        raise differs("the channels", ", ".join(other.channels), ", ".join(first.channels))
    if other.units != first.units:
        raise differs("the units", repr(other.units), repr(first.units))
    for axis, right in ((other.y, first.y), (other.x, first.x)):
        if axis is not None and right is not None and not np.array_equal(axis.values, right.values):
            raise DataError(f"{other.name}: lies at another {axis.name} than {first.name}; all files must be alike")
