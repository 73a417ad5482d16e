"""One step: what it keeps, and that its backward adds to the gradients it is given. The proof is in test_layer.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, Draws
from convlstm.backends import Array
from convlstm.cell import Cell, step_backward, step_forward, sum_to
from convlstm.layer_gradients import LayerGradients
from tests.numerical import freeze


def random(*shape: int, seed: int = 0) -> Array:
    array = np.random.default_rng(seed).standard_normal(shape)
    freeze(array)
    return array


def make_layer(in_channels: int | None = 2, **options: Any) -> ConvLSTM:
    layer = ConvLSTM(in_channels, 3, **{"dtype": "float64", "backend": "numpy", **options})
    layer.parameters = {
        name: random(*array.shape, seed=seed) / 2 for seed, (name, array) in enumerate(layer.parameters.items())
    }
    return layer


def test_a_step_without_a_hidden_state_before_it_is_a_step_from_zeros() -> None:
    """The recurrent convolution that is left out at t = 0 would have added zeros, and W_h gets no gradient."""
    cell = ConvLSTM(2, 3, dtype="float64", backend="numpy").cell(4, 5)
    rng = np.random.default_rng(0)
    x, c, dh, dc = rng.standard_normal((1, 2, 4, 5)), *rng.standard_normal((3, 1, 3, 4, 5))
    results = []
    for before in (None, np.zeros_like(c)):
        h, c_new, step = step_forward(cell, x, before, c)
        shapes = {"W_x": (12, 2, 3, 3), "W_h": (12, 3, 3, 3), "b": (12,)}
        sums = LayerGradients(cell.backend, {name: np.zeros(shape) for name, shape in shapes.items()})
        dx, dh_before, dc_before = step_backward(cell, step, dh, dc, sums, to_x=True, to_h=True)
        gradients = sums.total()
        results.append([h, c_new, dx, dh_before, dc_before, *gradients.values()])
        assert not gradients["W_h"].any()
        assert gradients["W_x"].any()
    for left_out, computed in zip(*results, strict=True):
        np.testing.assert_array_equal(left_out, computed)


def convolved(x: Array, W: Array) -> Array:
    """A 1×1 convolution in plain NumPy."""
    z: Array = np.einsum("dc,nchw->ndhw", W[:, :, 0, 0], x)
    return z


def test_one_step_is_the_equations() -> None:
    """All at once: dropout, layer normalisation, biases and peepholes per pixel."""
    layer = make_layer(
        kernel_size=1, bias="pixel", peephole="pixel", layer_norm="pixel", spatial_shape=(4, 5), dropout=0.5,
        recurrent_dropout=0.5,
    )  # fmt: skip
    cell, drop = layer.cell(4, 5), layer.draw(Draws(1), slice(0, 2), (2, 4, 5), (3, 4, 5))
    x, before, c_before = random(2, 2, 4, 5), random(2, 3, 4, 5, seed=1), random(2, 3, 4, 5, seed=2)
    assert cell.W_x is not None
    assert cell.gain is not None
    assert cell.b is not None
    assert cell.peepholes is not None
    assert drop.x is not None
    assert drop.h is not None
    h, c, step = step_forward(cell, x, before, c_before, drop)
    z = convolved(x * drop.x, cell.W_x) + convolved(before * drop.h, cell.W_h)
    centred = z - z.mean(axis=(1, 2, 3), keepdims=True)
    z = cell.gain * centred / np.sqrt((centred**2).mean(axis=(1, 2, 3), keepdims=True) + 1e-5) + cell.b
    z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
    p_i, p_f, p_o = cell.peepholes
    right_c = c_before / (1 + np.exp(-z_f - p_f * c_before)) + np.tanh(z_g) / (1 + np.exp(-z_i - p_i * c_before))
    np.testing.assert_allclose(c, right_c, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(h, np.tanh(right_c) / (1 + np.exp(-z_o - p_o * right_c)), rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(step.x, x * drop.x)


def backward(cell: Cell, step: Any, layer: ConvLSTM, **wanted: bool) -> tuple[Any, dict[str, Array]]:
    gradients = layer.zero_gradients()
    dh, dc = random(1, 3, 4, 5, seed=8), random(1, 3, 4, 5, seed=9)
    found = step_backward(cell, step, dh, dc, gradients, **{"to_x": True, "to_h": True, **wanted})
    return found, gradients.total()


def test_what_is_not_wanted_is_none_and_changes_nothing_else() -> None:
    layer = make_layer(peephole="channel", layer_norm="channel")
    cell = layer.cell(4, 5)
    _, _, step = step_forward(cell, random(1, 2, 4, 5), random(1, 3, 4, 5), random(1, 3, 4, 5, seed=1))
    (dx, dh, dc), gradients = backward(cell, step, layer)
    for wanted in ({"to_x": False}, {"to_h": False}):
        (fewer_dx, fewer_dh, same_dc), same_gradients = backward(cell, step, layer, **wanted)
        assert (fewer_dx is None) == ("to_x" in wanted)
        assert (fewer_dh is None) == ("to_h" in wanted)
        np.testing.assert_array_equal(same_dc, dc)
        for name, gradient in gradients.items():
            np.testing.assert_array_equal(same_gradients[name], gradient)
    assert dx is not None
    assert dh is not None


@pytest.mark.parametrize("layer_norm", [None, "channel"])
def test_a_step_without_input_and_state_is_its_bias(layer_norm: Any) -> None:
    layer = make_layer(None, layer_norm=layer_norm)
    cell = layer.cell(4, 5)
    nothing = np.zeros((1, 0, 4, 5))
    h, c, step = step_forward(cell, nothing, None, np.zeros((1, 3, 4, 5)))
    b_i, _, b_g, b_o = np.split(layer.parameters["b"], 4)
    right_c = np.tanh(b_g) / (1 + np.exp(-b_i))
    right_h = np.tanh(right_c) / (1 + np.exp(-b_o))
    np.testing.assert_allclose(c, np.broadcast_to(right_c[:, None, None], c.shape), rtol=1e-12)
    np.testing.assert_allclose(h, np.broadcast_to(right_h[:, None, None], h.shape), rtol=1e-12)
    (dx, dh, _), gradients = backward(cell, step, layer)
    assert dx is None
    assert dh is not None
    assert not gradients["W_h"].any()
    assert gradients["b"].any()


def test_a_sum_goes_over_what_a_parameter_was_broadcast_over() -> None:
    maps = random(2, 3, 4, 5)
    np.testing.assert_allclose(sum_to(np.zeros(3), maps), maps.sum(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(sum_to(np.zeros((3, 4, 5)), maps), maps.sum(axis=0), rtol=1e-12)


def test_a_sum_of_many_pixels_keeps_its_digits() -> None:
    """In one run over 2²⁰ pixels of 0.1, channels last, float32 is off in its third digit."""
    maps = np.full((1, 1024, 1024, 4), 0.1, "float32").transpose(0, 3, 1, 2)
    right = pytest.approx(float(np.float32(0.1)) * 2**20, rel=1e-4)
    assert float(sum_to(np.zeros(4, "float32"), maps)[0]) == right
    assert float(maps.sum(axis=(0, 2, 3))[0]) != right
