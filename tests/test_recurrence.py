"""What the time loop leaves out because it is zero or not asked for: the rest must not notice.

The proof of the backpropagation through time itself is in test_layer.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM
from convlstm.backends import Array
from convlstm.recurrence import Start, unroll_backward, unroll_forward


@pytest.fixture
def unrolled() -> tuple[ConvLSTM, Any, list[Array]]:
    layer = ConvLSTM(2, 3, peephole="channel", dtype="float64", backend="numpy")
    rng = np.random.default_rng(0)
    layer.parameters = {name: rng.standard_normal(array.shape) for name, array in layer.parameters.items()}
    xs = [rng.standard_normal((1, 2, 4, 5)) for _ in range(4)]
    hs, _, kept = unroll_forward(Start(layer.cell(4, 5), xs))
    return layer, kept, [rng.standard_normal(h.shape) for h in hs]


def backward(
    layer: ConvLSTM, kept: Any, dhs: Any, dstate: Any = (None, None), to_x: bool = True, to_state: bool = True
) -> tuple[Any, Any, dict[str, Array]]:
    gradients = layer.zero_gradients()
    dxs, before = unroll_backward(kept, dhs, dstate, gradients, to_x=to_x, to_state=to_state)
    return dxs, before, gradients


def test_steps_that_the_loss_does_not_read_count_as_zeros(unrolled: tuple[ConvLSTM, Any, list[Array]]) -> None:
    layer, kept, dhs = unrolled
    zero = np.zeros_like(dhs[0])
    with_zeros = backward(layer, kept, [zero, dhs[1], zero, zero], (zero, zero))
    with_none = backward(layer, kept, [None, dhs[1], None, None])
    np.testing.assert_array_equal(with_zeros[0], with_none[0])
    np.testing.assert_array_equal(with_zeros[1], with_none[1])
    for name, gradient in with_zeros[2].items():
        np.testing.assert_array_equal(gradient, with_none[2][name])


def test_what_is_not_wanted_is_not_returned_and_changes_nothing_else(
    unrolled: tuple[ConvLSTM, Any, list[Array]],
) -> None:
    layer, kept, dhs = unrolled
    dxs, (dh_first, dc_first), gradients = backward(layer, kept, dhs)
    no_dxs, (no_dh, same_dc), same_gradients = backward(layer, kept, dhs, to_x=False, to_state=False)
    assert len(dxs) == 4
    assert dh_first is not None
    assert no_dxs == [None] * 4
    assert no_dh is None
    np.testing.assert_array_equal(dc_first, same_dc)
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, same_gradients[name])


def test_gradients_are_added_to_what_is_there(unrolled: tuple[ConvLSTM, Any, list[Array]]) -> None:
    layer, kept, dhs = unrolled
    _, _, once = backward(layer, kept, dhs)
    twice = layer.zero_gradients()
    for _ in range(2):
        unroll_backward(kept, dhs, (None, None), twice, to_x=False, to_state=False)
    for name, gradient in once.items():
        np.testing.assert_allclose(twice[name], 2 * gradient, rtol=1e-13)


def test_as_many_gradients_as_steps(unrolled: tuple[ConvLSTM, Any, list[Array]]) -> None:
    layer, kept, dhs = unrolled
    with pytest.raises(ValueError, match="zip"):
        backward(layer, kept, dhs[:-1])
