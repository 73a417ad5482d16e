"""Every way to convolve computes what the plain one does, on shapes drawn at random; one that does not is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import convolution, convolution_ways
from benchmarks.contest import relative_distance
from benchmarks.convolution_ways import CORRELATIONS, PLAIN
from benchmarks.measure import Skipped
from benchmarks.shapes import Shape
from convlstm.backends import Array
from tests.benchmark_problems import ONCE, TINY, without_waiting

SHAPES = st.builds(
    Shape, T=st.just(1), N=st.integers(1, 3), Cin=st.just(1), C=st.integers(1, 3), H=st.integers(5, 9),
    W=st.integers(5, 9), K=st.sampled_from((1, 3, 5)),
)  # fmt: skip


def made(make: Callable[[], convolution.Call]) -> Array | None:
    try:
        return make()()
    except Skipped:
        return None


@pytest.mark.parametrize("direction", convolution.WORK)
@settings(deadline=None, max_examples=15)
@given(shape=SHAPES)
def test_all_ways_agree(direction: str, shape: Shape) -> None:
    work, operands = convolution.WORK[direction], convolution.operands(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution_ways, "STRIP_BYTES", 2 * shape.C * shape.K**2 * shape.W * 4)  # two rows of forward
        found = {name: made(make) for name, make in work.ways(operands).items()}
    right = found[PLAIN]
    assert right is not None
    for name, array in found.items():
        expected = convolution.plainly(work, operands) if name == convolution.BATCH else right
        assert array is None or relative_distance(expected, array) < 1e-4, name


def test_strips_cover_every_row_once_and_fit() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution_ways, "STRIP_BYTES", 1000)
        assert list(convolution_ways.strips(7, 300)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
        assert list(convolution_ways.strips(2, 5000)) == [slice(0, 1), slice(1, 2)]


def test_every_direction_has_a_row_of_its_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    rows = convolution.measure(ONCE)
    assert list(rows) == ["tiny, forward", "tiny, to the input", "tiny, to the kernel"]
    for row in rows.values():
        assert row["flop"] == 2 * 4 * TINY.C * TINY.C * TINY.K**2 * TINY.H * TINY.W
        assert max(row["largest_relative_difference"].values()) < 1e-4
        assert {PLAIN, convolution.BATCH, convolution.WINOGRAD} <= row["seconds"].keys()
    assert convolution.TRANSPOSED in rows["tiny, to the input"]["seconds"]
    assert convolution.table(rows).splitlines()[0] == "| way | " + " | ".join(rows) + " |"


@pytest.mark.parametrize(
    "fault",
    [
        lambda W: CORRELATIONS[PLAIN](W[:, :, ::-1, ::-1]),
        lambda W: lambda x: np.roll(CORRELATIONS[PLAIN](W)(x), 1, axis=3),
        lambda W: lambda x: 1.01 * CORRELATIONS[PLAIN](W)(x),
        lambda W: lambda x: CORRELATIONS[PLAIN](W)(x)[:, :, 1:],
    ],
    ids=["rotated kernel", "shifted", "factor", "a row lost"],
)
@pytest.mark.parametrize("direction", ["forward", "to the input"])
def test_a_way_that_convolves_something_else_is_refused(
    direction: str, fault: convolution_ways.Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_waiting(monkeypatch)
    monkeypatch.setitem(CORRELATIONS, "wrong", fault)
    monkeypatch.setattr(convolution, "WORK", {direction: convolution.WORK[direction]})
    with pytest.raises(RuntimeError, match=r"^wrong computes something else"):
        convolution.measure(ONCE)


def test_a_batch_that_loses_a_sample_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    operands, work = convolution.operands(TINY), convolution.WORK["to the kernel"]
    ways = {**work.ways(operands), convolution.BATCH: work.ways(operands.one())[PLAIN]}
    with pytest.raises(RuntimeError, match=r"^the whole batch in one call computes something else"):
        convolution.time_ways(ways, convolution.plainly(work, operands), TINY.N, 1)


def test_the_batch_counts_for_one_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "interleaved", lambda ways, rounds: {name: [8.0] * rounds for name in ways})
    operands, work = convolution.operands(TINY), convolution.WORK["forward"]
    row = convolution.time_ways(work.ways(operands), convolution.plainly(work, operands), 4, 1, flop=10**9)
    assert row["seconds"][convolution.BATCH] == [2.0]
    assert row["seconds"][PLAIN] == [8.0]
    assert convolution.gflops(row, PLAIN) == pytest.approx(1 / 8)
    assert convolution.gflops(row, "nobody") is None


def test_one_thread_is_one_thread() -> None:
    import threadpoolctl

    def threads() -> set[Any]:
        return {library["num_threads"] for library in threadpoolctl.threadpool_info()}

    before = threads()
    with convolution.one_thread():
        assert threads() <= {1}
    assert threads() == before


def test_a_way_whose_package_is_missing_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    monkeypatch.setitem(sys.modules, "scipy.linalg.blas", None)
    skipped = convolution.measure(ONCE)["tiny, forward"]["skipped"]
    assert "scipy" in skipped["shifted products, sgemm"]
