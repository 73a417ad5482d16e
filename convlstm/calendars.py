"""Calendars of climate models, whose years datetime64 does not know: where their months begin.

They are those of the conventions for climate and forecast (CF), section 4.4.1, but for the Gregorian ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spans = NDArray[np.timedelta64]  # timedelta64[ms], since January of the year 0; nanoseconds would end in the year 292
Counts = NDArray[np.int64]

DAY = np.timedelta64(1, "D").astype("m8[ms]")
SHORT = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
LONG = (31, 29, *SHORT[2:])
UNITS = {
    1: ("milliseconds", "millisecond", "msecs", "msec", "ms"),
    1000: ("seconds", "second", "secs", "sec", "s"),
    60_000: ("minutes", "minute", "mins", "min"),
    3_600_000: ("hours", "hour", "hrs", "hr", "h"),
    86_400_000: ("days", "day", "d"),
}
MILLISECONDS = {name: length for length, names in UNITS.items() for name in names}
SINCE = re.compile(
    r"(\w+) since (\d{1,6})-(\d{1,2})-(\d{1,2})(?:[T ]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.0*)?)?)? *(?:Z|UTC)?", re.I
)


@dataclass(frozen=True)
class Calendar:
    """A calendar whose months have the same lengths again after some years, the first of them the year 0."""

    lengths: tuple[int, ...]  # of these months, in days

    def months(self, times: Spans) -> Counts:
        """Return in which months times lie, 0 for January of the year 0."""
        cycles, days = np.divmod(times // DAY, sum(self.lengths))
        months: Counts = cycles * len(self.lengths) + np.searchsorted(self._before(), days, side="right") - 1
        return months

    def beginnings(self, months: Counts) -> Spans:
        """Return the first moments of months."""
        cycles, places = np.divmod(months, len(self.lengths))
        beginnings: Spans = (cycles * sum(self.lengths) + self._before()[places]) * DAY
        return beginnings

    def _before(self) -> Counts:
        """Return the days before each month."""
        return np.cumsum([0, *self.lengths[:-1]])


CALENDARS = {
    "noleap": Calendar(SHORT),
    "365_day": Calendar(SHORT),
    "all_leap": Calendar(LONG),
    "366_day": Calendar(LONG),
    "360_day": Calendar((30,) * 12),
    "julian": Calendar(LONG + 3 * SHORT),
}


@dataclass(frozen=True)
class Counting:
    """How a file counts time: so many milliseconds a unit, since a moment of a calendar."""

    calendar: Calendar
    unit: int
    since: np.timedelta64

    def times(self, values: NDArray[np.float64]) -> Spans | None:
        """Return when numbers of a file are; None where a float64 cannot tell their milliseconds."""
        if np.abs(values).max() * self.unit >= 2**52:
            return None
        times: Spans = np.rint(values * self.unit).astype("m8[ms]") + self.since
        return times

    def values(self, times: Spans) -> NDArray[np.float64]:
        """Return the numbers of times, as a file has them."""
        values: NDArray[np.float64] = (times - self.since).astype(np.int64) / self.unit
        return values


def counting_of(units: str, calendar: str) -> Counting | None:
    """Return what units such as "days since 1850-01-01 00:00:00" mean; None of others and of other calendars."""
    found, of_file = SINCE.fullmatch(units.strip()), CALENDARS.get(calendar.strip().lower())
    if found is None or of_file is None or found[1].lower() not in MILLISECONDS:
        return None
    year, month, day, hour, minute, second = (int(each or 0) for each in found.groups()[1:])
    days = of_file.beginnings(np.array([12 * year + month - 1]))[0] + (day - 1) * DAY
    clock = np.timedelta64(((hour * 60 + minute) * 60 + second) * 1000, "ms")
    return Counting(of_file, MILLISECONDS[found[1].lower()], days + clock)
