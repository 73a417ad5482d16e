"""The elementwise half of one ConvLSTM step on NumPy arrays, forward and backward: the contract's equations.

σ(z) = ½ tanh(½ z) + ½, so all four gates go through `tanh`, which NumPy has vectorised and which cannot overflow.
Work goes in strips of pixels small enough that a strip's gates stay in the second-level cache over all passes.
Gates are kept gate-major, (N, 4, H·W, C): whatever is done to one gate runs through contiguous memory.

Equations: Shi et al., "Convolutional LSTM network", NIPS 2015, eq. 3, without its convention that peepholes are
always per pixel; gate order i, f, g, o.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .contract import Array, Gates, Peepholes

STRIP_ELEMENTS = 2**15  # of one gate: in float32 all four are 512 KiB; 2**12 … 2**16 were tried


def gates_forward(
    z_x: Array, z_h: Array | None, bias: Array | None, c_previous: Array, peepholes: Peepholes | None
) -> tuple[Array, Array, Gates]:
    """Return (h, c, gates); see `Backend.gates_forward`."""
    N, C, H, W = c_previous.shape
    activations = np.zeros((N, 4, H * W, C), c_previous.dtype)
    c, tanh_c, h = (np.zeros((N, H * W, C), c_previous.dtype) for _ in range(3))
    zx_rows, zh_rows, before = _rows(z_x), None if z_h is None else _rows(z_h), _rows(c_previous)
    b = None if bias is None else _parameter_rows(bias, 4)  # (4, 1 or H·W, C)
    p = None if peepholes is None else [_parameter_rows(weights, 1)[0] for weights in peepholes]  # (1 or H·W, C)

    for n, strip in _strips(N, H * W, C):
        z = activations[n, :, strip]  # (4, rows, C): filled with the pre-activations, then turned into gates in place
        i, f, g, o = z
        if zh_rows is None:
            z[...] = _gate_major(zx_rows[n, strip])
        else:
            np.add(_gate_major(zx_rows[n, strip]), _gate_major(zh_rows[n, strip]), out=z)
        if b is not None:
            z += _of_strip(b, strip, axis=1)
        if p is not None:
            i += _of_strip(p[0], strip) * before[n, strip]  # z_i + p_i∘c₋
            f += _of_strip(p[1], strip) * before[n, strip]  # z_f + p_f∘c₋
        _sigmoid(z[:2])  # i = σ(…), f = σ(…)
        np.tanh(g, out=g)  # g = tanh(z_g)
        np.multiply(f, before[n, strip], out=c[n, strip])
        c[n, strip] += i * g  # c = f∘c₋ + i∘g
        if p is not None:
            o += _of_strip(p[2], strip) * c[n, strip]  # z_o + p_o∘c
        _sigmoid(o)  # o = σ(…)
        np.tanh(c[n, strip], out=tanh_c[n, strip])
        np.multiply(o, tanh_c[n, strip], out=h[n, strip])  # h = o∘tanh(c)

    c_map = _maps(c, H, W)
    return _maps(h, H, W), c_map, Gates(activations, tanh_c, c_previous, c_map, peepholes)


def gates_backward(dh: Array, dc: Array, gates: Gates) -> tuple[Array, Array]:
    """Return (dz, dc₋); see `Backend.gates_backward`.  Nothing given is changed."""
    N, C, H, W = gates.c.shape
    dz = np.zeros((N, H * W, 4, C), dh.dtype)  # memory N, H, W, 4C: what the convolutions read fastest
    dc_previous = np.zeros((N, H * W, C), dh.dtype)
    dh_rows, dc_rows, before = _rows(dh), _rows(dc), _rows(gates.c_previous)
    p = None if gates.peepholes is None else [_parameter_rows(weights, 1)[0] for weights in gates.peepholes]

    for n, strip in _strips(N, H * W, C):
        i, f, g, o = gates.activations[n, :, strip]  # each (rows, C)
        tanh_c, d_h = gates.tanh_c[n, strip], dh_rows[n, strip]
        d_i, d_f, d_g, d_o = dz[n, strip].transpose(1, 0, 2)  # views of dz
        d_c = dc_previous[n, strip]  # holds dc until its last line turns it into dc₋

        np.multiply(d_h * tanh_c, o * (1 - o), out=d_o)  # h = o∘tanh(c), o = σ(z_o)
        np.multiply(d_h * o, 1 - tanh_c * tanh_c, out=d_c)  # h = o∘tanh(c)
        d_c += dc_rows[n, strip]  # c goes on to the next step
        if p is not None:
            d_c += _of_strip(p[2], strip) * d_o  # z_o + p_o∘c
        np.multiply(d_c * g, i * (1 - i), out=d_i)  # c = … + i∘g, i = σ(z_i)
        np.multiply(d_c * before[n, strip], f * (1 - f), out=d_f)  # c = f∘c₋ + …, f = σ(z_f)
        np.multiply(d_c * i, 1 - g * g, out=d_g)  # c = … + i∘g, g = tanh(z_g)
        d_c *= f  # c = f∘c₋ + …
        if p is not None:
            d_c += _of_strip(p[0], strip) * d_i  # z_i + p_i∘c₋
            d_c += _of_strip(p[1], strip) * d_f  # z_f + p_f∘c₋

    return _maps(dz.reshape(N, H * W, 4 * C), H, W), _maps(dc_previous, H, W)


def _sigmoid(z: Array) -> None:
    """Turn z into σ(z) = ½ tanh(½ z) + ½, in place."""
    z *= 0.5
    np.tanh(z, out=z)
    z *= 0.5
    z += 0.5


def _strips(N: int, pixels: int, C: int) -> Iterator[tuple[int, slice]]:
    rows = max(STRIP_ELEMENTS // C, 1)
    for n in range(N):
        for start in range(0, pixels, rows):
            yield n, slice(start, min(start + rows, pixels))


def _rows(maps: Array) -> Array:
    """(N, C, H, W) → (N, H·W, C), contiguous; a view where memory already lies so."""
    N, C, H, W = maps.shape
    return np.ascontiguousarray(maps.transpose(0, 2, 3, 1)).reshape(N, H * W, C)


def _maps(rows: Array, H: int, W: int) -> Array:
    """(N, H·W, C) → (N, C, H, W), a view."""
    return rows.reshape(rows.shape[0], H, W, rows.shape[2]).transpose(0, 3, 1, 2)


def _gate_major(rows: Array) -> Array:
    """(rows, 4C) → (4, rows, C), a view."""
    return rows.reshape(rows.shape[0], 4, -1).transpose(1, 0, 2)


def _parameter_rows(weights: Array, gates: int) -> Array:
    """(gates·C,) → (gates, 1, C); (gates·C, H, W) → (gates, H·W, C)."""
    per_gate = weights.reshape(gates, weights.shape[0] // gates, -1)
    return per_gate.transpose(0, 2, 1)


def _of_strip(rows: Array, strip: slice, axis: int = 0) -> Array:
    """Return a per-pixel parameter's share of a strip; a per-channel one serves every strip."""
    if rows.shape[axis] == 1:
        return rows
    return rows[strip] if axis == 0 else rows[:, strip]
