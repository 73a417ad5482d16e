"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.measure import Row, Rows

ABSENT = "–"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def span(times: Mapping[str, float] | None) -> str:
    """Return median and quartiles, "13.2 (12.9–14.0)"; a dash where there was nothing to time."""
    if times is None:
        return ABSENT
    median, low, high = (times[key] for key in ("median_ms", "lower_quartile_ms", "upper_quartile_ms"))
    digits = 0 if median >= 100 else 1 if median >= 10 else 2 if median >= 1 else 3
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def contenders(rows: Rows) -> list[str]:
    """Return everybody who took part in a row, in the order of the rows."""
    return list(dict.fromkeys(name for row in rows.values() for name in row["seconds"]))


def times_table(rows: Rows, what: str = "", names: Sequence[str] | None = None) -> str:
    """Return a line for each row with the times of its contenders, by default of everybody."""
    names = contenders(rows) if names is None else names
    lines = [[label, *(span(row["times"].get(name)) for name in names)] for label, row in rows.items()]
    return markdown([what, *(f"{name}, ms" for name in names)], lines)


def speed(row: Row, name: str, beside: str) -> float | None:
    """Return the speed of one contender divided by that of another, from their medians; None where one is absent."""
    times = row["times"]
    return times[beside]["median_ms"] / times[name]["median_ms"] if {name, beside} <= times.keys() else None


def span_and_speed(row: Row, name: str, beside: str) -> str:
    """Return median and quartiles and, in bold, the speed divided by that of another."""
    relative = None if name == beside else speed(row, name, beside)
    return span(row["times"].get(name)) + ("" if relative is None else f" **{ratio(relative)}**")


def ratio(value: float | None) -> str:
    """Return a ratio as it stands in a table."""
    return ABSENT if value is None else f"{value:.2f}"
