"""Runs between holes in time, and files one after another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.data.layout import Layout, series_of
from convlstm.data.series import OPEN_FILES, Axis, DataError, Series, concatenated, damage_named, runs_of_times


def days(*numbers: float) -> Any:
    return np.datetime64("2001-01-01", "ns") + (np.array(numbers) * 86400e9).astype("m8[ns]")


def part(T: int, first: int = 0, name: str = "a.npy", **described: Any) -> Series:
    """T frames of 1 × 1 pixel with the numbers first, first + 1, …"""
    array = np.arange(first, first + T, dtype=np.float32).reshape(T, 1, 1)
    return series_of(name, Layout("THW", array.shape), array.__getitem__, None, **described)


# Time -----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([1.0, 1.4, 2.5, 7.0]), max_size=30))
def test_a_run_ends_where_a_step_is_long(steps: list[float]) -> None:
    times = np.cumsum([0.0, *steps])
    runs = runs_of_times("a.nc", times)
    assert [k for run in runs for k in run] == list(range(len(times)))
    holes = {k + 1 for k, step in enumerate(steps) if step > 1.5 * float(np.median(steps)) + 1e-9}
    assert {run.start for run in runs} == {0, *holes}


def test_months_have_no_holes_and_a_lost_month_is_one() -> None:
    months = np.arange("2001-01", "2003-01", dtype="M8[M]").astype("M8[ns]")
    assert runs_of_times("a.nc", months) == (range(24),)
    assert runs_of_times("a.nc", np.delete(months, 7)) == (range(7), range(7, 23))


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (days(0, 1, 1, 2), "frames 1 and 2 have the same time, 2001-01-02T00:00:00"),
        (days(0, 2, 1), "frame 2 is of 2001-01-02T00:00:00, earlier than the frame before it, 2001-01-03T00:00:00"),
        (np.array([0.0, 5, 3]), "frame 2 is of 3, earlier than the frame before it, 5"),
        (np.array([0.0, np.nan]), "a frame has no time"),
        (np.array(["2001-01-01", "NaT"], "M8[ns]"), "a frame has no time"),
    ],
)
def test_times_that_do_not_increase_are_refused(times: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"^a.nc: .*{words}$"):
        runs_of_times("a.nc", times)


def test_nanoseconds_are_told_apart() -> None:
    times = np.datetime64("2001-01-01", "ns") + np.arange(3).astype("m8[ns]")
    assert runs_of_times("a.nc", times) == (range(3),)


# Several files --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.data())
def test_parts_are_read_as_one(lengths: list[int], data: Any) -> None:
    starts = np.cumsum([0, *lengths]).tolist()
    series = concatenated("d", [partial(part, T, first) for T, first in zip(lengths, starts, strict=False)])
    T = starts[-1]
    start = data.draw(st.integers(0, T - 1))
    stop = data.draw(st.integers(start + 1, T))
    assert series.shape == (T, 1, 1, 1)
    assert series.runs == (range(T),)
    assert series.read(start, stop).ravel().tolist() == list(range(start, stop))


def test_frames_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^d: frames must lie in 0 … 5"):
        concatenated("d", [partial(part, 2), partial(part, 3)]).read(4, 6)


def test_few_parts_are_open_at_a_time() -> None:
    alive: list[int] = []

    class Held:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def opened() -> Series:
        held = Held()
        return series_of("a.npy", Layout("THW", (1, 1, 1)), lambda index: (held, np.zeros((1, 1, 1)))[1][index], None)

    series = concatenated("d", [opened] * 20)
    assert not alive  # opening left none
    for k in range(20):
        series.read(k, k + 1)
    assert len(alive) == OPEN_FILES
    del series
    assert not alive


def test_a_part_is_opened_once_for_reads_one_after_another() -> None:
    opened: list[int] = []

    def part_of(k: int) -> Series:
        opened.append(k)
        return part(3, 3 * k)

    series = concatenated("d", [partial(part_of, k) for k in range(2)])
    opened.clear()
    for k in range(6):
        series.read(k, k + 1)
    assert opened == [0, 1]


def test_parts_follow_one_another_or_not() -> None:
    holed = partial(part, 3, runs=(range(2), range(2, 3)))
    assert concatenated("d", [holed, holed]).runs == (range(2), range(2, 5), range(5, 6))
    apart = partial(holed, sequences=True)
    assert concatenated("d", [apart, apart]).runs == (range(2), range(2, 3), range(3, 5), range(5, 6))


def test_times_decide_between_parts() -> None:
    first, second = partial(part, 3, times=days(0, 1, 2)), partial(part, 2, times=days(3, 4))
    series = concatenated("d", [first, second])
    assert series.runs == (range(5),)
    np.testing.assert_array_equal(series.times, days(0, 1, 2, 3, 4))
    assert concatenated("d", [first, partial(part, 2, times=days(9, 10))]).runs == (range(3), range(3, 5))
    with pytest.raises(DataError, match=r"^d: times must increase"):
        concatenated("d", [second, first])
    assert concatenated("d", [first, partial(part, 2)]).times is None


def test_clocks_decide_only_if_they_count_since_the_same_moment() -> None:
    def ticking(*values: float, units: str, calendar: str = "360_day") -> Callable[[], Series]:
        return partial(part, len(values), clock=Axis("time", np.array(values), units, calendar))

    since = "days since 2001-01-01"
    series = concatenated("d", [ticking(0, 1, 2, units=since), ticking(8, 9, units=since)])
    assert series.clock is not None
    assert series.clock.values.tolist() == [0, 1, 2, 8, 9]
    assert (series.clock.name, series.clock.units, series.clock.calendar) == ("time", since, "360_day")
    assert series.runs == (range(3), range(3, 5))
    for units, calendar in (("days", "360_day"), ("days since 2002-01-01", "360_day"), (since, "noleap")):
        second = ticking(0, 1, units=since if calendar == "noleap" else "days")
        other = concatenated("d", [ticking(0, 1, units=units, calendar=calendar), second])
        assert other.clock is None
        assert other.runs == (range(4),)


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"channels": ("rain",)}, "has the channels rain; a.npy has wind, and all files must be alike"),
        ({"units": "K"}, "has the units 'K'; a.npy has 'm', and all files must be alike"),
        ({"y": Axis("lat", np.array([2.0]))}, "lies at another lat than a.npy; all files must be alike"),
    ],
)
def test_parts_must_be_alike(described: dict[str, Any], words: str) -> None:
    alike: dict[str, Any] = {"channels": ("wind",), "units": "m", "y": Axis("lat", np.array([1.0]))}
    with pytest.raises(DataError, match=f"^b.npy: {words}$"):
        concatenated("d", [partial(part, 2, **alike), partial(part, 2, name="b.npy", **(alike | described))])


def test_parts_of_one_name_keep_it() -> None:
    named = partial(part, 2, variable="sst", names={"long_name": "sea surface temperature"})
    series = concatenated("d", [named, named])
    assert (series.variable, series.names) == ("sst", {"long_name": "sea surface temperature"})
    other = concatenated("d", [named, partial(named, variable="sst_2")])
    assert (other.variable, other.names) == ("", {})


def test_what_is_said_of_sequences_and_channels_goes_with_them() -> None:
    apart = partial(part, 2, sequences=True, channels=("wind",), units="m", x=Axis("lon", np.array([1.0])))
    series = concatenated("d", [apart, apart])
    assert (series.name, series.sequences, series.channels, series.units) == ("d", True, ("wind",), "m")
    assert series.x is not None
    with pytest.raises(ValueError, match=r"^d: frames must lie in 0 … 4"):
        series.read(0, 5)


@pytest.mark.parametrize(
    ("units", "calendar", "words"),
    [
        ("days since 2001-01-01", "noleap", "its times are in the calendar noleap"),
        ("", "360_day", "its times are in the calendar 360_day"),
        ("days since 1066-10-14", "", "its times, in days since 1066-10-14, are no dates from 1678 to 2262"),
        ("months", "Gregorian", "its times, in months, are no dates from 1678 to 2262"),
        ("", "standard", "its times have no units"),
        (None, "", "its frames have no times"),
    ],
)
def test_a_series_says_why_it_has_no_dates(units: str | None, calendar: str, words: str) -> None:
    clock = None if units is None else Axis("time", np.arange(2.0), units, calendar)
    assert part(2, clock=clock).undated == words
    assert part(2, times=days(0, 1)).undated == ""


def test_all_files_are_named() -> None:
    parts = [partial(part, 1, files=(Path(name),)) for name in ("a", "b")]
    assert concatenated("d", parts).files == (Path("a"), Path("b"))


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (PermissionError(13, "Permission denied", "x"), "^a.h5: cannot be read: Permission denied$"),
        (OSError("wrong\n  sum"), "^a.h5: cannot be read: wrong sum$"),
        (KeyError(), "^a.h5: cannot be read: KeyError$"),
        (DataError("b.h5: x"), "^b.h5: x$"),
    ],
)
def test_whatever_a_library_raises_is_one_line_with_the_name(raised: Exception, words: str) -> None:
    with pytest.raises(DataError, match=words), damage_named("a.h5"):
        raise raised


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    assert str(DataError("a\nb.npy: \x1b[31m\udc80 é × …")) == "a\\nb.npy: \\x1b[31m\\udc80 é × …"


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt])
def test_what_is_no_damage_passes(kind: type[BaseException]) -> None:
    with pytest.raises(kind), damage_named("a.h5"):
        raise kind


def test_importing_the_readers_imports_no_library() -> None:
    program = (
        "import sys, pkgutil, importlib, convlstm.data\n"
        "names = ['series', 'values', 'layout', 'arrays', 'hdf5', 'netcdf', 'images', 'opening']\n"
        "for name in names: importlib.import_module('convlstm.data.' + name)\n"
        "print([m for m in ('h5py', 'h5netcdf', 'xarray', 'scipy', 'PIL', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
