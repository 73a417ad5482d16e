"""One time step of a ConvLSTM, forward and backward: the paper's equations.

    z   = W_x ∗ x + W_h ∗ h₋ + b                         four gates' pre-activations, in the order i, f, g, o
    i   = σ(z_i + p_i∘c₋)                                input gate
    f   = σ(z_f + p_f∘c₋)                                forget gate
    g   = tanh(z_g)                                      candidate
    c   = f∘c₋ + i∘g                                     cell
    o   = σ(z_o + p_o∘c)                                 output gate
    h   = o∘tanh(c)                                      hidden state

The first line is here; the elementwise rest, which each backend has in its own form, is `gates_forward` and
`gates_backward` in backends/gates.py (NumPy) and backends/cuda_gates.py (CUDA).

Source: Shi et al., "Convolutional LSTM network: a machine learning approach for precipitation nowcasting", NIPS 2015,
eq. 3; arXiv:1506.04214.
"""

from __future__ import annotations

from typing import NamedTuple

from convlstm.backends.contract import Array, Backend, Gates, Peepholes
from convlstm.backends.geometry import Geometry


class Cell(NamedTuple):
    """What one step computes with; None where the layer has no such parameter."""

    backend: Backend
    W_x: Array  # (4C, Cin, K, K)
    W_h: Array  # (4C, C, K, K)
    b: Array | None  # (4C,) or (4C, H, W)
    peepholes: Peepholes | None  # each (C,) or (C, H, W)
    over_x: Geometry  # of W_x ∗ x
    over_h: Geometry  # of W_h ∗ h₋


class Step(NamedTuple):
    """What one step keeps for its backward."""

    x: Array  # (N, Cin, Hx, Wx)
    h_previous: Array | None  # (N, C, H, W), None where it is zero
    gates: Gates


def step_forward(cell: Cell, x: Array, h_previous: Array | None, c_previous: Array) -> tuple[Array, Array, Step]:
    """Return (h, c, what the backward needs).

    Args:
        cell: parameters and geometry.
        x: (N, Cin, Hx, Wx).
        h_previous: (N, C, H, W); None where it is zero, which saves its convolution.
        c_previous: (N, C, H, W).
    """
    backend = cell.backend
    z_x = backend.convolve(x, cell.W_x, cell.over_x)  # (N, 4C, H, W)
    z_h = None if h_previous is None else backend.convolve(h_previous, cell.W_h, cell.over_h)  # (N, 4C, H, W)
    h, c, gates = backend.gates_forward(z_x, z_h, cell.b, c_previous, cell.peepholes)  # z = z_x + z_h + b
    return h, c, Step(x, h_previous, gates)


def step_backward(
    cell: Cell, step: Step, dh: Array, dc: Array, gradients: dict[str, Array], *, to_x: bool, to_h: bool
) -> tuple[Array | None, Array | None, Array]:
    """Return (dx, dh₋, dc₋) and add this step's share to `gradients`.

    Args:
        cell: as in the forward.
        step: what the forward kept; unchanged.
        dh: (N, C, H, W), all that the loss and the next step sent to h.
        dc: (N, C, H, W), what the next step sent to c.
        gradients: W_x, W_h and, where the layer has them, b, p_i, p_f, p_o: the sums so far, added to in place.
        to_x: whether dx is wanted; else None.
        to_h: whether dh₋ is wanted; else None.
    """
    backend = cell.backend
    dz, dc_previous = backend.gates_backward(dh, dc, step.gates)  # (N, 4C, H, W), (N, C, H, W)

    gradients["W_x"] += backend.gradient_weights(step.x, dz, cell.over_x)  # z = W_x ∗ x + …
    if step.h_previous is not None:
        gradients["W_h"] += backend.gradient_weights(step.h_previous, dz, cell.over_h)  # z = … + W_h ∗ h₋ + …
    if cell.b is not None:
        gradients["b"] += sum_to(cell.b, dz)  # z = … + b
    if cell.peepholes is not None:
        C = dc.shape[1]
        dz_i, dz_f, dz_o = dz[:, :C], dz[:, C : 2 * C], dz[:, 3 * C :]  # each (N, C, H, W)
        gradients["p_i"] += sum_to(cell.peepholes.p_i, dz_i * step.gates.c_previous)  # z_i + p_i∘c₋
        gradients["p_f"] += sum_to(cell.peepholes.p_f, dz_f * step.gates.c_previous)  # z_f + p_f∘c₋
        gradients["p_o"] += sum_to(cell.peepholes.p_o, dz_o * step.gates.c)  # z_o + p_o∘c

    dx = backend.gradient_input(dz, cell.W_x, cell.over_x, *step.x.shape[2:]) if to_x else None  # z = W_x ∗ x + …
    dh_previous = backend.gradient_input(dz, cell.W_h, cell.over_h, *dh.shape[2:]) if to_h else None  # z = … + W_h ∗ h₋
    return dx, dh_previous, dc_previous


def sum_to(parameter: Array, maps: Array) -> Array:
    """Sum (N, D, H, W) over whatever the parameter, (D,) or (D, H, W), was broadcast over.

    Columns first, rows then: a float32 sum of many pixels in one run would lose digits.
    """
    total: Array = maps.sum(axis=0) if parameter.ndim == 3 else maps.sum(axis=3).sum(axis=2).sum(axis=0)
    return total
