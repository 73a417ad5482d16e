"""Results come back as they were written; what is no file of results is named. And tables say what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.measure import row
from benchmarks.results import ResultsError, read_results, write_results

ROWS = {"shi": row({"PyTorch": [0.7, 0.8], "ours": [0.35, 0.36]}), "wide": row({"PyTorch": [0.0123]})}


def test_results_come_back(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", {"cores": 2}, {"train_step": ROWS})
    assert read_results(tmp_path / "r.json") == ({"cores": 2}, {"train_step": ROWS})


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"environment": {}}', '{"environment": [], "benchmarks": {}}',
        '{"environment": {}, "benchmarks": {"a": {"b": {}}}}',
        '{"environment": {}, "benchmarks": {"a": {"b": {"seconds": {"c": ["1"]}}}}}',
    ],
)  # fmt: skip
def test_what_holds_no_results_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(text, "utf-8")
    with pytest.raises(ResultsError, match=r"odd\.json holds no results"):
        read_results(tmp_path / "odd.json")
    with pytest.raises(ResultsError, match=r"cannot read .*none\.json"):
        read_results(tmp_path / "none.json")


def test_a_table_has_a_line_for_each_row_and_a_dash_for_who_is_absent() -> None:
    assert tables.times_table(ROWS, "shape").splitlines() == [
        "| shape | PyTorch, ms | ours, ms |",
        "| --- | --- | --- |",
        "| shi | 750 (725–775) | 355 (352–358) |",
        "| wide | 12.3 (12.3–12.3) | – |",
    ]


def test_speed_is_the_others_time_divided_by_ones_own() -> None:
    assert tables.speed(ROWS["shi"], "ours", "PyTorch") == pytest.approx(750 / 355)
    assert tables.speed(ROWS["wide"], "ours", "PyTorch") is None
    assert tables.ratio(None) == "–"
