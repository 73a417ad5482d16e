"""Time and peak memory of a training step as T, N, the map's side, C and K grow, each by itself, from one base.

Every point is measured in a process of its own, see scaling_point.py; contenders take turns from point to point.  The
exponent of a line is the slope of a straight line through its points, both axes logarithmic: 1 is linear.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measure import Row, Rows, Skipped, row
from benchmarks.options import Options, ours
from benchmarks.processes import in_own_process
from benchmarks.shapes import Shape
from benchmarks.style import COLOURS, FONT, PAPER, drawing, save
from benchmarks.tables import ABSENT, contenders, markdown, span
from benchmarks.train_step import PYTORCH

BASE = Shape(T=4, N=4, Cin=4, C=32, H=32, W=32, K=3)
AXES: dict[str, tuple[int, ...]] = {
    "T": (4, 8, 16, 32),
    "N": (4, 8, 16, 32),
    "H=W": (16, 32, 64, 128),
    "C": (16, 32, 64, 128),
    "K": (3, 5, 9, 17),  # odd ones only: each nearly the double of the one before
}


class Line(NamedTuple):
    """A contender along an axis."""

    values: list[int]  # of the axis
    seconds: list[float]  # medians
    megabytes: list[float]


def shape_at(base: Shape, axis: str, value: int) -> Shape:
    """Return the base with one size replaced."""
    return base._replace(H=value, W=value) if axis == "H=W" else base._replace(**{axis: value})


def measure(options: Options, base: Shape = BASE, axes: Mapping[str, tuple[int, ...]] = AXES) -> Rows:
    """Return a row for each point; the shapes of `options` are not used, only its rounds and backends on the host.

    Raises:
        RuntimeError: a point's process failed.
    """
    names = [*map(ours, options.on_host), PYTORCH]
    points = [(axis, value) for axis, values in axes.items() for value in values]
    return {
        f"{axis}={value}": _row(names, shape_at(base, axis, value), options.rounds, axis, value)
        for axis, value in points
    }


def _row(names: list[str], shape: Shape, rounds: int, axis: str, value: int) -> Row:
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name in names:
        try:
            found[name] = in_own_process("scaling_point", [name, json.dumps(shape._asdict()), str(rounds)])
        except Skipped as reason:
            skipped[name] = str(reason)
    seconds = {name: point["seconds"] for name, point in found.items()}
    peaks = {name: point["peak_bytes"] for name, point in found.items()}
    return row(seconds, axis=axis, value=value, shape=shape._asdict(), peak_bytes=peaks, skipped=skipped)


def lines(rows: Rows, axis: str) -> dict[str, Line]:
    """Return each contender's points along an axis, in rising order."""
    along = sorted((found for found in rows.values() if found["axis"] == axis), key=lambda found: int(found["value"]))
    found = {}
    for name in contenders(rows):
        there = [point for point in along if name in point["times"]]
        found[name] = Line(
            [point["value"] for point in there],
            [point["times"][name]["median_ms"] / 1e3 for point in there],
            [point["peak_bytes"][name] / 2**20 for point in there],
        )
    return found


def exponent(values: list[int], costs: list[float]) -> float:
    """Return the slope of the straight line through points whose axes are logarithmic, by least squares.

    NaN where there are less than two points, or a cost is not above 0.
    """
    if len(values) < 2 or min(costs) <= 0:
        return math.nan
    x, y = np.log(values), np.log(costs)
    return float(((x - x.mean()) * (y - y.mean())).sum() / np.square(x - x.mean()).sum())


def axes_of(rows: Rows) -> list[str]:
    """Return the axes along which there are points."""
    return list(dict.fromkeys(found["axis"] for found in rows.values()))


def table(rows: Rows) -> str:
    """Return times and peak memory of every point, and the exponents."""
    names = contenders(rows)
    points = [
        [label, *(span(found["times"].get(name)) for name in names), *(_megabytes(found, name) for name in names)]
        for label, found in rows.items()
    ]
    head = ["point", *(f"{name}, ms" for name in names), *(f"{name}, MiB" for name in names)]
    slopes = [
        [axis, *(f"{exponent(line.values, line.seconds):.2f}" for line in lines(rows, axis).values())]
        + [f"{exponent(line.values, line.megabytes):.2f}" for line in lines(rows, axis).values()]
        for axis in axes_of(rows)
    ]
    fitted = [f"{name}, {what}" for what in ("time", "memory") for name in names]
    return markdown(head, points) + "\n\n" + markdown(["exponent along", *fitted], slopes)


def _megabytes(found: Row, name: str) -> str:
    return f"{found['peak_bytes'][name] / 2**20:.1f}" if name in found["peak_bytes"] else ABSENT


def plot(rows: Rows, folder: Path) -> None:
    """Draw scaling.png: time above memory, a column for each axis, with the exponents."""
    axes = axes_of(rows)
    figure, panels = drawing(2, len(axes), width=60 + 340 * len(axes), height=800)
    for column, axis in enumerate(axes):
        for panel, quantity in zip(panels[:, column], ("seconds", "megabytes"), strict=True):
            _curves(panel, lines(rows, axis), quantity)
        panels[1, column].set_xlabel(axis)
    panels[0, 0].set_ylabel("seconds of a step")
    panels[1, 0].set_ylabel("peak memory, MiB")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)), frameon=False, fontsize=10)
    save(figure, folder / "scaling.png")


def _curves(panel: Any, along: Mapping[str, Line], quantity: str) -> None:
    """Draw everybody's points, joined, and write the exponents in their colours below the lines."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    for place, (colour, (name, line)) in enumerate(zip(COLOURS, along.items(), strict=False)):
        costs = getattr(line, quantity)
        panel.plot(line.values, costs, "o-", color=colour, label=name, markersize=4)
        slope = f"exponent {exponent(line.values, costs):.2f}"
        at = (0.97, 0.04 + 0.07 * (len(along) - 1 - place))
        behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}
        panel.text(
            *at, slope, color=colour, ha="right", fontsize=9, fontfamily=FONT, transform=panel.transAxes, bbox=behind
        )
    ticks = sorted({value for line in along.values() for value in line.values})
    panel.set_xticks(ticks, [str(value) for value in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_minor_formatter(NullFormatter())
