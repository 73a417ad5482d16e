"""Layers above one another through some time steps: forward, and backward through time and depth.

    h¹_t = layer₁(x_t),  h²_t = layer₂(h¹_t), …          each layer with its own state

Backward, from the top layer down: a hidden map goes to whatever reads it from outside and to the layer above, so its
gradient is the sum of both.
"""

from __future__ import annotations

from collections.abc import Sequence

from convlstm.backends.contract import Array
from convlstm.cell import Cell
from convlstm.dropout import Drop
from convlstm.layer_gradients import LayerGradients
from convlstm.recurrence import Carried, Start, StateGradient, Unrolled, add_given, unroll_backward, unroll_forward

Maps = Sequence[Array]


def stack_forward(
    cells: Sequence[Cell], xs: Maps, states: Sequence[Carried | None], drops: Sequence[Drop]
) -> tuple[list[Maps], list[Carried | None], list[Unrolled]]:
    """Return (hs of each layer, their last states, what the backward needs).

    Args:
        cells: of each layer, first to last.
        xs: T ≥ 1 maps (N, Cin, H, W) for the first.
        states: of each layer before these steps; None for zeros.
        drops: dropout masks of each layer.
    """
    every: list[Maps] = []
    after: list[Carried | None] = []
    kept: list[Unrolled] = []
    for cell, state, drop in zip(cells, states, drops, strict=True):
        xs, last, unrolled = unroll_forward(Start(cell, xs, state, drop))
        every.append(xs)
        after.append(last)
        kept.append(unrolled)
    return every, after, kept


def stack_backward(
    kept: Sequence[Unrolled], dhs: Sequence[Sequence[Array | None] | None], dstates: Sequence[StateGradient],
    gradients: Sequence[LayerGradients], *, to_x: bool, to_state: bool,
) -> tuple[Sequence[Array | None], list[StateGradient]]:  # fmt: skip
    """Return (dxs, each layer's gradient to its state before these steps) and add to `gradients`.

    Args:
        kept: from `stack_forward`; unchanged.
        dhs: of each layer, T gradients to its hidden maps from outside the stack; None where there is none.
        dstates: of each layer, the gradient to its last state.
        gradients: of each layer, to its parameters so far.
        to_x: whether dxs is wanted; else its maps are None.
        to_state: whether the gradients to the hidden states before are wanted.
    """
    before: list[StateGradient] = [(None, None)] * len(kept)
    dxs: Sequence[Array | None] = [None] * len(kept[-1].steps)  # from the layer above: none is above the last
    for index in reversed(range(len(kept))):
        cell, outside = kept[index].start.cell, dhs[index]
        both = dxs if outside is None else [add_given(cell, a, b) for a, b in zip(outside, dxs, strict=True)]
        dxs, before[index] = unroll_backward(
            kept[index], both, dstates[index], gradients[index], to_x=to_x or index > 0, to_state=to_state
        )
    return dxs, before
