"""Worker threads: how much faster a training step becomes with more of them, and that its bits stay the same.

CONVLSTM_THREADS is 1 … all cores, and 1 … 4 in any case, for the bits; each in a process of its own, one after the
other, so a machine that slows down meanwhile spoils the speed-up, but not what is said of the bits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Rows, Skipped, row
from benchmarks.options import Options
from benchmarks.processes import in_own_process
from benchmarks.shapes import Shape
from benchmarks.style import COLOURS, drawing, save
from benchmarks.tables import contenders, markdown, span_and_speed, speed

ONE = "1 thread"

Point = Callable[[str, Shape, int, int], dict[str, Any]]  # (backend, shape, threads, rounds) → digest and seconds


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def point(backend: str, shape: Shape, threads: int, rounds: int) -> dict[str, Any]:
    """Return what threads_point.py finds with so many worker threads; raises as `in_own_process`."""
    arguments = [backend, json.dumps(shape._asdict()), str(rounds)]
    found: dict[str, Any] = in_own_process("threads_point", arguments, {"CONVLSTM_THREADS": str(threads)})
    return found


def measure(options: Options, counts: Iterable[int] | None = None, point: Point = point) -> Rows:
    """Return a row for each shape and backend on the host.

    Raises:
        RuntimeError: two numbers of threads came to different bits.
    """
    counts = range(1, max(4, cores()) + 1) if counts is None else list(counts)
    rows = {}
    for name, shape in options.shapes.items():
        for backend in options.on_host:
            rows[f"{name}, {backend}"] = _row(f"{name}, {backend}", backend, shape, list(counts), options.rounds, point)
    return rows


def _row(label: str, backend: str, shape: Shape, counts: list[int], rounds: int, point: Point) -> Row:
    try:
        found = {threads: point(backend, shape, threads, rounds) for threads in counts}
    except Skipped as reason:
        return row({}, shape=shape._asdict(), skipped={backend: str(reason)})
    digests = {threads: held["digest"] for threads, held in found.items()}
    if len(set(digests.values())) > 1:
        short = ", ".join(f"{threads}: {digest[:12]}" for threads, digest in digests.items())
        raise RuntimeError(f"{label}: the bits of a step depend on the number of threads: {short}")
    seconds = {_threads(threads): held["seconds"] for threads, held in found.items()}
    return row(seconds, shape=shape._asdict(), digest=digests[counts[0]], cores=cores(), skipped={})


def _threads(count: int) -> str:
    return ONE if count == 1 else f"{count} threads"


def table(rows: Rows) -> str:
    """Return times, and speeds divided by that of one thread."""
    names = contenders(rows)
    lines = [[label, *(span_and_speed(found, name, ONE) for name in names)] for label, found in rows.items()]
    note = (
        "\n\nms, median (quartiles); in bold the speed divided by that of one thread; the bits of each row are the same"
    )
    return markdown(["shape, backend", *names], lines) + note


def plot(rows: Rows, folder: Path) -> None:
    """Draw threads.png: speed-up over the number of threads, a line for each row, and the ideal."""
    figure, panels = drawing(1, 1, width=900, height=640)
    panel, names = panels[0, 0], contenders(rows)
    counts = [int(name.split()[0]) for name in names]
    panel.plot(counts, counts, ":", color="#6f747d", label="as many times as fast as threads")
    for place, (label, found) in enumerate(rows.items()):
        speeds = [speed(found, name, ONE) for name in names if name in found["times"]]
        panel.plot(counts[: len(speeds)], speeds, "o-", color=COLOURS[place % len(COLOURS)], label=label, markersize=4)
    panel.set_xticks(counts)
    panel.set_xlabel("worker threads")
    panel.set_ylabel("speed ÷ that of one thread")
    panel.legend(fontsize=8, frameon=False)
    save(figure, folder / "threads.png")
