"""How plots look: on the paper of the report, in its colours, with little ink that says nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convlstm.report import ACCENT, DPI, FAINT, FONT, INK, PAPER, RULE
from convlstm.whole_files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ACCENT", "COLOURS", "FAINT", "FONT", "INK", "PAPER", "RULE", "drawing", "save"]

COLOURS = (ACCENT, "#d98a5f", "#4d5663", "#7a4a86", "#1d6b74", "#8b8f98", "#246b3a", "#c2a33a", "#5b7db1", "#9c5b6b")


def drawing(rows: int, columns: int, *, width: int, height: int) -> tuple[Figure, Any]:
    """Return a figure of this many pixels and its panels, an array (rows, columns).

    Raises:
        ModuleNotFoundError: matplotlib is missing; the message says what installs it.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'a plot needs matplotlib, and {error.name} is missing; in the clone, pip install ".[plots]"',
            name=error.name,
        ) from error
    layout = ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.15)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER, layout=layout)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        _plain(panel)
    return figure, panels


def _plain(panel: Any) -> None:
    """Leave a panel its lower edge and faint horizontal lines."""
    panel.set_facecolor(PAPER)
    for side, spine in panel.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
    panel.grid(axis="y", color=RULE, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(colors=FAINT, length=0, labelsize=9, labelfontfamily=FONT)
    for text in (panel.xaxis.label, panel.yaxis.label, panel.title):
        text.set(color=INK, fontfamily=FONT, fontsize=10)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all; the same figure makes the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None})
    write_whole(path, buffer.getvalue())
