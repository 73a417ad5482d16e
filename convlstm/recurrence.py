"""The time loop of one layer, and backpropagation through it.

Forward, for t = 1 … T:              (h_t, c_t) = step(x_t, h_{t-1}, c_{t-1}), from a given state (h₀, c₀) or zeros
Backward, for t = T … 1:             δh_t = dL/dh_t (from the loss) + dh₋ of step t+1 (at T: what is given for h_T)
                                     (dx_t, dh₋, dc₋) = step's backward at (δh_t, dc₋ of step t+1)
and each parameter's gradient is the sum over t of what the steps add.

Sequences are lists of maps here, one for each t, so that no step's memory is moved to make one array of them.

Source: Werbos, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78 (1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from convlstm.backends.contract import Array
from convlstm.cell import Cell, Step, step_backward, step_forward

State = tuple[Array, Array]  # (h, c), each (N, C, H, W)


class Unrolled(NamedTuple):
    """What a forward pass keeps for its backward."""

    cell: Cell
    steps: list[Step]


def unroll_forward(cell: Cell, xs: Sequence[Array], state: State | None) -> tuple[list[Array], State, Unrolled]:
    """Return (hs, (h_T, c_T), what the backward needs).

    Args:
        cell: parameters and geometry.
        xs: T ≥ 1 maps (N, Cin, Hx, Wx).
        state: (h₀, c₀), each (N, C, H, W); None for zeros.

    Returns:
        hs: T maps (N, C, H, W).
    """
    h, c = (None, _zero_map(cell, xs[0])) if state is None else state
    hs: list[Array] = []
    steps: list[Step] = []
    for x in xs:
        h, c, step = step_forward(cell, x, h, c)
        hs.append(h)
        steps.append(step)
    return hs, (hs[-1], c), Unrolled(cell, steps)


def unroll_backward(
    unrolled: Unrolled, dhs: Sequence[Array | None], dstate: tuple[Array | None, Array | None],
    gradients: dict[str, Array], *, to_x: bool, to_state: bool,
) -> tuple[list[Array], tuple[Array | None, Array | None]]:  # fmt: skip
    """Return (dxs, (dh₀, dc₀)) and add to `gradients`.

    Args:
        unrolled: from `unroll_forward`; unchanged.
        dhs: T gradients (N, C, H, W) to the hidden maps, None where the loss does not read one.
        dstate: gradients to h_T and c_T, each (N, C, H, W); None for zeros.
        gradients: the parameters' gradients so far, added to in place.
        to_x: whether dxs is wanted; else it is empty.
        to_state: whether dh₀ is wanted; else it is None, which saves a convolution.
    """
    cell, steps = unrolled
    dxs: list[Array] = []
    dh_next, dc = dstate
    if dc is None:
        dc = _zero_map(cell, steps[-1].x)
    for step, dh_loss in zip(reversed(steps), reversed(dhs), strict=True):
        dh = _add_given(cell, dh_loss, dh_next)  # h_t goes to the loss and to step t+1
        if dh is None:
            dh = _zero_map(cell, step.x)
        dx, dh_next, dc = step_backward(cell, step, dh, dc, gradients, to_x=to_x, to_h=to_state or step is not steps[0])
        if dx is not None:
            dxs.append(dx)
    return dxs[::-1], (dh_next, dc)


def _add_given(cell: Cell, a: Array | None, b: Array | None) -> Array | None:
    """Return a + b, where None stands for zeros."""
    if a is None or b is None:
        return b if a is None else a
    return cell.backend.add(a, b)


def _zero_map(cell: Cell, x: Array) -> Array:
    return cell.backend.zeros((x.shape[0], cell.W_h.shape[1], *cell.over_x.output_shape(*x.shape[2:])), x.dtype)
