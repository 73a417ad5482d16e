"""`F.convolution_2d` and its two gradients on raw arrays, NumPy's or CuPy's.

With x (N, C, H, W), W (D, C, K, K), stride s, dilation d and padding p, the convolution of neural networks (a
cross-correlation) is

    z[n, e, v, u] = Σ_c Σ_j Σ_i  W[e, c, j, i] · x[n, c, s·v + d·j - p, s·u + d·i - p].

It is linear in x and in W, so its gradients are its two transposes:

    dx[n, c, r, q] = Σ  W[e, c, j, i] · dz[n, e, v, u]  over all e, v, u, j, i with s·v + d·j - p = r, s·u + d·i - p = q
    dW[e, c, j, i] = Σ_n Σ_v Σ_u  dz[n, e, v, u] · x[n, c, s·v + d·j - p, s·u + d·i - p].

Each gradient stands here twice: as the plain call of `F.convolution_2d` that the formula says, whose name ends in
`_by_convolution`, and in a form that was measured to be faster.  The tests hold one against the other.

Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, chapter 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np

from .chainer_import import import_chainer
from .contract import Array
from .geometry import POINTWISE, Geometry
from .workspace import workspace

chainer = import_chainer()
F = chainer.functions
im2col = chainer.utils.conv.im2col


@contextmanager
def without_graph() -> Iterator[None]:
    """Let Chainer neither check types nor remember operands in this thread; results are the same, calls are cheaper."""
    with chainer.using_config("enable_backprop", False), chainer.using_config("type_check", False):
        yield


def _pad(x: Array, geometry: Geometry) -> tuple[Array, tuple[int, int]]:
    """Return (x, padding for Chainer); Chainer pads both ends alike, so unlike ends are padded here."""
    (top, bottom), (left, right) = geometry.padding
    if top == bottom and left == right:
        return x, (top, left)
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))), (0, 0)


def convolve(x: Array, W: Array, geometry: Geometry) -> Array:
    """Return z = W ∗ x.

    Args:
        x: (N, C, H, W).
        W: (D, C, K, K).
        geometry: from `resolve_geometry`.

    Returns:
        (N, D, H', W'); in memory Chainer leaves it as N, H', W', D.
    """
    x, pad = _pad(x, geometry)
    z = F.convolution_2d(x, W, stride=geometry.stride, pad=pad, dilate=geometry.dilation)
    return cast(Array, z.array)


def convolve_many(x: Array, W: Array, geometry: Geometry) -> Array:
    """Return z = W ∗ x of NumPy arrays without Chainer, whose call takes longer than a small convolution itself.

    Arguments and result as `convolve`.
    """
    N, (D, *size) = x.shape[0], W.shape
    columns = _rows(x) if geometry == POINTWISE else _columns(x, geometry).reshape(math.prod(size), -1).T
    height, width = geometry.output_shape(x.shape[2], x.shape[3])
    return cast(Array, np.matmul(columns, W.reshape(D, -1).T).reshape(N, height, width, D).transpose(0, 3, 1, 2))


def gradient_input(dz: Array, W: Array, geometry: Geometry, height: int, width: int) -> Array:
    """Return dx in the form that needs the smaller column array.

    Mostly that is Chainer's transposed convolution: one matrix product, whose C·K·K columns are added where they came
    from.  On one core it took 0.56–0.80 of the time of the rotated kernel, which has D·K·K columns (D = 4C, shapes of
    benchmarks/train_step.py).  Where D < C, as in a read-out, the rotated kernel has fewer.

    Args:
        dz: (N, D, H', W').
        W: (D, C, K, K).
        geometry: the forward convolution's.
        height: H of x.
        width: W of x.

    Returns:
        (N, C, H, W).
    """
    if geometry == POINTWISE:  # the columns are dx itself
        N, D = dz.shape[:2]
        return cast(Array, np.matmul(_rows(dz), W.reshape(D, -1)).reshape(N, height, width, -1).transpose(0, 3, 1, 2))
    if W.shape[0] < W.shape[1] and geometry.stride == (1, 1):
        return gradient_input_by_convolution(dz, W, geometry, height, width)
    return gradient_input_by_transposed_convolution(dz, W, geometry, height, width)


def gradient_input_by_transposed_convolution(dz: Array, W: Array, geometry: Geometry, height: int, width: int) -> Array:
    """Return dx by Chainer's transposed convolution; arguments and result as `gradient_input`."""
    (top, bottom), (left, right) = geometry.padding
    alike = top == bottom and left == right
    pad, outsize = ((top, left), (height, width)) if alike else ((0, 0), (height + top + bottom, width + left + right))
    dx = F.deconvolution_2d(dz, W, stride=geometry.stride, pad=pad, outsize=outsize, dilate=geometry.dilation).array
    return cast(Array, dx if alike else dx[:, :, top : top + height, left : left + width])


def gradient_input_by_convolution(dz: Array, W: Array, geometry: Geometry, height: int, width: int) -> Array:
    """Return dx as `F.convolution_2d` of dz with the kernel's channels exchanged and its taps rotated by 180°.

    dz is spread by the stride (zeros between) and padded by extent - 1 - p, so that tap K-1-j of the rotated kernel
    meets exactly the outputs that tap j wrote.  Arguments and result as `gradient_input`.
    """
    spread = _spread(dz, geometry.stride)  # (N, D, s(H'-1)+1, s(W'-1)+1)
    rotated = W.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]  # (C, D, K, K)
    before = [extent - 1 - pad[0] for extent, pad in zip(geometry.extent, geometry.padding, strict=True)]
    after = [
        size + pad[0] - length  # the far end: rows of x that no output reached are zeros here
        for size, pad, length in zip((height, width), geometry.padding, spread.shape[2:], strict=True)
    ]
    if before == after and min(before) >= 0:
        return cast(Array, F.convolution_2d(spread, rotated, pad=tuple(before), dilate=geometry.dilation).array)
    padded = np.pad(spread, ((0, 0), (0, 0), *((max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True))))
    crop = [
        slice(max(-b, 0), length - max(-a, 0)) for b, a, length in zip(before, after, padded.shape[2:], strict=True)
    ]
    return cast(Array, F.convolution_2d(padded[:, :, crop[0], crop[1]], rotated, dilate=geometry.dilation).array)


def _spread(dz: Array, stride: tuple[int, int]) -> Array:
    """Return dz with stride - 1 zeros between its rows and between its columns."""
    if stride == (1, 1):
        return dz
    rows, columns = ((size - 1) * step + 1 for size, step in zip(dz.shape[2:], stride, strict=True))
    spread = np.zeros_like(dz, shape=(*dz.shape[:2], rows, columns))
    spread[:, :, :: stride[0], :: stride[1]] = dz
    return spread


def gradient_weights(x: Array, dz: Array, geometry: Geometry) -> Array:
    """Return dW as one matrix product of dz with the columns that the forward convolution read.

    `F.convolution_2d` on transposed operands has the map for a kernel, so its columns are copied in H'·W' pieces of
    K·K numbers; these are copied in K·K pieces of a whole row each.

    Args:
        x: (N, C, H, W).
        dz: (N, D, H', W').
        geometry: the forward convolution's.

    Returns:
        (D, C, K, K), summed over N.
    """
    if geometry == POINTWISE:  # the columns are x itself
        return cast(Array, np.matmul(_rows(dz).transpose(), _rows(x))[:, :, None, None])
    x, (pad_y, pad_x) = _pad(x, geometry)
    d_y, d_x = geometry.dilation
    columns = im2col(x, *geometry.kernel, *geometry.stride, pad_y, pad_x, dy=d_y, dx=d_x)
    # dz (N, D, H', W') · columns (N, C, K, K, H', W')
    return cast(Array, np.tensordot(dz, columns, ((0, 2, 3), (0, 4, 5))))


def gradient_weights_of_many(x: Array, dz: Array, geometry: Geometry) -> Array:
    """Return dW of NumPy arrays, in the form that many maps at once want; arguments and result as `gradient_weights`.

    Chainer's columns (N, C, K, K, H', W') have to be copied once more before the product where N > 1; these lie ready.
    """
    if geometry == POINTWISE:
        return gradient_weights(x, dz, geometry)
    columns = _columns(x, geometry)  # (C, K, K, N, H', W')
    dW = np.matmul(_rows(dz).T, columns.reshape(-1, dz.size // dz.shape[1]).T)  # (D, N·H'·W') · (N·H'·W', C·K·K)
    return cast(Array, dW.reshape(dz.shape[1], *columns.shape[:3]))


def _columns(x: Array, geometry: Geometry) -> Array:
    """Return the inputs that each tap reads, (C, K, K, N, H', W'), in the workspace."""
    N, C, H, W = x.shape
    (top, bottom), (left, right) = geometry.padding
    padded = workspace.array("padded", (C, N, H + top + bottom, W + left + right), x.dtype)
    padded[...] = 0
    padded[:, :, top : top + H, left : left + W] = x.transpose(1, 0, 2, 3)
    columns = workspace.array("columns", (C, *geometry.kernel, N, *geometry.output_shape(H, W)), x.dtype)
    (s_y, s_x), (d_y, d_x) = geometry.stride, geometry.dilation
    height, width = columns.shape[-2:]
    for j in range(geometry.kernel[0]):
        rows = padded[:, :, j * d_y :: s_y][:, :, :height]
        for i in range(geometry.kernel[1]):
            columns[:, j, i] = rows[..., i * d_x :: s_x][..., :width]
    return columns


def _rows(maps: Array) -> Array:
    """(N, D, H, W) → (N·H·W, D), a view where memory lies so."""
    return maps.transpose(0, 2, 3, 1).reshape(-1, maps.shape[1])


def gradient_weights_by_convolution(x: Array, dz: Array, geometry: Geometry) -> Array:
    """Return dW as `F.convolution_2d` with samples and channels transposed: dz is the kernel, stride and dilation swap.

    Arguments and result as `gradient_weights`.
    """
    x, pad = _pad(x, geometry)
    dW = F.convolution_2d(
        x.transpose(1, 0, 2, 3), dz.transpose(1, 0, 2, 3), stride=geometry.dilation, pad=pad, dilate=geometry.stride
    ).array  # (C, D, ≥ K, ≥ K)
    return cast(Array, dW[:, :, : geometry.kernel[0], : geometry.kernel[1]].transpose(1, 0, 2, 3))
