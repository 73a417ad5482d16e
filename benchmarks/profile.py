"""Where the time of a training step goes, on one worker thread.

The backend that the model computes with is wrapped, and so is what it returns to sum a kernel's gradient with; every
call of theirs is timed.  What is left of the step is the rest: the loss's arithmetic, sums, SGD, Python.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Rows, Skipped, row
from benchmarks.options import Options
from benchmarks.ours import LEARNING_RATE, our_model
from benchmarks.shapes import Shape, frames_of
from benchmarks.style import COLOURS, drawing, save
from benchmarks.tables import contenders, markdown
from convlstm.optimizers import SGD

TOTAL, REST = "the whole step", "the rest"
PARTS = {
    "prepare": "preparing kernels",
    "convolve": "convolution forward",
    "gradient_input": "gradient to h and x",
    "gradient_weights": "gradient to kernels",
    "gates_forward": "gates forward",
    "gates_backward": "gates backward",
}
SUM = "kernel_gradient"  # what this returns is wrapped too
PARTS_OF_SUM = dict.fromkeys(("add", "total"), PARTS["gradient_weights"])

Clock = Callable[[], float]


class Timed:
    """Anything, the calls of some of whose methods are timed; the rest of it is as it was."""

    def __init__(self, wrapped: Any, parts: dict[str, str], spent: dict[str, float], clock: Clock) -> None:
        """Add the seconds of each call to `spent`, under the name that `parts` has for the method."""
        self._wrapped, self._parts, self._spent, self._clock = wrapped, parts, spent, clock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if name == SUM:
            return lambda *given: Timed(found(*given), PARTS_OF_SUM, self._spent, self._clock)
        return self._timed(self._parts[name], found) if name in self._parts else found

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            start = self._clock()
            try:
                return call(*given, **named)
            finally:
                self._spent[part] += self._clock() - start

        return timed


@contextmanager
def one_worker() -> Iterator[None]:
    """Let backends have one worker thread."""
    before = os.environ.get("CONVLSTM_THREADS")
    os.environ["CONVLSTM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CONVLSTM_THREADS"]
        else:
            os.environ["CONVLSTM_THREADS"] = before


def breakdown(shape: Shape, backend: str, rounds: int, clock: Clock = time.perf_counter) -> dict[str, list[float]]:
    """Return the seconds of each part of a step, of the rest, and of the whole, one figure for each round.

    The first step, which warms up, does not count.

    Raises:
        Skipped: the backend is not to be had here.
    """
    with one_worker():
        model, optimizer = our_model(shape, backend), SGD(LEARNING_RATE)
    frames, spent = model.backend.asarray(frames_of(shape)), dict.fromkeys(PARTS.values(), 0.0)
    model.backend = Timed(model.backend, PARTS, spent, clock)
    for layer in model.layers:
        layer.backend = model.backend
    seconds: dict[str, list[float]] = {part: [] for part in (*spent, REST, TOTAL)}
    for number in range(rounds + 1):
        spent.update(dict.fromkeys(spent, 0.0))
        start = clock()
        _, gradients = model.loss_and_gradients(frames)
        optimizer.step(model.parameters, gradients)
        whole = clock() - start
        if number:
            for part, value in {**spent, REST: whole - sum(spent.values()), TOTAL: whole}.items():
                seconds[part].append(value)
    return seconds


def measure(options: Options) -> Rows:
    """Return a row for each shape and backend on the host."""
    rows: Rows = {}
    for name, shape in options.shapes.items():
        for backend in options.on_host:
            rows[f"{name}, {backend}"] = _row(shape, backend, options.rounds)
    return rows


def _row(shape: Shape, backend: str, rounds: int) -> Row:
    try:
        return row(breakdown(shape, backend, rounds), shape=shape._asdict(), skipped={})
    except Skipped as reason:
        return row({}, shape=shape._asdict(), skipped={backend: str(reason)})


def table(rows: Rows) -> str:
    """Return each part's milliseconds and share of its step."""
    there = {label: found for label, found in rows.items() if found["times"]}
    lines = []
    for part in contenders(rows):
        cells = []
        for found in there.values():
            value, whole = (found["times"][name]["median_ms"] for name in (part, TOTAL))
            cells.append(f"{value:.1f}" + ("" if part == TOTAL else f" ({100 * value / whole:.0f} %)"))
        lines.append([part, *cells])
    return markdown(["part", *there], lines) + "\n\nms of a step on one worker thread (share of it), medians"


def plot(rows: Rows, folder: Path) -> None:
    """Draw profile.png: a bar for each row, its parts as shares of the step."""
    figure, panels = drawing(1, 1, width=1200, height=120 + 70 * len(rows))
    panel = panels[0, 0]
    panel.grid(visible=False)
    there = {label: found["times"] for label, found in rows.items() if found["times"]}
    left = dict.fromkeys(there, 0.0)
    for colour, part in zip(COLOURS, [part for part in contenders(rows) if part != TOTAL], strict=False):
        shares = {label: 100 * times[part]["median_ms"] / times[TOTAL]["median_ms"] for label, times in there.items()}
        panel.barh(list(there), list(shares.values()), left=list(left.values()), color=colour, label=part, height=0.6)
        left = {label: left[label] + share for label, share in shares.items()}
    panel.invert_yaxis()
    panel.set_xlabel("% of a step on one worker thread")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    save(figure, folder / "profile.png")
