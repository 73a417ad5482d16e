"""The time loop of one layer, and backpropagation through it.

Forward, for t = 1 … T:              (h_t, c_t) = step(x_t, h_{t-1}, c_{t-1}), from a given state (h₀, c₀) or zeros
Backward, for t = T … 1:             δh_t = dL/dh_t (from the loss) + dh₋ of step t+1 (at T: what is given for h_T)
                                     (dx_t, dh₋, dc₋) = step's backward at (δh_t, dc₋ of step t+1)
and each parameter's gradient is the sum over t of what the steps add.

Where a sample has no frame t, because its sequence is shorter than the batch's, it keeps its state: (h_t, c_t) =
(h_{t-1}, c_{t-1}).  Backward, its gradients pass the step unchanged, and the step adds nothing for it.

Sequences are lists of maps here, one for each t, so that no step's memory is moved to make one array of them.

Source: Werbos, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78 (1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from convlstm.backends.contract import Array
from convlstm.cell import Cell, Step, step_backward, step_forward
from convlstm.dropout import NOTHING, Drop
from convlstm.layer_gradients import LayerGradients

State = tuple[Array, Array]  # (h, c), each (N, C, H, W)
Carried = tuple[Array | None, Array]  # the same, with None for an h that is zero
StateGradient = tuple[Array | None, Array | None]  # to (h, c); None for zeros
Valid = bool | Array  # whether a time step is there: in all samples, in none, or which, (N, 1, 1, 1)


class Start(NamedTuple):
    """What a forward pass through some time steps is given."""

    cell: Cell
    xs: Sequence[Array]  # T ≥ 1 maps (N, Cin, Hx, Wx)
    state: Carried | None = None  # (h₀, c₀), each (N, C, H, W); None for zeros
    drop: Drop = NOTHING
    valid: Sequence[Valid] | None = None  # T of them; None where every step is there


class Unrolled(NamedTuple):
    """What a forward pass keeps for its backward."""

    start: Start
    steps: list[Step | None]  # None where no sample has the step


def unrolled_again(kept: Unrolled | Start) -> Unrolled:
    """Return what the forward pass kept, or compute it again where only its start was kept: the same bits."""
    return kept if isinstance(kept, Unrolled) else unroll_forward(kept)[2]


def unroll_forward(start: Start) -> tuple[list[Array], Carried, Unrolled]:
    """Return (hs, (h_T, c_T), what the backward needs); hs are T maps (N, C, H, W)."""
    cell, xs, state, drop, _ = start
    h, c = (None, _zero_map(cell, xs[0])) if state is None else state
    hs: list[Array] = []
    steps: list[Step | None] = []
    for t, x in enumerate(xs):
        there = _valid(start, t)
        step = None
        if there is True:
            h, c, step = step_forward(cell, x, h, c, drop)
        elif there is not False:
            h_new, c_new, step = step_forward(cell, np.where(there, x, 0), h, c, drop)
            h, c = np.where(there, h_new, 0 if h is None else h), np.where(there, c_new, c)
        hs.append(_zero_map(cell, x) if h is None else h)
        steps.append(step)
    return hs, (h, c), Unrolled(start, steps)


def unroll_backward(
    unrolled: Unrolled, dhs: Sequence[Array | None] | None, dstate: StateGradient, gradients: LayerGradients,
    *, to_x: bool, to_state: bool,
) -> tuple[list[Array | None], StateGradient]:  # fmt: skip
    """Return (dxs, (dh₀, dc₀)) and add to `gradients`.

    Args:
        unrolled: from `unroll_forward`; unchanged.
        dhs: T gradients (N, C, H, W) to the hidden maps, None where the loss does not read one; None if it reads none.
        dstate: gradients to h_T and c_T.
        gradients: the parameters' gradients so far.
        to_x: whether dxs is wanted; else its maps are None.  They are None, too, where no sample has the step.
        to_state: whether dh₀ is wanted; else it is None, which saves a convolution.
    """
    start, steps = unrolled
    cell = start.cell
    dxs: list[Array | None] = []
    dh_next, dc = dstate
    if dc is None:
        dc = _zero_map(cell, start.xs[-1])
    given: Sequence[Array | None] = [None] * len(steps) if dhs is None else dhs
    for t, step, dh_loss in zip(reversed(range(len(steps))), reversed(steps), reversed(given), strict=True):
        dh = add_given(cell, dh_loss, dh_next)  # h_t goes to the loss and to step t+1
        there, to_h = _valid(start, t), to_state or t > 0
        if step is None:  # (h_t, c_t) = (h_{t-1}, c_{t-1})
            dx, dh_next = None, dh if to_h else None
        else:
            if dh is None:
                dh = _zero_map(cell, start.xs[t])
            taken_dh, taken_dc = (dh, dc) if there is True else (np.where(there, dh, 0), np.where(there, dc, 0))
            dx, dh_next, dc_before = step_backward(cell, step, taken_dh, taken_dc, gradients, to_x=to_x, to_h=to_h)
            if there is not True and dh_next is not None:
                dh_next = np.where(there, dh_next, dh)
            dc = dc_before if there is True else np.where(there, dc_before, dc)
        dxs.append(dx)
    return dxs[::-1], (dh_next, dc)


def _valid(start: Start, t: int) -> Valid:
    return True if start.valid is None else start.valid[t]


def add_given(cell: Cell, a: Array | None, b: Array | None) -> Array | None:
    """Return a + b, where None stands for zeros."""
    if a is None or b is None:
        return b if a is None else a
    return cell.backend.add(a, b)


def _zero_map(cell: Cell, x: Array) -> Array:
    return cell.backend.zeros((x.shape[0], cell.W_h.shape[1], *cell.over_x.output_shape(*x.shape[2:])), x.dtype)
