"""Ways to convolve one sample on one thread, in NumPy, Chainer, SciPy and PyTorch.

Each takes W (D, C, K, K) with odd K, brings it into the order that it needs, and returns what takes x (N, C, H, W) to
z (N, D, H, W) with "same" padding: correlation as in backends/convolution.py; N is 1 but for Chainer's and PyTorch's.
The gradient to the input is the same correlation of dz with the kernel rotated by 180° and its channels exchanged, so
every way forward is a way backward too.

Shifted products and row columns work on channels-last memory padded to H+K-1 rows of W+K-1 pixels, read as one long
row: a tap's shift is then an offset, and what is computed at the K-1 pixels between two rows is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.measure import package
from convlstm.backends import Array
from convlstm.backends.convolution import convolve
from convlstm.backends.geometry import Geometry, resolve_geometry

STRIP_BYTES = 2**20  # of a strip's columns: what a second-level cache of a core holds
Convolved = Callable[[Array], Array]  # x to z
Way = Callable[[Array], Convolved]  # from W; raises Skipped where what it needs is missing


def rotated(W: Array) -> Array:
    """Return the kernel that leads back, (D, C, K, K) → (C, D, K, K)."""
    return np.ascontiguousarray(W.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])


def by_chainer(W: Array) -> Convolved:
    """`F.convolution_2d`, the plain one."""

    def convolved(x: Array) -> Array:
        return convolve(x, W, resolve_geometry(x.shape[2], x.shape[3], (W.shape[2], W.shape[3])))

    return convolved


def in_strips(W: Array) -> Convolved:
    """`F.convolution_2d` of a few rows at a time, whose columns stay in a core's cache."""
    D, C, K, _ = W.shape
    sideways = Geometry((K, K), (1, 1), (1, 1), ((0, 0), (K // 2, K // 2)))

    def convolved(x: Array) -> Array:
        N, _, H, width = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (K // 2, K // 2), (0, 0)))
        z = np.zeros((N, H, width, D), x.dtype).transpose(0, 3, 1, 2)
        for rows in strips(H, C * K * K * width * x.itemsize):
            z[:, :, rows] = convolve(padded[:, :, rows.start : rows.stop + K - 1], W, sideways)
        return z

    return convolved


def strips(H: int, bytes_of_a_row: int) -> Iterator[slice]:
    """Yield ranges of rows whose columns fill `STRIP_BYTES`, at least one row each."""
    step = max(1, STRIP_BYTES // bytes_of_a_row)
    for start in range(0, H, step):
        yield slice(start, min(start + step, H))


def long_row(x: Array, K: int) -> Array:
    """Return x padded and as one long row of pixels, ((H+K-1)·(W+K-1) + K-1, C)."""
    _, C, H, width = x.shape
    wide, p = width + K - 1, K // 2
    pixels = np.zeros(((H + K - 1) * wide + K - 1, C), x.dtype)
    pixels[: (H + K - 1) * wide].reshape(H + K - 1, wide, C)[p : p + H, p : p + width] = x[0].transpose(1, 2, 0)
    return pixels


def unpadded(z: Array, H: int, width: int, K: int) -> Array:
    """Return (1, D, H, W) from pixels (H·(W+K-1), D), without those between two rows."""
    return z.reshape(1, H, width + K - 1, -1)[:, :, :width].transpose(0, 3, 1, 2)


def taps(W: Array) -> Array:
    """Return the kernel as a matrix for each tap, (K, K, C, D)."""
    return np.ascontiguousarray(W.transpose(2, 3, 1, 0))


def by_shifts(W: Array) -> Convolved:
    """A matrix product for each tap, np.matmul and an addition."""
    (D, _, K, _), tap = W.shape, taps(W)

    def convolved(x: Array) -> Array:
        (H, width), pixels = x.shape[2:], long_row(x, K)
        wide = width + K - 1
        z, share = (np.zeros((H * wide, D), x.dtype) for _ in range(2))
        for j, i in np.ndindex(K, K):
            start = j * wide + i
            np.matmul(pixels[start : start + H * wide], tap[j, i], out=share)
            z += share
        return unpadded(z, H, width, K)

    return convolved


def by_sgemm(W: Array) -> Convolved:
    """The same products, each added by BLAS itself (beta = 1).  SciPy's wrapper holds the interpreter's lock."""
    sgemm = package("scipy.linalg.blas").sgemm
    (D, _, K, _), tap = W.shape, taps(W)

    def convolved(x: Array) -> Array:
        (H, width), pixels = x.shape[2:], long_row(x, K)
        wide = width + K - 1
        z = np.zeros((H * wide, D), x.dtype)
        for j, i in np.ndindex(K, K):
            start = j * wide + i
            # Transposed, all three lie in Fortran's order, which sgemm wants to work in place.
            sgemm(1.0, tap[j, i].T, pixels[start : start + H * wide].T, beta=1.0, c=z.T, overwrite_c=1)
        return unpadded(z, H, width, K)

    return convolved


def row_columns(pixels: Array, H: int, wide: int, K: int) -> Array:
    """Return the K pixels along the width that each output reads, side by side: ((H+K-1)·(W+K-1), K·C)."""
    length = (H + K - 1) * wide
    return np.concatenate([pixels[i : i + length] for i in range(K)], axis=1)


def by_row_columns(W: Array) -> Convolved:
    """Columns along the kernel's width only, and a product for each of the kernel's rows."""
    D, C, K, _ = W.shape
    rows = taps(W).reshape(K, K * C, D)

    def convolved(x: Array) -> Array:
        H, width = x.shape[2:]
        wide = width + K - 1
        columns = row_columns(long_row(x, K), H, wide, K)
        z, share = (np.zeros((H * wide, D), x.dtype) for _ in range(2))
        for j in range(K):
            np.matmul(columns[j * wide : (j + H) * wide], rows[j], out=share)
            z += share
        return unpadded(z, H, width, K)

    return convolved


def by_pytorch(W: Array) -> Convolved:
    """`torch.nn.functional.conv2d`."""
    torch = package("torch")
    kernel, p = torch.from_numpy(W), W.shape[2] // 2

    def convolved(x: Array) -> Array:
        with torch.no_grad():
            z: Array = torch.nn.functional.conv2d(torch.from_numpy(x), kernel, padding=p).numpy()
        return z

    return convolved


PLAIN = "F.convolution_2d"
CORRELATIONS: dict[str, Way] = {
    PLAIN: by_chainer,
    "in row strips": in_strips,
    "shifted products, matmul": by_shifts,
    "shifted products, sgemm": by_sgemm,
    "row columns": by_row_columns,
}
