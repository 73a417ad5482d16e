"""Pictures of what a model forecasts, beside what really came."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlstm.page.pictures import Colours
from convlstm.whole_files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Lengths are pixels of the file.  README shows it at about half its width, so that it is sharp on fine screens too.
WIDTH = 1800  # at most, where the frames are not larger than that by themselves
DPI = 128  # a power of two: matplotlib, which wants inches, gets back the very pixels
MARGIN = 40
BETWEEN = 8  # two neighbouring frames
TALLEST = 240  # a frame, where zooming made it so
LABEL = 186  # room between the seen frames and the rest, for the names of the rows
HEADING = 76  # room above the frames
TITLE = 64  # room for a title above that
BETWEEN_SEQUENCES = 48
LINE = 30  # a line of text
WIDE = 4  # frames this many times as wide as high stand one below the other

PAPER, INK, FAINT, RULE, ACCENT = "#fbfaf7", "#22262e", "#6f747d", "#c9c5bb", "#b4481e"
FONT = "DejaVu Sans"  # comes with matplotlib, so that the picture is the same everywhere


def forecast_figure(
    path: str | os.PathLike[str],
    context: NDArray[Any],
    forecast: NDArray[Any],
    truth: NDArray[Any],
    *,
    title: str | None = None,
    colours: Literal["grey", "viridis"] = "grey",
) -> None:
    """Draw a PNG: the frames that were seen, then the forecast above the frames that really came.

    Values are clipped to [0, 1]; a pixel that is not a number is drawn red in grey frames, and grey in coloured ones,
    whose land has no value.  Of frames much wider than high the last one seen stands above the others, a row each.  The
    same arrays make the same bytes.

    Args:
        path: the file to write; one that exists is replaced in one step.
        context: frames the model saw, (T_in, H, W), or (N, T_in, H, W) for a few sequences one below the other.
        forecast: frames it forecast, (T_out, H, W) or (N, T_out, H, W).
        truth: frames that came, shaped as ``forecast``.
        title: a line above the picture.
        colours: "grey" for brightness, "viridis" for fields.

    Raises:
        ValueError: the shapes do not fit one another.
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    _check_shapes(context.shape, forecast.shape, truth.shape)
    seen, ahead, came = (array.reshape(-1, *array.shape[-3:]) for array in (context, forecast, truth))  # (N, T, H, W)
    compose = _compose_rows if seen.shape[-1] > WIDE * seen.shape[-2] else _compose
    frames = Sequences(*(_pixels(frames, colours) for frames in (seen, ahead, came)))
    write_whole(Path(path), _png(compose(frames, title)))


class Sequences(NamedTuple):
    """Frames as red, green and blue, (N, T, H, W, 3)."""

    seen: NDArray[Any]
    forecast: NDArray[Any]
    truth: NDArray[Any]


def _pixels(frames: NDArray[Any], colours: Literal["grey", "viridis"]) -> NDArray[Any]:
    """Return frames (N, T, H, W) as red, green and blue, (N, T, H, W, 3)."""
    values = np.clip(np.nan_to_num(frames.astype(np.float64)), 0, 1)
    pixels: NDArray[Any]
    if colours == "viridis":
        pixels = Colours("viridis", 0.0, 1.0).palette()[1 + np.rint(254 * values).astype(np.int64)]  # 0 … 255
        pixels[np.isnan(frames)] = (212, 209, 204)
        return pixels
    shade = np.round(63 * values) / 63  # looks the same as 256 shades, and the file is smaller
    pixels = np.repeat(shade[..., None], 3, axis=-1)  # 0 … 1
    pixels[np.isnan(frames)] = (0.9, 0.1, 0.1)
    return pixels


def _check_shapes(context: tuple[int, ...], forecast: tuple[int, ...], truth: tuple[int, ...]) -> None:
    if len(context) not in (3, 4) or 0 in context:
        raise ValueError(f"context must have shape (T_in, H, W) or (N, T_in, H, W), none 0; got {context}")
    right = (*context[:-3], "T_out", *context[-2:])
    if len(forecast) != len(right) or forecast[:-3] + forecast[-2:] != context[:-3] + context[-2:] or 0 in forecast:
        raise ValueError(f"forecast must have shape {right} as context has {context}; got {forecast}".replace("'", ""))
    if truth != forecast:
        raise ValueError(f"truth must have the shape of forecast, {forecast}; got {truth}")


def _zoom(columns: int, H: int, W: int) -> int:
    """Return how many pixels of the file one pixel of a frame takes each way: a whole number keeps it square."""
    room = (WIDTH - 2 * MARGIN - LABEL) // columns - BETWEEN
    return max(1, min(room // W, TALLEST // H))


def _compose(sequences: Sequences, title: str | None) -> Figure:
    """Return the figure, time from left to right."""
    context, forecast, truth = sequences
    N, T_in, H, W = context.shape[:4]
    T_out = forecast.shape[1]
    zoom = _zoom(T_in + T_out, H, W)
    high, wide = zoom * H, zoom * W
    top = HEADING + (TITLE if title else 0)
    block = 2 * high + BETWEEN + BETWEEN_SEQUENCES
    right = MARGIN + T_in * (wide + BETWEEN) - BETWEEN + LABEL  # where the forecast begins
    figure = _blank(right + T_out * (wide + BETWEEN) - BETWEEN + MARGIN, top + N * block - BETWEEN_SEQUENCES + MARGIN)

    if title:
        _write(figure, title, MARGIN, MARGIN + 18, 17, INK, weight="bold")
    down = (high + BETWEEN) // 2  # the seen frames stand once, half-way between their two futures
    _time_labels(figure, range(1 - T_in, 1), MARGIN, wide, top + down)
    _time_labels(figure, range(1, T_out + 1), right, wide, top)
    for n in range(N):
        y = top + n * block
        _row(figure, context[n], MARGIN, y + down, zoom)
        _fork(figure, right - LABEL, y + high // 2, y + high + BETWEEN + high // 2)
        for name, colour, frames in (("forecast", ACCENT, forecast[n]), ("truth", INK, truth[n])):
            _row(figure, frames, right, y, zoom)
            _write(figure, name, right - LABEL + 60, y + high // 2, 14, colour)
            y += high + BETWEEN
    return figure


def _compose_rows(frames: Sequences, title: str | None) -> Figure:
    """Return the figure, time from top to bottom."""
    (N, _, H, W), T_out = frames.seen.shape[:4], frames.forecast.shape[1]
    zoom = max(1, min((WIDTH - 2 * MARGIN - LABEL) // W, TALLEST // H))
    high, left, top = zoom * H, MARGIN + LABEL, MARGIN + (TITLE if title else 0)
    step = max(2 * (high + BETWEEN), 2 * LINE) + BETWEEN  # from one lead time to the next
    block = max(high, LINE) + BETWEEN + T_out * step + BETWEEN_SEQUENCES
    figure = _blank(left + zoom * W + MARGIN, top + N * block - BETWEEN_SEQUENCES + MARGIN)
    if title:
        _write(figure, title, MARGIN, MARGIN + 18, 17, INK, weight="bold")
    for n in range(N):
        y = top + n * block
        _row(figure, frames.seen[n, -1:], left, y, zoom)
        _write(figure, "0 shown", MARGIN, y + high // 2, 14, FAINT)
        y += max(high, LINE) + BETWEEN
        for k in range(T_out):
            for name, colour, came in (("forecast", ACCENT, frames.forecast), ("truth", INK, frames.truth)):
                at = y + k * step + (0 if name == "forecast" else max(high + BETWEEN, LINE))
                _row(figure, came[n, k : k + 1], left, at, zoom)
                _write(figure, f"+{k + 1} {name}" if name == "forecast" else name, MARGIN, at + high // 2, 14, colour)
    return figure


def _time_labels(figure: Figure, times: Sequence[int], x: int, wide: int, bottom: int) -> None:
    """Write the time of each frame above it, in frames after the last one seen; only some where frames are narrow."""
    every = -(-70 // (wide + BETWEEN))
    for column, time in enumerate(times):
        if time % every == 0 or every == 1:
            centre = x + column * (wide + BETWEEN) + wide // 2
            label = f"{time:+d}".replace("-", "\N{MINUS SIGN}") if time else "0"
            _write(figure, label, centre, bottom - 24, 12.5, FAINT, align="center")


def _fork(figure: Figure, x: int, upper: int, lower: int) -> None:
    """Draw a line from what was seen to each of the two rows."""
    from matplotlib.lines import Line2D

    width, height = figure.bbox.width, figure.bbox.height
    xs = [(x + across) / width for across in (12, 30, 30, 46)]
    for end in (upper, lower):
        middle = (upper + lower) // 2
        ys = [1 - y / height for y in (middle, middle, end, end)]
        figure.add_artist(Line2D(xs, ys, color=RULE, linewidth=1.6, transform=figure.transFigure))


def _row(figure: Figure, frames: NDArray[Any], x: int, y: int, zoom: int) -> None:
    """Place frames (T, H, W, 3) side by side, the first one's upper left corner at (x, y) from the figure's own."""
    height = round(figure.bbox.height)
    for frame in frames:
        pixels = frame.repeat(zoom, axis=0).repeat(zoom, axis=1)
        # figimage copies pixels as they are; axes would resample them, and blur or double some.
        figure.figimage(pixels, x, height - y - len(pixels), origin="upper")
        x += pixels.shape[1] + BETWEEN


def _blank(width: int, height: int) -> Figure:
    """Return an empty figure of this many pixels; neither pyplot nor any global state of matplotlib is touched."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'a picture needs matplotlib, and {error.name} is missing; in the clone, pip install ".[plots]"',
            name=error.name,
        ) from error
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def _write(
    figure: Figure, text: str, x: int, y: int, points: float, colour: str, align: str = "left", weight: str = "normal"
) -> None:
    """Write a line of text at (x, y) pixels from the upper left corner, centred on y."""
    width, height = figure.bbox.width, figure.bbox.height
    figure.text(
        x / width, 1 - y / height, text, fontfamily=FONT, fontsize=points, color=colour, fontweight=weight,
        horizontalalignment=align, verticalalignment="center_baseline", parse_math=False, usetex=False,
    )  # fmt: skip


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    # No metadata: matplotlib would write its version, and the bytes would change with it.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call, unused-ignore]
    return buffer.getvalue()
