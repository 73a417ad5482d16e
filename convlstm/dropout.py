"""Dropout: maps with some elements set to zero, the same ones at every time step of a sequence.

    x̃_t = x_t ∘ m_x,    h̃_{t-1} = h_{t-1} ∘ m_h,    m = 0 with probability p, else 1/(1-p)

The step then computes with x̃ and h̃; the cell c is never dropped.  The mean of m is 1, so nothing has to be rescaled
where nothing is dropped, in prediction.

A mask is drawn on the host at (seed, layer, sample, step) of the random space, so a sample meets the same one on every
backend, in every batch and on every process.

Source: Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks", NIPS 2016.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from convlstm.arguments import as_integer
from convlstm.backends.contract import Array, Backend
from convlstm.randomness import generator


class Draws(NamedTuple):
    """Where in the random space a batch's masks are drawn."""

    seed: int
    step: int = 0  # of training
    first: int = 0  # global index of the batch's first sample


class Drop(NamedTuple):
    """The masks of one layer; None where nothing is dropped."""

    x: Array | None = None  # (N, Cin, Hx, Wx)
    h: Array | None = None  # (N, C, H, W)


NOTHING = Drop()


def check_draws(draws: Draws) -> None:
    """Check that draws are an address in the random space; else raise a TypeError or a ValueError."""
    if not isinstance(draws, Draws):
        raise TypeError(f"draws must be convlstm.Draws(seed, step, first); got {draws!r}")
    for name, word in zip(("seed", "step", "first"), draws, strict=True):
        as_integer(f"{name} of draws", word, "≥ 0", lambda number: 0 <= number < 2**64)


def draw_mask(
    backend: Backend, draws: Draws, part: slice, p: float, purpose: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:  # fmt: skip
    """Return the masks of some samples of a batch.

    Args:
        backend: that owns the result.
        draws: of the batch.
        part: which samples of it.
        p: probability that an element is dropped, 0 ≤ p < 1.
        purpose: tells a layer's masks from all other draws.
        shape: of one sample's mask.
        dtype: of the result.

    Returns:
        (samples, *shape), each element 0 or 1/(1-p).
    """
    uniform = [
        generator(draws.seed, f"dropout/{purpose}", sample=draws.first + n, step=draws.step).random(shape)
        for n in range(part.start, part.stop)
    ]
    return backend.asarray(((np.stack(uniform) >= p) / (1 - p)).astype(dtype))


def dropped(maps: Array, mask: Array | None) -> Array:
    """Return maps∘m; its gradient is the same product."""
    return maps if mask is None else maps * mask
