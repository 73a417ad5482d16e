"""The report: a table with every parameter, each diagnosis once."""

from __future__ import annotations

import numpy as np

from convlstm import check_gradients
from convlstm.backends import Array
from convlstm.gradcheck import Report
from convlstm.gradcheck.report import Row, table
from tests.gradient_problems import PARAMETERS, RIGHT, loss


def test_report_is_a_table_of_every_parameter() -> None:
    report = check_gradients(loss, {**PARAMETERS, "long_name": np.ones(2)}, {"W": RIGHT["W"], "b": -RIGHT["b"]})
    lines = str(report).splitlines()
    assert lines[0].split() == ["parameter", "shape", "checked", "largest", "error", "verdict"]
    assert set(lines[1]) == {"─"}
    assert [line.split()[0] for line in lines[2:5]] == ["W", "b", "long_name"]
    assert lines[2].split("  ")[-1] == "right"
    assert "12 of 12" in lines[2]
    assert lines[3].endswith("WRONG")
    assert "2.0e+00" in lines[3]
    assert "0 of 2" in lines[4]
    assert "–" in lines[4]
    assert lines[5].startswith("b: wrong sign")
    assert lines[6].startswith("long_name: missing")
    assert lines[-1] == "2 found at fault"
    column = lines[0].index("verdict")
    assert all(line[column - 1] == " " and line[column] != " " for line in (lines[0], *lines[2:5]))


def test_report_of_right_gradients() -> None:
    report = check_gradients(loss, PARAMETERS, RIGHT)
    assert report.faults == {}
    assert str(report).splitlines()[-1] == "all gradients are right"
    assert "at fault" not in str(report)
    assert report.evaluations > 2 * 16


def test_evaluations_are_those_of_the_loss() -> None:
    calls: list[int] = []

    def counted(parameters: dict[str, Array]) -> float:
        calls.append(0)
        return loss(parameters)

    assert check_gradients(counted, PARAMETERS, RIGHT).evaluations == len(calls)


def test_faults_with_the_same_line_are_told_together() -> None:
    report = Report({"W": "zero", "b": "wrong", "V": "zero"})
    assert str(report).splitlines() == ["W, V: zero", "b: wrong", "3 found at fault"]


def test_remarks_stand_in_brackets_before_the_last_line() -> None:
    lines = str(Report({}, (Row("W", (2,), 2, 0.0, "kink"),), ("a remark",))).splitlines()
    assert lines[-2:] == ["(a remark)", "all gradients are right"]
    assert lines[2].endswith("not smooth here")


def test_table_aligns_its_columns() -> None:
    assert table([("a", "b"), ("long", "x"), ("y", "longer")]) == [
        "a     b",
        "────────────",
        "long  x",
        "y     longer",
    ]
