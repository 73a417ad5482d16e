"""What counts as a difference between two runs, where it is said to be, and how far apart two numbers are."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.determinism.replay.compare import (
    Difference,
    Record,
    differences,
    first_difference,
    first_element,
)
from convlstm.determinism.ulp import ulp_distance

FORMATS = (np.float16, np.float32, np.float64)


def record(*lines: str, observed: tuple[dict[str, Any], ...] = (), error: str | None = None, code: int = 0) -> Record:
    return Record(lines, observed, error, code, {})


def value(array: object, name: str = "x", line: int = 3) -> dict[str, Any]:
    x = np.asarray(array)
    described = {"name": name, "dtype": x.dtype.str, "shape": x.shape, "line": line, "bytes": x.tobytes().hex()}
    return json.loads(json.dumps(described))  # type: ignore[no-any-return]


def first(a: str, b: str) -> Difference | None:
    return first_difference(record(a), record(b))


# How far apart ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data(), steps=st.integers(0, 40))
def test_ulp_distance_counts_steps_to_the_next_number(kind: Any, data: st.DataObject, steps: int) -> None:
    width: Any = 8 * np.dtype(kind).itemsize
    a = kind(data.draw(st.floats(width=width, allow_nan=False, allow_infinity=False)))
    b = a
    for _ in range(steps):
        with np.errstate(over="ignore", under="ignore"):
            b = np.nextafter(b, kind(math.inf))
    if np.isfinite(b):
        assert ulp_distance(a, b) == ulp_distance(b, a) == steps
        assert ulp_distance(-a, -b) == steps


@given(st.floats(1e-300, 1e300), st.integers(1, 1000))
def test_ulp_distance_is_measured_in_spacings(a: float, steps: int) -> None:
    x = np.float64(a)
    b = x + steps * np.spacing(x)
    if np.frexp(x)[1] == np.frexp(b)[1]:
        assert ulp_distance(x, b) == steps


@pytest.mark.parametrize("kind", FORMATS)
def test_ulp_distance_across_zero(kind: Any) -> None:
    tiny = np.nextafter(kind(0), kind(1))
    assert ulp_distance(kind(0.0), kind(-0.0)) == 0
    assert ulp_distance(-tiny, tiny) == 2


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_no_distance_to_what_is_no_number(odd: float) -> None:
    assert ulp_distance(np.float64(odd), np.float64(1)) is None
    assert ulp_distance(np.float32(1), np.float32(odd)) is None


# Printed lines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "plain", "changed"),
    [
        ("loss 0.5", "loss 0.25", "0.5", "0.25"),
        ("[1.  2.5]", "[1.  2.6]", "2.5", "2.6"),
        ("x=-1e-3,", "x=-1e-4,", "-1e-3", "-1e-4"),
        ("took 1.5s", "took 2.5s", "1.5", "2.5"),
        ("3GB", "4GB", "3", "4"),
        ("nan", "1.0", "nan", "1.0"),
        ("loss inf", "loss -inf", "inf", "-inf"),
        ("1 2j", "1 3j", "2", "3"),
        ("0x1.8p+0", "0x1.9p+0", "0x1.8p+0", "0x1.9p+0"),
        ("98.5%", "98.4%", "98.5", "98.4"),
        (".5", ".25", ".5", ".25"),
        ("10_000", "10_001", "10_000", "10_001"),
        ("Verlust: 0.5 €", "Verlust: 0.7 €", "0.5", "0.7"),
    ],
)
def test_numbers_are_found_in_text(a: str, b: str, plain: str, changed: str) -> None:
    found = first(a, b)
    assert found is not None
    assert (found.plain, found.changed) == (plain, changed)
    assert first(a, a) is None


@pytest.mark.parametrize(
    ("a", "b"),
    [("saved to /tmp/abcx", "saved to /tmp/defy"), ("conv1 ok", "conv2 ok"), ("", "done"), ("info", "nano")],
)
def test_text_without_numbers_is_not_compared(a: str, b: str) -> None:
    assert first(a, b) is None


def test_a_difference_says_where_and_how_far() -> None:
    found = first_difference(record("begin", "loss 1.0"), record("begin", "loss 1.0000000000000002"))
    assert found is not None
    assert (found.plain_hex, found.changed_hex, found.ulp) == ("0x1.0000000000000p+0", "0x1.0000000000001p+0", 1)
    assert str(found) == (
        "line 2 of the output, 'loss 1.0': 1.0 became 1.0000000000000002 "
        "(0x1.0000000000000p+0, 0x1.0000000000001p+0; 1 ulp)"
    )


def test_another_count_of_numbers() -> None:
    found = first("1 2 3", "1 2")
    assert found is not None
    assert (found.plain, found.changed) == ("3 numbers", "2: '1 2'")


def test_lines_that_are_missing() -> None:
    found = first_difference(record("a 1", "b 2"), record("a 1"))
    assert found is not None
    assert (found.where, found.plain, found.changed) == ("the output", "2 lines", "1 lines")
    assert first_difference(record("a 1", "bye"), record("a 1")) is None  # no number is lost


def test_the_end_is_said_before_missing_lines() -> None:
    found = first_difference(record("a 1", "b 2"), record("a 1", error="ValueError: no, line 3", code=1))
    assert found is not None
    assert (found.where, found.plain, found.changed) == ("the end", "exit code 0", "ValueError: no, line 3")


@pytest.mark.parametrize("line", ["took {}", "{} it/s", "elapsed: {}", "12:31:0{} step", "{} seconds", "speed {} s/it"])
def test_clocks(line: str) -> None:
    found = first(line.format(1.5), line.format(2.5))
    assert found is not None
    assert found.hint == "it looks like a clock"


@pytest.mark.parametrize(
    "line",
    [
        "loss {}",
        "step 5 took 3.2s loss {}",
        "15:44:50 loss {}",
        "loss {} time 3.2",
        '{{"a":{}}}',
        "update {}",
        "{1: {}}",
    ],
)
def test_what_is_no_clock(line: str) -> None:
    found = first(line.replace("{}", "10.5"), line.replace("{}", "12.5"))
    assert found is not None
    assert found.hint == ""


def test_a_result_is_said_before_a_clock() -> None:
    found = first("took 1.5s, loss 3", "took 2.5s, loss 4")
    assert found is not None
    assert (found.plain, found.hint) == ("3", "")


def test_addresses() -> None:
    found = first("<Net object at 0x7f3a5c0d1e80>", "<Net object at 0x7f3a5c0d1f10>")
    assert found is not None
    assert found.hint == "it is an address of memory"


def test_huge_and_odd_numbers_do_not_fail() -> None:
    for a, b in (("1e999", "1e998"), ("9" * 400, "8" * 400), ("0x" + "f" * 300, "0x" + "e" * 300), ("0x.", "0x1")):
        assert first(a, b) is not None


def test_places_that_vary_are_masked() -> None:
    plain, other = record("step 1 took 0.1", "loss 3"), record("step 1 took 0.2", "loss 4")
    places = [place for place, _ in differences(plain, other)]
    assert places == [("line", 1, 1), ("line", 2, 0)]
    masked = first_difference(plain, other, places[:1])
    assert masked is not None
    assert masked.plain == "3"
    assert first_difference(plain, other, places) is None


# Observed values ----------------------------------------------------------------------------------------------------


def test_an_element_is_named() -> None:
    x = np.zeros((2, 3), dtype=np.float32)
    y = x.copy()
    y[1, 2] = np.nextafter(np.float32(0), np.float32(1))
    found = first_difference(record(observed=(value(x),)), record(observed=(value(y),)))
    assert found is not None
    assert found.where == "'x', observed as number 1 in line 3, element [1, 2]"
    assert found.ulp == 1


def test_the_signs_of_zero_differ() -> None:
    found = first_difference(record(observed=(value(0.0),)), record(observed=(value(-0.0),)))
    assert found is not None
    assert (found.plain, found.changed, found.ulp) == ("0.0", "-0.0", 0)


@pytest.mark.parametrize(
    ("a", "b", "plain", "changed"),
    [
        (1.0, [1.0], "x <f8 ()", "x <f8 (1,)"),
        ([1, 2], [1, 3], "2", "3"),
        ([1j], [2j], "1j", "2j"),
        (["a"], ["b"], "a", "b"),
        ([True], [False], "True", "False"),
    ],
)
def test_kinds_of_values(a: object, b: object, plain: str, changed: str) -> None:
    found = first_difference(record(observed=(value(a),)), record(observed=(value(b),)))
    assert found is not None
    assert (found.plain, found.changed) == (plain, changed)


def test_counts_of_values() -> None:
    found = first_difference(record(observed=(value(1.0), value(2.0))), record(observed=(value(1.0),)))
    assert found is not None
    assert (found.where, found.plain, found.changed) == ("what was observed", "2 values", "1 values")


def test_observed_values_come_before_printed_lines() -> None:
    found = first_difference(record("1", observed=(value(1.0),)), record("2", observed=(value(3.0),)))
    assert found is not None
    assert found.where.startswith("'x', observed")


@given(st.integers(0, 9_999))
def test_the_first_of_many_elements(at: int) -> None:
    x: npt.NDArray[np.float64] = np.zeros(10_000)
    y = x.copy()
    y[at:] = math.nan
    assert first_element("x", x, y).where == f"x, element [{at}]"
