"""Convolutions in strips of rows against the same ones as a whole, on NumPy arrays; on a device nothing differs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convlstm.backends import Array, convolution, cupy_strips, get_backend
from convlstm.backends.geometry import Geometry, resolve_geometry

N, C, D = 2, 3, 4


def random(*shape: int, seed: int = 0) -> Array:
    array = np.random.default_rng(seed).standard_normal(shape)
    array.flags.writeable = False
    return array


Three = dict[str, Array]


def whole(x: Array, W: Array, dz: Array, geometry: Geometry) -> Three:
    return {
        "z": convolution.convolve(x, W, geometry),
        "dx": convolution.gradient_input(dz, W, geometry, *x.shape[2:]),
        "dW": convolution.gradient_weights(x, dz, geometry),
    }


def in_strips(x: Array, W: Array, dz: Array, geometry: Geometry, most: int) -> Three:
    height, width = x.shape[2:]
    return {
        "z": cupy_strips.convolve(x, W, geometry, most),
        "dx": cupy_strips.gradient_input(dz, W, geometry, height, width, most),
        "dW": cupy_strips.gradient_weights(x, dz, geometry, most),
    }


def operands(geometry: Geometry, height: int, width: int, outputs: int = D) -> tuple[Array, Array, Array]:
    W = random(outputs, C, *geometry.kernel, seed=1)
    return random(N, C, height, width), W, random(N, outputs, *geometry.output_shape(height, width), seed=2)


def assert_close(found: Three, right: Three) -> None:
    for name, array in right.items():
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-12, err_msg=name)


pairs = st.tuples(st.integers(0, 4), st.integers(0, 2))


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 9), kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 2)), dilation=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    rows=pairs, columns=pairs, outputs=st.sampled_from([D, 1]), strip=st.integers(1, 5),
)  # fmt: skip
def test_every_geometry(
    height: int, kernel: Any, stride: Any, dilation: Any, rows: Any, columns: Any, outputs: int, strip: int
) -> None:
    width = 5
    try:
        geometry = resolve_geometry(height, width, kernel, stride=stride, dilation=dilation, padding=(rows, columns))
    except ValueError:  # a kernel larger than its map
        assume(False)
    given = operands(geometry, height, width, outputs)
    of_a_row = N * C * max(math.prod(kernel) * given[2].shape[3], stride[0] * width)
    assert_close(in_strips(*given, geometry, strip * of_a_row), whole(*given, geometry))


SAME = resolve_geometry(7, 6, (3, 3))


@pytest.mark.parametrize("rows", [1, 2, 3, 6])
def test_a_strip_has_as_many_rows_as_fit(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    calls: list[int] = []
    inner = convolution.convolve

    def convolve(x: Array, W: Array, geometry: Geometry) -> Array:
        z = inner(x, W, geometry)
        calls.append(z.shape[2])
        return z

    monkeypatch.setattr(convolution, "convolve", convolve)
    x, W, _ = operands(SAME, 7, 6)
    cupy_strips.convolve(x, W, SAME, (rows + 1) * N * C * 9 * 6 - 1)
    assert calls == [rows] * (7 // rows) + ([7 % rows] if 7 % rows else [])


@pytest.mark.parametrize("most", [7 * N * C * 9 * 6, 2**28])
def test_what_fits_is_computed_as_a_whole(most: int) -> None:
    given = operands(SAME, 7, 6)
    found, right = in_strips(*given, SAME, most), whole(*given, SAME)
    for name in right:
        assert found[name].tobytes() == right[name].tobytes()


def test_a_pointwise_kernel_has_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = resolve_geometry(7, 6, (1, 1))
    given = operands(geometry, 7, 6)
    monkeypatch.setattr(cupy_strips, "MOST_INDEX", 0)
    assert_close(in_strips(*given, geometry, 1), whole(*given, geometry))


def test_the_order_of_memory_is_chainers() -> None:
    x, W, _ = operands(SAME, 7, 6)
    for most in (1, 2**28):
        assert cupy_strips.convolve(x, W, SAME, most).transpose(0, 2, 3, 1).flags.c_contiguous


def test_the_same_strips_give_the_same_bits() -> None:
    given = operands(SAME, 7, 6)
    first, again = in_strips(*given, SAME, 500), in_strips(*given, SAME, 500)
    for name in first:
        assert first[name].tobytes() == again[name].tobytes()


def test_what_no_strip_can_index_is_said_with_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_strips, "MOST_INDEX", N * C * 9 * 6 - 1)
    x, W, dz = operands(SAME, 7, 6)
    expected = (
        r"^a kernel \(D, C, K, K\) = \(4, 3, 3, 3\) on maps \(N, C, H, W\) = \(2, 3, 7, 6\) needs an array of 324 "
        r"elements even for few rows; Chainer's kernels index at most 323: use a smaller kernel, fewer channels or "
        r"narrower maps$"
    )
    with pytest.raises(ValueError, match=expected):
        cupy_strips.convolve(x, W, SAME, 1)
    with pytest.raises(ValueError, match=expected):
        cupy_strips.gradient_input(dz, W, SAME, 7, 6, 1)
    with pytest.raises(ValueError, match=expected):
        cupy_strips.gradient_weights(x, dz, SAME, 1)


# Each fault is planted in the rows of a strip; what does not meet the rows around it comes out otherwise.
FAULTS = {
    "a row short above": lambda strip: strip._replace(inputs=slice(strip.inputs.start + 1, strip.inputs.stop)),
    "padding at the other end": lambda strip: strip._replace(
        geometry=replace(strip.geometry, padding=(strip.geometry.padding[0][::-1], strip.geometry.padding[1]))
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_seen(monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    right, given, inner = whole(*operands(SAME, 7, 6), SAME), operands(SAME, 7, 6), cupy_strips._cut
    monkeypatch.setattr(cupy_strips, "_cut", lambda *arguments: map(fault, inner(*arguments)))
    with pytest.raises((AssertionError, ValueError)):
        assert_close(in_strips(*given, SAME, 2 * N * C * 9 * 6), right)


def test_the_backend_cuts_a_sample_of_too_many_columns(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import convlstm.backends.cupy_backend as cupy_backend

    most = 2 * C * 9 * 6
    monkeypatch.setattr(cupy_backend, "MOST_COLUMN_ELEMENTS", most)
    seen: list[int] = []
    inner = cupy_strips._strips

    def strips(x: Any, W: Any, geometry: Geometry, most: int) -> Any:
        seen.append(most)
        return inner(x, W, geometry, most)

    monkeypatch.setattr(cupy_strips, "_strips", strips)
    backend = get_backend("cupy")
    x, W, dz = operands(SAME, 7, 6)
    there = [backend.asarray(array) for array in (x, W, dz)]
    found = {
        "z": backend.convolve(there[0], there[1], SAME),
        "dx": backend.gradient_input(there[2], there[1], SAME, 7, 6),
        "dW": backend.gradient_weights(there[0], there[2], SAME),
    }
    assert_close({name: backend.to_numpy(array) for name, array in found.items()}, whole(x, W, dz, SAME))
    assert seen == [most] * 3
