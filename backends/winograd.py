"""Convolution and its two gradients with fewer multiplications: Winograd's minimal filtering, on NumPy arrays.

In one dimension, m neighbouring outputs of a kernel g of K taps read a = m + K - 1 inputs d, and

    y = Aᵀ [(G g) ∘ (Bᵀ d)]                              a multiplications in place of m·K

exactly, for matrices A (a, m), G (a, K) and B (a, a) that are made from a - 1 points and ∞: as polynomials, the product
of u (m coefficients) and g has a coefficients and is known from its values at a points.  A and G evaluate u and g
there, B interpolates, and the convolution of neural networks is the transpose of that product in u (Lavin and Gray,
"Fast algorithms for convolutional neural networks", CVPR 2016, arXiv:1509.09308; Winograd, "Arithmetic complexity of
computations", 1980).  In two dimensions each matrix acts on rows and on columns.  With a = 6 and 3×3 taps a tile of 4×4
outputs takes 36 multiplications in place of 144, with 5×5 taps one of 2×2 outputs 36 in place of 100.

Summed over channels, position p of the 36 is one matrix product; its gradients are its transposes:

    V = Bᵀ d B        M_p = V_p U_p           z = Aᵀ M A        U = G W Gᵀ    (tiles, C) · (C, D) for each p
    dd = B dV Bᵀ      dV_p = dM_p U_pᵀ        dM = A dz Aᵀ      dW = Gᵀ dU G
                      dU_p = V_pᵀ dM_p

Rounding grows with the matrices' entries.  The points 0, ±3/4, ±4/3, ∞ were the best of those tried: in float32, with
128 channels, z is about four times as far from the exact one as the plain product's (1.3e-6 and 3.6e-7 relative), dx
six times (1.3e-6 and 2.1e-7), dW two to four times; with the usual 0, ±1, ±2, ∞ z is seven times as far.  On how points
matter: Barabasz, Anderson, Soodhalter, Gregg, "Error analysis and improving the accuracy of Winograd convolution for
deep neural networks", arXiv:1803.10986.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from .contract import Array
from .geometry import Geometry, Pair
from .workspace import workspace

POINTS = (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(4, 3), Fraction(-4, 3))  # and ∞
INPUTS = len(POINTS) + 1  # a
LEAST_CHANNELS = 8  # with fewer the products are so small that the transforms cost more than they save
STRIP_TILES_OF_WEIGHTS = 1024  # a sum over few tiles would spend its time on writing dU


@dataclass(frozen=True)
class TransformedKernel:
    """A kernel and U = G W Gᵀ, in both orders of memory: products with a transposed operand took a fifth longer."""

    W: Array  # (D, C, K, K)
    U: Array  # (36, C, D)
    U_T: Array  # (36, D, C)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the kernel."""
        return self.W.shape


class Matrices(NamedTuple):
    """Of one axis, for a kernel of K taps."""

    A: Array  # (6, m)
    B: Array  # (6, 6)
    G: Array  # (6, K)


class Tiles(NamedTuple):
    """How the outputs of a map are cut: tiles of m_y × m_x outputs, with edges filled up by zeros."""

    outputs: Pair  # m of each axis
    grid: Pair  # tiles down and across

    def pieces(self, N: int, most: int) -> Iterator[tuple[slice, slice]]:
        """Yield ranges of maps and of their rows of tiles, of at most `most` tiles where a row has no more."""
        down, across = self.grid
        maps, rows = max(most // (down * across), 1), max(most // across, 1)
        for n in range(0, N, maps):
            for start in range(0, down, rows):
                yield slice(n, min(n + maps, N)), slice(start, min(start + rows, down))


def suits(C: int, D: int, geometry: Geometry, height: int, width: int) -> bool:
    """Say whether this is the faster way for a kernel (D, C, K, K) on height × width maps: by shapes alone."""
    if geometry.stride != (1, 1) or geometry.dilation != (1, 1) or min(C, D) < LEAST_CHANNELS:
        return False
    if not all(2 <= K < INPUTS for K in geometry.kernel):
        return False
    rows, columns = geometry.output_shape(height, width)
    down, across = tiles_of(geometry, height, width).grid
    return 2 * down * across * INPUTS**2 <= rows * columns * geometry.kernel[0] * geometry.kernel[1]


def strip_tiles(C: int, D: int) -> int:
    """Return how many tiles go through all steps together: few, so that they stay in cache.

    16 … 256 were tried.  A large kernel is read again for every strip, and a small one takes so little time that the
    number of calls counts: both are better off with fewer strips.
    """
    return 32 if 2**12 < C * D <= 2**15 else 64


def transformed(W: Array) -> TransformedKernel:
    """Return a kernel (D, C, K, K) with its transform."""
    D, C, K_y, K_x = W.shape
    rows, columns = matrices(K_y, W.dtype.char), matrices(K_x, W.dtype.char)
    U = _transform(rows.G, columns.G, np.ascontiguousarray(W.transpose(2, 3, 1, 0)), "U")
    U = U.reshape(INPUTS**2, C, D)
    return TransformedKernel(W, U.copy(), U.transpose(0, 2, 1).copy())


def of_channels(kernel: TransformedKernel, channels: slice) -> TransformedKernel:
    """Return the part of a kernel that is laid on some channels: views of the same memory."""
    return TransformedKernel(kernel.W[:, channels], kernel.U[:, channels], kernel.U_T[:, :, channels])


def convolve(x: Array, kernel: TransformedKernel, geometry: Geometry) -> Array:
    """Return z = W ∗ x; arguments and result as in convolution.py."""
    N, _, H, W = x.shape
    D, C = kernel.shape[:2]
    tiles, rows, columns = tiles_of(geometry, H, W), *_of_axes(geometry, x.dtype)
    (m_y, m_x), (down, across) = tiles
    padded = _padded(x, geometry, tiles)
    z = np.zeros((N, down * m_y, across * m_x, D), x.dtype)
    for maps, strip in tiles.pieces(N, strip_tiles(C, D)):
        V = _transformed_inputs(padded[maps], strip, tiles, rows, columns)  # V = Bᵀ d B
        M = np.matmul(V, kernel.U, out=workspace.array("M", (INPUTS**2, V.shape[1], D), x.dtype))  # M = V U
        y = _transform(rows.A.T, columns.A.T, M, "y")  # z = Aᵀ M A
        here = _blocks(z[maps, strip.start * m_y : strip.stop * m_y], tiles)
        here[...] = _by_tile(y, here.shape)
    height, width = geometry.output_shape(H, W)
    return z[:, :height, :width].transpose(0, 3, 1, 2)


def gradient_input(dz: Array, kernel: TransformedKernel, geometry: Geometry, height: int, width: int) -> Array:
    """Return dx; arguments and result as in convolution.py."""
    N, (D, C) = dz.shape[0], kernel.shape[:2]
    tiles, rows, columns = tiles_of(geometry, height, width), *_of_axes(geometry, dz.dtype)
    (m_y, m_x), (down, across) = tiles
    filled = _filled_up(dz, tiles)
    reach = [-(-INPUTS // m) - 1 for m in tiles.outputs]  # blocks of m inputs that a tile reads beyond its own
    dx = np.zeros((N, (down + reach[0]) * m_y, (across + reach[1]) * m_x, C), dz.dtype)  # padded as x was
    for maps, strip in tiles.pieces(N, strip_tiles(C, D)):
        dM = _transformed_outputs(filled[maps], strip, tiles, rows, columns)  # z = Aᵀ M A
        dV = np.matmul(dM, kernel.U_T, out=workspace.array("dV", (INPUTS**2, dM.shape[1], C), dz.dtype))  # M = V U
        part = dx[maps, strip.start * m_y : (strip.stop + reach[0]) * m_y]
        dd = _transform(rows.B, columns.B, dV, "dd")  # V = Bᵀ d B
        dd = _by_tile(dd, (part.shape[0], strip.stop - strip.start, INPUTS, across, INPUTS, C))
        for j in range(0, INPUTS, m_y):  # tiles overlap: block j, i of each is added on its own
            for i in range(0, INPUTS, m_x):
                block = dd[:, :, j : j + m_y, :, i : i + m_x]
                here = _blocks(part[:, j : j + dd.shape[1] * m_y, i : i + across * m_x], tiles)
                here[:, :, : block.shape[2], :, : block.shape[4]] += block
    (top, _), (left, _) = geometry.padding
    return dx[:, top : top + height, left : left + width].transpose(0, 3, 1, 2)


def gradient_weights(x: Array, dz: Array, geometry: Geometry) -> Array:
    """Return dW, summed over N; arguments and result as in convolution.py; in memory it is K, K, C, D."""
    (N, C, H, W), D = x.shape, dz.shape[1]
    tiles, rows, columns = tiles_of(geometry, H, W), *_of_axes(geometry, x.dtype)
    padded, filled = _padded(x, geometry, tiles), _filled_up(dz, tiles)
    dU, share = (workspace.array(name, (INPUTS**2, C, D), x.dtype) for name in ("dU", "dU of a piece"))
    for number, (maps, strip) in enumerate(tiles.pieces(N, STRIP_TILES_OF_WEIGHTS)):
        V = _transformed_inputs(padded[maps], strip, tiles, rows, columns)
        dM = _transformed_outputs(filled[maps], strip, tiles, rows, columns)
        np.matmul(V.transpose(0, 2, 1), dM, out=share if number else dU)  # M = V U
        if number:
            dU += share
    dW = _transform(rows.G.T, columns.G.T, dU, "dW").copy()  # U = G W Gᵀ; (K, K, C·D)
    return dW.reshape(*geometry.kernel, C, D).transpose(3, 2, 0, 1)


def tiles_of(geometry: Geometry, height: int, width: int) -> Tiles:
    """Return how the outputs of a height × width map are cut."""
    outputs = (INPUTS + 1 - geometry.kernel[0], INPUTS + 1 - geometry.kernel[1])
    rows, columns = geometry.output_shape(height, width)
    return Tiles(outputs, (-(-rows // outputs[0]), -(-columns // outputs[1])))


@functools.cache
def matrices(K: int, dtype: str) -> Matrices:
    """Return A, B and G for K taps, from `POINTS` and ∞.

    With E_n (a, n) the matrix that evaluates a polynomial of n coefficients at the points (row (1, p, p², …); at ∞ its
    last coefficient), A = E_m, and Lagrange's formula inverts E_a: row k of Bᵀ holds the coefficients of
    Π_{j≠k} (x - p_j), at ∞ those of Π_j (x - p_j), and G = E_K with row k divided by Π_{j≠k} (p_k - p_j).
    """
    m = INPUTS + 1 - K
    others = [[q for q in POINTS if q != p] for p in POINTS]
    B_T = [[*_coefficients(roots), Fraction(0)] for roots in others] + [_coefficients(POINTS)]
    divisors = [math.prod((p - q for q in roots), start=Fraction(1)) for p, roots in zip(POINTS, others, strict=True)]
    A, G = (
        [[p**k for k in range(n)] for p in POINTS] + [[Fraction(int(k == n - 1)) for k in range(n)]] for n in (m, K)
    )
    G = [[value / divisor for value in row] for row, divisor in zip(G, [*divisors, Fraction(1)], strict=True)]
    A_, B_T_, G_ = (np.array([[float(value) for value in row] for row in rows], dtype) for rows in (A, B_T, G))
    return Matrices(A_, np.ascontiguousarray(B_T_.T), G_)


def _coefficients(roots: Any) -> list[Fraction]:
    """Return the coefficients of Π (x - root), the lowest power first."""
    product = [Fraction(1)]
    for root in roots:
        product = [a - root * b for a, b in zip([Fraction(0), *product], [*product, Fraction(0)], strict=True)]
    return product


def _of_axes(geometry: Geometry, dtype: np.dtype[Any]) -> tuple[Matrices, Matrices]:
    return matrices(geometry.kernel[0], dtype.char), matrices(geometry.kernel[1], dtype.char)


def _transform(rows: Array, columns: Array, values: Array, name: str) -> Array:
    """Apply one matrix along the first axis and one along the second, each (a', a): (a·b, …) → (a', b', rest)."""
    a, b = rows.shape[1], columns.shape[1]
    values = values.reshape(a, b, -1)
    rest, dtype = values.shape[2], values.dtype
    across = workspace.array(f"{name}, across", (a, columns.shape[0], rest), dtype)
    both = workspace.array(name, (rows.shape[0], columns.shape[0] * rest), dtype)
    np.matmul(columns, values, out=across)
    np.matmul(rows, across.reshape(a, -1), out=both)
    return both.reshape(rows.shape[0], columns.shape[0], rest)


def _transformed_inputs(padded: Array, strip: slice, tiles: Tiles, rows: Matrices, columns: Matrices) -> Array:
    """Return V = Bᵀ d B of some rows of tiles of padded maps (n, …, …, C): (36, tiles, C)."""
    (m_y, m_x), (_, across) = tiles
    C = padded.shape[3]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (INPUTS, INPUTS), (1, 2))  # (n, …, …, C, 6, 6)
    windows = windows[:, strip.start * m_y : strip.stop * m_y : m_y, : across * m_x : m_x].transpose(4, 5, 0, 1, 2, 3)
    d = workspace.array("d", windows.shape, padded.dtype)
    d[...] = windows
    return _transform(rows.B.T, columns.B.T, d, "V").reshape(INPUTS**2, -1, C)


def _transformed_outputs(filled: Array, strip: slice, tiles: Tiles, rows: Matrices, columns: Matrices) -> Array:
    """Return dM = A dz Aᵀ of some rows of tiles of filled-up maps (n, …, …, D): (36, tiles, D)."""
    m_y, D = tiles.outputs[0], filled.shape[3]
    blocks = _blocks(filled[:, strip.start * m_y : strip.stop * m_y], tiles).transpose(2, 4, 0, 1, 3, 5)
    dy = workspace.array("dy", blocks.shape, filled.dtype)
    dy[...] = blocks
    return _transform(rows.A, columns.A, dy, "dM").reshape(INPUTS**2, -1, D)


def _padded(x: Array, geometry: Geometry, tiles: Tiles) -> Array:
    """Return x (N, C, H, W) with its padding and what fills up the last tiles: (N, …, …, C)."""
    N, C, H, W = x.shape
    (top, _), (left, _) = geometry.padding
    height, width = (n * m + INPUTS - m for n, m in zip(tiles.grid, tiles.outputs, strict=True))
    padded = workspace.array("padded", (N, height, width, C), x.dtype)
    padded[...] = 0
    padded[:, top : top + H, left : left + W] = x.transpose(0, 2, 3, 1)
    return padded


def _filled_up(dz: Array, tiles: Tiles) -> Array:
    """Return dz (N, D, H', W') with zeros in the last tiles where they reach over the edge: (N, …, …, D)."""
    (m_y, m_x), (down, across) = tiles
    N, D, H, W = dz.shape
    if (down * m_y, across * m_x) == (H, W):
        return dz.transpose(0, 2, 3, 1)
    filled = workspace.array("filled", (N, down * m_y, across * m_x, D), dz.dtype)
    filled[...] = 0
    filled[:, :H, :W] = dz.transpose(0, 2, 3, 1)
    return filled


def _blocks(rows: Array, tiles: Tiles) -> Array:
    """(N, n·m_y, across·m_x, C) → (N, n, m_y, across, m_x, C), a view."""
    (m_y, m_x), (_, across) = tiles
    return rows.reshape(rows.shape[0], rows.shape[1] // m_y, m_y, across, m_x, rows.shape[3])


def _by_tile(values: Array, shape: tuple[int, ...]) -> Array:
    """(m_y, m_x, N·n·across·C) → shape (N, n, m_y, across, m_x, C), a view."""
    N, n, m_y, across, m_x, C = shape
    return values.reshape(m_y, m_x, N, n, across, C).transpose(2, 3, 0, 4, 1, 5)
