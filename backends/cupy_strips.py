"""Convolutions of samples so large that one's columns are too many for a device: row by row of the output, in strips.

Chainer's kernels count columns with int, so 2³¹ of them would be read from wrong places, and long before that they fill
the memory.  A strip is a convolution of its own: some rows of the output, the rows of the input that they read, and
what they meet of the padding.

    z[strip]   = W ∗ x[rows that it reads]               each on its own
    dx         = Σ over strips of its rows' gradient     strips overlap where they read the same rows
    dW         = Σ over strips

Which rows make a strip follows from shapes alone, and the sums run from the first strip to the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from . import convolution
from .contract import Array
from .geometry import POINTWISE, Geometry

MOST_INDEX = 2**31 - 1  # C's largest int


class Strip(NamedTuple):
    """A part of a convolution."""

    outputs: slice  # rows of z
    inputs: slice  # rows of x that they read
    geometry: Geometry  # of the one from the other


def convolve(x: Array, W: Array, geometry: Geometry, most: int) -> Array:
    """Return z = W ∗ x as `convolution.convolve` does, with at most `most` column elements at a time."""
    strips = _strips(x.shape, W.shape, geometry, most)
    if strips is None:
        return convolution.convolve(x, W, geometry)
    rows, columns = geometry.output_shape(*x.shape[2:])
    z = np.zeros_like(x, shape=(x.shape[0], rows, columns, W.shape[0]))  # in Chainer's order of memory
    for strip in strips:
        part = convolution.convolve(x[:, :, strip.inputs], W, strip.geometry)
        z[:, strip.outputs] = part.transpose(0, 2, 3, 1)
    return z.transpose(0, 3, 1, 2)


def gradient_input(dz: Array, W: Array, geometry: Geometry, height: int, width: int, most: int) -> Array:
    """Return dx as `convolution.gradient_input` does, with at most `most` column elements at a time."""
    shape = (dz.shape[0], W.shape[1], height, width)
    strips = _strips(shape, W.shape, geometry, most)
    if strips is None:
        return convolution.gradient_input(dz, W, geometry, height, width)
    dx = np.zeros_like(dz, shape=shape)
    for strip in strips:
        part = dx[:, :, strip.inputs]  # a view
        part += convolution.gradient_input(dz[:, :, strip.outputs], W, strip.geometry, part.shape[2], width)
    return dx


def gradient_weights(x: Array, dz: Array, geometry: Geometry, most: int) -> Array:
    """Return dW as `convolution.gradient_weights` does, with at most `most` column elements at a time."""
    shape = (dz.shape[1], x.shape[1], *geometry.kernel)
    strips = _strips(x.shape, shape, geometry, most)
    if strips is None:
        return convolution.gradient_weights(x, dz, geometry)
    dW = np.zeros_like(dz, shape=shape)
    for strip in strips:
        dW += convolution.gradient_weights(x[:, :, strip.inputs], dz[:, :, strip.outputs], strip.geometry)
    return dW


def _strips(x: tuple[int, ...], W: tuple[int, ...], geometry: Geometry, most: int) -> list[Strip] | None:
    """Return the strips of a convolution; None where it is to be computed as a whole.

    Args:
        x: (N, C, H, W).
        W: (D, C, K, K).
        geometry: of the convolution.
        most: column elements of a strip, unless a single row of outputs has more.

    Raises:
        ValueError: even a strip of one row is beyond what Chainer's kernels can index.
    """
    if geometry == POINTWISE:  # it has no columns
        return None
    rows, width = geometry.output_shape(*x[2:])
    NC, K = x[0] * x[1], math.prod(geometry.kernel)
    of_a_row = NC * max(K * width, geometry.stride[0] * x[3])  # its columns, or the rows of x that it adds
    at_once = max(most // max(of_a_row, 1), 1)
    if at_once >= rows:
        return None
    strips = list(_cut(x[2], rows, at_once, geometry))
    read = max((strip.inputs.stop - strip.inputs.start for strip in strips), default=0)
    largest = NC * max(at_once * K * width, read * x[3])
    if largest > MOST_INDEX:
        raise ValueError(
            f"a kernel (D, C, K, K) = {W} on maps (N, C, H, W) = {x} needs an array of {largest} elements even for few "
            f"rows; Chainer's kernels index at most {MOST_INDEX}: use a smaller kernel, fewer channels or narrower maps"
        )
    return strips


def _cut(height: int, rows: int, at_once: int, geometry: Geometry) -> Iterator[Strip]:
    """Yield strips of `at_once` rows of the output, the last perhaps of fewer; none that reads padding alone."""
    (top, _), sides = geometry.padding
    for start in range(0, rows, at_once):
        stop = min(start + at_once, rows)
        first = start * geometry.stride[0] - top  # row of x that its first tap reads, < 0 within the padding
        behind = (stop - 1) * geometry.stride[0] - top + geometry.extent[0]  # the row after the last one read
        inputs = slice(max(first, 0), min(behind, height))
        if inputs.start < inputs.stop:
            padding = (max(-first, 0), max(behind - height, 0))
            yield Strip(slice(start, stop), inputs, replace(geometry, padding=(padding, sides)))
