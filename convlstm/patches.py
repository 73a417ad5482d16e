"""Folding P×P pixels into channels and back: a smaller map with more channels, as Shi et al. 2015 feed their frames."""

from __future__ import annotations

from convlstm.backends.contract import Array


def fold(frames: Array, P: int) -> Array:
    """(N, T, C, H, W) → (N, T, C·P·P, H/P, W/P); pixel (P·y + j, P·x + i) of channel c goes to channel (c·P + j)·P + i.

    Raises:
        ValueError: P does not divide the height and the width.
    """
    N, T, C, H, W = frames.shape
    if P < 1 or H % P or W % P:
        raise ValueError(f"patch {P} must divide the height and width of the frames; got {H}×{W}")
    blocks = frames.reshape(N, T, C, H // P, P, W // P, P)
    return blocks.transpose(0, 1, 2, 4, 6, 3, 5).reshape(N, T, C * P * P, H // P, W // P)


def unfold(folded: Array, P: int) -> Array:
    """(N, T, C·P·P, H, W) → (N, T, C, H·P, W·P), the inverse of `fold`.

    Raises:
        ValueError: the channels are not a multiple of P·P.
    """
    N, T, CPP, H, W = folded.shape
    if P < 1 or CPP % (P * P):
        raise ValueError(f"patch {P} needs a multiple of {P * P} channels to unfold; got {CPP}")
    blocks = folded.reshape(N, T, CPP // (P * P), P, P, H, W)
    return blocks.transpose(0, 1, 2, 5, 3, 6, 4).reshape(N, T, CPP // (P * P), H * P, W * P)
