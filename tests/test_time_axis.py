from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.data.series import Axis
from convlstm.time_axis import clock_after, times_after


def at(*texts: str) -> Any:
    times = np.array(texts, "M8[ns]")
    times.setflags(write=False)
    return times


MIDDLES = at(
    "2006-04-16T00", "2006-05-16T12", "2006-06-16T00", "2006-07-16T12", "2006-08-16T12", "2006-09-16T00",
    "2006-10-16T12", "2006-11-16T00", "2006-12-16T12", "2007-01-16T12", "2007-02-15T00", "2007-03-16T12",
    "2007-04-16T00", "2007-05-16T12", "2007-06-16T00", "2007-07-16T12", "2007-08-16T12", "2007-09-16T00",
    "2007-10-16T12", "2007-11-16T00", "2007-12-16T12", "2008-01-16T12", "2008-02-15T12", "2008-03-16T12",
)  # fmt: skip


@pytest.mark.parametrize(
    ("known", "following"),
    [
        (at("2021-07-01T11:50", "2021-07-01T12:20"), at("2021-07-01T12:50", "2021-07-01T13:20")),  # radar
        (at("2020-02-27", "2020-02-28"), at("2020-02-29", "2020-03-01")),
        (at("2006-01-31", "2006-02-01"), at("2006-02-02")),  # not by months, though each lies in another
        (at("2001-01-25", "2001-02-22", "2001-03-22"), at("2001-04-19")),  # four weeks, in months of 31 and 28 days
        (at("2001-01-01", "2001-02-01", "2001-03-01"), at("2001-04-01", "2001-05-01")),
        (at("2001-01-16T06", "2001-02-16T06", "2001-03-16T06"), at("2001-04-16T06", "2001-05-16T06")),
        (at("2001-01-31", "2001-02-28", "2001-03-31"), at("2001-04-30", "2001-05-31")),
        (at("2000-01-31T23:59:59", "2000-02-29T23:59:59"), at("2000-03-31T23:59:59", "2000-04-30T23:59:59")),
        (at("2001-02-28", "2001-03-31"), at("2001-04-30", "2001-05-31")),
        (at("2001-01-01", "2001-02-01", "2001-04-01", "2001-05-01"), at("2001-06-01", "2001-07-01")),  # after a hole
        (at("2001-01-16", "2001-02-15", "2001-03-16"), at("2001-04-16", "2001-05-16")),  # the day of the middle
        (at("2001-07-16T12", "2001-08-16T12"), at("2001-09-16T00")),  # one day, but the middle of both
        (at("2000-11-29T06", "2000-12-29T06", "2001-01-29T06"), at("2001-02-28T06", "2001-03-29T06")),
        (at("2001-12-15", "2002-03-15", "2002-06-15"), at("2002-09-15", "2002-12-15")),  # seasons
        (at("1999-07-02", "2000-07-02"), at("2001-07-02", "2002-07-02")),  # years, one a leap year
        (at("2001-01-01", "2001-01-02", "2001-01-03", "2001-01-09"), at("2001-01-10")),  # the median, after a hole
        (at("2001-01-01", "2001-01-03", "2001-01-05", "2001-01-06"), at("2001-01-08")),  # and after two close ones
    ],
)
def test_a_time_axis_goes_on(known: Any, following: Any) -> None:
    found = times_after(known, len(following))
    assert found.dtype == np.dtype("M8[ns]")
    assert found.tolist() == following.tolist()


@pytest.mark.parametrize("seen", range(2, len(MIDDLES)))
def test_the_middle_of_a_month_stays_the_middle(seen: int) -> None:
    assert times_after(MIDDLES[:seen], len(MIDDLES) - seen).tolist() == MIDDLES[seen:].tolist()


def test_any_unit_is_read() -> None:
    months = np.array(["2001-11", "2001-12"], "M8[M]")
    assert times_after(months, 2).tolist() == at("2002-01-01", "2002-02-01").tolist()


@settings(deadline=None)
@given(
    start=st.integers(-(10**18), 10**18),
    step=st.integers(1, 27 * 86_400 * 10**9),
    count=st.integers(4, 9),
    horizon=st.integers(1, 9),
)
def test_a_step_below_a_month_goes_on_to_the_nanosecond(start: int, step: int, count: int, horizon: int) -> None:
    """Four frames so close never lie in four months at the same place."""
    times = (start + step * np.arange(count + horizon)).astype("M8[ns]")
    assert times_after(times[:count], horizon).tolist() == times[count:].tolist()


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (at("2001-01-01"), "at least two"),
        (at("2001-01-02", "2001-01-01"), "must grow"),
        (at("2001-01-01", "2001-01-01"), "must grow"),
        (at("2001-01-01", "NaT"), "none be missing"),
        (at("2001-01-01", "2001-01-02").reshape(1, 2), "at least two"),
    ],
)
def test_what_cannot_go_on(times: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        times_after(times, 1)


# Calendars of climate models ------------------------------------------------------------------------------------------

NOLEAP = np.cumsum([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 28, 31, 30])  # from January 2003
SINCE = "days since 2003-01-01"


def clock(values: Any, calendar: str = "noleap", units: str = SINCE) -> Axis:
    numbers = np.array(values, np.float64)
    numbers.setflags(write=False)
    return Axis("time", numbers, units, calendar)


def check(known: Axis, following: Any) -> None:
    found = clock_after(known, len(following))
    assert found.values.dtype == np.float64
    assert found.values.tolist() == list(following)
    assert (found.name, found.units, found.calendar) == (known.name, known.units, known.calendar)


@pytest.mark.parametrize("seen", range(2, 15))
@pytest.mark.parametrize(
    "values",
    [NOLEAP[:-1], (NOLEAP[1:] + NOLEAP[:-1]) / 2, NOLEAP[1:] - 1, NOLEAP[:-1] + 14.25],
    ids=["first day", "middle", "last day", "mid-month day"],
)
def test_months_without_leap_days_go_on(values: Any, seen: int) -> None:
    check(clock(values[:seen]), values[seen:].tolist())
    check(clock(values[:seen] * 24, units="hours since 2003-01-01 00:00:00"), (values[seen:] * 24).tolist())


@pytest.mark.parametrize(
    ("known", "following"),
    [
        (clock([15, 45, 75], "360_day"), [105, 135]),
        (clock([0, 90, 180], "360_day"), [270, 360]),
        (clock([0, 1, 2], "360_day"), [3, 4]),
        (clock([0, 365, 730]), [1095, 1460]),  # years: 2004 has no leap day
        (clock([0, 366], "366_day"), [732]),
        (clock([0, 366, 731], "julian", "days since 1900-01-01"), [1096, 1461, 1827]),  # 1900 has a leap day
        (clock([31, 59], units="days since 2004-01-01"), [90]),
        (clock([30, 60], "360_day"), [90]),
        (clock([28, 29, 30, 31]), [32, 33]),
        (clock([0, 31, 59], ""), [90, 121]),  # the median, of a calendar that is not known
        (clock([0, 31, 59], units="fortnights since the flood"), [90]),
        (clock([0, 1, 2], units="months"), [3, 4]),
        (clock([3.0, 3.25, 9.0, 9.25], units=""), [9.5]),
        (clock([1e17, 2e17]), [3e17]),
    ],
)
def test_a_clock_goes_on(known: Axis, following: Any) -> None:
    check(known, following)


@settings(deadline=None)
@given(
    calendar=st.sampled_from(["noleap", "360_day", "julian", "", "all_leap"]),
    start=st.integers(-(10**6), 10**6),
    step=st.integers(1, 27 * 4),
    count=st.integers(4, 9),
    horizon=st.integers(1, 9),
)
def test_a_clock_below_a_month_goes_on_by_its_step(
    calendar: str, start: int, step: int, count: int, horizon: int
) -> None:
    values = (start + step * np.arange(count + horizon)) / 4
    check(clock(values[:count], calendar), values[count:].tolist())


@pytest.mark.parametrize(
    ("values", "words"),
    [([1], "at least two"), ([[1, 2]], "at least two"), ([2, 1], "must grow"), ([1, 1], "must grow"),
     ([1, np.nan], "none be missing")],
)  # fmt: skip
def test_what_clock_cannot_go_on(values: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        clock_after(clock(values), 1)
