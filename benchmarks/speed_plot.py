"""The plot of speeds: how many times as fast as PyTorch everybody is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Rows
from benchmarks.style import COLOURS, FAINT, FONT, INK, drawing, save
from benchmarks.tables import contenders, ratio, speed
from benchmarks.train_step import PYTORCH

KINDS = {"train_step": "training step", "inference": "forecast"}  # benchmark to what its rows are called


def everybody(held: dict[str, Rows]) -> list[str]:
    """Return everybody who took part in one of these benchmarks."""
    return list(dict.fromkeys(name for rows in held.values() for name in contenders(rows)))


def of(benchmark: str) -> Callable[[Rows, Path], None]:
    """Return what draws one benchmark into a folder; nothing where PyTorch did not take part."""

    def plot(rows: Rows, folder: Path) -> None:
        if PYTORCH in contenders(rows):
            draw({benchmark: rows}, folder / f"{benchmark}.png")

    return plot


def draw(held: dict[str, Rows], path: Path) -> None:
    """Draw speeds divided by PyTorch's: a panel for each benchmark, a group of bars for each shape."""
    names = [name for name in everybody(held) if name != PYTORCH]
    figure, panels = drawing(1, len(held), width=900 * len(held), height=720)
    top = max((_whiskers(found, name)[1] for rows in held.values() for name, found in _against(rows, names)), default=1)
    for panel, (benchmark, rows) in zip(panels[0], held.items(), strict=True):
        _bars(panel, rows, names)
        panel.set_ylim(0, 1.08 * max(top, 1))
        panel.set_title(
            KINDS[benchmark], loc="left", fontsize=13, fontweight="bold", color=INK, fontfamily=FONT, pad=14
        )
    panels[0, 0].set_ylabel("speed divided by PyTorch's", labelpad=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(names), frameon=False, prop={"family": FONT, "size": 11}
    )  # fmt: skip
    save(figure, path)


def _bars(panel: Any, rows: Rows, names: list[str]) -> None:
    wide = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        there = [(at, found) for at, found in enumerate(rows.values()) if speed(found, name, PYTORCH) is not None]
        at = [position + (place - (len(names) - 1) / 2) * wide for position, _ in there]
        speeds = [speed(found, name, PYTORCH) or 0.0 for _, found in there]
        low, high = zip(*(_whiskers(found, name) for _, found in there), strict=True) if there else ((), ())
        below = [value - end for value, end in zip(speeds, low, strict=True)]
        above = [end - value for value, end in zip(speeds, high, strict=True)]
        panel.bar(at, speeds, 0.88 * wide, label=name, color=COLOURS[place % len(COLOURS)])
        panel.errorbar(at, speeds, [below, above], fmt="none", ecolor=INK, elinewidth=1)
        for x, top, value in zip(at, high, speeds, strict=True):
            panel.annotate(
                ratio(value), (x, top), (0, 3), textcoords="offset points", ha="center", fontsize=8, color=INK,
                fontfamily=FONT,
            )  # fmt: skip
    panel.axhline(1, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0.5)
    panel.annotate(
        PYTORCH, (len(rows) - 0.47, 1), (0, 3), textcoords="offset points", ha="right", fontsize=9, color=FAINT,
        fontfamily=FONT,
    )  # fmt: skip
    panel.set_xticks(range(len(rows)), list(rows), fontsize=12, color=INK)
    panel.set_xlim(-0.55, len(rows) - 0.45)


def _against(rows: Rows, names: list[str]) -> Iterator[tuple[str, Row]]:
    """Yield whoever can be divided by PyTorch, row by row."""
    yield from ((name, found) for found in rows.values() for name in names if speed(found, name, PYTORCH) is not None)


def _whiskers(found: Row, name: str) -> tuple[float, float]:
    """Return PyTorch's median divided by the contender's upper and lower quartile."""
    times, reference = found["times"][name], found["times"][PYTORCH]["median_ms"]
    return reference / times["upper_quartile_ms"], reference / times["lower_quartile_ms"]
