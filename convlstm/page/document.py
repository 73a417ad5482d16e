"""One HTML page on a training run: its forecasts moving, its scores, its loss, and what proves it; from plain data."""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Any

from convlstm.page.charts import loss_chart
from convlstm.page.films import Film, films_section
from convlstm.page.scores import ByLeadTime, Overall, headline, scores_section


@dataclass(frozen=True)
class Page:
    """What a page shows; what is left out is not spoken of.

    Attributes:
        title: of the page.
        data: one line on what was learnt on: "two handwritten digits that drift and bounce".
        facts: names and values below it, ("model", "one layer of 32 channels").
        films: sequences to show moving, of frames of one size; one to three are enough.
        colours: "viridis" for fields, "grey" for brightness.
        limits: the values of the first and last colour; None: those of the films' shown and true frames.
        units: of the values, "K".
        step_name: what lead times count, "frame", "month".
        scores: by forecaster, name of the score and lead time, as ``metrics.Totals.scores`` gives them; the first
            forecaster is the model, the second, persistence, is what it is measured against.
        overall: the same over all lead times together, as ``metrics.Totals.overall`` gives them.
        losses: of each step, a list or an array; not finite ones leave a gap and are counted.
        first_step: the step of the first of them.
        loss_name: what is made small, "bce"; "": the page says no more than "loss".
        validation: (step, error) at each checkpoint.
        validation_name: what that error is.
        config: the settings, TOML.
        environment: of the run, by name; values may be lists and dictionaries of texts and numbers.
        steps: how many the ledger holds.
        digest: the ledger's last one, in hexadecimal.
        directory: of the run, as a command line names it; "": the page says DIR.
        produced: a line at the end, a date for example; nothing is dated otherwise.
    """

    title: str
    data: str = ""
    facts: Sequence[tuple[str, str]] = ()
    films: Sequence[Film] = ()
    colours: str = "viridis"
    limits: tuple[float, float] | None = None
    units: str = ""
    step_name: str = "frame"
    scores: ByLeadTime = field(default_factory=dict)
    overall: Overall = field(default_factory=dict)
    losses: Sequence[float] = ()
    first_step: int = 0
    loss_name: str = ""
    validation: Sequence[tuple[int, float]] = ()
    validation_name: str = ""
    config: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    digest: str = ""
    directory: str = ""
    produced: str = ""


def page_html(page: Page) -> str:
    """Return the page: one text that is all of it, for a file with the encoding UTF-8.

    It asks for nothing from anywhere: pictures lie in it, and a policy in it forbids the browser any address and any
    script but its own. The same data make the same text. Pictures of large frames are drawn coarser, so that the page
    has at most 8 MB of them (`films.MOST_PIXELS`).

    Raises:
        ValueError: films whose frames differ in size, a map of colours that is not known, limits that are none.
    """
    style, script = _own_file("page.css"), _own_file("page.js")
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    body = "".join((_header(page), _main(page), _footer(page)))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(page.title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n{body}<script>{script}</script>\n</body>\n</html>\n"
    )


def _own_file(name: str) -> str:
    return files("convlstm.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a page's policy calls this very script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _header(page: Page) -> str:
    data = f'<p class="data">{escape(page.data)}</p>' if page.data else ""
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in page.facts)
    listed = f'<dl class="facts">{facts}</dl>' if facts else ""
    return f"<header><h1>{escape(page.title)}</h1>{data}{headline(page.overall, page.units)}{listed}</header>\n"


def _main(page: Page) -> str:
    sections = (
        films_section(page.films, colours=page.colours, limits=page.limits, units=page.units, step_name=page.step_name),
        scores_section(page.scores, page.overall, page.units, page.step_name),
        _training(page),
        _proof(page),
        _settings(page),
    )
    return "<main>\n" + "\n".join(section for section in sections if section) + "\n</main>\n"


def _training(page: Page) -> str:
    """Return the losses' charts; "" where there are none."""
    figures = []
    if len(page.losses):
        smooth = 2 * (len(page.losses) // 40) + 1
        steps = range(page.first_step, page.first_step + len(page.losses))
        note = f"each step light, the mean of {smooth} steps strong" if smooth > 1 else "each step"
        figures.append(_curve(_named("Loss", page.loss_name), note, steps, page.losses, smooth, points=False))
    if len(page.validation):
        at, errors = [step for step, _ in page.validation], [error for _, error in page.validation]
        name = _named("Validation error", page.validation_name)
        figures.append(_curve(name, "at each checkpoint", at, errors, 1, points=True))
    charts = "".join(figures)
    return f'<section id="training"><h2>Training</h2><div class="charts">{charts}</div></section>' if charts else ""


def _named(what: str, name: str) -> str:
    return f"{what} ({name})" if name else what


def _curve(name: str, note: str, steps: Sequence[int], losses: Sequence[float], smooth: int, *, points: bool) -> str:
    """Return a chart of losses with its words: what is drawn how, and what cannot be."""
    finite = [float(loss) for loss in losses if math.isfinite(loss)]
    missing = len(losses) - len(finite)
    words = [note] if finite else []
    if missing:
        words.append(f"not finite at {missing} of {len(losses)}")
    if finite and min(finite) > 0:
        words.append("logarithmic")
    caption = f'<strong>{escape(name)}</strong> <span class="faint">{escape(", ".join(words))}</span>'
    chart = loss_chart(steps, losses, what=name, smooth=smooth, points=points) if finite else ""
    return f"<figure><figcaption>{caption}</figcaption>{chart}</figure>"


def _proof(page: Page) -> str:
    """Return what the ledger says and how to check it; "" where there is no ledger."""
    if page.steps is None and not page.digest:
        return ""
    directory = shlex.quote(page.directory) if page.directory else "DIR"
    count = "" if page.steps is None else f"{page.steps:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    steps = f"<div><dt>steps</dt><dd>{count}</dd></div>" if count else ""
    digest = f"<div><dt>last digest</dt><dd><code>{escape(page.digest)}</code></dd></div>" if page.digest else ""
    return (
        f'<section id="proof"><h2>Proof</h2><dl class="facts">{steps}{digest}</dl>'
        f'<pre tabindex="0" aria-label="Command"><code>convlstm verify {escape(directory)}</code></pre>'
        "<p>This trains again from what the run directory recorded, and compares the digest of every step: of the "
        "loss, every gradient and every weight, chained, so that the last digest stands for all bits of all steps. If "
        "all agree, these weights came from these settings and nothing else. On another processor type or with other "
        "package versions rounding may differ; the command then says what has changed.</p></section>"
    )


def _settings(page: Page) -> str:
    """Return the settings and the environment; "" where neither is given."""
    parts = []
    if page.config:
        code = f'<pre tabindex="0" aria-label="Settings, TOML"><code>{escape(page.config)}</code></pre>'
        parts.append(f"<details><summary>All settings</summary>{code}</details>")
    if page.environment:
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>'
            for name, text in _flat(page.environment)
        )
        table = f"<table><caption>What the run was made with</caption><tbody>{rows}</tbody></table>"
        region = 'tabindex="0" role="region" aria-label="Environment"'
        parts.append(f'<details><summary>Environment</summary><div class="scroll" {region}>{table}</div></details>')
    return f'<section id="settings"><h2>Settings and environment</h2>{"".join(parts)}</section>' if parts else ""


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Return names and texts of a dictionary, those of dictionaries in it as "packages numpy"."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{name} ")
        elif isinstance(value, (list, tuple)):
            rows.append((f"{before}{name}", ", ".join(map(str, value))))
        else:
            rows.append((f"{before}{name}", str(value)))
    return rows


def _footer(page: Page) -> str:
    produced = f" {escape(page.produced)}" if page.produced else ""
    return f"<footer><p>Made by convlstm.{produced}</p></footer>\n"
