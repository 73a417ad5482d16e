"""How a time axis goes on: by calendar months where it goes by months, else by its usual step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.datetime64]  # datetime64[ns] throughout
Spans = NDArray[np.timedelta64]
Rule = Callable[[Spans], Spans]  # from the lengths of months to where in them a time lies, from their beginnings

DAY = np.timedelta64(1, "D").astype("m8[ns]")


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
    ahead = np.arange(1, horizon + 1)
    by_months = _by_months(known, ahead)
    if by_months is not None:
        return by_months
    following: Times = known[-1] + ahead * _median(steps)
    return following


def _by_months(times: Times, ahead: NDArray[np.int64]) -> Times | None:
    """Return the times so many steps of months ahead; None where the times do not go by months."""
    months = times.astype("M8[M]")
    beginnings, lengths = _beginnings(months), _lengths(months)
    offsets = times - beginnings
    for rule in _rules(offsets[0], lengths[0]):
        if (rule(lengths) == offsets).all():  # of two times in one month it would ask for two places
            following = months[-1] + ahead * _median(np.diff(months))
            return _beginnings(following) + rule(_lengths(following))
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


def _median(steps: Spans) -> np.timedelta64:
    middle: np.timedelta64 = np.sort(steps)[len(steps) // 2]
    return middle


def _beginnings(months: NDArray[np.datetime64]) -> Times:
    return months.astype("M8[ns]")


def _lengths(months: NDArray[np.datetime64]) -> Spans:
    return _beginnings(months + np.timedelta64(1, "M")) - _beginnings(months)
