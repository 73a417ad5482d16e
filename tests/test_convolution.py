"""The convolutions against a plain loop over their definition, against each other, and against Chainer's graph."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convlstm.backends import Array, convolution
from convlstm.backends.convolution import (
    chainer,
    convolve,
    convolve_many,
    gradient_input,
    gradient_input_by_convolution,
    gradient_input_by_transposed_convolution,
    gradient_weights,
    gradient_weights_by_convolution,
    gradient_weights_of_many,
    without_graph,
)
from convlstm.backends.geometry import Geometry, Padding, resolve_geometry
from tests.numerical import read_only

TOLERANCE = 1e-12


class Case(NamedTuple):
    N: int = 2
    C: int = 3
    D: int = 4
    H: int = 6
    W: int = 7
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = "same"

    def geometry(self) -> Geometry:
        return resolve_geometry(
            self.H, self.W, self.kernel, stride=self.stride, dilation=self.dilation, padding=self.padding
        )


CASES = {
    "3x3": Case(),
    "1x1": Case(kernel=(1, 1)),
    "5x5": Case(kernel=(5, 5)),
    "even 2x2": Case(kernel=(2, 2)),
    "even 4x4": Case(kernel=(4, 4)),
    "2x5": Case(kernel=(2, 5)),
    "kernel as large as the map": Case(kernel=(6, 7)),
    "one row": Case(H=1, kernel=(1, 3)),
    "one channel": Case(C=1, D=1),
    "one sample": Case(N=1),
    "one of everything": Case(1, 1, 1, 1, 1, (1, 1)),
    "valid": Case(padding="valid"),
    "valid even": Case(kernel=(2, 4), padding="valid"),
    "stride 2 same": Case(stride=(2, 2)),
    "stride 2 same, odd zero": Case(H=8, W=8, stride=(2, 2)),
    "stride 2 valid": Case(stride=(2, 2), padding="valid"),
    "stride 3, rows that no output reads": Case(H=8, W=9, kernel=(2, 2), stride=(3, 3), padding="valid"),
    "stride larger than the kernel": Case(H=9, W=9, kernel=(1, 1), stride=(2, 3), padding="valid"),
    "stride 2 1": Case(stride=(2, 1)),
    "dilation 2": Case(dilation=(2, 2)),
    "dilation 2 valid": Case(dilation=(2, 2), padding="valid"),
    "stride 2 dilation 2": Case(H=9, W=8, stride=(2, 2), dilation=(2, 2)),
    "padding 1": Case(kernel=(2, 2), padding=1),
    "padding wider than the kernel": Case(kernel=(2, 2), padding=3),
    "uneven padding": Case(padding=((0, 2), (1, 0))),
    "uneven wide padding": Case(kernel=(2, 2), padding=((3, 0), (0, 4)), stride=(2, 2)),
}


def by_definition(x: Array, W: Array, dz: Array, geometry: Geometry) -> tuple[Array, Array, Array]:
    """Return z, dx, dW by loops over the sums in convolution.py's docstring."""
    (s_y, s_x), (d_y, d_x), ((top, _), (left, _)) = geometry.stride, geometry.dilation, geometry.padding
    z, dx, dW = np.zeros_like(dz), np.zeros_like(x), np.zeros_like(W)
    D, _, K_y, K_x = W.shape
    for n, d, y, u, j, i in np.ndindex(len(x), D, *dz.shape[2:], K_y, K_x):
        row, column = s_y * y + d_y * j - top, s_x * u + d_x * i - left
        if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
            z[n, d, y, u] += W[d, :, j, i] @ x[n, :, row, column]
            dx[n, :, row, column] += W[d, :, j, i] * dz[n, d, y, u]
            dW[d, :, j, i] += dz[n, d, y, u] * x[n, :, row, column]
    return z, dx, dW


def random_operands(case: Case, seed: int = 0, *, channels_last: bool = False) -> tuple[Array, Array, Array]:
    """Return read-only x, W, dz, in memory order N, C, H, W or as Chainer leaves it, N, H, W, C."""
    rng = np.random.default_rng(seed)

    def maps(*shape: int) -> Array:
        if not channels_last:
            return rng.standard_normal(shape)
        N, C, H, W = shape
        return rng.standard_normal((N, H, W, C)).transpose(0, 3, 1, 2)

    x = maps(case.N, case.C, case.H, case.W)
    dz = maps(case.N, case.D, *case.geometry().output_shape(case.H, case.W))
    W = rng.standard_normal((case.D, case.C, *case.kernel))
    for array in (x, W, dz):
        array.flags.writeable = False
    return x, W, dz


@pytest.mark.parametrize("channels_last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_the_definition(case: Case, channels_last: bool) -> None:
    x, W, dz = random_operands(case, channels_last=channels_last)
    z, dx, dW = by_definition(x, W, dz, case.geometry())
    assert_all_agree(case, x, W, dz, z, dx, dW)


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.one_of(
        st.sampled_from(["same", "valid"]),
        st.tuples(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.tuples(st.integers(0, 3), st.integers(0, 3))),
    ),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
)
def test_any_geometry(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int],
    padding: Padding, channels: tuple[int, int, int],
) -> None:  # fmt: skip
    case = Case(*channels, *size, kernel, stride, dilation, padding)
    try:
        geometry = case.geometry()
    except ValueError:  # the kernel does not fit: test_geometry.py
        assume(False)
    x, W, dz = random_operands(case)
    assert_all_agree(case, x, W, dz, *by_definition(x, W, dz, geometry))


def assert_all_agree(case: Case, x: Array, W: Array, dz: Array, z: Array, dx: Array, dW: Array) -> None:
    geometry = case.geometry()
    close(convolve(x, W, geometry), z)
    close(convolve_many(x, W, geometry), z)
    close(gradient_input(dz, W, geometry, case.H, case.W), dx)
    close(gradient_input_by_convolution(dz, W, geometry, case.H, case.W), dx)
    close(gradient_input_by_transposed_convolution(dz, W, geometry, case.H, case.W), dx)
    close(gradient_weights(x, dz, geometry), dW)
    close(gradient_weights_of_many(x, dz, geometry), dW)
    close(gradient_weights_by_convolution(x, dz, geometry), dW)


def close(found: Array, right: Array) -> None:
    assert found.shape == right.shape
    assert found.dtype == right.dtype
    np.testing.assert_allclose(found, right, rtol=TOLERANCE, atol=TOLERANCE)


SYMMETRIC = {name: case for name, case in CASES.items() if all(a == b for a, b in case.geometry().padding)}


@pytest.mark.parametrize("case", SYMMETRIC.values(), ids=SYMMETRIC.keys())
def test_against_chainers_own_gradient(case: Case) -> None:
    """Chainer pads both ends alike, so its graph can be asked only where we do."""
    x, W, dz = random_operands(case)
    geometry = case.geometry()
    pad = tuple(side[0] for side in geometry.padding)
    x_held, W_held = chainer.Variable(x), chainer.Variable(W)
    z = chainer.functions.convolution_2d(x_held, W_held, stride=geometry.stride, pad=pad, dilate=geometry.dilation)
    z.grad = dz
    z.backward()
    close(convolve(x, W, geometry), z.array)
    close(gradient_input(dz, W, geometry, case.H, case.W), x_held.grad)
    close(gradient_weights(x, dz, geometry), W_held.grad)


def test_a_kernel_that_is_not_rotated_is_another_gradient() -> None:
    """The fault of the program this project grew from: the check above must be able to see it."""
    case = Case()
    _, W, dz = random_operands(case)
    geometry = case.geometry()
    unrotated = convolve(dz, W.transpose(1, 0, 2, 3), geometry)  # (N, C, H, W): the right shape, and wrong
    right = gradient_input(dz, W, geometry, case.H, case.W)
    assert unrotated.shape == right.shape
    assert np.abs(unrotated - right).max() > 0.1


def test_without_graph_changes_no_bit_and_is_left_as_found() -> None:
    case = Case(stride=(2, 2))
    x, W, dz = random_operands(case)
    geometry = case.geometry()
    before = chainer.config.enable_backprop, chainer.config.type_check
    with without_graph():
        assert not chainer.config.enable_backprop
        inside = convolve(x, W, geometry), gradient_input(dz, W, geometry, case.H, case.W)
    assert (chainer.config.enable_backprop, chainer.config.type_check) == before
    np.testing.assert_array_equal(inside[0], convolve(x, W, geometry))
    np.testing.assert_array_equal(inside[1], gradient_input(dz, W, geometry, case.H, case.W))


def test_float32_stays_float32() -> None:
    case = Case()
    x, W, dz = (operand.astype("float32") for operand in random_operands(case))
    geometry = case.geometry()
    found = convolve(x, W, geometry), gradient_input(dz, W, geometry, case.H, case.W), gradient_weights(x, dz, geometry)
    assert {array.dtype for array in found} == {np.dtype("float32")}


def test_operands_are_only_read() -> None:
    case = Case(padding=((0, 2), (1, 0)))
    x, W, dz = random_operands(case)  # read-only: a write would raise
    copies = read_only({"x": x, "W": W, "dz": dz})
    convolve(x, W, case.geometry())
    gradient_input(dz, W, case.geometry(), case.H, case.W)
    gradient_weights(x, dz, case.geometry())
    for operand, copy in zip((x, W, dz), copies.values(), strict=True):
        np.testing.assert_array_equal(operand, copy)


@pytest.mark.parametrize(
    "case", [CASES["3x3"], CASES["1x1"], CASES["uneven wide padding"]], ids=["3x3", "1x1", "stride"]
)
def test_bits_do_not_depend_on_how_operands_lie_in_memory(case: Case) -> None:
    """So a map that was read from a file and one that the gates left give the same gradient."""
    geometry = case.geometry()
    x, W, dz = (operand.astype("float32") for operand in random_operands(case))
    x_last, dz_last = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, dz))
    for operation in (gradient_weights_of_many, gradient_weights):
        np.testing.assert_array_equal(operation(x_last, dz_last, geometry), operation(x, dz, geometry))
    for convolving in (convolve, convolve_many):
        np.testing.assert_array_equal(convolving(x_last, W, geometry), convolving(x, W, geometry))
    right = gradient_input(dz, W, geometry, case.H, case.W)
    np.testing.assert_array_equal(gradient_input(dz_last, W, geometry, case.H, case.W), right)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_many_maps_at_once_are_the_sum_of_each(case: Case) -> None:
    """In one call of `gradient_weights_of_many`, as it is used over time steps."""
    x, _, dz = random_operands(case._replace(N=5))
    each = [gradient_weights_of_many(x[n : n + 1], dz[n : n + 1], case.geometry()) for n in range(5)]
    close(gradient_weights_of_many(x, dz, case.geometry()), np.sum(each, axis=0))


def test_a_planted_fault_of_many_maps_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples and channels exchanged, which one channel of one sample would not show."""
    right = convolution._columns

    def exchanged(x: Array, geometry: Geometry) -> Array:
        columns = right(x, geometry)
        return columns.transpose(3, 1, 2, 0, 4, 5)

    monkeypatch.setattr(convolution, "_columns", exchanged)
    case = Case(N=3, C=3)
    x, W, dz = random_operands(case)
    found = gradient_weights_of_many(x, dz, case.geometry())
    assert np.abs(found - gradient_weights(x, dz, case.geometry())).max() > 0.1
    assert np.abs(convolve_many(x, W, case.geometry()) - convolve(x, W, case.geometry())).max() > 0.1
