"""Windows over time: which there are, in which split, and in which order training goes through them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.data.series import DataError
from convlstm.data.windows import Split, order, split_runs, starts, windows_of

SPLITS: tuple[Split, ...] = get_args(Split)


@st.composite
def series_runs(draw: st.DrawFn) -> tuple[range, ...]:
    """Runs that follow one another from frame 0."""
    ends = np.cumsum(draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))).tolist()
    return tuple(range(first, end) for first, end in zip([0, *ends[:-1]], ends, strict=True))


LENGTHS = st.fixed_dictionaries({"context": st.integers(1, 4), "gap": st.integers(0, 2), "horizon": st.integers(1, 3)})


def starts_or_none(split: Split, *arguments: Any, **lengths: int) -> list[int]:
    try:
        return list(starts(split, *arguments, name="series", **lengths).tolist())  # type: ignore[arg-type]
    except DataError:
        return []


def split_at(runs: tuple[range, ...], data: st.DataObject) -> dict[Split, tuple[range, ...]]:
    total = runs[-1].stop
    validation = data.draw(st.integers(0, total - 1))
    return split_runs(runs, validation, data.draw(st.integers(0, total - 1 - validation)), name="series")


# Splits ---------------------------------------------------------------------------------------------------------


def test_the_last_frames_are_for_the_test() -> None:
    parts = split_runs((range(0, 4), range(4, 10)), validation=3, test=4, name="sst.nc")
    assert parts == {
        "train": (range(0, 3),),
        "validation": (range(3, 4), range(4, 6)),
        "test": (range(6, 10),),
    }


@given(series_runs(), st.data())
def test_splits_hold_every_frame_once_in_order_of_time(runs: tuple[range, ...], data: st.DataObject) -> None:
    parts = split_at(runs, data)
    assert [frame for split in SPLITS for part in parts[split] for frame in part] == list(range(runs[-1].stop))
    for part in (part for split in SPLITS for part in parts[split]):
        assert part
        assert any(set(part) <= set(run) for run in runs)


@pytest.mark.parametrize(("validation", "test"), [(0, 10), (10, 0), (4, 6), (9, 9)])
def test_something_must_be_left_for_training(validation: int, test: int) -> None:
    with pytest.raises(DataError) as caught:
        split_runs((range(10),), validation, test, name="sst.nc")
    assert str(caught.value) == (
        f"sst.nc: {validation} frames for validation and {test} for the test leave none of its 10 for training"
    )


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "3"])
@pytest.mark.parametrize("which", ["validation", "test"])
def test_counts_are_whole_numbers(which: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{which} must be an integer ≥ 0; got {wrong!r}"):
        split_runs((range(10),), **{"validation": 1, "test": 1, which: wrong}, name="x")


# Windows --------------------------------------------------------------------------------------------------------


def test_windows_of_the_drawing() -> None:
    runs = (range(26),)
    parts = split_runs(runs, validation=6, test=6, name="x")
    lengths = {"context": 3, "gap": 1, "horizon": 2, "stride": 1, "name": "x"}
    found = {split: starts(split, parts[split], runs, **lengths) for split in SPLITS}  # type: ignore[arg-type]
    assert found["train"].tolist() == list(range(0, 9))
    assert found["validation"].tolist() == list(range(10, 15))
    assert found["test"].tolist() == list(range(16, 21))
    assert found["test"].dtype == np.int64


@given(series_runs(), st.data(), LENGTHS)
def test_at_stride_one_every_possible_window_is_there(
    runs: tuple[range, ...], data: st.DataObject, lengths: dict[str, int]
) -> None:
    """Tried one after the other: which frames does a window touch, and whose are those that it predicts?"""
    parts = split_at(runs, data)
    length = sum(lengths.values())
    for split in SPLITS:
        own = {frame for part in parts[split] for frame in part}
        possible = [
            start
            for start in range(runs[-1].stop)
            if any(start in run and start + length - 1 in run for run in runs)
            and set(range(start + length - lengths["horizon"], start + length)) <= own
        ]
        assert starts_or_none(split, parts[split], runs, stride=1, **lengths) == possible


@given(series_runs(), st.data(), LENGTHS, st.integers(1, 4))
def test_training_never_sees_a_later_split(
    runs: tuple[range, ...], data: st.DataObject, lengths: dict[str, int], stride: int
) -> None:
    parts = split_at(runs, data)
    seen: dict[Split, set[int]] = {split: set() for split in SPLITS}
    predicted: dict[Split, set[int]] = {split: set() for split in SPLITS}
    length = sum(lengths.values())
    for split in SPLITS:
        for start in starts_or_none(split, parts[split], runs, stride=stride, **lengths):
            assert any(start in run and start + length - 1 in run for run in runs)
            seen[split] |= set(range(start, start + length))
            predicted[split] |= set(range(start + length - lengths["horizon"], start + length))
    own = {split: {frame for part in parts[split] for frame in part} for split in SPLITS}
    assert not seen["train"] & (own["validation"] | own["test"])
    assert not seen["validation"] & own["test"]
    assert all(predicted[split] <= own[split] for split in SPLITS)


@given(series_runs(), st.data(), LENGTHS, st.integers(1, 5))
def test_a_stride_keeps_the_last_window_and_counts_back_from_it(
    runs: tuple[range, ...], data: st.DataObject, lengths: dict[str, int], stride: int
) -> None:
    parts = split_at(runs, data)
    for split in SPLITS:
        for part in parts[split]:
            every = starts_or_none(split, [part], runs, stride=1, **lengths)
            assert starts_or_none(split, [part], runs, stride=stride, **lengths) == every[::-1][::stride][::-1]


@pytest.mark.parametrize(
    ("split", "lengths", "text"),
    [
        ("train", (3, 0, 2), "no train window fits: it needs 5 frames in a row, 3 shown, 2 predicted, the predicted "
         "ones of the split; the split has at most 4 in a row, and 0 before them"),
        ("validation", (3, 1, 3), "no validation window fits: it needs 7 frames in a row, 3 shown, 1 skipped, 3 "
         "predicted, the predicted ones of the split; the split has at most 2 in a row, and 4 before them"),
        ("test", (9, 0, 2), "no test window fits: it needs 11 frames in a row, 9 shown, 2 predicted, the predicted "
         "ones of the split; the split has at most 4 in a row, and 6 before them"),
    ],
)  # fmt: skip
def test_too_few_frames(split: Split, lengths: tuple[int, int, int], text: str) -> None:
    runs = (range(10),)
    parts = split_runs(runs, validation=2, test=4, name="sst.nc")
    context, gap, horizon = lengths
    with pytest.raises(DataError) as caught:
        starts(split, parts[split], runs, context=context, gap=gap, horizon=horizon, stride=1, name="sst.nc")
    assert str(caught.value) == f"sst.nc: {text}"


def test_of_several_stretches_the_longest_is_named() -> None:
    runs = (range(3), range(3, 8), range(8, 10))
    with pytest.raises(DataError, match=r"; the split has at most 4 in a row, and 1 before them$"):
        starts("test", (range(1, 3), range(4, 8)), runs, context=5, gap=0, horizon=1, stride=1, name="sst.nc")


def test_a_split_without_frames() -> None:
    with pytest.raises(DataError, match=r"^sst.nc: no test window fits: it needs 3 .*; the split has 0 frames$"):
        starts("test", (), (range(9),), context=2, gap=0, horizon=1, stride=1, name="sst.nc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": 0}, "context must be an integer ≥ 1; got 0"),
        ({"gap": -1}, "gap must be an integer ≥ 0; got -1"),
        ({"horizon": 0}, "horizon must be an integer ≥ 1; got 0"),
        ({"stride": 0}, "stride must be an integer ≥ 1; got 0"),
    ],
)
def test_wrong_lengths(change: dict[str, int], message: str) -> None:
    numbers = {"context": 1, "gap": 0, "horizon": 1, "stride": 1, **change}
    with pytest.raises(ValueError, match=message):
        starts("train", (range(9),), (range(9),), name="x", **numbers)


# Order ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(1, 300))
def test_an_order_is_a_permutation(seed: int, epoch: int, count: int) -> None:
    assert sorted(order(seed, epoch, count).tolist()) == list(range(count))


RECORDED = [9, 5, 3, 1, 4, 7, 8, 2, 0, 6, 11, 10]


def test_an_order_has_the_same_bits_everywhere_and_always() -> None:
    assert order(7, 3, 12).tolist() == RECORDED
    code = "from convlstm.data.windows import order; print(order(7, 3, 12).tolist())"
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert there.strip() == str(RECORDED)


def test_seed_and_epoch_change_the_order() -> None:
    assert len({order(seed, epoch, 50).tobytes() for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_windows_go_round_epoch_after_epoch() -> None:
    found = windows_of(range(25), 10, seed=4)
    assert found.dtype == np.int64
    whole = np.concatenate([order(4, epoch, 10) for epoch in range(3)])
    np.testing.assert_array_equal(found, whole[:25])


@given(st.lists(st.integers(0, 200), max_size=6), st.integers(1, 30), st.integers(0, 5))
def test_a_window_does_not_depend_on_the_others_asked_for(indices: list[int], count: int, seed: int) -> None:
    together = windows_of(indices, count, seed=seed)
    assert together.tolist() == [windows_of([i], count, seed=seed)[0] for i in indices]


def test_an_order_cannot_be_changed_by_a_caller() -> None:
    with pytest.raises(ValueError, match="read-only"):
        order(0, 0, 5)[0] = 1


@pytest.mark.parametrize("count", [0, -1, 2.0])
def test_no_windows_have_no_order(count: Any) -> None:
    with pytest.raises(ValueError, match="count must be an integer ≥ 1"):
        order(0, 0, count)
    with pytest.raises(ValueError, match="count must be an integer ≥ 1"):
        windows_of([0], count, seed=0)
