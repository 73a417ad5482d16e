"""The page's moving forecast: frames shown, then the forecast beside what came; still pictures without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.page.charts import number
from convlstm.page.pictures import Colours, coarser, data_address, scale_address

MOST_PIXELS = 6_000_000  # of all pictures together; a byte each before compression, so 8 MB of page at the very most
WIDE = 2.2  # frames this many times as wide as high stand one below the other
ROWS = ("forecast", "truth", "difference")
CAPTIONS = {"forecast": "forecast", "truth": "truth", "difference": "forecast − truth"}


@dataclass(frozen=True)
class Film:
    """One sequence: what the model was shown, what it forecast, and what came.

    Attributes:
        name: "test sequence 1".
        shown: frames the model read, (T_in, H, W), one channel; NaN where values are missing; their first row is drawn
            on top.
        forecast: (T_out, H, W).
        truth: shaped as the forecast.
        times: the name of each of the T_in + T_out times, "2010-03"; () where they have none.
    """

    name: str
    shown: NDArray[Any]
    forecast: NDArray[Any]
    truth: NDArray[Any]
    times: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ValueError: the shapes do not fit one another, or there are more or fewer names than times.
        """
        shown, forecast, truth = np.shape(self.shown), np.shape(self.forecast), np.shape(self.truth)
        if len(shown) != 3 or len(forecast) != 3 or shown[1:] != forecast[1:] or 0 in (*shown, *forecast):
            raise ValueError(f"shown and forecast must have shapes (T, H, W), none 0; got {shown} and {forecast}")
        if truth != forecast:
            raise ValueError(f"truth must have the shape of forecast, {forecast}; got {truth}")
        if self.times and len(self.times) != shown[0] + forecast[0]:
            raise ValueError(f"times must name {shown[0] + forecast[0]} times or none; got {len(self.times)}")

    def land(self) -> NDArray[np.bool_]:
        """Return where truth is missing in every frame, (H, W): there a forecast means nothing."""
        missing: NDArray[np.bool_] = np.isnan(self.truth).all(axis=0) & np.isnan(self.shown).all(axis=0)
        return missing


def films_section(
    films: Sequence[Film], *, colours: str, limits: tuple[float, float] | None, units: str, step_name: str
) -> str:
    """Return the section with the player and a table of still pictures for each film; "" where there is none.

    Args:
        films: of frames of one size.
        colours: "viridis" for fields, "grey" for brightness.
        limits: the values of the first and the last colour; None: those of what was shown and came.
        units: of the values, "K".
        step_name: from one frame to the next, "frame", "month".

    Raises:
        ValueError: the films' frames differ in size, or no map of colours has this name.
    """
    if not films:
        return ""
    sizes = sorted({np.shape(film.shown)[1:] for film in films})
    if len(sizes) > 1:
        raise ValueError(f"films of one page must have frames of one size; got {', '.join(map(str, sizes))}")
    values = Colours(colours, *(limits or _range(films)))
    errors = Colours("difference", *_error_range(films, values.high - values.low))
    factor = _factor(films)
    wide = sizes[0][1] > WIDE * sizes[0][0]
    tables = "".join(_film(film, k, values, errors, factor, wide, step_name) for k, film in enumerate(films))
    shape = "wide" if wide else "square"
    return (
        f'<section id="forecast" class="films {shape}"><h2>Forecast and truth</h2>{_player(films)}'
        f"{_key(films, values, errors, units)}{_coarse(factor, sizes[0])}{tables}</section>"
    )


def _range(films: Sequence[Film]) -> tuple[float, float]:
    """Return the least and the largest value that was shown or came; some width where they are the same."""
    arrays = [np.asarray(a, np.float64) for film in films for a in (film.shown, film.truth)]
    finite = [a[np.isfinite(a)] for a in arrays]
    there = [a for a in finite if a.size]
    if not there:
        return 0.0, 1.0
    low, high = min(float(a.min()) for a in there), max(float(a.max()) for a in there)
    return (low, high) if low < high else (low - (0.5 * abs(low) or 0.5), high + (0.5 * abs(high) or 0.5))


def _error_range(films: Sequence[Film], widest: float) -> tuple[float, float]:
    """Return the range of forecast - truth, as far below 0 as above, not wider than the values' own on each side."""
    largest = 0.0
    for film in films:
        error = np.abs(_difference(film))
        largest = max(largest, float(error[np.isfinite(error)].max(initial=0)))
    largest = min(largest, widest) or widest
    return -largest, largest


def _difference(film: Film) -> NDArray[np.float64]:
    """Return forecast - truth; NaN where truth is missing, or the forecast is not finite."""
    forecast = np.asarray(film.forecast, np.float64)
    return np.where(np.isfinite(forecast), forecast, np.nan) - np.where(np.isfinite(film.truth), film.truth, np.nan)


def _factor(films: Sequence[Film]) -> int:
    """Return how many pixels each way become one, so that all pictures together have no more than `MOST_PIXELS`."""
    pixels = sum(np.size(film.shown) + len(ROWS) * np.size(film.forecast) for film in films)
    return max(1, math.ceil(math.sqrt(pixels / MOST_PIXELS)))


def _player(films: Sequence[Film]) -> str:
    """Return the player, hidden until the page's script moves it."""
    choices = "".join(
        f'<label><input type="radio" name="film" value="{k}"{" checked" if k == 0 else ""}>'
        f"<span>{escape(film.name)}</span></label>"
        for k, film in enumerate(films)
    )
    choice = f'<fieldset class="choice"><legend class="unseen">Sequence</legend>{choices}</fieldset>'
    panels = "".join(
        f'<figure><figcaption class="{row}">{CAPTIONS[row]}</figcaption>'
        f'<canvas data-row="{row}" role="img" aria-label="{row}"></canvas></figure>'
        for row in ROWS
    )
    last = max(len(film.shown) + len(film.forecast) for film in films) - 1
    return (
        f'<div class="player" hidden>{choice if len(films) > 1 else ""}'
        f'<div class="panels" tabindex="0" role="region" aria-label="Forecast beside truth">{panels}</div>'
        '<div class="controls"><button type="button" class="play">Play</button>'
        f'<input type="range" min="0" max="{last}" step="1" value="0" aria-label="Time"><output></output></div></div>'
    )


def _key(films: Sequence[Film], values: Colours, errors: Colours, units: str) -> str:
    """Return the colours with their numbers, and what missing values look like, where there are some."""
    bars = _bar("forecast and truth", values, units) + _bar(CAPTIONS["difference"], errors, units)
    missing = any(np.isnan(a).any() for film in films for a in (film.shown, film.forecast, film.truth))
    swatch = '<div class="scale"><span class="missing"></span><span>no value</span></div>' if missing else ""
    return f'<div class="scales">{bars}{swatch}</div>'


def _bar(name: str, colours: Colours, units: str) -> str:
    """Return a map's colours between its numbers, which are rounded to a hundredth of their distance or less."""
    decimals = 2 - math.floor(math.log10(colours.high - colours.low))
    low, high = (number(round(end, decimals) + 0.0, 7) for end in (colours.low, colours.high))  # + 0.0: never "−0"
    picture = f'<img src="{scale_address(colours)}" width="255" height="1" alt="colours from {low} to {high}">'
    unit = f" {escape(units)}" if units else ""
    ends = f"<span>{low}</span>{picture}<span>{high}{unit}</span>"
    return f'<div class="scale"><span class="faint">{name}</span>{ends}</div>'


def _coarse(factor: int, size: tuple[int, ...]) -> str:
    if factor == 1:
        return ""
    shown = f"{factor}×{factor} of their {size[0]}×{size[1]} pixels are shown as one, their mean"
    return f'<p class="faint">Frames are drawn coarser, so that this file stays small: {shown}.</p>'


def _film(film: Film, k: int, values: Colours, errors: Colours, factor: int, wide: bool, step_name: str) -> str:
    """Return a film's still pictures: a table by time, across or, where frames are wide, downward."""
    context = len(film.shown)
    land = film.land()
    forecast = np.where(land, np.nan, np.asarray(film.forecast, np.float64))
    pictures = {
        "shown": _images(film.shown, values, factor, "truth", "shown", 0),
        "forecast": _images(forecast, values, factor, "forecast", "forecast", context),
        "truth": _images(film.truth, values, factor, "truth", "truth", context),
        "difference": _images(_difference(film), errors, factor, "difference", "forecast − truth", context),
    }
    heads = [_time(film, t, step_name) for t in range(context + len(film.forecast))]
    table = _downward(pictures, heads) if wide else _across(pictures, heads)
    name = f"{escape(film.name)}, frame by frame"
    return (
        f'<figure class="film" data-film="{k}" data-shown="{context}"><figcaption>{name}</figcaption>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{table}</div></figure>'
    )


def _images(frames: NDArray[Any], colours: Colours, factor: int, row: str, name: str, first: int) -> list[str]:
    """Return a picture for each frame (T, H, W), of times from `first` on."""
    pictures = []
    for t, frame in enumerate(np.asarray(frames)):
        small = coarser(frame[None], factor)[0]
        height, width = small.shape
        pictures.append(
            f'<img data-row="{row}" data-time="{first + t}" width="{width}" height="{height}" '
            f'alt="{name}, frame {t + 1}" src="{data_address(small, colours)}">'
        )
    return pictures


def _time(film: Film, t: int, step_name: str) -> tuple[str, str]:
    """Return the head of a time, "+3" or its own name, and the same in words."""
    ahead = t + 1 - len(film.shown)
    count = f"{ahead} {step_name}{'s' if ahead != 1 else ''} ahead" if ahead > 0 else "shown to the model"
    sign = f"+{ahead}" if ahead > 0 else str(ahead).replace("-", "−")
    name = film.times[t] if film.times else ""
    if not name:
        return sign, f"{count} ({sign})"
    return f"{sign} <small>{escape(name)}</small>", f"{count}, {name}"


def _head(head: tuple[str, str], scope: str) -> str:
    return f'<th scope="{scope}" class="time" data-says="{escape(head[1])}">{head[0]}</th>'


def _across(pictures: dict[str, list[str]], heads: list[tuple[str, str]]) -> str:
    """Return the table with a column for each time."""
    context = len(pictures["shown"])
    empty = f'<td class="empty" colspan="{context}"></td>'
    first = "".join(_head(head, "col") for head in heads)
    rows = "".join(
        f'<tr><th scope="row" class="{row}">{CAPTIONS[row]}</th>'
        f"{''.join(f'<td>{picture}</td>' for picture in pictures['shown']) if row == 'truth' else empty}"
        f"{''.join(f'<td>{picture}</td>' for picture in pictures[row])}</tr>"
        for row in ROWS
    )
    return f'<table class="strip"><thead><tr><td></td>{first}</tr></thead><tbody>{rows}</tbody></table>'


def _downward(pictures: dict[str, list[str]], heads: list[tuple[str, str]]) -> str:
    """Return the table with a row for each time."""
    context = len(pictures["shown"])
    first = "".join(f'<th scope="col" class="{row}">{CAPTIONS[row]}</th>' for row in ROWS)
    rows = []
    for t, head in enumerate(heads):
        if t < context:
            cells = f"<td></td><td>{pictures['shown'][t]}</td><td></td>"
        else:
            cells = "".join(f"<td>{pictures[row][t - context]}</td>" for row in ROWS)
        rows.append(f"<tr>{_head(head, 'row')}{cells}</tr>")
    return f'<table class="strip"><thead><tr><td></td>{first}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
