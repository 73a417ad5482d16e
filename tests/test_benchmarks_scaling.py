"""Exponents are those of the curves they are fitted to, peak memory is what was held, each point has its process."""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import memory, processes, scaling, scaling_point
from benchmarks.contest import Entrant
from benchmarks.measure import Skipped, row
from benchmarks.shapes import Shape
from convlstm.backends import Array
from tests.benchmark_problems import ONCE, TINY, without_waiting

MIB = 2**20


@given(power=st.floats(-3, 3), factor=st.floats(1e-3, 1e3))
def test_the_exponent_of_a_power_is_that_power(power: float, factor: float) -> None:
    values = [4, 8, 16, 32]
    assert scaling.exponent(values, [factor * value**power for value in values]) == pytest.approx(power, abs=1e-9)


def test_there_is_no_exponent_of_one_point_or_of_nothing() -> None:
    assert math.isnan(scaling.exponent([4], [1.0]))
    assert math.isnan(scaling.exponent([4, 8], [1.0, 0.0]))


@pytest.mark.parametrize(
    ("axis", "changed"),
    [("T", {"T": 9}), ("N", {"N": 9}), ("H=W", {"H": 9, "W": 9}), ("C", {"C": 9}), ("K", {"K": 9})],
)
def test_an_axis_changes_its_size_alone(axis: str, changed: dict[str, int]) -> None:
    assert scaling.shape_at(TINY, axis, 9)._asdict() == {**TINY._asdict(), **changed}


def test_every_axis_doubles_several_times() -> None:
    for axis, values in scaling.AXES.items():
        assert len(values) >= 4
        assert all(1.6 <= later / before <= 2 for before, later in itertools.pairwise(values)), axis


def test_every_point_has_a_map_that_its_kernel_fits_and_can_be_warmed_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    shapes = [scaling.shape_at(scaling.BASE, axis, value) for axis, values in scaling.AXES.items() for value in values]
    assert all(min(shape.H, shape.W) >= shape.K for shape in shapes)
    largest = max(shape.K for shape in shapes)
    point = scaling_point.point("convlstm (numpy)", TINY._replace(K=largest, H=largest, W=largest), 1)
    assert len(point["seconds"]) == 1


def linear(module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
    """A point whose time and memory grow with T; PyTorch is not there."""
    name, shape, rounds = arguments
    if name == "PyTorch":
        raise Skipped("no PyTorch")
    T = json.loads(shape)["T"]
    return {"seconds": [float(T)] * int(rounds), "peak_bytes": T * MIB}


def test_points_become_rows_lines_a_table_and_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "in_own_process", linear)
    rows = scaling.measure(ONCE, TINY, {"T": (2, 4, 8), "C": (1, 2)})
    assert list(rows) == ["T=2", "T=4", "T=8", "C=1", "C=2"]
    assert rows["C=2"]["shape"] == TINY._replace(C=2)._asdict()
    assert rows["T=2"]["skipped"] == {"PyTorch": "no PyTorch"}
    assert scaling.lines(rows, "T")["convlstm (numpy)"] == ([2, 4, 8], [2, 4, 8], [2, 4, 8])
    head, along_t, along_c = (scaling.table(rows).splitlines()[at] for at in (-4, -2, -1))
    assert head.startswith("| exponent along | convlstm (numpy), time |")
    assert along_t == "| T | 1.00 | 1.00 | 1.00 | 1.00 |"
    assert along_c == "| C | 0.00 | 0.00 | 0.00 | 0.00 |"
    scaling.plot(rows, tmp_path)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_a_point_in_a_process_of_its_own() -> None:
    arguments = ["convlstm (numpy:winograd)", json.dumps(TINY._asdict()), "2"]
    found = processes.in_own_process("scaling_point", arguments)
    assert found.keys() == {"seconds", "peak_bytes"}
    assert len(found["seconds"]) == 2
    assert found["peak_bytes"] >= 0


def test_a_process_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(RuntimeError, match=r"^python -m benchmarks\.nobody 1 failed: .*No module named benchmarks"):
        processes.in_own_process("nobody", ["1"])


def test_what_a_process_skips_is_skipped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["scaling_point", "convlstm (numpy:nonsense)", json.dumps(TINY._asdict()), "1"])
    scaling_point.main()
    said = "something before\n" + capsys.readouterr().out
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, said, ""))
    with pytest.raises(Skipped, match=r"got 'numpy:nonsense'"):
        processes.in_own_process("scaling_point", [])


def test_peak_memory_is_what_a_step_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written, not only asked for, and given back after the step."""
    without_waiting(monkeypatch)
    monkeypatch.setattr(scaling_point, "made", lambda *_: Entrant(lambda: np.ones(48 * MIB, np.uint8).sum(), dict))
    assert 47 * MIB < scaling_point.point("greedy", TINY, 1)["peak_bytes"] < 60 * MIB
    monkeypatch.setattr(scaling_point, "made", lambda *_: Entrant(lambda: None, dict))
    assert scaling_point.point("modest", TINY, 1)["peak_bytes"] < 8 * MIB  # what the one before held is forgotten


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc's allocator gives back on demand")
def test_memory_that_was_freed_before_counts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator keeps what is freed below something that is not; a step that takes it from there holds it."""
    without_waiting(monkeypatch)

    def pieces() -> list[Array]:
        return [np.ones(20_000, np.uint8) for _ in range(2000)]

    *freed, last = pieces()
    del freed
    monkeypatch.setattr(scaling_point, "made", lambda *_: Entrant(lambda: len(pieces()), dict))
    assert scaling_point.point("greedy", TINY, 1)["peak_bytes"] > 37 * MIB
    assert last.all()


def test_memory_that_cannot_be_told_is_a_reason_to_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "none" / "none")
    for ask in (memory.resident, memory.most_resident, memory.forget_most):
        with pytest.raises(Skipped, match="peak memory cannot be told here"):
            ask()


def test_the_points_contender_is_the_one_that_is_named() -> None:
    shape = Shape(T=2, N=1, Cin=1, C=2, H=5, W=5, K=3)
    assert "layers.0.W_h" in scaling_point.made("convlstm (numpy:winograd)", shape).result()
    assert "layers.0.W_h" in scaling_point.made("Chainer autograd", shape).result()
    with pytest.raises(Skipped, match=r"got 'numpy:nonsense'"):
        scaling_point.made("convlstm (numpy:nonsense)", shape)


def test_an_empty_row_has_no_exponents() -> None:
    rows = {"T=2": row({}, axis="T", value=2, shape=TINY._asdict(), peak_bytes={}, skipped={"PyTorch": "absent"})}
    assert scaling.table(rows).splitlines()[-1] == "| T |"
