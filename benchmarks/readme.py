"""README's table and plot of speeds, written anew between two marks from a file of results."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Rows
from benchmarks.processes import ROOT
from benchmarks.results import ResultsError, read_results
from benchmarks.speed_plot import KINDS, draw, everybody
from benchmarks.tables import markdown, span_and_speed
from benchmarks.train_step import PYTORCH
from convlstm.whole_files import write_whole

BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
PLOT = "docs/speed.png"
WIDTH = 120  # characters of a line of README
HEAD = ("shape", "T", "N", "Cin→C", "H×W", "K")


class MarksMissing(ValueError):
    """A README without the place for the table; the message names the marks."""


def rewrite(results: Path, readme: Path = ROOT / "README.md") -> None:
    """Write the table into `readme`, between the marks, and the plot to docs/speed.png beside it.

    Raises:
        ResultsError: the file holds no rows of train_step.
        MarksMissing: README has no place for the table; nothing has been written.
        ModuleNotFoundError: matplotlib is missing.
    """
    environment, benchmarks = read_results(results)
    if "train_step" not in benchmarks:
        raise ResultsError(
            f"{results} holds no rows of train_step; make it with: python -m benchmarks train_step inference"
        )
    text = readme.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        missing = " and ".join(mark for mark, there in ((BEGIN, begin), (END, end)) if not there)
        raise MarksMissing(f"{readme} must hold {BEGIN} and, after it, {END}: it lacks {missing}")
    held = {name: benchmarks[name] for name in KINDS if name in benchmarks}
    if PYTORCH not in everybody(held):
        raise ResultsError(
            f"{results} holds no times of {PYTORCH}, by which speeds are divided; README says how to install it"
        )
    draw(held, readme.parent / PLOT)
    made = "\n\n".join(
        [_picture(), speed_table(held), textwrap.fill(legend(environment, held), WIDTH), _link(results, readme)]
    )
    write_whole(readme, f"{before}{BEGIN}\n{made}\n{END}{after}".encode())


def _picture() -> str:
    return f"![Speed divided by PyTorch's, training step and forecast, four shapes]({PLOT})"


def _link(results: Path, readme: Path) -> str:
    """Return where all figures are; their name alone where they are not beside README."""
    folder, file = readme.resolve().parent, results.resolve()
    if folder not in file.parents:
        return f"All figures and their environment: `{results.name}`."
    name = file.relative_to(folder).as_posix()
    return f"All figures and their environment: [{name}]({name})."


def speed_table(held: dict[str, Rows]) -> str:
    """Return each row's sizes, times and, in bold, speeds divided by PyTorch's."""
    names = everybody(held)
    lines = [
        [label, *_sizes(found), *(span_and_speed(found, name, PYTORCH) for name in names)]
        for label, found in _labelled(held)
    ]
    return markdown([*HEAD, *names], lines)


def _labelled(held: dict[str, Rows]) -> Iterator[tuple[str, Row]]:
    """Yield the rows, all those of one shape together."""
    for label in held["train_step"]:
        for benchmark, rows in held.items():
            if label in rows:
                yield label if benchmark == "train_step" else f"{label}, {KINDS[benchmark]}", rows[label]


def _sizes(found: Row) -> list[str]:
    size: dict[str, int] = found["shape"]
    return [str(size["T"]), str(size["N"]), f"{size['Cin']}→{size['C']}", f"{size['H']}×{size['W']}", str(size["K"])]


def legend(environment: dict[str, Any], held: dict[str, Rows]) -> str:
    """Return what the numbers are and what they were measured on."""
    rounds = max(len(values) for rows in held.values() for row in rows.values() for values in row["seconds"].values())
    called = {"numpy": "NumPy", "chainer": "Chainer", "torch": "PyTorch", "keras": "Keras"}
    versions = ", ".join(
        f"{name} {environment['packages'][package]}"
        for package, name in called.items()
        if package in environment["packages"]
    )
    return (
        f"Milliseconds, median (quartiles) of {rounds} rounds in which all take turns in one process; in bold the "
        f"speed divided by PyTorch's, above 1 is faster. Measured on {environment['cores']} cores of "
        f"{environment['processor']} with Python {environment['python']}, {versions}."
    )
