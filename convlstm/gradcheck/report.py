"""What a check found, as data and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from convlstm.gradcheck.measure import Status

VERDICTS: dict[Status, str] = {
    "right": "right", "wrong": "WRONG", "undecided": "cannot tell", "kink": "not smooth here", "unread": "not read",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One parameter."""

    name: str
    shape: tuple[int, ...]
    checked: int  # entries held against numerical derivatives one by one
    error: float | None  # largest difference, relative to the largest entry; None where nothing could be compared
    status: Status


@dataclass(frozen=True)
class Report:
    """What `check_gradients` found; ``str(report)`` is a table.

    Attributes:
        faults: a one-line diagnosis under each name whose gradient is not right or could not be checked; under
            "loss" where the loss itself allows no check.
        rows: a line of the table for each parameter.
        remarks: what to know about the check: a loss rounded to float32, a parameter that is not read, kinks.
        evaluations: how often the loss was called.
    """

    faults: dict[str, str]
    rows: tuple[Row, ...] = ()
    remarks: tuple[str, ...] = ()
    evaluations: int = 0

    @property
    def ok(self) -> bool:
        """Whether every gradient was checked and is right."""
        return not self.faults

    def __str__(self) -> str:
        cells = [("parameter", "shape", "checked", "largest error", "verdict")]
        for row in self.rows:
            size = 1
            for length in row.shape:
                size *= length
            error = "–" if row.error is None else f"{row.error:.1e}"
            cells.append((row.name, str(row.shape), f"{row.checked} of {size}", error, VERDICTS[row.status]))
        lines = table(cells) if self.rows else []
        lines += _by_line(self.faults)
        lines += [f"({remark})" for remark in self.remarks]
        lines.append("all gradients are right" if self.ok else f"{len(self.faults)} found at fault")
        return "\n".join(lines)


def _by_line(faults: dict[str, str]) -> list[str]:
    """Return one line for each diagnosis, with all the names it is for."""
    names: dict[str, list[str]] = {}
    for name, line in faults.items():
        names.setdefault(line, []).append(name)
    return [f"{', '.join(called)}: {line}" for line, called in names.items()]


def table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of text with their columns aligned, the first row ruled off."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [lines[0], "─" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]]


@dataclass(frozen=True)
class LengthsReport:
    """What `check_gradients_over_time` found; ``str(report)`` is a table with a column for each length.

    Attributes:
        reports: the `Report` of each length.
        faults: a one-line diagnosis under each name that is wrong at some length.
        summary: what the lengths show, in one line; "" where all is right.
    """

    reports: dict[int, Report]
    faults: dict[str, str]
    summary: str = ""
    remarks: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether every gradient was checked at every length and is right."""
        return not self.faults

    def __str__(self) -> str:
        names = list(dict.fromkeys(row.name for report in self.reports.values() for row in report.rows))
        cells = [("parameter", *(f"T = {T}" for T in self.reports))]
        rows = {T: {row.name: row for row in report.rows} for T, report in self.reports.items()}
        for name in names:
            cells.append((name, *(_cell(rows[T].get(name)) for T in self.reports)))
        lines = table(cells) if names else []
        lines += _by_line(self.faults)
        lines += [f"({remark})" for remark in self.remarks]
        if self.ok:
            lines.append("all gradients are right at every length")
        elif self.summary not in self.faults.values():
            lines.append(f"likeliest cause: {self.summary}")
        return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    if row.status == "right":
        return "right"
    return (
        f"{VERDICTS[row.status]} {row.error:.0e}"
        if row.status == "wrong" and row.error is not None
        else VERDICTS[row.status]
    )
