"""How a time axis goes on: by calendar months where it goes by months, else by its usual step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.calendars import DAY, Counts, Spans, counting_of
from convlstm.data.series import Axis

Times = NDArray[np.datetime64]  # datetime64[ns] throughout
Rule = Callable[[Spans], Spans]  # from the lengths of months to where in them a time lies, from their beginnings


def times_after(times: Times, horizon: int) -> Times:
    """Return the times of the frames that follow.

    Where all times lie at the same place of different months, so do those that follow, in steps of calendar months:
    one, three, twelve for years.  The same place is the last day of the month, the middle (2006-04-16 00:00,
    2006-05-16 12:00), the same day (of a shorter month, its last), or the day of the middle (2006-04-16, 2006-05-16,
    2007-02-15).  Otherwise the step is a length of time.  Either way it is the median of the steps, of two the longer.

    Args:
        times: (T,), T ≥ 2, of any datetime64, each later than the one before.
        horizon: how many times follow, ≥ 1.

    Returns:
        (horizon,), datetime64[ns].

    Raises:
        ValueError: there are fewer than two times, or they do not grow.
    """
    known = times.astype("M8[ns]")
    if known.ndim != 1 or len(known) < 2:
        raise ValueError(f"times must hold at least two times to continue them; got shape {times.shape}")
    steps = np.diff(known)
    if np.isnat(known).any() or not (steps > np.timedelta64(0, "ns")).all():
        raise ValueError("times must grow from each to the next, and none be missing")
    ahead, months = np.arange(1, horizon + 1), known.astype("M8[M]").astype(np.int64)
    by_months: Times | None = _by_months(known, months, _beginnings, ahead)
    if by_months is not None:
        return by_months
    following: Times = known[-1] + ahead * _median(steps)
    return following


def clock_after(clock: Axis, horizon: int) -> Axis:
    """Return the times of the frames that follow, of a file whose times datetime64 does not know.

    By calendar months, as `times_after`, in the calendars noleap, all_leap, 360_day and julian, where the units are
    days or shorter; else the step is the median of the steps, of two the longer.

    Args:
        clock: (T,), T ≥ 2, numbers, each greater than the one before.
        horizon: how many times follow, ≥ 1.

    Returns:
        The same axis with other values, (horizon,) float64.

    Raises:
        ValueError: there are fewer than two times, or they do not grow.
    """
    known = clock.values.astype(np.float64)
    if known.ndim != 1 or len(known) < 2:
        raise ValueError(f"a clock must hold at least two times to continue them; got shape {known.shape}")
    steps = np.diff(known)
    if not (steps > 0).all():
        raise ValueError("times must grow from each to the next, and none be missing")
    ahead, counting = np.arange(1, horizon + 1), counting_of(clock.units, clock.calendar)
    times = None if counting is None else counting.times(known)
    if counting is not None and times is not None:
        calendar = counting.calendar
        by_months = _by_months(times, calendar.months(times), calendar.beginnings, ahead)
        if by_months is not None:
            return replace(clock, values=counting.values(by_months))
    return replace(clock, values=known[-1] + ahead * _median(steps))


def _by_months(times: Any, months: Counts, beginnings: Callable[[Counts], Any], ahead: Counts) -> Any:
    """Return the times so many steps of months ahead; None where the times do not go by months.

    Args:
        times: (T,), moments or spans since one.
        months: (T,), in which they lie, counted from any.
        beginnings: returns the first moments of months.
        ahead: (horizon,), how many steps.
    """
    offsets, lengths = times - beginnings(months), beginnings(months + 1) - beginnings(months)
    for rule in _rules(offsets[0], lengths[0]):
        if (rule(lengths) == offsets).all():  # of two times in one month it would ask for two places
            following = months[-1] + ahead * _median(np.diff(months))
            return beginnings(following) + rule(beginnings(following + 1) - beginnings(following))
    return None


def _rules(offset: np.timedelta64, length: np.timedelta64) -> list[Rule]:
    """Return what "the same place in every month" can mean for a time so far into a month so long, best first."""
    clock = offset % DAY
    rules: list[Rule] = [
        lambda lengths: lengths // 2,
        lambda lengths: np.minimum(offset, lengths - DAY + clock),
        lambda lengths: lengths // 2 // DAY * DAY,
    ]
    if length - offset <= DAY:
        rules.insert(0, lambda lengths: lengths - (length - offset))
    return rules


def _median(steps: NDArray[Any]) -> Any:
    return np.sort(steps)[len(steps) // 2]


def _beginnings(months: Counts) -> Times:
    return months.astype("M8[M]").astype("M8[ns]")
