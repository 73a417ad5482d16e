"""The page's scores: who forecasts better, in a sentence, in charts by lead time, and in tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from convlstm.page.charts import Values, key, lead_time_chart, number

ByLeadTime = Mapping[str, Mapping[str, Values]]  # scores by forecaster and name, as `metrics.Totals.scores` gives them
Overall = Mapping[str, Mapping[str, float | None]]  # the same over all lead times together

MEANINGS = {
    "persistence": "the last frame shown, again and again",
    "damped persistence": "how far the last frame was from what is usual, fading",
    "climatology": "what is usual in the training data",
}
BEST = '<span class="best" aria-hidden="true">✓</span><span class="unseen"> (best)</span>'


@dataclass(frozen=True)
class Score:
    """What the page says about a score.

    Attributes:
        label: "MSE".
        meaning: "mean squared error".
        unit: "K²"; "" where it has none.
        better: -1 where less is better, 1 where more is, 0 where nobody knows.
        zero: whether charts begin there.
        charted: whether it is drawn; sums over a frame look like means over its pixels.
    """

    label: str
    meaning: str = ""
    unit: str = ""
    better: int = 0
    zero: bool = True
    charted: bool = True


def described(name: str, units: str) -> Score:
    """Return what a score is, by its name in `metrics.Totals.scores`, of values with these units."""
    squared = f"{units}²" if units.isalpha() else f"({units})²" if units else ""
    known = {
        "mse": Score("MSE", "mean squared error per pixel", squared, -1),
        "mae": Score("MAE", "mean absolute error per pixel", units, -1),
        "rmse": Score("RMSE", "root of the mean squared error", units, -1, charted=False),
        "mse_per_frame": Score("MSE per frame", "squared error, summed over a frame", squared, -1, charted=False),
        "mae_per_frame": Score("MAE per frame", "absolute error, summed over a frame", units, -1, charted=False),
        "ssim": Score("SSIM", "structural similarity", "", 1, zero=False),
        "psnr": Score("PSNR", "peak signal to noise", "dB", 1, zero=False),
    }
    if name in known:
        return known[name]
    kind, _, threshold = name.partition(" ")
    counted = {
        "csi": ("critical success index, hits among hits, misses and false alarms", 1),
        "pod": ("probability of detection, hits among all that came", 1),
        "far": ("false alarm ratio, false alarms among all that was forecast", -1),
    }
    if kind not in counted:
        return Score(name)
    meaning, better = counted[kind]
    return Score(f"{kind.upper()} {threshold.replace('>=', '≥')} {units}".strip(), meaning, "", better)


def headline(overall: Overall, units: str) -> str:
    """Return a sentence on the model, the first forecaster, against the best other, and a bar for each; "" without any.

    They are about the mean squared error, or about the first score where that is missing.
    """
    if not overall:
        return ""
    model, own = next(iter(overall.items()))
    name = "mse" if _finite(own.get("mse")) else next(iter(own), "")
    values = {who: value for who, scores in overall.items() if (value := scores.get(name)) is not None}
    values = {who: value for who, value in values.items() if _finite(value)}
    if model not in values:
        return ""
    score = described(name, units)
    others = [who for who in values if who != model]
    best = min(others, key=lambda who: -score.better * values[who], default="")
    sentence = _comparison(score, values[model], values[best], best) if best else ""
    rows = "".join(_bar(score, k, who, values) for k, who in enumerate(values))
    caption = f"<caption>{escape(score.meaning or score.label)}, {_direction(score)}</caption>"
    return f'{sentence}<table class="bars">{caption}<tbody>{rows}</tbody></table>'


def _bar(score: Score, k: int, who: str, values: Mapping[str, float]) -> str:
    """Return forecaster k's row: a bar as long as its value, the value, and how the model stands against it."""
    value, largest = values[who], max(values.values())
    share = 100 * max(value, 0) / largest if largest > 0 else 0
    rectangle = f'<rect class="bar-{min(k, 3)}" width="{share:.1f}%" height="100%"/>'
    against = _against(score, next(iter(values.values())), value) if k else ""
    return (
        f'<tr><th scope="row">{_who(who)}</th>'
        f'<td class="wide"><svg class="bar" aria-hidden="true">{rectangle}</svg></td>'
        f'<td class="number">{number(value, zeros=True)}{_unit(score)}</td><td class="note">{against}</td></tr>'
    )


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _comparison(score: Score, model: float, other: float, who: str) -> str:
    """Return the headline: how much better or worse the model is than somebody, and what that means."""
    name, meaning = escape(who.replace("_", " ")), MEANINGS.get(who, "")
    reading = f" ({escape(meaning)})" if meaning else ""
    change = _change(model, other)
    if not score.better or change is None:
        return ""
    if abs(change) < 0.0005:
        return f'<p class="headline"><strong>No better</strong> than {name}{reading}, and no worse.</p>'
    amount = f"{_percent(change)} {'less' if change < 0 else 'more'}"
    noun = {"MSE": "squared error", "MAE": "absolute error"}.get(score.label, escape(score.label))
    if change * score.better > 0:
        return f'<p class="headline"><strong>{amount}</strong> {noun} than {name}{reading}.</p>'
    warning = f"The model is worse: {name} is the better forecast."
    return f'<p class="headline worse"><strong>{amount}</strong> {noun} than {name}{reading}. {warning}</p>'


def _change(model: float | None, other: float | None) -> float | None:
    """Return by what share the model's value is above the other one; None where that says nothing."""
    if model is None or other is None or not math.isfinite(model) or not math.isfinite(other) or other <= 0:
        return None
    return model / other - 1


def _percent(change: float) -> str:
    percent = 100 * abs(change)
    return f"{percent:.{1 if percent < 9.95 else 0}f} %"


def _against(score: Score, model: float | None, other: float | None) -> str:
    """Return how the model stands against another forecaster, "45 % below it"; decibels have no share."""
    change = _change(model, other)
    if change is None or model is None or other is None:
        return ""
    if score.unit == "dB":
        return f"model {number(abs(model - other), 3)} dB {'higher' if model > other else 'lower'}"
    if abs(change) < 0.0005:
        return "model the same"
    return f"model {_percent(change)} {'lower' if change < 0 else 'higher'}"


def scores_section(scores: ByLeadTime, overall: Overall, units: str, step_name: str) -> str:
    """Return the charts and tables; "" where no score is given."""
    forecasters = list(dict.fromkeys((*overall, *scores)))
    names = list(dict.fromkeys(name for table in (*overall.values(), *scores.values()) for name in table))
    if not names:
        return ""
    parts = [_legend(forecasters), _charts(scores, names, units, step_name)]
    if any(overall.values()):
        parts.append(_overall_table(overall, forecasters, names, units))
    if any(scores.values()):
        parts.append(_table_by_lead_time(scores, forecasters, names, units, step_name))
    return f'<section id="scores"><h2>Scores</h2>{"".join(parts)}</section>'


def _legend(forecasters: list[str]) -> str:
    items = "".join(f"<li>{key(k)} {_who(who)}{_meaning(who)}</li>" for k, who in enumerate(forecasters))
    return f'<ul class="legend">{items}</ul>'


def _charts(scores: ByLeadTime, names: list[str], units: str, step_name: str) -> str:
    figures = []
    for name in names:
        lines = {who: table.get(name, ()) for who, table in scores.items()}
        score = described(name, units)
        if score.charted and any(_finite(v) for row in lines.values() for v in row):
            chart = lead_time_chart(lines, what=score.label, step_name=step_name, zero=score.zero)
            title = f"<strong>{escape(score.label)}</strong>{_unit(score, ', ')}"
            note = f'<span class="faint">{_direction(score)}</span>'
            figures.append(f"<figure><figcaption>{title} {note}</figcaption>{chart}</figure>")
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _overall_table(overall: Overall, forecasters: list[str], names: list[str], units: str) -> str:
    """Return each score over all lead times, a row each, and the model's change against the second forecaster."""
    second = forecasters[1] if len(forecasters) > 1 else None
    head = "".join(f'<th scope="col" class="number">{_who(who)}</th>' for who in forecasters)
    last = f'<th scope="col">against {_who(second).lower()}</th>' if second else ""
    rows = []
    for name in names:
        score = described(name, units)
        values = [overall.get(who, {}).get(name) for who in forecasters]
        change = f'<td class="note">{_against(score, values[0], values[1])}</td>' if second else ""
        rows.append(f'<tr><th scope="row">{_name(score)}</th>{_cells(score, values)}{change}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Scores over all lead times">'
        f'<table class="overall"><caption>Over all lead times together; ✓ marks the best</caption>'
        f'<thead><tr><th scope="col">score</th>{head}{last}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _table_by_lead_time(scores: ByLeadTime, who: list[str], names: list[str], units: str, step_name: str) -> str:
    """Return a body of rows for each score, a row for each forecaster, a column for each lead time."""
    longest = max(len(row) for table in scores.values() for row in table.values())
    head = "".join(f'<th scope="col" class="number">+{t + 1}</th>' for t in range(longest))
    bodies = []
    for name in names:
        score = described(name, units)
        rows = [[*scores.get(w, {}).get(name, ()), *[None] * longest][:longest] for w in who]
        marked = [_marked(score, list(column)) for column in zip(*rows, strict=True)]  # by lead time
        lines = [
            f'<tr><th scope="row">{_who(w)}</th>{"".join(column[k] for column in marked)}</tr>'
            for k, w in enumerate(who)
        ]
        title = f'<tr><th scope="rowgroup" colspan="{longest + 1}">{_name(score)}</th></tr>'
        bodies.append(f"<tbody>{title}{''.join(lines)}</tbody>")
    return (
        "<details><summary>All scores by lead time</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="All scores by lead time">'
        f"<table><caption>By lead time, in {escape(step_name)}s; ✓ marks the best</caption>"
        f'<thead><tr><th scope="col">score</th>{head}</tr></thead>{"".join(bodies)}</table></div></details>'
    )


def _cells(score: Score, values: list[float | None]) -> str:
    return "".join(_marked(score, values))


def _marked(score: Score, values: list[float | None]) -> list[str]:
    """Return a cell for each forecaster's value, the best ones marked, where there is something to choose."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    choice = bool(score.better) and len(set(finite)) > 1
    best = max(finite, key=lambda value: score.better * value) if choice else None
    return [
        f'<td class="number"><strong>{number(value, zeros=True)}</strong>{BEST}</td>'
        if best is not None and value == best
        else f'<td class="number">{number(value, zeros=True)}</td>'
        for value in values
    ]


def _name(score: Score) -> str:
    """Return a score's label, unit and meaning for the head of a row."""
    meaning = f' <span class="faint">{escape(score.meaning)}</span>' if score.meaning else ""
    return f"{escape(score.label)}{_unit(score, ', ')}{meaning}"


def _who(forecaster: str) -> str:
    return escape(forecaster.replace("_", " ").capitalize())


def _meaning(forecaster: str) -> str:
    meaning = MEANINGS.get(forecaster, "")
    return f' <span class="faint">{escape(meaning)}</span>' if meaning else ""


def _unit(score: Score, before: str = " ") -> str:
    return f"{before}{escape(score.unit)}" if score.unit else ""


def _direction(score: Score) -> str:
    return {-1: "lower is better", 1: "higher is better", 0: ""}[score.better]
