"""Scores: the headline says what the numbers say, the better one is marked, in every direction and where none is."""

from __future__ import annotations

import pytest

from convlstm.page.scores import BEST, described, headline, scores_section
from tests.page_reader import Reader


def words(**mse: float | None) -> str:
    return Reader(headline({who: {"mse": value} for who, value in mse.items()}, "K")).text


@pytest.mark.parametrize(
    ("model", "other", "expected"),
    [
        (0.5, 1.0, "50 % less squared error than persistence (the last frame shown, again and again)."),
        (0.965, 1.0, "3.5 % less squared error"),
        (1.2, 1.0, "20 % more squared error"),
        (3.0, 1.0, "200 % more squared error"),
        (1.0, 1.0001, "No better than persistence"),
    ],
)
def test_the_headline(model: float, other: float, expected: str) -> None:
    text = words(model=model, persistence=other)
    assert text.startswith(expected)
    assert ("The model is worse: persistence is the better forecast." in text) == (" more " in text)


@pytest.mark.parametrize("other", [0.0, None, float("nan"), float("inf")])
def test_no_share_of_nothing(other: float | None) -> None:
    text = words(model=0.5, persistence=other)
    assert "%" not in text
    assert "0.5000 K²" in text


def test_every_forecaster_has_a_bar_as_long_as_its_error() -> None:
    page = Reader(headline({"model": {"mse": 1}, "persistence": {"mse": 4}, "climatology": {"mse": 2}}, ""))
    assert [own["width"] for own in page.all("rect")] == ["25.0%", "100.0%", "50.0%"]
    assert "model 50 % lower" in page.text
    assert "model 75 % lower" in page.text


@pytest.mark.parametrize("overall", [{}, {"model": {}}, {"model": {"mse": None}, "persistence": {"mse": 1.0}}])
def test_no_score_no_headline(overall: dict[str, dict[str, float | None]]) -> None:
    assert headline(overall, "K") == ""


def test_another_score_is_spoken_of_where_the_squared_error_is_missing() -> None:
    better = headline({"model": {"ssim": 0.9}, "persistence": {"ssim": 0.6}}, "")
    assert "50 % more</strong> SSIM than persistence" in better
    assert "worse" not in better
    assert "The model is worse" in headline({"model": {"ssim": 0.6}, "persistence": {"ssim": 0.9}}, "")


@pytest.mark.parametrize(
    ("name", "label", "unit", "better"),
    [
        ("mse", "MSE", "K²", -1), ("mae", "MAE", "K", -1), ("mse_per_frame", "MSE per frame", "K²", -1),
        ("mae_per_frame", "MAE per frame", "K", -1), ("ssim", "SSIM", "", 1), ("psnr", "PSNR", "dB", 1),
        ("csi >= 0.5", "CSI ≥ 0.5 K", "", 1), ("pod >= 20.0", "POD ≥ 20.0 K", "", 1),
        ("far >= 0.5", "FAR ≥ 0.5 K", "", -1), ("crps", "crps", "", 0),
    ],
)  # fmt: skip
def test_what_scores_are(name: str, label: str, unit: str, better: int) -> None:
    score = described(name, "K")
    assert (score.label, score.unit, score.better) == (label, unit, better)
    assert described(name, "").label == label.removesuffix(" K")
    assert described(name, "").unit == unit.replace("K²", "").replace("K", "")


def test_compound_units_are_squared_as_a_whole() -> None:
    assert described("mse", "mm/h").unit == "(mm/h)²"
    assert described("mse", "").unit == ""


def marked(scores: dict[str, list[float | None]], name: str) -> list[list[bool]]:
    """Return which cells of the table by lead time are marked, for each forecaster."""
    html = scores_section({who: {name: row} for who, row in scores.items()}, {}, "", "frame")
    body = html.split("<tbody>")[-1].split("</tbody>")[0]
    return [[BEST in cell for cell in row.split("<td")[1:]] for row in body.split("<tr>")[2:]]


@pytest.mark.parametrize(("name", "first"), [("mse", True), ("far >= 1", True), ("ssim", False), ("csi >= 1", False)])
def test_the_best_of_each_lead_time_is_marked(name: str, first: bool) -> None:
    assert marked({"a": [1, 2], "b": [2, 3]}, name) == [[first, first], [not first, not first]]


def test_nothing_is_marked_where_there_is_no_choice() -> None:
    rows: dict[str, list[float | None]] = {"a": [1, 1, None, float("nan")], "b": [1, None, None, 1]}
    assert marked(rows, "mse") == [[False] * 4] * 2
    assert marked({"a": [1], "b": [2]}, "unheard of") == [[False], [False]]
    assert marked({"a": [1], "b": [1], "c": [2]}, "mse") == [[True], [True], [False]]


def test_the_mark_is_not_colour_alone() -> None:
    assert "✓" in BEST
    assert "(best)" in BEST


def test_rows_may_be_of_different_length() -> None:
    assert marked({"a": [1, 2, 3], "b": [2]}, "mse") == [[True, False, False], [False, False, False]]


def test_sums_over_frames_are_in_the_tables_but_not_drawn() -> None:
    scores = {"model": {"mse": [1.0], "mse_per_frame": [1024.0]}}
    page = Reader(scores_section(scores, {"model": {"mse": 1.0, "mse_per_frame": 1024.0}}, "", "frame"))
    assert len(page.all("svg", role="img")) == 1
    assert page.text.count("MSE per frame") == 2
    assert page.text.count("1024") == 2


def test_overall_scores_alone_and_scores_by_lead_time_alone() -> None:
    overall = Reader(scores_section({}, {"model": {"mse": 1.0}, "persistence": {"mse": 2.0}}, "K", "month"))
    assert len(overall.all("table")) == 1
    assert "model 50 % lower" in overall.text
    by_lead_time = Reader(scores_section({"model": {"psnr": [10.0, 9.0]}}, {}, "K", "month"))
    assert len(by_lead_time.all("table")) == 1
    assert "months ahead" in by_lead_time.text
    assert scores_section({}, {}, "", "frame") == ""
    assert scores_section({"model": {}}, {"model": {}}, "", "frame") == ""


def test_decibels_are_compared_by_their_difference() -> None:
    html = scores_section({}, {"model": {"psnr": 12.5}, "persistence": {"psnr": 10.0}}, "", "frame")
    assert "model 2.5 dB higher" in html
