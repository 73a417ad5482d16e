"""Films: every frame is on the page in its place and its colour, whatever its shape, and pages stay small."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import convlstm.page.films
from convlstm.page.films import Film, films_section
from convlstm.page.pictures import Colours, data_address
from tests.page_reader import Reader, film


def section(*films: Film, **changes: Any) -> Reader:
    given: dict[str, Any] = {"colours": "grey", "limits": (0.0, 1.0), "units": "K", "step_name": "month"}
    return Reader(films_section(films, **{**given, **changes}))


@pytest.mark.parametrize("shape", [(6, 8), (18, 60), (40, 9), (1, 1)])
def test_every_frame_is_in_its_place(shape: tuple[int, int]) -> None:
    one = film(shape)
    page = section(one)
    colours = Colours("grey", 0, 1)
    right = {("truth", t): frame for t, frame in enumerate([*one.shown, *one.truth])}
    right |= {("forecast", t + 2): frame for t, frame in enumerate(one.forecast)}
    shown = {(own["data-row"], int(own["data-time"])): own["src"] for own in page.all("img") if "data-row" in own}
    assert {place: src for place, src in shown.items() if place[0] != "difference"} == {
        place: data_address(frame, colours) for place, frame in right.items()
    }
    assert [place for place in shown if place[0] == "difference"] == [("difference", t) for t in (2, 3, 4)]
    assert len(page.all("th", class_="time")) == 5


def test_wide_frames_stand_below_one_another_and_others_beside() -> None:
    assert section(film((18, 60))).all("section", class_="films wide")
    assert section(film((6, 8))).all("section", class_="films square")


def test_without_a_script_all_is_there_but_the_player() -> None:
    page = section(film(), film(seed=1))
    assert page.all("div", class_="player", hidden="")
    assert len(page.all("img", data_row="truth")) == 2 * 5
    assert len(page.all("input", type="radio")) == 2
    assert not section(film()).all("input", type="radio")
    assert not section(film()).all("noscript")


def test_times_are_told_in_words() -> None:
    says = [own["data-says"] for own in section(film()).all("th", class_="time")]
    assert says == ["shown to the model (−1)", "shown to the model (0)", "1 month ahead (+1)", "2 months ahead (+2)",
                    "3 months ahead (+3)"]  # fmt: skip
    named = Film("f", np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), ("2010-03", "2010-04"))
    page = section(named)
    assert [own["data-says"] for own in page.all("th", class_="time")] == [
        "shown to the model, 2010-03", "1 month ahead, 2010-04",
    ]  # fmt: skip
    assert "2010-03" in page.text


def test_land_is_see_through_in_the_forecast_too() -> None:
    one = film(land=True)
    page = section(one)
    (address,) = (own["src"] for own in page.all("img", data_row="forecast", data_time="2"))
    masked = one.forecast[0].copy()
    masked[:2] = np.nan
    assert address == data_address(masked, Colours("grey", 0, 1))
    assert "no value" in page.text
    assert "no value" not in section(film()).text


def test_a_value_missing_at_times_is_not_land() -> None:
    one = film()
    truth = one.truth.copy()
    truth[0, 0, 0] = np.nan
    page = section(Film("f", one.shown, one.forecast, truth))
    (address,) = (own["src"] for own in page.all("img", data_row="forecast", data_time="2"))
    assert address == data_address(one.forecast[0], Colours("grey", 0, 1))


def test_colours_are_those_of_shown_and_truth_unless_limits_are_given() -> None:
    shown, ahead = np.full((1, 2, 2), 3.0), np.full((1, 2, 2), 7.0)
    one = Film("f", shown, 100 * ahead, ahead)
    text = " ".join(own["alt"] for own in section(one, limits=None).all("img"))
    assert "colours from 3 to 7" in text
    assert "colours from −4 to 4" in text  # the difference, 693, is not what the colours of the page are for
    assert "colours from −1 to 9" in section(one, limits=(-1, 9)).all("img")[0]["alt"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1e-15, 39, "from 0 to 39"), (-1e-15, 1, "from 0 to 1"), (289.512, 304.417, "from 289.5 to 304.4"),
        (1013.2, 1013.94, "from 1013.2 to 1013.94"), (0.0001, 0.0002, "from 0.0001 to 0.0002"),
        (-2e7, 12345678, "from −20000000 to 12300000"),
    ],
)  # fmt: skip
def test_the_scale_has_numbers_as_fine_as_it_is_long(low: float, high: float, words: str) -> None:
    frames = np.linspace(low, high, 8).reshape(2, 2, 2)
    assert words in section(Film("f", frames, frames, frames), limits=None).all("img")[0]["alt"]


@pytest.mark.parametrize("value", [0.0, 2.5, -1e-30, np.nan, 1e30])
def test_constant_frames(value: float) -> None:
    same = np.full((2, 4, 4), value)
    page = section(Film("f", same, same, same), limits=None)
    assert len(page.all("img", data_row="truth")) == 4


def test_a_forecast_that_is_not_finite_is_shown_as_such() -> None:
    one = film()
    wild = one.forecast.copy()
    wild[0], wild[1] = np.nan, np.inf
    page = section(Film("f", one.shown, wild, one.truth), limits=None)
    assert len(page.all("img", data_row="difference")) == 3


def test_large_frames_are_drawn_coarser_and_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convlstm.page.films, "MOST_PIXELS", 11 * 25 * 25)  # of the film's 2 + 3·3 pictures
    page = section(film((100, 75)))
    assert "4×4 of their 100×75 pixels are shown as one" in page.text
    assert {(own["width"], own["height"]) for own in page.all("img") if "data-row" in own} == {("19", "25")}
    assert "shown as one" not in section(film((25, 25))).text


def test_noise_of_the_largest_size_stays_below_the_limit() -> None:
    noise = np.random.default_rng(0).random((1, 500, 500), np.float32).repeat(10, axis=0)
    page = films_section(
        [Film("f", noise, noise[:, ::-1], noise[:, :, ::-1])], colours="grey", limits=None, units="", step_name="frame"
    )  # fmt: skip
    assert "2×2 of their 500×500 pixels" in page
    assert len(page) < 4 / 3 * convlstm.page.films.MOST_PIXELS * 1.05


def test_no_films_no_section() -> None:
    assert films_section([], colours="grey", limits=None, units="", step_name="frame") == ""


def test_nothing_changes_the_arrays() -> None:
    one = film(land=True)
    before = [a.tobytes() for a in (one.shown, one.forecast, one.truth)]
    section(one)
    assert [a.tobytes() for a in (one.shown, one.forecast, one.truth)] == before


ZEROS = np.zeros((2, 3, 4))


@pytest.mark.parametrize(
    ("shown", "forecast", "truth", "times", "words"),
    [
        (ZEROS[0], ZEROS, ZEROS, (), "shown and forecast must have shapes (T, H, W), none 0; got (3, 4) and (2, 3, 4)"),
        (ZEROS[:, :2], ZEROS, ZEROS, (), "got (2, 2, 4) and (2, 3, 4)"),
        (ZEROS[:0], ZEROS, ZEROS, (), "got (0, 3, 4) and (2, 3, 4)"),
        (ZEROS, ZEROS, ZEROS[:1], (), "truth must have the shape of forecast, (2, 3, 4); got (1, 3, 4)"),
        (ZEROS, ZEROS, ZEROS, ("a",), "times must name 4 times or none; got 1"),
    ],
)
def test_what_is_no_film(shown: Any, forecast: Any, truth: Any, times: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Film("f", shown, forecast, truth, times)


def test_films_of_two_sizes_are_refused() -> None:
    words = "films of one page must have frames of one size; got (6, 8), (8, 6)"
    with pytest.raises(ValueError, match=re.escape(words)):
        section(film((8, 6)), film((6, 8)))
