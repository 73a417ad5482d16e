"""Two real handwritten digits that drift through a square frame and bounce off its walls.

The digits are the 1797 images of 8×8 pixels that scikit-learn bundles: E. Alpaydin and C. Kaynak, "Optical
Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.  The motion is that of Srivastava,
Mansimov and Salakhutdinov, "Unsupervised learning of video representations using LSTMs", ICML 2015 (Moving MNIST).

Every number here is a small multiple of a power of two, so float32 adds and multiplies them without rounding, and a
sequence has the same bits on every machine, whatever its BLAS and instruction set.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from operator import index as as_int
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from convlstm.backends.geometry import as_count
from convlstm.randomness import generator

Split = Literal["train", "validation", "test"]

DIGITS = 2  # in every frame
SIDE = 8  # pixels of a digit image, each way

# Lengths are integers in 1/256 of a *digit* pixel.  A frame pixel is 5/8 of one: a digit is drawn 12.8 pixels high.
UNIT = 256
FRAME_PIXEL = 160

# Per axis 0.5 … 2 frame pixels a frame: never still, and slow enough for a small kernel to see it coming.
SLOWEST, FASTEST = FRAME_PIXEL // 2, 2 * FRAME_PIXEL

SMALLEST_FRAME = 16  # pixels; the largest digit needs 12.8 and some room to move


def digit_sequences(
    split: Split, indices: Sequence[int] | range, *, seed: int, frames: int, size: int = 32
) -> NDArray[np.float32]:
    """Return sequences of two digits that move at constant velocity and bounce, the brighter in front.

    Sequence i depends on ``seed``, ``split`` and i alone: not on the other indices, and a longer sequence continues
    a shorter one.  The splits share no digit image, whatever the seed.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        indices: which sequences, each ≥ 0, in any order; N of them.
        seed: 0 ≤ seed < 2**64.
        frames: frames in a sequence, T ≥ 1.
        size: height and width of a frame in pixels, ≥ 16.

    Returns:
        Brightness in [0, 1], shape (N, T, 1, size, size).

    Raises:
        ValueError: an argument lies outside its range.
        ModuleNotFoundError: scikit-learn is not installed.
    """
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}; got {split!r}")
    frames, size = as_count("frames", frames), as_count("size", size)
    if size < SMALLEST_FRAME:
        raise ValueError(f"size must be at least {SMALLEST_FRAME} pixels; got {size}")
    samples = [as_int(i) for i in indices]
    if samples and min(samples) < 0:
        raise ValueError(f"indices must be 0 or more; got {min(samples)}")

    images, extents = digit_images()
    members = split_members(split)
    sequences = np.zeros((len(samples), frames, 1, size, size), np.float32)
    for sequence, i in zip(sequences, samples, strict=True):
        # Only .random() is asked: NumPy keeps its stream, but may change how integers or choices are made from it.
        draws = generator(seed, f"digits/{split}", sample=i).random((DIGITS, 5))
        chosen = members[(draws[:, 0] * len(members)).astype(np.int64)]
        corners = _paths(draws[:, 1:], extents[chosen], frames, size)
        sequence[:, 0] = _draw(images[chosen], corners, size).max(axis=0)
    return sequences


@lru_cache(maxsize=1)
def digit_images() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return all digit images and the extents of their ink, both read-only.

    Each image's ink is moved to its upper left corner, so that the ink, not an invisible margin, meets the walls:
    where a digit turns round can then be learnt from what is seen.

    Returns:
        Images (1797, 8, 8) with brightness 0, 1/16 … 1; extents (1797, 2), height and width in pixels.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    originals = _scanned() / np.float32(16)
    images = np.zeros_like(originals)
    extents: NDArray[np.int64] = np.zeros((len(originals), 2), np.int64)
    for image, extent, original in zip(images, extents, originals, strict=True):
        rows, columns = original.any(axis=1).nonzero()[0], original.any(axis=0).nonzero()[0]
        ink = original[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        extent[:] = ink.shape
        image[: ink.shape[0], : ink.shape[1]] = ink
    images.setflags(write=False)
    extents.setflags(write=False)
    return images, extents


def _scanned() -> NDArray[np.float32]:
    """Return the images as scikit-learn has them, 0 … 16, (1797, 8, 8).

    Read from its file, a line of 64 pixels and the digit's name each: to import scikit-learn takes two seconds.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            'the digits come with scikit-learn, which is missing; in the clone, pip install ".[digits]"', name="sklearn"
        )
    try:
        with gzip.open(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz") as lines:
            table = np.array([line.split(b",") for line in lines]).astype(np.float32)
    except FileNotFoundError:  # a version that keeps it elsewhere
        from sklearn.datasets import load_digits

        return np.array(load_digits().images, np.float32)
    return table[:, :-1].reshape(-1, SIDE, SIDE)


@lru_cache(maxsize=3)
def split_members(split: Split) -> NDArray[np.int64]:
    """Return which of the 1797 digit images belong to a split: 70 %, 10 % and 20 %, by one fixed permutation.

    Returns:
        Indices into ``digit_images()``, read-only.
    """
    count = len(digit_images()[0])
    shuffled = generator(0, "digits/partition").random(count).argsort(kind="stable").astype(np.int64)
    train, validation = count * 7 // 10, count * 8 // 10
    bounds = {"train": (0, train), "validation": (train, validation), "test": (validation, count)}
    members = np.sort(shuffled[slice(*bounds[split])])
    members.setflags(write=False)
    return members


def _paths(draws: NDArray[np.float64], extents: NDArray[np.int64], frames: int, size: int) -> NDArray[np.int64]:
    """Return where the digits' upper left corners are in every frame, in units, shape (D, T, 2).

    ``draws`` (D, 4), uniform in [0, 1): position y, x and velocity y, x.  Integers, so that nothing drifts with t.
    """
    room = FRAME_PIXEL * size - UNIT * extents  # (D, 2) the corner lies in 0 … room
    start = (draws[:, :2] * room).astype(np.int64)  # (D, 2)
    signed = 2 * draws[:, 2:] - 1  # in [-1, 1): which way, and how fast
    speed = SLOWEST + (FASTEST - SLOWEST) * np.abs(signed)
    velocity = np.where(signed < 0, -speed, speed).astype(np.int64)  # (D, 2) units per frame

    time = np.arange(frames, dtype=np.int64)[:, None]  # (T, 1)
    straight = start[:, None] + velocity[:, None] * time  # (D, T, 2) as if there were no walls
    folded: NDArray[np.int64] = room[:, None] - np.abs(straight % (2 * room[:, None]) - room[:, None])
    return folded


def _draw(images: NDArray[np.float32], corners: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """Return each digit alone in its frames, shape (D, T, size, size), from ``images`` (D, 8, 8).

    Bilinear sampling enlarges the digit and places it between pixels in one step.  With whole-pixel steps a constant
    velocity would stutter (1, 2, 1, 2 …) in a way that no network can predict; enlarging first and shifting after
    would blur the digit twice, more in some frames than in others.
    """
    centres = FRAME_PIXEL * np.arange(size) + FRAME_PIXEL // 2  # (size,) of frame pixels
    sources = UNIT * np.arange(SIDE) + UNIT // 2  # (8,) of digit pixels
    away = centres[:, None] - sources - corners[..., None, None]  # (D, T, 2, size, 8)
    # Multiples of 1/256; times brightness in 1/16 and again 1/256 they need 20 of float32's 24 bits: no rounding.
    weights = np.maximum(1 - np.abs(away).astype(np.float32) / UNIT, 0)
    rows, columns = weights[:, :, 0], weights[:, :, 1]  # (D, T, size, 8) each
    frames: NDArray[np.float32] = rows @ images[:, None] @ columns.swapaxes(-1, -2)  # (D, T, size, size)
    return frames
