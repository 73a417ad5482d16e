"""Gradients that do not fit their parameters: under another name, or of another shape."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from convlstm.gradcheck.arrays import Host


def missing(name: str, given: Iterable[str]) -> str:
    """Return the diagnosis of a parameter that no gradient was given for."""
    near = difflib.get_close_matches(name, list(given), 1, 0.4)
    return "missing: no gradient was given under this name" + (f"; there is one called {near[0]!r}" if near else "")


def superfluous(name: str, parameters: Iterable[str]) -> str:
    """Return the diagnosis of a gradient to no parameter."""
    near = difflib.get_close_matches(name, list(parameters), 1, 0.4)
    return "a gradient was given, but there is no such parameter" + (f"; is {near[0]!r} meant?" if near else "")


def refits(shape: tuple[int, ...], gradient: Host) -> Iterator[tuple[str, Host]]:
    """Yield what a gradient of another shape may be, with the array of the right shape that it would then stand for."""
    if gradient.T.shape == shape:
        yield f"transposed: it has shape {gradient.shape}, the parameter {shape}", gradient.T
    if gradient.ndim >= 2 and gradient.swapaxes(0, 1).shape == shape:
        yield (
            f"input and output channels are swapped: it has shape {gradient.shape}, the parameter {shape}",
            gradient.swapaxes(0, 1),
        )
    for count in range(1, gradient.ndim + 1):
        for axes in itertools.combinations(range(gradient.ndim), count):
            total = gradient.sum(axis=axes)
            if total.shape == shape or total.size == np.prod(shape) == 1:
                yield (
                    f"not summed over {_axes(gradient, axes)}: shape {gradient.shape} for {shape}",
                    total.reshape(shape),
                )
    if gradient.size == np.prod(shape):
        yield f"the numbers are right, but in shape {gradient.shape} for {shape}", gradient.reshape(shape)


def _axes(gradient: Host, axes: tuple[int, ...]) -> str:
    """Return what these axes are in arrays (N, C, H, W), (C, H, W), (N, C) or (T, N, C), as far as that can be told."""
    numbers = f"axes {axes}" if len(axes) > 1 else f"axis {axes[0]}"
    names = []
    if 0 in axes and gradient.ndim != 3:
        names.append("the batch")
    if {gradient.ndim - 2, gradient.ndim - 1} <= set(axes) and gradient.ndim >= 3:
        names.append("the pixels")
    return f"{' and '.join(names)} ({numbers})" if names else f"{numbers} (the batch, time or the pixels)"
