"""The page: whole HTML that asks for nothing, shows texts as texts, and leaves out what is not given."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from convlstm.page.document import Page, page_html
from tests.page_reader import Reader, film, whole_page

EVIL = "</script></title></pre><img src=x onerror=alert(1)>\"'&amp; $1 `"


def read(**changes: Any) -> Reader:
    return Reader(page_html(whole_page(**changes)))


def test_it_is_a_whole_page_with_everything_that_was_given() -> None:
    page = read()
    assert page.all("html", lang="en")
    assert page.all("meta", charset="utf-8")
    assert page.all("meta", name="viewport")
    tags = [tag for tag, _ in page.elements]
    assert [tags.count(tag) for tag in ("title", "h1", "main", "header", "footer")] == [1] * 5
    assert [own.get("id") for tag, own in page.elements if tag == "section"] == [
        "forecast", "scores", "training", "proof", "settings",
    ]  # fmt: skip
    for text in (
        "A title", "two digits", "one layer", "first", "second", "50 % less", "steps = 50", "one, two",
        "packages numpy", "00ff" * 16, "convlstm verify runs/digits-1", "On a Monday.",
    ):  # fmt: skip
        assert text in page.text, text


def test_a_page_of_a_title_alone_has_no_empty_section() -> None:
    page = Reader(page_html(Page("Nothing yet")))
    assert not page.all("section")
    assert not page.all("table")
    assert page.text.split() == ["Nothing", "yet", "Nothing", "yet", "Made", "by", "convlstm."]


@pytest.mark.parametrize(
    "missing",
    ["data", "facts", "films", "scores", "overall", "losses", "validation", "config", "environment", "digest"],
)
def test_anything_may_be_left_out(missing: str) -> None:
    whole = page_html(whole_page())
    empty: dict[str, Any] = {"scores": {}, "overall": {}, "environment": {}, "data": "", "config": "", "digest": ""}
    without = page_html(whole_page(**{missing: empty.get(missing, ())}))
    Reader(without)
    assert len(without) < len(whole)


def test_it_asks_for_nothing_from_anywhere() -> None:
    html = page_html(whole_page(films=(film((3, 20), land=True),)))
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    for tag, own in Reader(html).elements:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            assert own.get(name, "data:").startswith(("data:", "#")), (tag, own)
        assert not any(name.startswith("on") or name == "style" for name in own), (tag, own)


def test_its_policy_lets_its_own_script_and_style_pass_and_no_other() -> None:
    html = page_html(whole_page())
    (policy,) = (own["content"] for own in Reader(html).all("meta", http_equiv="Content-Security-Policy"))
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag in ("style", "script"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_identifiers_are_unique_and_every_picture_has_words() -> None:
    page = read()
    names = [own["id"] for _, own in page.elements if "id" in own]
    assert len(names) == len(set(names))
    assert all(own.get("alt") for own in page.all("img"))
    assert all(own.get("aria-label") or own.get("aria-hidden") for own in page.all("svg"))
    assert all(own.get("scope") for own in page.all("th"))


def test_texts_of_the_data_stay_texts() -> None:
    scores = {EVIL: {EVIL: [1.0, 2.0]}, "b" + EVIL: {EVIL: [2.0, 1.0]}}
    page = read(
        title=EVIL, data=EVIL, facts=((EVIL, EVIL),), films=(film(name=EVIL), film(name=EVIL)), units=EVIL,
        step_name=EVIL, scores=scores, overall={EVIL: {"mse": 1.0, EVIL: 1.0}, "b" + EVIL: {"mse": 2.0, EVIL: 2.0}},
        loss_name=EVIL, validation_name=EVIL, config=EVIL, environment={EVIL: EVIL, "e": {EVIL: [EVIL]}}, digest=EVIL,
        directory=EVIL, produced=EVIL,
    )  # fmt: skip
    assert len(page.all("script")) == 1
    assert not [own for _, own in page.elements if own.get("src") == "x" or "onerror" in own]
    assert page.text.count(EVIL) >= 15


def test_the_same_data_make_the_same_bytes_in_another_process_too() -> None:
    code = (
        "import sys; from convlstm.page.document import page_html; from tests.page_reader import whole_page;"
        "sys.stdout.buffer.write(page_html(whole_page()).encode())"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert made == page_html(whole_page()).encode()


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([0.5], "each step, logarithmic"),
        ([0.5, np.nan, np.inf, 0.25], "not finite at 2 of 4, logarithmic"),
        ([np.nan, np.nan], "not finite at 2 of 2"),
        ([1.0, 0.0, -1.0], "each step"),
        ([1.0, 0.0], "each step"),
        (np.array([0.5, 0.25], np.float32), "each step, logarithmic"),
        ([2.0] * 1000, "the mean of 51 steps strong, logarithmic"),
    ],
)
def test_losses_of_every_kind(losses: Any, words: str) -> None:
    page = read(losses=losses, validation=())
    assert words in page.text
    assert ("logarithmic" in page.text) == ("logarithmic" in words)


def test_a_directory_is_quoted_for_the_shell() -> None:
    assert "convlstm verify '/data/my runs/a'\n"[:-1] in read(directory="/data/my runs/a").text
    assert "convlstm verify DIR" in read(directory="").text


def test_no_date_gets_in_unasked() -> None:
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d\b", read(produced="").text)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours #rrggbb as the Web Content Accessibility Guidelines 2.2 define it."""

    def luminance(colour: str) -> float:
        shares = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_read_in_both_themes(theme: int) -> None:
    themes = re.findall(r":root \{([^}]*--hatch[^}]*)\}", page_html(Page("colours")))
    assert len(themes) == 2
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", themes[theme]))
    for name in ("ink", "faint", "accent", "second", "third", "good"):
        for paper in ("paper", "panel"):
            assert contrast(colours[name], colours[paper]) >= 4.5, (name, paper)
    assert contrast(colours["hatch"], colours["hatch-paper"]) >= 1.5
