"""Moving MNIST: two digits of 28×28 pixels that move through 64×64 and bounce off the walls, by the published rules.

A digit's upper left corner lies in a free square of side 1, which stands for the 36 pixels that the frame has more than
the digit.  It starts anywhere in it, every place as likely as another, and takes a direction, every angle as likely.
Then, before every frame, the first one too, it takes one step; a coordinate that has come to a wall or beyond it is put
onto the wall and its velocity turned round, so what a step would have gone beyond the wall is lost; and the corner is
drawn at the pixel that its position times 36 lies in, the fraction cut off.  Of two digits the brighter pixel is seen.

- `srivastava2015`: every step is 0.1 of the free side, 3.6 pixels; every digit image that a split has.  The motion is
  that of the generator published with the test set `mnist_test_seq.npy`, which OpenSTL and PredRNN follow for training.
  Source: N. Srivastava, E. Mansimov, R. Salakhutdinov, "Unsupervised learning of video representations using LSTMs",
  ICML 2015, section 3.2.  The paper lets the speed vary, too; the generator does not.
- `shi2015`: each digit has a speed, evenly from 3 up to 5 pixels a frame, and digits are of 500 images; 10 000, 2000
  and 3000 sequences of 20 frames, of which 10 are shown.  The paper does not say what happens at a wall, but that it
  follows Srivastava's generation, so that is taken.
  Source: X. Shi, Z. Chen, H. Wang, D.-Y. Yeung, W.-k. Wong, W.-c. Woo, "Convolutional LSTM network: a machine learning
  approach for precipitation nowcasting", NIPS 2015, section 4.1.

In one thing both are made stricter here: no digit image is in two splits.  Test digits are of MNIST's 10 000 test
images; its 60 000 training images are shared between train, five sixths of them, and validation.  The papers keep no
images for validation alone, and Shi's 500 serve all three splits; here each split has 500 of its own, so its test error
also counts what a model does with shapes that it has never seen, and is not quite the published quantity.

Every number comes from IEEE's +, ×, ÷, √ and comparisons alone, so a sequence has the same bits on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import index as as_int
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from convlstm.backends.geometry import as_count
from convlstm.data.idx import read_idx
from convlstm.data.series import DataError, damage_named
from convlstm.randomness import generator

Split = Literal["train", "validation", "test"]

DIGITS = 2  # in every frame
SIDE = 28  # pixels of a digit image, each way
FILES: Mapping[Split, str] = {
    "train": "train-images-idx3-ubyte",
    "validation": "train-images-idx3-ubyte",
    "test": "t10k-images-idx3-ubyte",
}
TORONTO_SHAPE = (20, 10000, 64, 64)  # of mnist_test_seq.npy: frames, sequences, pixels


@dataclass(frozen=True)
class Rule:
    """One published protocol.

    Attributes:
        name: who published it.
        slowest, fastest: a step in free sides, drawn evenly between them for each digit.
        images: how many digit images each split draws from; ``None``: all that it has.
        sequences: how many sequences the split has in the publication.
    """

    name: str
    slowest: float
    fastest: float
    images: int | None
    sequences: Mapping[Split, int]


SRIVASTAVA_2015 = Rule("srivastava2015", 0.1, 0.1, None, {"train": 10000, "validation": 2000, "test": 10000})
SHI_2015 = Rule("shi2015", 3 / 36, 5 / 36, 500, {"train": 10000, "validation": 2000, "test": 3000})
RULES: Mapping[str, Rule] = {rule.name: rule for rule in (SRIVASTAVA_2015, SHI_2015)}


def moving_mnist_sequences(
    split: Split,
    indices: Sequence[int] | range,
    *,
    seed: int,
    folder: str | Path,
    frames: int = 20,
    size: int = 64,
    rule: Rule = SRIVASTAVA_2015,
) -> NDArray[np.float32]:
    """Return sequences of two moving digits.

    Sequence i depends on ``seed``, ``split``, ``rule`` and i alone: not on the other indices, and a longer sequence
    continues a shorter one.  The splits share no digit image, whatever the seed.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        indices: which sequences, each ≥ 0, in any order; N of them.
        seed: 0 ≤ seed < 2**64.
        folder: where MNIST's two files of images are, packed with gzip or not.
        frames: frames in a sequence, T ≥ 1.
        size: height and width of a frame in pixels, > 28; speeds grow with the room that it leaves to a digit.
        rule: ``SRIVASTAVA_2015`` or ``SHI_2015``.

    Returns:
        Brightness in [0, 1], multiples of 1/255, shape (N, T, 1, size, size).

    Raises:
        ValueError: an argument lies outside its range.
        DataError: MNIST's images cannot be read, or are not MNIST's.
    """
    images, members = _split_images(split, folder, rule)
    pixels = _sequences(images, members, split, indices, seed=seed, frames=frames, size=size, rule=rule)
    return pixels[:, :, None].astype(np.float32) / np.float32(255)


def split_members(split: Split, *, folder: str | Path, rule: Rule = SRIVASTAVA_2015) -> NDArray[np.int64]:
    """Return which images of the split's file, train's or t10k's, its digits are drawn from: sorted, read-only.

    One fixed permutation of each file chooses them; train has its first five sixths and validation the rest.

    Raises:
        ValueError: there is no such split.
        DataError: the images cannot be read, are not MNIST's, or fewer than the rule needs.
    """
    return _split_images(split, folder, rule)[1]


def toronto_sequences(path: str | Path, indices: Sequence[int] | range) -> NDArray[np.float32]:
    """Return test sequences of `mnist_test_seq.npy` as the University of Toronto published it, and no others read.

    Returns:
        Brightness in [0, 1], multiples of 1/255, shape (N, 20, 1, 64, 64).

    Raises:
        ValueError: an index lies outside 0 … 9999.
        DataError: the file cannot be read or is another one.
    """
    with damage_named(str(path)):
        array = np.lib.format.open_memmap(path, mode="r")
    if array.shape != TORONTO_SHAPE or array.dtype != np.uint8:
        raise DataError(f"{path}: must be uint8 of shape {TORONTO_SHAPE}; got {array.dtype} of shape {array.shape}")
    samples = [as_int(i) for i in indices]
    if not all(0 <= i < array.shape[1] for i in samples):
        raise ValueError(f"indices must lie in 0 … {array.shape[1] - 1}; got {min(samples)} … {max(samples)}")
    pixels = np.swapaxes(array[:, samples], 0, 1)  # (N, T, H, W)
    return np.ascontiguousarray(pixels)[:, :, None].astype(np.float32) / np.float32(255)


# Fixed data, by hash ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digest:
    """SHA-256 of a split: of its frames, a byte a pixel in order, and of the numbers of its images, int64, little end
    first."""

    sequences: str
    images: str


def split_digest(
    split: Split,
    *,
    seed: int,
    folder: str | Path,
    rule: Rule,
    count: int | None = None,
    frames: int = 20,
    size: int = 64,
) -> Digest:
    """Return the digest of a split's first ``count`` sequences; without ``count`` of as many as were published.

    Raises:
        ValueError, DataError: as `moving_mnist_sequences`.
    """
    images, members = _split_images(split, folder, rule)
    count = rule.sequences[split] if count is None else as_count("count", count)
    digest = hashlib.sha256()
    for start in range(0, count, 100):
        indices = range(start, min(start + 100, count))
        pixels = _sequences(images, members, split, indices, seed=seed, frames=frames, size=size, rule=rule)
        digest.update(pixels.tobytes())
    return Digest(digest.hexdigest(), hashlib.sha256(members.astype("<i8").tobytes()).hexdigest())


def digests(folder: str | Path, *, rule: Rule, seed: int = 0) -> dict[Split, Digest]:
    """Return the digests of a rule's three splits at their published length; with seed 0 they are `RECORDED`'s."""
    return {split: split_digest(split, seed=seed, folder=folder, rule=rule) for split in get_args(Split)}


# What digests(folder, rule=…) returns with MNIST's own files, in some 14 s on one core: by rule and split.
RECORDED: Mapping[str, Mapping[Split, Digest]] = {
    "srivastava2015": {
        "train": Digest(
            "3b8e0f5a60b97a835880fa27a9a64d6aa3515b635d86c8cdd4a02baa3d74b3e8",
            "2a1a61a88c02aa3a82c4b4d57d1e8bd1df4ad65f517e009ed0ca54ad83293879",
        ),
        "validation": Digest(
            "50df46192b1159521f9b2278abe8bd025dc999eff31fbba02e64a0ee35f7bbfb",
            "bdae4ddd26f62fadce4e81d75dacbf918c2be351c521fb0b9942b260dbcfa296",
        ),
        "test": Digest(
            "37b9d9f20967e55d0af8d29e226e1ec0c3d21d79aed350d54114fa044fcb1981",
            "9e1c19b3fdc185411bd1a987deb6a9fda2531116aac060a84c4d878854d1c099",
        ),
    },
    "shi2015": {
        "train": Digest(
            "ddb9f456ac48cdad8c7cfe1682de7897fa504bf7a4fb6739daf5833ecb7e77fa",
            "9a59dd3bf5bebe5530e0b191ee61103c456c89ae121539eb2a70f48bbdb06914",
        ),
        "validation": Digest(
            "a0dfb9697363814ac30f69570e13dc00a9ff04a196ef1a9747aa85a1faf2cdfc",
            "6cfaa37ed57bbd28292d6b7e4c9869497014707916815a061e3227fb01526985",
        ),
        "test": Digest(
            "10883a97165d0e2825e4b8d2d3f0c890915a32fd8bde5275c665dbdd5f26212a",
            "07bb2e99b29023b9953612edc0887e755f6e9abf5bdf272273121a54d54f8694",
        ),
    },
}


# How it is made -----------------------------------------------------------------------------------------------------


def _split_images(split: Split, folder: str | Path, rule: Rule) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images of the split's file, (M, 28, 28), and which of them are the split's."""
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}; got {split!r}")
    path = Path(folder) / FILES[split]
    images = read_idx(path)
    if images.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{path}: MNIST's images have 28×28 pixels; got {images.shape[1]}×{images.shape[2]}")
    members = _members(split, len(images), rule.images)
    if len(members) < (rule.images or 1):
        raise DataError(f"{path}: {rule.name} needs {rule.images or 1} {split} images; got {len(members)}")
    return images, members


@lru_cache(maxsize=6)
def _members(split: Split, count: int, limit: int | None) -> NDArray[np.int64]:
    """Return at most ``limit`` of the ``count`` images of a file, those that the split draws from."""
    purpose = f"moving-mnist/{'test' if split == 'test' else 'train'}"
    shuffled = generator(0, purpose).random(count).argsort(kind="stable").astype(np.int64)
    train = count * 5 // 6
    own = {"train": shuffled[:train], "validation": shuffled[train:], "test": shuffled}[split]
    members: NDArray[np.int64] = np.sort(own[:limit])
    members.setflags(write=False)
    return members


def _sequences(
    images: NDArray[np.uint8],
    members: NDArray[np.int64],
    split: Split,
    indices: Sequence[int] | range,
    *,
    seed: int,
    frames: int,
    size: int,
    rule: Rule,
) -> NDArray[np.uint8]:
    """Return sequences of brightness 0 … 255, shape (N, T, size, size)."""
    frames, size = as_count("frames", frames), as_count("size", size)
    if size <= SIDE:
        raise ValueError(f"size must be more than {SIDE} pixels, a digit's side; got {size}")
    samples = [as_int(i) for i in indices]
    if samples and min(samples) < 0:
        raise ValueError(f"indices must be 0 or more; got {min(samples)}")
    sequences = np.zeros((len(samples), frames, size, size), np.uint8)
    for sequence, i in zip(sequences, samples, strict=True):
        draws = generator(seed, f"moving-mnist/{rule.name}/{split}", sample=i)
        # Only .random() is asked: NumPy keeps its stream, but may change how integers or choices are made from it.
        uniform = draws.random((DIGITS, 4))  # which image, start y, start x, how fast
        chosen = members[(uniform[:, 0] * len(members)).astype(np.int64)]
        speed = rule.slowest + (rule.fastest - rule.slowest) * uniform[:, 3:]  # (D, 1)
        velocity = speed * np.array([_direction(draws) for _ in range(DIGITS)])  # (D, 2)
        corners = ((size - SIDE) * _path(uniform[:, 1:3], velocity, frames)).astype(np.int64)  # (T, D, 2)
        _draw(sequence, images[chosen], corners)
    return sequences


def _direction(draws: np.random.Generator) -> NDArray[np.float64]:
    """Return a unit vector (2,) of any direction, all as likely.

    The direction of a point that is anywhere in the unit disc, where a point of the square is drawn again if it lies
    outside: with √ and ÷ alone, which round alike everywhere, as sine and cosine do not.
    """
    while True:
        point: NDArray[np.float64] = 2 * draws.random(2) - 1
        square = point[0] * point[0] + point[1] * point[1]
        if 0 < square <= 1:
            direction: NDArray[np.float64] = point / np.sqrt(square)
            return direction


def _path(start: NDArray[np.float64], velocity: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """Return where digits are in the free square in every frame, (T, D, 2), from ``start`` and ``velocity`` (D, 2)."""
    path = np.zeros((frames, *start.shape))
    position = start
    for t in range(frames):
        beyond = position + velocity
        position = np.clip(beyond, 0.0, 1.0)
        velocity = np.where((beyond <= 0) | (beyond >= 1), -velocity, velocity)
        path[t] = position
    return path


def _draw(sequence: NDArray[np.uint8], images: NDArray[np.uint8], corners: NDArray[np.int64]) -> None:
    """Draw digits (D, 28, 28) with upper left ``corners`` (T, D, 2) into a new ``sequence`` (T, size, size)."""
    for frame, places in zip(sequence, corners.tolist(), strict=True):
        for image, (top, left) in zip(images, places, strict=True):
            under = frame[top : top + SIDE, left : left + SIDE]
            np.maximum(under, image, out=under)
