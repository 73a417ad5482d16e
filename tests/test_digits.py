"""The digits: which images move, how they move, how they are drawn, and on what a sequence depends."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convlstm.data import digits
from convlstm.data.digits import Split, _scanned, digit_images, digit_sequences, split_members
from convlstm.randomness import generator

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def test_sequences_are_float32_in_0_to_1() -> None:
    sequences = digit_sequences("train", range(50), seed=3, frames=7, size=40)
    assert sequences.shape == (50, 7, 1, 40, 40)
    assert sequences.dtype == np.float32
    assert sequences.min() == 0
    assert 0.9 < sequences.max() <= 1
    assert (sequences.max(axis=(2, 3, 4)) > 0.5).all()  # there is something to see in every frame


def test_bits_are_the_same_on_every_machine() -> None:
    sequences = digit_sequences("train", range(4), seed=0, frames=10)
    digest = hashlib.sha256(sequences.astype("<f4").tobytes()).hexdigest()
    assert digest == "1477161ddf9bfe26e0fcf37f5c2feb93b8a14469fd0a095ef988af720fe6190a"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**63), max_size=4), st.sampled_from(SPLITS), st.integers(0, 2**64 - 1))
def test_a_sequence_does_not_depend_on_the_others(indices: list[int], split: Split, seed: int) -> None:
    together = digit_sequences(split, indices, seed=seed, frames=3)
    assert len(together) == len(indices)
    for i, sequence in zip(indices, together, strict=True):
        np.testing.assert_array_equal(sequence, digit_sequences(split, [i], seed=seed, frames=3)[0])


def test_a_longer_sequence_continues_a_shorter_one() -> None:
    longer = digit_sequences("test", range(5), seed=1, frames=40)
    np.testing.assert_array_equal(longer[:, :11], digit_sequences("test", range(5), seed=1, frames=11))


def test_seed_split_and_index_each_change_the_sequence() -> None:
    four = [
        digit_sequences("train", [0], seed=0, frames=2),
        digit_sequences("train", [0], seed=1, frames=2),
        digit_sequences("test", [0], seed=0, frames=2),
        digit_sequences("train", [1], seed=0, frames=2),
    ]
    assert len({sequence.tobytes() for sequence in four}) == 4


def test_indices_may_be_numpy_integers() -> None:
    np.testing.assert_array_equal(
        digit_sequences("train", list(np.array([4, 2])), seed=0, frames=2),
        digit_sequences("train", [4, 2], seed=0, frames=2),
    )


# Which images ---------------------------------------------------------------------------------------------------


def test_splits_hold_every_image_once() -> None:
    members = [split_members(split) for split in SPLITS]
    np.testing.assert_array_equal(np.sort(np.concatenate(members)), np.arange(1797))
    assert [len(m) for m in members] == [1257, 180, 360]


def test_all_images_differ() -> None:
    images, _ = digit_images()
    assert len({image.tobytes() for image in images}) == 1797


@pytest.mark.parametrize("seed", [0, 1])
def test_no_image_is_seen_in_two_splits(seed: int) -> None:
    """Read the digits back out of the pixels: bilinear enlargement can be undone where a digit stands alone."""
    images, _ = digit_images()
    known = {np.round(16 * image).astype(np.int64).tobytes(): k for k, image in enumerate(images)}
    seen: dict[Split, set[int]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        sequences = digit_sequences(split, range(600), seed=seed, frames=6)
        for i, sequence in enumerate(sequences):
            seen[split] |= {known[image.tobytes()] for image in _read_back(sequence[:, 0], split, i, seed)}
        assert len(seen[split]) > 100, f"too few digits were legible in {split}"
        assert seen[split] <= set(split_members(split).tolist())
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


def _read_back(frames: NDArray[np.float32], split: Split, i: int, seed: int) -> list[NDArray[np.int64]]:
    """Return the 8×8 images, in 0 … 16, of the digits that stand alone in some frame (T, 32, 32) of sequence i."""
    draws = generator(seed, f"digits/{split}", sample=i).random((2, 5))
    members = split_members(split)
    extents = digit_images()[1][members[(draws[:, 0] * len(members)).astype(int)]]
    corners = digits._paths(draws[:, 1:], extents, len(frames), 32)
    found = []
    for first, second, frame in zip(corners[0], corners[1], frames, strict=True):
        if np.abs(first - second).max() < 10 * digits.UNIT:  # 8 pixels of the digit and one of blur on either side
            continue
        for corner in (first, second):
            hats = [_hat(position) for position in corner]  # (32, 8) for y, x
            alone = frame * np.outer(hats[0].any(axis=1), hats[1].any(axis=1))
            image = 16 * np.linalg.pinv(hats[0]) @ alone @ np.linalg.pinv(hats[1]).T
            np.testing.assert_allclose(image, image.round(), atol=1e-4)
            found.append(image.round().astype(np.int64))
    return found


def _hat(corner: int) -> NDArray[np.float64]:
    """How much of each of a digit's 8 rows is in each of the frame's 32, from the definition."""
    y = (np.arange(32) + 0.5) * 5 / 8 - corner / 256 - 0.5  # the frame's rows, counted in the digit's
    hat: NDArray[np.float64] = np.clip(1 - np.abs(y[:, None] - np.arange(8)), 0, None)
    return hat


def test_no_image_is_seen_in_two_splits_when_each_has_its_own_brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a uniform square, drawing keeps the brightness: so 1797 squares each show their number in every frame."""
    number = np.arange(1, 1798, dtype=np.float32) / 2048
    squares = np.ones((1797, 8, 8), np.float32) * number[:, None, None]
    monkeypatch.setattr(digits, "digit_images", lambda: (squares, np.full((1797, 2), 8)))
    seen: dict[Split, set[float]] = {}
    for split in SPLITS:
        frames = digit_sequences(split, range(2000), seed=5, frames=2)
        here, below, beside = frames[..., :-1, :-1], frames[..., 1:, :-1], frames[..., :-1, 1:]
        seen[split] = set(here[(here == below) & (here == beside)].tolist()) & set(number.tolist())
        assert len(seen[split]) > 0.9 * len(split_members(split))
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


# How they move and are drawn ------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=8, max_size=8),
    st.lists(st.integers(2, 8), min_size=4, max_size=4),
    st.integers(16, 64),
)
def test_paths_bounce_as_a_ball_does(draws: list[float], extents: list[int], size: int) -> None:
    paths = digits._paths(np.array(draws).reshape(2, 4), np.array(extents).reshape(2, 2), 60, size)
    assert paths.shape == (2, 60, 2)
    for d in range(2):
        for axis in range(2):
            path = paths[d, :, axis].tolist()
            room = 160 * size - 256 * extents[2 * d + axis]
            signed = 2 * draws[4 * d + 2 + axis] - 1
            velocity = int(80 + 240 * abs(signed)) * (1 if signed >= 0 else -1)
            position = path[0]
            for there in path:
                assert there == position
                position += velocity
                while not 0 <= position <= room:
                    position = -position if position < 0 else 2 * room - position
                    velocity = -velocity


def test_drawing_is_bilinear_sampling_without_any_rounding() -> None:
    images = digit_images()[0][:2]
    corners = np.array([[[0, 0], [37, 1000]], [[2999, 511], [3072, 3072]]])  # (D, T, 2)
    drawn = digits._draw(images, corners, 32)
    for d in range(2):
        for t in range(2):
            rows, columns = (_hat(corner) for corner in corners[d, t])
            expected = np.array([[(np.outer(r, c) * images[d]).sum() for c in columns] for r in rows])
            np.testing.assert_array_equal(drawn[d, t], expected)  # float64 to the last bit


def test_overlapping_digits_show_the_brighter() -> None:
    sequence = digit_sequences("train", [0], seed=0, frames=8)[0, :, 0]
    draws = generator(0, "digits/train", sample=0).random((2, 5))
    members = split_members("train")
    chosen = members[(draws[:, 0] * len(members)).astype(int)]
    images, extents = digit_images()
    alone = digits._draw(images[chosen], digits._paths(draws[:, 1:], extents[chosen], 8, 32), 32)
    np.testing.assert_array_equal(sequence, np.maximum(alone[0], alone[1]))


def test_ink_starts_in_the_corner_and_ends_at_its_extent() -> None:
    images, extents = digit_images()
    for image, (height, width) in zip(images, extents, strict=True):
        for across, end in ((image.any(axis=1), height), (image.any(axis=0), width)):
            assert across[0]
            assert across[end - 1]
            assert not across[end:].any()
    np.testing.assert_array_equal(np.unique(16 * images), np.arange(17))


# What goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "valid"}, "split must be one of train, validation, test; got 'valid'"),
        ({"frames": 0}, "frames must be an integer ≥ 1; got 0"),
        ({"size": 15}, "size must be at least 16 pixels; got 15"),
        ({"indices": [3, -2]}, "indices must be 0 or more; got -2"),
        ({"seed": -1}, "seed must lie in"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], message: str) -> None:
    split: Any = change.pop("split", "train")
    indices: Sequence[int] = change.pop("indices", [0])
    with pytest.raises(ValueError, match=message):
        digit_sequences(split, indices, **{"seed": 0, "frames": 2, **change})


def test_images_cannot_be_changed_by_a_caller() -> None:
    for array in (*digit_images(), split_members("train")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r'^[^\n]*pip install "\.\[digits\]"$'):
        digit_images.__wrapped__()


def test_scikit_learn_is_never_imported() -> None:
    code = "import sys, convlstm.data.digits as digits; digits.digit_images(); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_digits_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is imported only where its file is not found."""
    datasets = pytest.importorskip("sklearn.datasets")
    assert np.array_equal(_scanned(), datasets.load_digits().images)
    monkeypatch.setattr(digits, "Path", lambda origin: Path("nowhere", "__init__.py"))
    assert np.array_equal(_scanned(), datasets.load_digits().images)
