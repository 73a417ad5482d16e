"""`ConvLSTM` is Keras's ConvLSTM2D: held against Keras's formulas in plain loops, and against numbers of Keras itself.

The loops stand here, channels last as Keras documents them. The numbers are in golden/keras_convlstm2d.npz;
golden/record_keras.py made them with Keras 3 on PyTorch, whose automatic differentiation made the gradients.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm import ConvLSTM, load_parameters
from convlstm.backends.geometry import Pair
from convlstm.foreign_weights import from_keras, to_keras
from tests.numerical import read_only

Array = NDArray[Any]

GOLDEN = Path(__file__).parent / "golden"
FACTS = json.loads((GOLDEN / "keras_convlstm2d.json").read_text("utf-8"))
RECORDED = load_parameters(GOLDEN / "keras_convlstm2d.npz")
WEIGHTS = ("kernel", "recurrent_kernel", "bias")


# Keras's formulas -----------------------------------------------------------------------------------------------------


def keras_convolution(x: Array, kernel: Array, strides: Pair, padding: str, dilation: Pair) -> Array:
    """x (N, H, W, Cin) with kernel (K, K, Cin, D): (N, H', W', D), one output pixel after the other.

    "same" makes H' = ⌈H / stride⌉, with the zeros shared evenly between both ends and the odd one behind.
    """
    sides = [(0, 0), (0, 0)]
    if padding == "same":
        for axis in (0, 1):
            size, extent = x.shape[axis + 1], (kernel.shape[axis] - 1) * dilation[axis] + 1
            zeros = max(0, (int(np.ceil(size / strides[axis])) - 1) * strides[axis] + extent - size)
            sides[axis] = (zeros // 2, zeros - zeros // 2)
    x = np.pad(x, [(0, 0), *sides, (0, 0)])
    rows, columns = (
        range(0, x.shape[axis + 1] - (kernel.shape[axis] - 1) * dilation[axis], strides[axis]) for axis in (0, 1)
    )
    z = np.zeros((len(x), len(rows), len(columns), kernel.shape[3]))
    for y, top in enumerate(rows):
        for column, left in enumerate(columns):
            for j in range(kernel.shape[0]):
                for i in range(kernel.shape[1]):
                    pixel = x[:, top + j * dilation[0], left + i * dilation[1]]  # (N, Cin)
                    z[:, y, column] += np.einsum("nc,cd->nd", pixel, kernel[j, i])
    return z


def keras_convlstm2d(
    x: Array, weights: list[Array], strides: Pair, padding: str, dilation: Pair
) -> tuple[list[Array], Array]:
    """x (N, T, H, W, Cin): every h and the last c, (N, H', W', C) each. Activation tanh, recurrent activation sigmoid.

    z = conv(x, kernel) + bias + conv(h, recurrent kernel), the second with strides 1, padding "same", dilation 1;
    i, f, c', o = z in four;  c = σ(f) c + σ(i) tanh(c');  h = σ(o) tanh(c).
    """
    hs: list[Array] = []
    c: Any = 0.0
    for t in range(x.shape[1]):
        z = keras_convolution(x[:, t], weights[0], strides, padding, dilation)
        if len(weights) == 3:
            z = z + weights[2]
        if hs:
            z = z + keras_convolution(hs[-1], weights[1], (1, 1), "same", (1, 1))
        i, f, candidate, o = np.split(z, 4, axis=3)
        c = c / (1 + np.exp(-f)) + np.tanh(candidate) / (1 + np.exp(-i))
        hs.append(np.tanh(c) / (1 + np.exp(-o)))
    return hs, c


def channels_first(maps: Array) -> Array:
    """(…, H, W, C) → (…, C, H, W)."""
    return np.ascontiguousarray(np.moveaxis(maps, -1, -3))


def ours(weights: list[Array], **options: Any) -> ConvLSTM:
    """Return our layer with Keras's weights, which nothing may change."""
    kernel_size, Cin, C = weights[0].shape[:2], weights[0].shape[2], weights[1].shape[2]
    layer = ConvLSTM(Cin, C, kernel_size, bias="channel" if len(weights) == 3 else None, backend="numpy", **options)
    layer.parameters = dict(read_only(from_keras(weights)))
    return layer


@pytest.mark.parametrize("size", [(10, 13), (11, 14)], ids=str)
@pytest.mark.parametrize("kernel_size", [(1, 1), (2, 2), (3, 3), (3, 2), (2, 5), (4, 1)], ids=str)
@pytest.mark.parametrize(
    ("strides", "dilation"), [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (2, 2)), ((1, 1), (1, 2))]
)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_our_layer_computes_keras_formulas(
    padding: Any, strides: Pair, dilation: Pair, kernel_size: Pair, size: Pair
) -> None:
    rng = np.random.default_rng(0)
    N, T, Cin, C = 2, 3, 2, 3
    x = rng.standard_normal((N, T, *size, Cin))
    shapes = [(*kernel_size, Cin, 4 * C), (*kernel_size, C, 4 * C), (4 * C,)]
    weights = [0.5 * rng.standard_normal(shape) for shape in shapes]
    hs, c = keras_convlstm2d(x, weights, strides, padding, dilation)
    layer = ours(weights, stride=strides, padding=padding, dilation=dilation, dtype="float64")
    h, (h_T, c_T), _ = layer.forward(channels_first(x))
    np.testing.assert_allclose(h, channels_first(np.stack(hs, axis=1)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(h_T, channels_first(hs[-1]), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(c_T, channels_first(c), rtol=1e-12, atol=1e-12)


# Keras's own numbers --------------------------------------------------------------------------------------------------


def recorded(name: str) -> tuple[dict[str, Array], list[Array], dict[str, Any], float]:
    """Return a recording's arrays, its weights, what our layer is asked for, and how far apart numbers may be."""
    arrays = {key.removeprefix(name + "."): a for key, a in RECORDED.items() if key.startswith(name + ".")}
    configuration = FACTS["configurations"][name]
    options = {
        "padding": configuration.get("padding", "valid"),
        "stride": configuration.get("strides", 1),
        "dilation": configuration.get("dilation_rate", 1),
        "dtype": configuration.get("dtype", "float64"),
    }
    tolerance = 1e-12 if options["dtype"] == "float64" else 2e-5
    return arrays, [arrays[key] for key in WEIGHTS if key in arrays], options, tolerance


@pytest.mark.parametrize("name", FACTS["configurations"])
def test_our_layer_computes_what_keras_computed(name: str) -> None:
    arrays, weights, options, tolerance = recorded(name)
    h, (_, c_T), _ = ours(weights, **options).forward(channels_first(arrays["x"]))
    assert h.dtype == arrays["h"].dtype
    np.testing.assert_allclose(h, channels_first(arrays["h"]), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(c_T, channels_first(arrays["c_last"]), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name, how in FACTS["configurations"].items() if how.get("gradients")])
def test_our_backward_gives_the_gradients_that_keras_got(name: str) -> None:
    arrays, weights, options, tolerance = recorded(name)
    layer = ours(weights, **options)
    _, _, cache = layer.forward(channels_first(arrays["x"]))
    dx, _, gradients = layer.backward(cache, channels_first(arrays["u"]))
    np.testing.assert_allclose(dx, channels_first(arrays["d_x"]), rtol=tolerance, atol=tolerance)
    names = WEIGHTS[: len(weights)]
    for key, gradient in zip(names, to_keras(gradients), strict=True):  # to Keras's layout, as weights go
        np.testing.assert_allclose(gradient, arrays[f"d_{key}"], rtol=tolerance, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("name", FACTS["configurations"])
def test_the_loops_compute_what_keras_computed(name: str) -> None:
    """Else the loops would be our idea of Keras."""
    arrays, weights, options, tolerance = recorded(name)
    strides, dilation = (tuple(np.broadcast_to(options[key], 2).tolist()) for key in ("stride", "dilation"))
    hs, c = keras_convlstm2d(arrays["x"], weights, strides, options["padding"], dilation)
    np.testing.assert_allclose(np.stack(hs, axis=1), arrays["h"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(c, arrays["c_last"], rtol=tolerance, atol=tolerance)


def test_our_first_bias_is_the_unit_forget_bias_of_keras() -> None:
    np.testing.assert_array_equal(ConvLSTM(3, 2, backend="numpy").parameters["b"], RECORDED["same.initial_bias"])
    assert not RECORDED["same-no-unit-forget-bias.initial_bias"].any()


# The checks see what they are for -------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [((1, 0), (0, 1)), ((0, 1), (1, 0)), ((1, 1), (0, 1))], ids=str)
def test_another_padding_is_seen(padding: Any) -> None:
    """Of 6 rows with stride 2 and 3 taps, and 5 columns with stride 1 and 2 taps, Keras puts the one zero behind."""
    arrays, weights, options, tolerance = recorded("same-strides-even-map")
    expected = channels_first(arrays["h"])
    h, _, _ = ours(weights, **{**options, "padding": ((0, 1), (0, 1))}).forward(channels_first(arrays["x"]))
    np.testing.assert_allclose(h, expected, rtol=tolerance, atol=tolerance)
    h, _, _ = ours(weights, **{**options, "padding": padding}).forward(channels_first(arrays["x"]))
    assert h.shape != expected.shape or np.abs(h - expected).max() > 1e-3


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (1, 0, 2, 3), (0, 2, 1, 3)], ids=str)
@pytest.mark.parametrize("name", ["same", "valid-float32"])
def test_another_order_of_gates_is_seen(name: str, order: tuple[int, ...]) -> None:
    arrays, weights, options, _ = recorded(name)
    moved = [np.concatenate([np.split(w, 4, axis=-1)[gate] for gate in order], axis=-1) for w in weights]
    h, _, _ = ours(moved, **options).forward(channels_first(arrays["x"]))
    assert np.abs(h - channels_first(arrays["h"])).max() > 1e-2


def test_a_rotated_kernel_is_seen() -> None:
    arrays, weights, options, _ = recorded("same")
    for index in (0, 1):
        turned = [w[::-1, ::-1] if index == place else w for place, w in enumerate(weights)]
        h, _, _ = ours(turned, **options).forward(channels_first(arrays["x"]))
        assert np.abs(h - channels_first(arrays["h"])).max() > 1e-2
