"""Turns are fair, and figures say what they are. No time is asserted."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks import measure
from tests.benchmark_problems import without_waiting


def test_turns_rotate_and_every_contender_has_one_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = measure.interleaved(contenders, 3)
    assert "".join(calls) == "aabbcc" + "bbccaa" + "ccaabb"  # once to warm up, once for the clock
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_short_step_is_repeated_and_a_turns_figure_is_that_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def step() -> None:
        now[0] += 0.25

    monkeypatch.setattr(measure, "TURN_S", 1.0)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    assert measure.one_turn(step) == 0.25
    assert now == [1.25]  # one to warm up, four for the clock


def test_summary_of_one_round_and_of_many() -> None:
    assert measure.summary([0.5]) == {"median_ms": 500, "lower_quartile_ms": 500, "upper_quartile_ms": 500}
    found = measure.summary([0.001, 0.002, 0.003])
    assert [round(value, 9) for value in found.values()] == [2, 1.5, 2.5]


def test_a_row_holds_what_its_summary_was_made_of() -> None:
    row = measure.row({"a": [0.5, 0.7]}, flop=3)
    assert row == {"flop": 3, "times": {"a": measure.summary([0.5, 0.7])}, "seconds": {"a": [0.5, 0.7]}}


def test_the_environment_says_versions_threads_and_how_busy_the_machine_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLSTM_THREADS", "3")
    found = measure.environment()
    assert found["packages"]["numpy"] == np.__version__
    assert found["threads"]["CONVLSTM_THREADS"] == "3"
    assert "load_before" in found


def test_what_is_not_installed_is_skipped_with_its_name() -> None:
    with pytest.raises(measure.Skipped, match=r"no_such_package.*README says how to install it"):
        measure.package("no_such_package")
    assert measure.package("numpy") is np
