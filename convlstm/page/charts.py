"""Charts of the page: SVG whose text is text and whose colours are those of the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Values = Sequence[float | None]

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 12, 40  # room around the plot
MOST_POINTS = 300  # of a line; more steps than that are drawn as the band from the least to the largest of a few


def number(value: float | None, digits: int = 4, *, zeros: bool = False) -> str:
    """Return a number as it is read, "−0.0123" or "1.2×10⁻⁷"; "–" where there is none; `zeros`: "0.50" for 0.5 too."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    long = 10**digits <= abs(value) < 10 ** (digits + 3)
    text = f"{value:.0f}" if long else f"{value:{'#' if zeros else ''}.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa}×10{power}".removeprefix("1×").replace("-", "−")
    return mantissa.removesuffix(".").replace("-", "−")


@dataclass(frozen=True)
class _Scale:
    """Where values of one axis stand, from `start` to `end` in the chart's own lengths."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (self.end - self.start) * (value - low) / (high - low), 1)

    def ticks(self) -> list[float]:
        decades = math.log10(self.high) - math.log10(self.low) if self.log else 0.0
        if decades < 0.6:  # so short a piece of a logarithmic axis is nearly an even one
            return _even_ticks(self.low, self.high)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        times = (1, 2, 5) if decades < 2.5 else (1,)
        every = math.ceil(decades / 7)
        ticks = [float(f"{m}e{power}") for power in powers if power % every == 0 for m in times]
        return [tick for tick in ticks if self.low <= tick <= self.high]


def _even_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten from low to high, `most` of them or fewer."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * times for times in (1, 2, 5, 10) if (high - low) / (power * times) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12 - math.floor(math.log10(step))) for k in range(first, last + 1)]


def _vertical(values: NDArray[np.float64], *, zero: bool, log: bool) -> _Scale:
    """Return the scale of these finite values, with some air; they may all be the same."""
    low, high = float(values.min()), float(values.max())
    if log:
        return _Scale(low / 1.08, high * 1.08, HEIGHT - BOTTOM, TOP, log=True)
    if zero and low >= 0:
        low = 0.0
    same = high - low <= 1e-6 * max(abs(low), abs(high))
    air = (0.1 * abs(high) or 1.0) if same else 0.06 * (high - low)
    return _Scale(low if zero and low == 0 else low - air, high + air, HEIGHT - BOTTOM, TOP)


def lead_time_chart(lines: Mapping[str, Values], *, what: str, step_name: str, zero: bool) -> str:
    """Return a chart of one score by lead time, one line for each forecaster, the first one's strong.

    Args:
        lines: for each forecaster the score at lead times 1, 2, …; None or not finite: a gap.
        what: the score is, for those who cannot see the chart.
        step_name: what lead times count, "frame".
        zero: whether the axis begins there.

    Raises:
        ValueError: no value is finite.
    """
    rows = {name: np.array([np.nan if v is None else v for v in values], np.float64) for name, values in lines.items()}
    finite = np.concatenate([row[np.isfinite(row)] for row in rows.values()])
    if not len(finite):
        raise ValueError(f"a chart of {what} needs one finite value at least; got none")
    longest = max(len(row) for row in rows.values())
    x = _Scale(1, longest, LEFT + 10, WIDTH - RIGHT - 10) if longest > 1 else _Scale(0, 2, LEFT, WIDTH - RIGHT)
    y = _vertical(finite, zero=zero, log=False)
    whole = [tick for tick in _even_ticks(x.low, x.high, 10) if tick == round(tick) and 1 <= tick <= longest]
    parts = [_grid(y), _x_axis(x, whole or [1.0], f"{step_name}s ahead", sign="+")]
    for k, row in reversed(list(enumerate(rows.values()))):  # the first one last, on top
        points = [(x.at(t + 1), y.at(float(v))) if np.isfinite(v) else None for t, v in enumerate(row)]
        parts += [_path(points, f"line line-{min(k, 3)}"), *(_marker(*point, k) for point in points if point)]
    return _svg(parts, f"{what} by lead time, {' and '.join(lines)}; the table below holds the numbers")


def loss_chart(steps: Sequence[int], losses: Sequence[float], *, what: str, smooth: int, points: bool = False) -> str:
    """Return a chart of losses over steps: each one light, their running mean strong; logarithmic where all are > 0.

    Args:
        steps: of each loss, rising.
        losses: not finite: a gap.
        what: is drawn, for those who cannot see the chart.
        smooth: losses that a running mean is over.
        points: mark each loss in place of that, where there are few.

    Raises:
        ValueError: no loss is finite.
    """
    values = np.array(losses, np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError(f"a chart of {what} needs one finite value at least; got none")
    log = bool((values[finite] > 0).all())
    first, last = (steps[0], steps[-1]) if len(steps) > 1 else (steps[0] - 1, steps[0] + 1)
    x = _Scale(first, last, LEFT + 10, WIDTH - RIGHT - 10)
    y = _vertical(values[finite], zero=False, log=log)
    whole = [tick for tick in _even_ticks(x.low, x.high) if tick == round(tick) and tick >= 0] or [float(steps[0])]
    parts = [_grid(y), _x_axis(x, whole, "step")]
    if points:
        marks = [(x.at(s), y.at(float(v))) if np.isfinite(v) else None for s, v in zip(steps, values, strict=True)]
        parts += [_path(marks, "line line-0"), *(_marker(*mark, 0) for mark in marks if mark)]
    else:
        parts += [_each(x, y, steps, values), _smoothed(x, y, steps, values, smooth)]
    first_value, last_value = (number(float(values[finite][k])) for k in (0, -1))
    return _svg(parts, f"{what} from step {steps[0]}, {first_value}, to step {steps[-1]}, {last_value}")


def _each(x: _Scale, y: _Scale, steps: Sequence[int], values: NDArray[np.float64]) -> str:
    """Draw every value, as a line or, of many, as the band that they fill."""
    if len(values) <= MOST_POINTS:
        points = [(x.at(s), y.at(float(v))) if np.isfinite(v) else None for s, v in zip(steps, values, strict=True)]
        return _path(points, "each") + "".join(_dot(*p) for p in _alone(points))
    upper, lower = [], []
    for part in np.array_split(np.arange(len(values)), MOST_POINTS):
        inside = values[part][np.isfinite(values[part])]
        if len(inside):
            middle = x.at(steps[int(part[len(part) // 2])])
            upper.append(f"{middle},{y.at(float(inside.max()))}")
            lower.append(f"{middle},{y.at(float(inside.min()))}")
    return f'<polygon class="band" points="{" ".join(upper + lower[::-1])}"/>'


def _smoothed(x: _Scale, y: _Scale, steps: Sequence[int], values: NDArray[np.float64], smooth: int) -> str:
    shown = sorted({round(k) for k in np.linspace(0, len(values) - 1, MOST_POINTS)})
    means = [mean_around(values, k, smooth) for k in shown]
    points = [None if mean is None else (x.at(steps[k]), y.at(mean)) for k, mean in zip(shown, means, strict=True)]
    return _path(points, "line line-0") + "".join(_dot(*point) for point in _alone(points))


def mean_around(values: NDArray[np.float64], k: int, width: int) -> float | None:
    """Return the mean of the finite values in a window of this odd width around the kth; None where there are none."""
    inside = values[max(0, k - width // 2) : k + width // 2 + 1]
    inside = inside[np.isfinite(inside)]
    return float(inside.mean()) if len(inside) else None


def _alone(points: Sequence[tuple[float, float] | None]) -> list[tuple[float, float]]:
    """Return the points without a neighbour, which a line does not show."""
    around = [None, *points, None]
    return [p for before, p, after in zip(around, points, around[2:], strict=False) if p and not before and not after]


def _dot(x: float, y: float) -> str:
    return f'<circle class="dot" cx="{x}" cy="{y}" r="3"/>'


def _path(points: Sequence[tuple[float, float] | None], style: str) -> str:
    """Return a line through the points, interrupted where there is none."""
    words, pen = [], "M"
    for point in points:
        if point is not None:
            words.append(f"{pen}{point[0]} {point[1]}")
        pen = "M" if point is None else "L"
    return f'<path class="{style}" d="{" ".join(words)}"/>'


def _marker(x: float, y: float, k: int) -> str:
    """Return forecaster k's mark: a disc, a square, a triangle, a diamond."""
    style = f'class="mark mark-{min(k, 3)}"'
    if k == 0:
        return f'<circle {style} cx="{x}" cy="{y}" r="4"/>'
    if k == 1:
        return f'<rect {style} x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
    if k > 2:
        return f'<path {style} d="M{x} {y - 5:.1f}L{x + 4:.1f} {y}L{x} {y + 5:.1f}L{x - 4:.1f} {y}Z"/>'
    return f'<path {style} d="M{x} {y - 4.5:.1f}L{x + 4:.1f} {y + 3:.1f}L{x - 4:.1f} {y + 3:.1f}Z"/>'


def key(k: int) -> str:
    """Return the line and mark of forecaster k, to stand beside its name."""
    line = _path([(1, 7), (27, 7)], f"line line-{min(k, 3)}")
    size = 'viewBox="0 0 28 14" width="28" height="14"'
    return f'<svg class="key" {size} aria-hidden="true">{line}{_marker(14, 7, k)}</svg>'


def _grid(y: _Scale) -> str:
    """Return a line and a number for each tick upward."""
    parts = []
    for tick in y.ticks():
        at = y.at(tick)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    return "".join(parts)


def _x_axis(x: _Scale, ticks: Sequence[float], name: str, sign: str = "") -> str:
    """Return the numbers below the plot and what they count."""
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>']
    for tick in ticks:
        text = f"{sign}{int(tick):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        parts.append(f'<text x="{x.at(tick)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{text}</text>')
    middle = (LEFT + WIDTH - RIGHT) // 2
    parts.append(f'<text class="faint" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(name)}</text>')
    return "".join(parts)


def _svg(parts: Sequence[str], label: str) -> str:
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg class="chart" {size} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
