"""Memory that is used again: who gets which; nobody reads what another left there, and nothing returned lies there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from convlstm.backends import Array, convolution, winograd
from convlstm.backends.geometry import Geometry, Padding, resolve_geometry
from convlstm.backends.workspace import Workspace, workspace
from tests.numerical import freeze

# Who gets which -------------------------------------------------------------------------------------------------------


def test_an_array_has_the_shape_and_dtype_asked_for_and_is_zero_at_first() -> None:
    for dtype in ("float32", np.float64, np.dtype("int32")):
        array = Workspace().array("a", (2, 3, 4), dtype)
        assert array.shape == (2, 3, 4)
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert not array.any()


def test_a_name_has_the_same_memory_until_more_is_needed() -> None:
    ours = Workspace()
    first = ours.array("a", (4, 6), "float32")
    for shape in ((4, 6), (6, 4), (24,), (2, 3), (1,), (0, 5)):
        again = ours.array("a", shape, "float32")
        assert again.shape == shape
        assert np.shares_memory(again, first) or not again.size
        assert again.ctypes.data == first.ctypes.data
    larger = ours.array("a", (5, 5), "float32")
    assert not np.shares_memory(larger, first)
    assert np.shares_memory(ours.array("a", (4, 6), "float32"), larger)


def test_other_names_and_dtypes_have_other_memory() -> None:
    ours = Workspace()
    arrays = [ours.array(name, (8,), dtype) for name in ("a", "b") for dtype in ("float32", "float64")]
    for index, array in enumerate(arrays):
        array[...] = index
    for index, array in enumerate(arrays):
        assert (array == index).all()


def test_two_threads_have_different_memory() -> None:
    of_threads: list[Array] = []

    def take() -> None:
        of_threads.append(workspace.array("a", (100,), "float32"))

    take()
    for _ in range(2):
        other = threading.Thread(target=take)
        other.start()
        other.join(20)
    here, *others = of_threads  # all are held, so that no memory can be given out twice
    assert len(others) == 2
    assert not np.shares_memory(others[0], others[1])
    assert not any(np.shares_memory(here, other) for other in others)


# What convolutions do with it -----------------------------------------------------------------------------------------


class Case(NamedTuple):
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    padding: Padding = "same"
    N: int = 2
    C: int = 3
    D: int = 4
    dtype: str = "float32"
    stride: int = 1
    dilation: int = 1

    def geometry(self) -> Geometry:
        stride, dilation = (self.stride, self.stride), (self.dilation, self.dilation)
        return resolve_geometry(*self.size, self.kernel, stride=stride, dilation=dilation, padding=self.padding)

    def operands(self) -> tuple[Array, Array, Array]:
        """Return read-only x, W, dz."""
        rng = np.random.default_rng(0)
        outputs = (self.N, self.D, *self.geometry().output_shape(*self.size))
        shapes = ((self.N, self.C, *self.size), (self.D, self.C, *self.kernel), outputs)
        x, W, dz = (rng.standard_normal(shape).astype(self.dtype) for shape in shapes)
        freeze((x, W, dz))
        return x, W, dz


# One after the other: large after small and small after large, other kernels, dtypes, edges that are filled up.
CASES = [
    Case((8, 8), C=1, D=8),  # of one channel a turned array is contiguous as it is: no copy is made of it
    Case((8, 8), C=8, D=1),
    Case((8, 8)),
    Case((30, 31)),
    Case((5, 4)),
    Case((5, 4), dtype="float64"),
    Case((13, 9), (5, 2), "valid", C=8, D=5),
    Case((13, 9), (2, 5), ((0, 2), (3, 0)), N=1),
    Case((8, 8), (4, 4), N=40, C=2, D=2),
    Case((70, 41), (3, 3), C=2, D=2),
    Case((7, 6), (5, 5), 2, dtype="float64"),
    Case((1, 1), (3, 3), 1),
    Case((8, 8)),
]
ONLY_PLAIN = [
    Case((9, 8), (1, 1)),
    Case((9, 8), (3, 2), stride=2),
    Case((9, 8), (2, 3), "valid", stride=3, N=5),
    Case((9, 8), (3, 3), dilation=2, dtype="float64"),
    Case((9, 8), (6, 7), ((4, 0), (0, 5)), stride=2),
]


def plain(case: Case) -> dict[str, Array]:
    (x, W, dz), geometry = case.operands(), case.geometry()
    return {
        "z": convolution.convolve(x, W, geometry),
        "dx": convolution.gradient_input(dz, W, geometry, *case.size),
        "dW": convolution.gradient_weights(x, dz, geometry),
        "dW of many": convolution.gradient_weights_of_many(x, dz, geometry),
    }


def fast(case: Case) -> dict[str, Array]:
    (x, W, dz), geometry = case.operands(), case.geometry()
    kernel = winograd.transformed(W)
    return {
        "U": kernel.U,
        "U_T": kernel.U_T,
        "z": winograd.convolve(x, kernel, geometry),
        "dx": winograd.gradient_input(dz, kernel, geometry, *case.size),
        "dW": winograd.gradient_weights(x, dz, geometry),
    }


WAYS = [(plain, [*CASES, *ONLY_PLAIN]), (fast, CASES)]


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Fill what the workspace hands out with NaN from the call on; return the names, as they will be asked for."""

    def begin() -> list[str]:
        asked: list[str] = []
        right = Workspace.array

        def array(self: Workspace, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
            asked.append(name)
            found = right(self, name, shape, dtype)
            found[...] = np.nan
            return found

        monkeypatch.setattr(Workspace, "array", array)
        return asked

    return begin


@pytest.mark.parametrize(("way", "cases"), WAYS, ids=["plain", "winograd"])
def test_nothing_is_read_that_an_earlier_call_left(
    way: Callable[[Case], dict[str, Array]], cases: list[Case], filled: Callable[[], list[str]]
) -> None:
    first = [way(case) for case in cases]
    asked = filled()
    for case, right in zip(cases, first, strict=True):
        for name, found in way(case).items():
            np.testing.assert_array_equal(found, right[name], err_msg=f"{name} of {case}")
            assert np.isfinite(found).all()
    memory = {"padded", "columns"} if way is plain else {"padded", "filled", "d", "dy", "V", "dU", "dU of a piece"}
    assert memory <= set(asked)


@pytest.mark.parametrize("way", [plain, fast])
def test_a_sequence_of_shapes_leaves_the_bits_that_each_has_alone(way: Callable[[Case], dict[str, Array]]) -> None:
    """In a workspace of its own each finds memory that nobody has used."""
    for case in CASES:
        with pytest.MonkeyPatch.context() as patch:
            new = Workspace()
            patch.setattr(winograd, "workspace", new)
            patch.setattr(convolution, "workspace", new)
            alone = way(case)
            assert new._memory
        for name, found in way(case).items():
            np.testing.assert_array_equal(found, alone[name], err_msg=f"{name} of {case}")


def padded_without_zeros(x: Array, geometry: Geometry, tiles: winograd.Tiles) -> Array:
    height, width = (n * m + winograd.INPUTS - m for n, m in zip(tiles.grid, tiles.outputs, strict=True))
    padded = workspace.array("padded", (len(x), height, width, x.shape[1]), x.dtype)
    (top, _), (left, _) = geometry.padding
    padded[:, top : top + x.shape[2], left : left + x.shape[3]] = x.transpose(0, 2, 3, 1)
    return padded


def columns_without_zeros(x: Array, geometry: Geometry) -> Array:
    """As `_columns`, but nothing is written where the padding is."""
    N, C, H, W = x.shape
    inner = COLUMNS(x, resolve_geometry(H, W, geometry.kernel, padding="valid")).copy()  # of fewer outputs
    columns = workspace.array("columns", (C, *geometry.kernel, N, *geometry.output_shape(H, W)), x.dtype)
    columns[..., : inner.shape[-2], : inner.shape[-1]] = inner
    return columns


COLUMNS = convolution._columns


@pytest.mark.parametrize(
    ("way", "module", "name", "planted"),
    [
        (fast, winograd, "_padded", padded_without_zeros),
        (plain, convolution, "_columns", columns_without_zeros),
    ],
    ids=["winograd", "plain"],
)
def test_a_planted_reading_of_stale_memory_is_seen(
    way: Callable[[Case], dict[str, Array]], module: Any, name: str, planted: Any, filled: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, name, planted)
    filled()
    assert any(np.isnan(found).any() for found in way(Case((5, 4))).values())


# What is returned -----------------------------------------------------------------------------------------------------


def memory() -> Iterator[Array]:
    """All that this thread's workspace holds."""
    yield from workspace._memory.values()


def lies_in_it(array: Array) -> bool:
    return any(np.shares_memory(array, held) for held in memory())


@pytest.mark.parametrize(("way", "cases"), WAYS, ids=["plain", "winograd"])
def test_nothing_returned_lies_in_it_or_in_an_operand(
    way: Callable[[Case], dict[str, Array]], cases: list[Case]
) -> None:
    for case in cases:
        operands = case.operands()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Case, "operands", lambda self, held=operands: held)
            for name, found in way(case).items():
                assert not lies_in_it(found), (name, case)
                assert not any(np.shares_memory(found, operand) for operand in operands), (name, case)


def test_a_planted_view_of_it_is_seen() -> None:
    case = Case((8, 8))
    x, _, _ = case.operands()
    assert lies_in_it(convolution._columns(x, case.geometry()))
    rows = winograd.matrices(3, "f")
    assert lies_in_it(winograd._transform(rows.G, rows.G, np.zeros((9, 2), "float32"), "U"))
