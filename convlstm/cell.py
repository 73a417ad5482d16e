"""One time step of a ConvLSTM, forward and backward: the paper's equations.

    z   = γ∘N(W_x ∗ x̃ + W_h ∗ h̃₋) + b                   four gates' pre-activations, in the order i, f, g, o
    i   = σ(z_i + p_i∘c₋)                                input gate
    f   = σ(z_f + p_f∘c₋)                                forget gate
    g   = tanh(z_g)                                      candidate
    c   = f∘c₋ + i∘g                                     cell
    o   = σ(z_o + p_o∘c)                                 output gate
    h   = o∘tanh(c)                                      hidden state

γ, N (normalisation.py) and x̃, h̃ (dropout.py) are there only where the layer asks for them; without, the first line is
the paper's z = W_x ∗ x + W_h ∗ h₋ + b.  A layer without input, as in a forecaster, has no W_x ∗ x.

The first line is here; the elementwise rest, which each backend has in its own form, is `gates_forward` and
`gates_backward` in backends/gates.py (NumPy) and backends/cuda_gates.py (CUDA).

Source: Shi et al., "Convolutional LSTM network: a machine learning approach for precipitation nowcasting", NIPS 2015,
eq. 3; arXiv:1506.04214.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from convlstm.backends.contract import Array, Backend, Gates, Kernel, Peepholes
from convlstm.backends.geometry import Geometry
from convlstm.dropout import NOTHING, Drop, dropped
from convlstm.layer_gradients import LayerGradients
from convlstm.normalisation import Normalised, normalise_backward, normalise_forward


class Cell(NamedTuple):
    """What one step computes with; None where the layer has no such parameter."""

    backend: Backend
    W_x: Kernel | None  # (4C, Cin, K, K)
    W_h: Kernel  # (4C, C, K, K)
    gain: Array | None  # γ, (4C,) or (4C, H, W)
    b: Array | None  # (4C,) or (4C, H, W)
    peepholes: Peepholes | None  # each (C,) or (C, H, W)
    over_x: Geometry  # of W_x ∗ x
    over_h: Geometry  # of W_h ∗ h₋
    W_xh: Kernel | None = (
        None  # (4C, Cin + C, K, K), W_x and W_h side by side where one convolution of [x, h₋] is faster
    )


class Step(NamedTuple):
    """What one step keeps for its backward."""

    x: Array  # x̃, (N, Cin, Hx, Wx)
    h_previous: Array | None  # h̃₋, (N, C, H, W), None where it is zero
    drop: Drop
    normalised: Normalised | None
    gates: Gates
    joined: Array | None = None  # [x̃, h̃₋], (N, Cin + C, H, W), where both were convolved at once


def step_forward(
    cell: Cell, x: Array, h_previous: Array | None, c_previous: Array, drop: Drop = NOTHING
) -> tuple[Array, Array, Step]:
    """Return (h, c, what the backward needs).

    Args:
        cell: parameters and geometry.
        x: (N, Cin, Hx, Wx); Cin = 0 where the layer has no input.
        h_previous: (N, C, H, W); None where it is zero, which saves its convolution.
        c_previous: (N, C, H, W).
        drop: masks of x and h₋.
    """
    backend = cell.backend
    x, h_previous = dropped(x, drop.x), None if h_previous is None else dropped(h_previous, drop.h)  # x̃, h̃₋
    joined: Array | None = None
    z_x: Array | None = None
    z_h: Array | None = None
    if cell.W_xh is not None and h_previous is not None:
        joined = np.concatenate((x, h_previous), axis=1)
        x, h_previous = joined[:, : x.shape[1]], joined[:, x.shape[1] :]  # so that both are kept once
        z_x = backend.convolve(joined, cell.W_xh, cell.over_h)  # (N, 4C, H, W)
    else:
        if cell.W_x is not None:
            z_x = backend.convolve(x, cell.W_x, cell.over_x)  # (N, 4C, H, W)
        if h_previous is not None:
            z_h = backend.convolve(h_previous, cell.W_h, cell.over_h)  # (N, 4C, H, W)
    if z_x is None:
        z_x, z_h = z_h, None
    if z_x is None:  # neither input nor state
        z_x = backend.zeros((c_previous.shape[0], cell.W_h.shape[0], *c_previous.shape[2:]), x.dtype)
    normalised = None
    if cell.gain is not None:
        normalised = normalise_forward(z_x if z_h is None else z_x + z_h)  # ẑ = N(W_x ∗ x̃ + W_h ∗ h̃₋)
        z_x, z_h = _over_maps(cell.gain) * normalised.z, None  # γ∘ẑ
    h, c, gates = backend.gates_forward(z_x, z_h, cell.b, c_previous, cell.peepholes)  # z = z_x + z_h + b
    return h, c, Step(x, h_previous, drop, normalised, gates, joined)


def step_backward(
    cell: Cell, step: Step, dh: Array, dc: Array, gradients: LayerGradients, *, to_x: bool, to_h: bool
) -> tuple[Array | None, Array | None, Array]:
    """Return (dx, dh₋, dc₋) and add this step's share to `gradients`.

    Args:
        cell: as in the forward.
        step: what the forward kept; unchanged.
        dh: (N, C, H, W), all that the loss and the next step sent to h.
        dc: (N, C, H, W), what the next step sent to c.
        gradients: of all that the layer learns, the sums so far.
        to_x: whether dx is wanted; else None.
        to_h: whether dh₋ is wanted; else None.
    """
    backend = cell.backend
    dz, dc_previous = backend.gates_backward(dh, dc, step.gates)  # (N, 4C, H, W), (N, C, H, W)

    if cell.b is not None and "b" in gradients:  # a constant forget bias is no parameter
        gradients.add("b", sum_to(cell.b, dz))  # z = … + b
    if cell.peepholes is not None:
        C = dc.shape[1]
        dz_i, dz_f, dz_o = dz[:, :C], dz[:, C : 2 * C], dz[:, 3 * C :]  # each (N, C, H, W)
        gradients.add("p_i", sum_to(cell.peepholes.p_i, dz_i * step.gates.c_previous))  # z_i + p_i∘c₋
        gradients.add("p_f", sum_to(cell.peepholes.p_f, dz_f * step.gates.c_previous))  # z_f + p_f∘c₋
        gradients.add("p_o", sum_to(cell.peepholes.p_o, dz_o * step.gates.c))  # z_o + p_o∘c
    if cell.gain is not None and step.normalised is not None:
        gradients.add("gain", sum_to(cell.gain, dz * step.normalised.z))  # z = γ∘ẑ + b
        dz = normalise_backward(_over_maps(cell.gain) * dz, step.normalised)  # ẑ = N(W_x ∗ x̃ + W_h ∗ h̃₋)

    if step.joined is not None:
        gradients.add_kernel("W_xh", cell.W_xh, step.joined, dz, cell.over_h)  # W_x ∗ x̃ + W_h ∗ h̃₋
    else:
        if cell.W_x is not None:
            gradients.add_kernel("W_x", cell.W_x, step.x, dz, cell.over_x)  # W_x ∗ x̃ + …
        if step.h_previous is not None:
            gradients.add_kernel("W_h", cell.W_h, step.h_previous, dz, cell.over_h)  # … + W_h ∗ h̃₋
    dx, dh_previous = _gradients_to_inputs(cell, step, dz, to_x=to_x, to_h=to_h)
    return (
        None if dx is None else dropped(dx, step.drop.x),  # x∘m_x
        None if dh_previous is None else dropped(dh_previous, step.drop.h),  # h₋∘m_h
        dc_previous,
    )


def _gradients_to_inputs(
    cell: Cell, step: Step, dz: Array, *, to_x: bool, to_h: bool
) -> tuple[Array | None, Array | None]:
    """Return the gradients to x̃ and h̃₋, each where it is wanted: W_x ∗ x̃ + W_h ∗ h̃₋."""
    backend, Cin = cell.backend, step.x.shape[1]
    if to_x and to_h and step.joined is not None:
        both = backend.gradient_input(dz, cell.W_xh, cell.over_h, *dz.shape[2:])
        return both[:, :Cin], both[:, Cin:]
    dx = dh_previous = None
    if to_x and cell.W_x is not None:
        dx = backend.gradient_input(dz, cell.W_x, cell.over_x, *step.x.shape[2:])
    if to_h:
        dh_previous = backend.gradient_input(dz, cell.W_h, cell.over_h, *dz.shape[2:])
    return dx, dh_previous


def _over_maps(parameter: Array) -> Array:
    """Return a parameter so that it multiplies maps: (D,) as (D, 1, 1), (D, H, W) as it is."""
    return parameter if parameter.ndim == 3 else parameter[:, None, None]


def sum_to(parameter: Array, maps: Array) -> Array:
    """Sum (N, D, H, W) over whatever the parameter, (D,) or (D, H, W), was broadcast over.

    Columns first, rows then: a float32 sum of many pixels in one run would lose digits.
    """
    total: Array = maps.sum(axis=0) if parameter.ndim == 3 else maps.sum(axis=3).sum(axis=2).sum(axis=0)
    return total
