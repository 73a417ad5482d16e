"""The page in a real browser: nothing fails, nothing is fetched, all moves, and it fits a phone in both themes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm.page.document import page_html
from tests.page_reader import film, whole_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
TITLES = ("digits desk light", "digits phone dark", "sea phone light", "sea desk dark")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars",
    "--virtual-time-budget=20000", "--window-size=1300,1000", "--dump-dom",
)  # fmt: skip
PROBE = (Path(__file__).parent / "page_probe.js").read_text(encoding="utf-8")
COLLECT = """
const found = {};
addEventListener("message", (event) => {
  found[event.data.name] = event.data;
  document.querySelector("pre").textContent = JSON.stringify(found);
});
"""
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"a browser is needed; found none of {', '.join(NAMES)}")


def pages() -> dict[str, str]:
    """Return the pages that are looked at, by title."""
    square = [film((32, 32), name="first"), film((32, 32), name="second", seed=1)]
    wide = [film((18, 432), name="first", land=True), film((18, 432), name="second", land=True, seed=1)]
    bad = [*np.geomspace(1, 0.1, 500).tolist(), float("nan"), float("inf")]
    long = {
        who: {name: list(np.linspace(1, 2, 30) * k) for name in ("mse", "mae", "ssim", "psnr", "csi >= 0.5")}
        for k, who in enumerate(("model", "persistence", "climatology"), 1)
    }
    config = 'weights = "</script><img src=x onerror=fail()>"\n' + 300 * "x" + "\n"
    digits: dict[str, Any] = {"films": square, "colours": "grey", "losses": bad, "config": config}
    sea: dict[str, Any] = {"films": wide, "scores": long, "units": "K"}
    return {title: page_html(whole_page(title=title, **(digits if "digits" in title else sea))) for title in TITLES}


def probed(html: str) -> str:
    """Return a page with the probe in it, which its policy lets pass."""
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    html = html.replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    return html.replace("<title>", f"<script>{PROBE}</script>\n<title>", 1)


def look(folder: Path, looked_at: Mapping[str, str], *flags: str) -> dict[str, Any]:
    """Open these pages in frames of one page, and return what the probe in each saw, by title."""
    frames = []
    for title, html in looked_at.items():
        file = folder / f"{title.replace(' ', '_')}.html"
        file.write_text(probed(html), encoding="utf-8")
        size = f"width: {390 if 'phone' in title else 1200}px; color-scheme: {'dark' if 'dark' in title else 'light'}"
        frames.append(f'<iframe src="{escape(file.name)}" style="height: 900px; {size}"></iframe>')
    around = folder / "around.html"
    around.write_text(f"<!DOCTYPE html><script>{COLLECT}</script><pre></pre>{''.join(frames)}", encoding="utf-8")
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", around.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    dump = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert dump, done.stderr
    found: dict[str, Any] = json.loads(unescape(dump[1]) or "{}")
    assert set(found) == set(looked_at), done.stderr
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return look(tmp_path_factory.mktemp("pages"), pages())


@pytest.mark.parametrize("title", TITLES)
def test_nothing_fails_and_every_picture_is_drawn(found: dict[str, Any], title: str) -> None:
    page = found[title]
    assert page["faults"] == []
    assert page["broken"] == 0
    assert page["pictures"] == 2 + 2 * (2 + 3 * 3)
    assert all(width > 200 for width in page["charts"])
    assert page["focusable"] == 0


@pytest.mark.parametrize("title", TITLES)
def test_it_fits_and_has_the_colours_of_the_theme(found: dict[str, Any], title: str) -> None:
    page = found[title]
    assert page["width"] == (390 if "phone" in title else 1200)
    assert page["needs"] <= page["width"]
    light = ("rgb(251, 250, 247)", "rgb(34, 38, 46)")
    dark = ("rgb(22, 24, 28)", "rgb(233, 230, 223)")
    assert (page["paper"], page["ink"]) == (dark if "dark" in title else light)


@pytest.mark.parametrize("title", TITLES)
def test_the_player_moves_stops_and_changes_films(found: dict[str, Any], title: str) -> None:
    page = found[title]
    assert page["player"] == "block"
    assert page["first"]["button"] == "Pause"
    assert page["first"]["time"] != page["later"]["time"]
    start, end, second = page["start"], page["end"], page["second"]
    assert (start["time"], start["button"], start["words"]) == (0, "Play", "shown to the model (−1)")
    assert (end["time"], end["words"]) == (4, "3 frames ahead (+3)")
    assert start["colours"][2] == 1  # nothing was forecast yet, so there is no difference
    assert min(*start["colours"][:2], *end["colours"], *second["colours"]) > 20
    assert (end["shown"], second["shown"]) == ([True, False], [False, True])
    assert page["rested"] == end
    assert (page["playing"]["time"], page["playing"]["button"]) == (0, "Pause")  # after the last frame comes the first
    assert page["stopped"]["button"] == "Play"
    assert [page[moment]["marked"] for moment in ("start", "end", "second", "playing")] == [1] * 4


def test_panels_keep_the_shape_of_the_frames(found: dict[str, Any]) -> None:
    for title, ratio in (("digits desk light", 1), ("digits phone dark", 1), ("sea phone light", 24)):
        for panel in found[title]["panels"]:
            assert panel["width"] / panel["height"] == pytest.approx(ratio, rel=0.02)
    assert found["digits phone dark"]["panels"][0]["y"] == found["digits phone dark"]["panels"][1]["y"]


def test_nothing_moves_by_itself_where_that_is_unwelcome(tmp_path: Path) -> None:
    title = "digits desk light"
    page = look(tmp_path, {title: pages()[title]}, "--force-prefers-reduced-motion")[title]
    assert page["faults"] == []
    assert (page["first"]["time"], page["first"]["button"]) == (page["later"]["time"], "Play") == (2, "Play")


def test_the_probe_sees_what_fails(tmp_path: Path) -> None:
    html = pages()["digits desk light"]
    spoilt = html.replace("</main>", '<img src="data:image/png;base64,AAAA" alt="x"><img src="x.png" alt="x"></main>')
    page = look(tmp_path, {"digits desk light": spoilt})["digits desk light"]
    assert page["broken"] == 2
    assert any(fault.startswith("against the policy") for fault in page["faults"])
    assert "not loaded: IMG" in page["faults"]
