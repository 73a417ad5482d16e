"""Charts: points stand where their values are, gaps stay gaps, numbers read well."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.page.charts import HEIGHT, WIDTH, key, lead_time_chart, loss_chart, mean_around, number
from tests.page_reader import Reader

MARKS = {"mark-0": "circle", "mark-1": "rect", "mark-2": "path"}


def paths(svg: str, style: str) -> list[str]:
    return [own["d"] for own in Reader(svg).all("path", class_=style)]


def heights(svg: str) -> list[float]:
    """Return how far from the top the model's marks stand."""
    return [float(own["cy"]) for own in Reader(svg).all("circle", class_="mark mark-0")]


def labels(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def inside(svg: str) -> bool:
    """Say whether every length is a number within the chart."""
    numbers = [float(n) for d in re.findall(r' (?:d|points|cx|cy|x|y|x1|x2|y1|y2)="([^"]*)"', svg)
               for n in re.findall(r"-?[\d.]+", d)]  # fmt: skip
    return "nan" not in svg and "inf" not in svg and all(-1 <= n <= max(WIDTH, HEIGHT) for n in numbers)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"), (0, "0"), (-0.01234567, "−0.01235"), (12345.6, "12346"), (1.5e9, "1.5×10⁹"), (2e-12, "2×10⁻¹²"),
        (-2e-12, "−2×10⁻¹²"), (None, "–"), (float("nan"), "–"), (float("inf"), "∞"), (float("-inf"), "−∞"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_numbers_of_a_table_keep_their_zeros() -> None:
    assert [number(v, zeros=True) for v in (0.5, 1234.0, 123456.0)] == ["0.5000", "1234", "123456"]


def test_a_line_for_each_forecaster_each_with_its_own_mark() -> None:
    chart = lead_time_chart(
        {"model": [1, 2], "persistence": [2, 4], "climatology": [3, 3]}, what="MSE", step_name="frame", zero=True
    )
    for style, tag in MARKS.items():
        assert len(Reader(chart).all(tag, class_=f"mark {style}")) == 2
    assert [len(paths(chart, f"line line-{k}")) for k in range(3)] == [1, 1, 1]
    assert {"+1", "+2", "frames ahead", "0"} <= set(labels(chart))
    assert all(Reader(key(k)).all(tag, class_=f"mark {style}") for k, (style, tag) in enumerate(MARKS.items()))


def test_larger_values_stand_higher_and_equal_steps_are_equally_high() -> None:
    first, second, third = heights(lead_time_chart({"model": [1, 2, 3]}, what="MSE", step_name="frame", zero=True))
    assert first > second > third
    assert first - second == pytest.approx(second - third, abs=0.2)


def test_a_value_that_is_not_there_leaves_a_gap() -> None:
    chart = lead_time_chart({"model": [1, 2, None, float("nan"), 3, 4]}, what="MSE", step_name="frame", zero=True)
    (path,) = paths(chart, "line line-0")
    assert re.sub(r"[^ML]", "", path) == "MLML"
    assert len(heights(chart)) == 4


def test_one_lead_time_is_a_mark_in_the_middle() -> None:
    chart = lead_time_chart({"model": [0.3]}, what="MSE", step_name="frame", zero=True)
    (mark,) = Reader(chart).all("circle", class_="mark mark-0")
    assert WIDTH / 3 < float(mark["cx"]) < 2 * WIDTH / 3
    assert labels(chart).count("+1") == 1


def test_losses_above_zero_stand_by_their_logarithms() -> None:
    first, second, third = heights(loss_chart([0, 1, 2], [100, 10, 1], what="loss", smooth=1, points=True))
    assert second - first == pytest.approx(third - second, abs=0.2)
    first, second, third = heights(loss_chart([0, 1, 2], [100, 10, 0], what="loss", smooth=1, points=True))
    assert second - first > 5 * (third - second)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 2, ["1", "1.5", "2"]),
        (0.04, 0.5, ["0.05", "0.1", "0.2", "0.5"]),
        (1e-4, 1, ["0.0001", "0.001", "0.01", "0.1", "1"]),
        (1e-30, 1, ["10⁻³⁰", "10⁻²⁵", "10⁻²⁰", "10⁻¹⁵", "10⁻¹⁰", "10⁻⁵", "1"]),
    ],
)
def test_logarithmic_axes_have_round_numbers(low: float, high: float, ticks: list[str]) -> None:
    chart = loss_chart([0, 1], [low, high], what="loss", smooth=1)
    assert re.findall(r'text-anchor="end">([^<]*)<', chart) == ticks
    assert len(Reader(chart).all("line", class_="rule")) == len(ticks)


def test_many_steps_are_a_band_and_the_file_stays_small() -> None:
    losses = 1 + np.random.default_rng(0).random(100_000)
    chart = loss_chart(range(100_000), losses.tolist(), what="loss", smooth=101)
    assert Reader(chart).all("polygon", class_="band")
    assert len(chart) < 30_000
    assert "80\N{NARROW NO-BREAK SPACE}000" in labels(chart)


def test_the_band_goes_from_the_least_to_the_largest() -> None:
    losses = [1.0, 3.0, 2.0] * 300
    (band,) = Reader(loss_chart(range(900), losses, what="loss", smooth=1)).all("polygon", class_="band")
    ends = {float(point.split(",")[1]) for point in band["points"].split()}
    (line,) = Reader(loss_chart(range(3), losses[:3], what="loss", smooth=1)).all("path", class_="each")
    one, three, _ = (float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", line["d"]))
    assert ends == {one, three}


def test_the_strong_line_is_the_mean_of_what_is_finite_around() -> None:
    values = np.array([1.0, np.nan, 5.0, np.inf, np.nan, np.nan])
    assert [mean_around(values, k, 3) for k in range(6)] == [1.0, 3.0, 5.0, 5.0, None, None]
    assert mean_around(values, 0, 99) == 3.0


def test_a_loss_alone_between_gaps_is_a_dot() -> None:
    chart = loss_chart(range(3), [float("nan"), 1.0, float("inf")], what="loss", smooth=1)
    assert Reader(chart).all("circle", class_="dot")


values = st.lists(
    st.none() | st.floats(-1e30, 1e30) | st.sampled_from([0.0, 1.0, 1.0 + 1e-15, 1e-300, float("nan"), float("inf")]),
    min_size=1,
    max_size=12,
).filter(lambda row: any(v is not None and np.isfinite(v) for v in row))


@given(values, st.booleans())
def test_no_score_breaks_a_chart(row: list[float | None], zero: bool) -> None:
    assert inside(lead_time_chart({"model": row}, what="score", step_name="frame", zero=zero))


@given(values, st.integers(0, 10**7), st.booleans())
def test_no_loss_breaks_a_chart(row: list[float | None], first: int, points: bool) -> None:
    losses = [float("nan") if v is None else v for v in row]
    chart = loss_chart(range(first, first + len(losses)), losses, what="loss", smooth=3, points=points)
    assert inside(chart)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_rise_evenly(low: float, width: float) -> None:
    chart = lead_time_chart({"model": [low, low + width]}, what="score", step_name="frame", zero=False)
    ticks = [float(own["y1"]) for own in Reader(chart).all("line", class_="rule")]
    assert 2 <= len(ticks) <= 7
    steps = [before - after for before, after in pairwise(ticks)]
    assert min(steps) > 0
    assert max(steps) - min(steps) <= 0.2 + 1e-9


def test_nothing_finite_is_no_chart() -> None:
    with pytest.raises(ValueError, match="a chart of MSE needs one finite value at least; got none"):
        lead_time_chart({"model": [None, float("nan")]}, what="MSE", step_name="frame", zero=True)
    with pytest.raises(ValueError, match="a chart of loss needs one finite value at least; got none"):
        loss_chart([0], [float("inf")], what="loss", smooth=1)
