"""Whoever computes something else is refused, whoever cannot run is skipped with the reason, and nobody else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from benchmarks.contest import TF32_TOLERANCE, Entrant, contest, largest_difference, relative_distance, usable_backend
from benchmarks.measure import Skipped
from convlstm.backends import Array
from tests.benchmark_problems import without_waiting

RIGHT: Mapping[str, Array] = {"loss": np.array(2.0), "W": np.arange(1.0, 7.0).reshape(2, 3)}


def entrant(**changes: Array) -> Entrant:
    return Entrant(lambda: None, lambda: {**RIGHT, **changes})


def test_rounding_passes_and_is_reported() -> None:
    assert largest_difference("peer", RIGHT, RIGHT) == 0
    assert largest_difference("peer", RIGHT, {"W": RIGHT["W"] * (1 + 1e-6)}) == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("loss", RIGHT["loss"] * 1.01),
        ("loss", np.array(np.nan)),
        ("W", 2 * RIGHT["W"]),
        ("W", -RIGHT["W"]),
        ("W", RIGHT["W"].T),
        ("W", np.where(RIGHT["W"] == 6, np.inf, RIGHT["W"])),
    ],
    ids=["loss", "nan", "twice", "sign", "transposed", "infinite"],
)
def test_whoever_computes_something_else_is_refused(name: str, wrong: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    with pytest.raises(RuntimeError, match=f"^peer computes something else: {name} differs"):
        contest({"ours": entrant, "peer": lambda: entrant(**{name: wrong})}, 1)


def test_tf32_may_be_further_away_than_float32() -> None:
    off = {"W": RIGHT["W"] * 1.01}
    assert largest_difference("peer", RIGHT, off, TF32_TOLERANCE) == pytest.approx(0.01)
    with pytest.raises(RuntimeError):
        largest_difference("peer", RIGHT, off)


def test_a_gradient_of_zeros_is_compared_too() -> None:
    assert relative_distance(np.zeros(3), np.zeros(3)) == 0
    assert relative_distance(np.zeros(3), np.full(3, 1e-9)) > 1


def test_who_cannot_run_is_skipped_and_the_others_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)

    def absent() -> Entrant:
        raise Skipped("not here")

    row = contest({"absent": absent, "ours": entrant, "peer": entrant}, 2, shape="tiny")
    assert row["skipped"] == {"absent": "not here"}
    assert {name: len(values) for name, values in row["seconds"].items()} == {"ours": 2, "peer": 2}
    assert row["largest_relative_difference"] == {"peer": 0}
    assert row["shape"] == "tiny"
    with pytest.raises(ValueError, match="absent: not here"):
        contest({"absent": absent}, 1)


def test_a_contender_that_fails_is_not_skipped() -> None:
    def broken() -> Entrant:
        raise ValueError("a fault of its own")

    with pytest.raises(ValueError, match="a fault of its own"):
        contest({"ours": entrant, "broken": broken}, 1)


def test_a_backend_that_does_not_exist_is_skipped_with_the_text_of_its_error() -> None:
    with pytest.raises(Skipped, match=r"^backend must be .*got 'numpy:nonsense'"):
        usable_backend("numpy:nonsense")
    assert usable_backend("numpy").name == "numpy"
