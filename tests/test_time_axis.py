from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.time_axis import times_after


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
