"""One step: what it keeps, and that its backward adds to the gradients it is given. The proof is in test_layer.py."""

from __future__ import annotations

import numpy as np

from convlstm import ConvLSTM
from convlstm.cell import step_backward, step_forward


def test_a_step_without_a_hidden_state_before_it_is_a_step_from_zeros() -> None:
    """The recurrent convolution that is left out at t = 0 would have added zeros, and W_h gets no gradient."""
    cell = ConvLSTM(2, 3, dtype="float64", backend="numpy").cell(4, 5)
    rng = np.random.default_rng(0)
    x, c, dh, dc = rng.standard_normal((1, 2, 4, 5)), *rng.standard_normal((3, 1, 3, 4, 5))
    results = []
    for before in (None, np.zeros_like(c)):
        h, c_new, step = step_forward(cell, x, before, c)
        gradients = {name: np.zeros_like(array) for name, array in (("W_x", cell.W_x), ("W_h", cell.W_h))}
        gradients["b"] = np.zeros(12)
        dx, dh_before, dc_before = step_backward(cell, step, dh, dc, gradients, to_x=True, to_h=True)
        results.append([h, c_new, dx, dh_before, dc_before, *gradients.values()])
        assert not gradients["W_h"].any()
        assert gradients["W_x"].any()
    for left_out, computed in zip(*results, strict=True):
        np.testing.assert_array_equal(left_out, computed)
