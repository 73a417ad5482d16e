"""Faster is faster, slower is slower, noise is noise, and what cannot be told is said so."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import comparison
from benchmarks.comparison import FASTER, NOISE, SLOWER, TOO_FEW, compare, interval, rank_sums
from benchmarks.measure import row
from benchmarks.results import ResultsError, write_results

HERE = {"cores": 2, "packages": {"numpy": "2.4.6"}, "load_before": 0.1}


def rounds(seed: int, scale: float = 1.0, count: int = 7) -> list[float]:
    """Seconds as they are: most near one value, some much above."""
    return [scale * (1 + 0.05 * float(x)) for x in np.random.default_rng(seed).exponential(size=count)]


def write(path: Path, seconds: dict[str, list[float]], **environment: Any) -> Path:
    write_results(path, {**HERE, **environment}, {"train_step": {"shi": row(seconds)}})
    return path


def test_slower_faster_and_noise_are_told_apart(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", {"slower": rounds(0), "faster": rounds(1), "equal": rounds(2)})
    b = write(tmp_path / "b.json", {"slower": rounds(3, 1.3), "faster": rounds(4, 0.7), "equal": rounds(5)})
    found, said = compare(a, b)
    assert {it.contender: it.verdict for it in found} == {"slower": SLOWER, "faster": FASTER, "equal": NOISE}
    assert said == []
    assert found[0].ratio == pytest.approx(1.3, rel=0.1)
    lines = comparison.table(found).splitlines()
    assert [line.split(" | ")[-1] for line in lines[2:]] == ["slower |", "faster |", "noise |"]


def test_few_rounds_say_nothing_however_far_apart(tmp_path: Path) -> None:
    assert comparison.needed_rounds() == 5
    for count, verdict in ((1, TOO_FEW), (4, TOO_FEW), (5, SLOWER)):
        a = write(tmp_path / "a.json", {"it": rounds(0, count=count)})
        b = write(tmp_path / "b.json", {"it": rounds(1, 9.0, count)})
        assert [it.verdict for it in compare(a, b)[0]] == [verdict]


def test_without_a_change_a_row_in_a_hundred_is_called_changed() -> None:
    called = 0
    for seed in range(1000):
        low, high = interval(rounds(2 * seed), rounds(2 * seed + 1)) or (0, 2)
        called += not low <= 1 <= high
    assert called <= 20  # of 1000: more than 10 ± 3·√10 would be no chance of a hundredth


@given(factor=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_the_interval_goes_with_the_factor(factor: float, seed: int) -> None:
    a, b = rounds(seed), rounds(seed + 100)
    plain, scaled = interval(a, b), interval(a, [factor * value for value in b])
    assert plain is not None
    assert scaled == pytest.approx([factor * end for end in plain])


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 3), (4, 2), (3, 3)])
def test_rank_sums_are_those_of_all_orders(n: int, m: int) -> None:
    counted = [0] * (n * m + 1)
    for places in itertools.combinations(range(n + m), n):
        others = [place for place in range(n + m) if place not in places]
        counted[sum(a > b for a in places for b in others)] += 1
    assert rank_sums(n, m) == tuple(counted)
    assert sum(rank_sums(7, 7)) == math.comb(14, 7)


def test_environments_that_differ_are_named_and_how_busy_it_was_is_not(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", {"it": rounds(0)})
    b = write(tmp_path / "b.json", {"it": rounds(1)}, cores=4, packages={"torch": "2"}, load_before=3.0)
    _, said = compare(a, b)
    assert [line.split(": ")[1].split(" in ")[0] for line in said] == [
        "cores is 2", "packages numpy is 2.4.6", "packages torch is –",
    ]  # fmt: skip


def test_what_one_file_alone_holds_is_named_once(tmp_path: Path) -> None:
    it = row({"x": [1.0], "y": [1.0]})
    write_results(tmp_path / "a.json", HERE, {"one": {"shi": it, "wide": it}, "two": {"shi": it}})
    write_results(tmp_path / "b.json", HERE, {"one": {"shi": row({"x": [1.0]})}, "three": {"shi": it}})
    found, said = compare(tmp_path / "a.json", tmp_path / "b.json")
    assert len(found) == 1
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    assert said == [
        f"only in {a}: one, shi, y", f"only in {a}: one, wide", f"only in {a}: two", f"only in {b}: three",
    ]  # fmt: skip


def test_a_part_that_took_no_time_is_left_out(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", {"it": rounds(0), "never": [0.0] * 7})
    assert [it.contender for it in compare(a, a)[0]] == ["it"]


def test_what_is_no_file_of_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"none\.json"):
        compare(tmp_path / "none.json", write(tmp_path / "a.json", {}))
