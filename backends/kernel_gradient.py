"""The gradient to a kernel over time steps: several steps in one matrix product, and one addition to the sum.

    dW = Σ_t dW_t                                        each dW_t by `gradient_weights`, which sums over samples too

A kernel of many channels is larger than a second-level cache: to add it to the sum after every step costs a fifth of
the product that made it.  Steps are taken together while they are few and small; how many follows from the steps alone,
in the order in which they come, so the bits do not depend on how a sequence was cut into chunks or segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .contract import Array
from .geometry import Geometry

GradientWeights = Callable[[Array, Array, Geometry], Array]
MOST_BYTES = 2**21  # of columns and dz of the steps that are taken together …
MOST_KERNELS = 4  # … or as much as so many kernels, whichever is more


class StepsTogether:
    """Sums the gradient to one kernel over time steps."""

    def __init__(self, gradient_weights: GradientWeights, shape: tuple[int, ...], geometry: Geometry) -> None:
        """Sum what `gradient_weights` returns for maps (n, C, H, W) and (n, D, H', W') of some steps at once.

        Args:
            gradient_weights: see convolution.py.
            shape: the kernel's, (D, C, K, K).
            geometry: of the convolution.
        """
        self._gradient_weights, self._geometry = gradient_weights, geometry
        self._kernel_elements = math.prod(shape)
        self._steps: list[tuple[Array, Array]] = []  # not yet in the sum
        self._elements = 0
        self._sum: Array | None = None

    def add(self, x: Array, dz: Array) -> None:
        """Take a step; neither array is changed, and both are kept until they are in the sum."""
        elements = x.size * self._geometry.kernel[0] * self._geometry.kernel[1] + dz.size
        if (self._elements + elements) * x.itemsize > max(
            MOST_BYTES, MOST_KERNELS * self._kernel_elements * x.itemsize
        ):
            self._take()
        self._steps.append((x, dz))
        self._elements += elements

    def total(self) -> Array | None:
        """Return the sum, (D, C, K, K), None where there was no step; nothing may be added after."""
        self._take()
        return self._sum

    def _take(self) -> None:
        if not self._steps:
            return
        x, dz = (maps[0] if len(maps) == 1 else np.concatenate(maps) for maps in zip(*self._steps, strict=True))
        share = self._gradient_weights(x, dz, self._geometry)
        if self._sum is None:
            self._sum = share
        else:
            self._sum += share
        self._steps, self._elements = [], 0


class StepByStep:
    """Sums the gradient to one kernel over time steps, each at once: for a device, which fills itself with one."""

    def __init__(self, gradient_weights: GradientWeights, geometry: Geometry) -> None:
        self._gradient_weights, self._geometry = gradient_weights, geometry
        self._sum: Array | None = None

    def add(self, x: Array, dz: Array) -> None:
        """Take a step."""
        share = self._gradient_weights(x, dz, self._geometry)
        self._sum = share if self._sum is None else self._sum + share

    def total(self) -> Array | None:
        """Return the sum, (D, C, K, K), None where there was no step; nothing may be added after."""
        return self._sum
