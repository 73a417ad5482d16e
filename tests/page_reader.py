"""Reads a page as strictly as a person would who writes one by hand, and makes pages to read."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np

from convlstm.page.document import Page
from convlstm.page.films import Film

VOID = {"br", "img", "input", "link", "meta"}
DRAWN = {"circle", "line", "path", "polygon", "rect"}  # may close themselves, as XML


class Reader(HTMLParser):
    """Every element with its attributes, and all text; what is not closed, or closed twice, is an error.

    Attributes:
        elements: (tag, attributes), in order.
        text: what is between them, scripts and styles not among it.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice: {names}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in DRAWN, f"<{tag}/> does not close itself in HTML"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """Return the attributes of every element of this kind that has these among them, `class_` for class."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [own for kind, own in self.elements if kind == tag and wanted.items() <= own.items()]


def film(shape: tuple[int, int] = (6, 8), *, name: str = "sequence", land: bool = False, seed: int = 0) -> Film:
    """Return two shown and three forecast frames of noise, read-only, with or without land."""
    shown, forecast, truth = np.split(np.random.default_rng(seed).random((8, *shape)), [2, 5])
    if land:
        shown[:, :2], truth[:, :2] = np.nan, np.nan
    for array in (shown, forecast, truth):
        array.flags.writeable = False
    return Film(name, shown, forecast, truth)


def whole_page(**changes: Any) -> Page:
    """Return a page on which everything is given."""
    model, other = [0.1, 0.2, 0.25], [0.15, 0.4, 0.5]
    given: dict[str, Any] = {
        "title": "A title",
        "data": "two digits",
        "facts": (("model", "one layer"),),
        "films": (film(name="first"), film(name="second", seed=1)),
        "scores": {
            "model": {"mse": model, "ssim": [0.9, 0.8, None]},
            "persistence": {"mse": other, "ssim": [0.7, 0.6, 0.5]},
        },
        "overall": {"model": {"mse": 0.18, "ssim": 0.8}, "persistence": {"mse": 0.36, "ssim": 0.6}},
        "losses": np.geomspace(1, 0.1, 50).tolist(),
        "validation": ((25, 0.4), (50, 0.2)),
        "config": "[training]\nsteps = 50\n",
        "environment": {"python": "3.11", "blas": ["one", "two"], "packages": {"numpy": "2.4"}},
        "steps": 50,
        "digest": "00ff" * 16,
        "directory": "runs/digits-1",
        "produced": "On a Monday.",
    }
    return Page(**{**given, **changes})
