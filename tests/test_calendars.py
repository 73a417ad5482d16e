from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.calendars import CALENDARS, DAY, counting_of

NAMES = ["noleap", "365_day", "all_leap", "366_day", "360_day", "julian"]
MOMENT = np.timedelta64(1, "ms")


def count(units: str, calendar: str) -> Any:
    """Return how time is counted, which is known."""
    found = counting_of(units, calendar)
    assert found is not None
    return found


@given(name=st.sampled_from(NAMES), first=st.integers(-50_000, 50_000))
def test_every_moment_lies_in_the_month_that_began(name: str, first: int) -> None:
    calendar, months = CALENDARS[name], np.arange(first, first + 60)
    beginnings = calendar.beginnings(months)
    assert calendar.months(beginnings).tolist() == months.tolist()
    assert calendar.months(beginnings - MOMENT).tolist() == (months - 1).tolist()


@pytest.mark.parametrize(
    ("name", "year", "february", "days"),
    [
        ("noleap", 2000, 28, 365),
        ("365_day", 2004, 28, 365),
        ("all_leap", 2001, 29, 366),
        ("366_day", 2000, 29, 366),
        ("360_day", 2001, 30, 360),
        ("julian", 2000, 29, 366),
        ("julian", 1900, 29, 366),  # the Gregorian calendar leaves this day out
        ("julian", 2001, 28, 365),
        ("julian", 2003, 28, 365),
    ],
)
def test_months_and_years_have_their_lengths(name: str, year: int, february: int, days: int) -> None:
    beginnings = CALENDARS[name].beginnings(12 * year + np.arange(13))
    lengths = (np.diff(beginnings) // DAY).tolist()
    assert lengths[1] == february
    assert sum(lengths) == days
    thirty = [30] * 10 if name == "360_day" else [31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    assert lengths[2:] == thirty


@pytest.mark.parametrize(
    ("units", "value"),
    [
        ("days since 2001-03-01", 1.5),
        ("day since 2001-3-1 00:00", 1.5),
        ("d since 2001-02-30 12:00:00.000000", 2.0),  # 360_day has this day
        ("hours since 2001-03-01T00:00:00Z", 36),
        (" Minutes since 2001-03-02 11:59 UTC", 1),
        ("s since 2001-03-02 11:59:59", 1),
        ("milliseconds since 2001-03-02 11:59:59", 1000),
        ("days since 2000-12-01", 91.5),
    ],
)
def test_units_say_of_what_and_since_when(units: str, value: float) -> None:
    """All of the second of March, at noon; January 2001 is month 24012."""
    counting = count(units, "360_day")
    times = counting.times(np.array([value], np.float64))
    assert (times // MOMENT).tolist() == [((24014 * 30 + 1) * 24 + 12) * 3_600_000]
    assert counting.values(times).tolist() == [value]


@pytest.mark.parametrize(
    ("units", "calendar"),
    [
        ("months since 2001-01-01", "noleap"),
        ("days", "noleap"),
        ("", "noleap"),
        ("days since the flood", "noleap"),
        ("days since 2001-01-01 00:00 +02:00", "noleap"),
        ("days since 2001-01-01 00:00:00.5", "noleap"),
        ("days since 2001-01-01", ""),
        ("days since 1066-01-01", "standard"),
        ("days since 2001-01-01", "none"),
    ],
)
def test_what_is_not_known(units: str, calendar: str) -> None:
    assert counting_of(units, calendar) is None


def test_the_name_of_a_calendar_may_be_of_capitals() -> None:
    assert count("days since 2001-01-01", "NOLEAP").calendar is CALENDARS["noleap"]


def test_times_too_far_to_be_exact_are_none() -> None:
    counting = count("days since 0001-01-01", "noleap")
    assert counting.times(np.array([0.0, 2.0**25])) is not None
    assert counting.times(np.array([0.0, 2.0**26])) is None
    assert counting.times(np.array([-1e300, 0.0])) is None


@given(st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=9))
def test_minutes_counted_in_days_are_read_and_written_alike(minutes: list[int]) -> None:
    counting = count("days since 1850-01-01", "noleap")
    values = np.array(minutes) / 1440
    times = counting.times(values)
    assert ((times - counting.since) / np.timedelta64(1, "m")).tolist() == minutes
    assert counting.values(times).tolist() == values.tolist()
