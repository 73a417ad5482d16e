"""Ways from x and dz to the gradient to the kernel, as convolution_ways.py from x and W to z.

Each takes K, x (N, C, H, W) and dz (N, D, H, W), and returns dW (D, C, K, K), summed over N; N is 1 but for Chainer's
and PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.convolution_ways import PLAIN, long_row, row_columns, strips
from benchmarks.measure import package
from convlstm.backends import Array
from convlstm.backends.chainer_import import import_chainer
from convlstm.backends.convolution import gradient_weights, gradient_weights_by_convolution
from convlstm.backends.geometry import Geometry, resolve_geometry


def by_chainer(K: int, x: Array, dz: Array) -> Array:
    """`F.convolution_2d` on transposed operands, the plain one."""
    return gradient_weights_by_convolution(x, dz, resolve_geometry(x.shape[2], x.shape[3], (K, K)))


def by_columns(K: int, x: Array, dz: Array) -> Array:
    """What the NumPy backend does: columns in the order that one product wants."""
    return gradient_weights(x, dz, resolve_geometry(x.shape[2], x.shape[3], (K, K)))


def by_tensordot(K: int, x: Array, dz: Array) -> Array:
    """Chainer's own columns and np.tensordot, as its convolutions are made of."""
    columns = import_chainer().utils.conv.im2col(x, K, K, 1, 1, K // 2, K // 2)  # (N, C, K, K, H, W)
    return np.tensordot(dz, columns, ((0, 2, 3), (0, 4, 5)))


def in_strips(K: int, x: Array, dz: Array) -> Array:
    """Columns of a few rows at a time, and a product for each strip."""
    C, H, width = x.shape[1:]
    padded = np.pad(x, ((0, 0), (0, 0), (K // 2, K // 2), (0, 0)))
    sideways = Geometry((K, K), (1, 1), (1, 1), ((0, 0), (K // 2, K // 2)))
    dW = np.zeros((dz.shape[1], C, K, K), x.dtype)
    for rows in strips(H, C * K * K * width * x.itemsize):
        dW += gradient_weights(padded[:, :, rows.start : rows.stop + K - 1], dz[:, :, rows], sideways)
    return dW


def long_row_of_outputs(dz: Array, K: int) -> Array:
    """Return dz as pixels (H·(W+K-1), D), with zeros between two rows."""
    _, D, H, width = dz.shape
    pixels = np.zeros((H, width + K - 1, D), dz.dtype)
    pixels[:, :width] = dz[0].transpose(1, 2, 0)
    return pixels.reshape(-1, D)


def by_shifts(K: int, x: Array, dz: Array) -> Array:
    """A matrix product for each tap."""
    D, H, width = dz.shape[1:]
    pixels, out, wide = long_row(x, K), long_row_of_outputs(dz, K).T, width + K - 1
    dW = np.zeros((K, K, D, x.shape[1]), x.dtype)
    for j, i in np.ndindex(K, K):
        start = j * wide + i
        np.matmul(out, pixels[start : start + H * wide], out=dW[j, i])
    return dW.transpose(2, 3, 0, 1)


def by_row_columns(K: int, x: Array, dz: Array) -> Array:
    """Columns along the kernel's width only, and a product for each of the kernel's rows."""
    (D, H, width), C = dz.shape[1:], x.shape[1]
    wide = width + K - 1
    columns, out = row_columns(long_row(x, K), H, wide, K), long_row_of_outputs(dz, K).T
    dW = np.stack([np.matmul(out, columns[j * wide : (j + H) * wide]) for j in range(K)])  # (K, D, K·C)
    return dW.reshape(K, D, K, C).transpose(1, 3, 0, 2)


def pytorch_backward(W: Array, x: Array, dz: Array, which: int) -> Callable[[], Array]:
    """Return the call of `torch.ops.aten.convolution_backward`: 0, the gradient to the input; 1, that to the kernel.

    Raises:
        Skipped: PyTorch is not installed.
    """
    torch = package("torch")
    p = W.shape[2] // 2
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in (dz, x, W)]

    def call() -> Array:
        found: Array = torch.ops.aten.convolution_backward(
            *tensors, None, [1, 1], [p, p], [1, 1], False, [0, 0], 1, [which == 0, which == 1, False]
        )[which].numpy()
        return found

    return call


COLUMNS = "columns, one product"
TO_WEIGHTS: dict[str, Callable[[int, Array, Array], Array]] = {
    PLAIN: by_chainer,
    COLUMNS: by_columns,
    "im2col, tensordot": by_tensordot,
    "in row strips": in_strips,
    "shifted products, matmul": by_shifts,
    "row columns": by_row_columns,
}
