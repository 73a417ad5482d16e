"""Windows over time: which frames a model is shown and which it has to predict, in which split and in which order.

A window is ``context`` frames that are shown, ``gap`` frames that are skipped, and ``horizon`` frames to predict, one
after the other within one run of a series, so that it never spans a hole in time.  The last frames of a series are the
test's, those before them validation's, the rest is for training; a window belongs to the split that holds all frames
that it predicts:

    frames   . . . . . . . . . . . . . . | v v v v v v | t t t t t t
    first    s s s - p p                 |             |              of train; s shown, - skipped, p predicted
    last                     s s s - p p |             |              of train: nothing of later splits
    first                        s s s - | p p         |              of validation: what is shown may be of
    last                                 | s s s - p p |              an earlier split, it was known by then
    first                                |     s s s - | p p          of test
    last                                 |             | s s s - p p  of test

So training never sees a frame of validation or test, neither to read nor to predict; no frame is predicted in two
splits; and at stride 1 every frame of a split is predicted, where the frames around it in its run suffice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from convlstm.arguments import as_integer
from convlstm.backends.geometry import as_count
from convlstm.data.series import DataError
from convlstm.randomness import generator

Split = Literal["train", "validation", "test"]


def split_runs(runs: Sequence[range], validation: int, test: int, *, name: str) -> dict[Split, tuple[range, ...]]:
    """Return the frames that each split predicts: the last ``test`` of all runs, ``validation`` before them, the rest.

    Args:
        runs: a series' runs, in order, together 0 … T-1.
        validation: frames of the validation split, ≥ 0.
        test: frames of the test split, ≥ 0.
        name: the series' name, for messages.

    Returns:
        For each split its frames, in order, parted where a run ends.

    Raises:
        ValueError: ``validation`` or ``test`` is not an integer ≥ 0.
        DataError: they leave no frame for training.
    """
    validation = as_integer("validation", validation, "≥ 0", lambda count: count >= 0)
    test = as_integer("test", test, "≥ 0", lambda count: count >= 0)
    total = sum(len(run) for run in runs)
    if validation + test >= total:
        raise DataError(
            f"{name}: {validation} frames for validation and {test} for the test leave none of its {total} for training"
        )
    bounds = (0, total - test - validation, total - test, total)
    return {
        split: tuple(part for run in runs if (part := _common(run, range(first, end))))
        for split, first, end in zip(get_args(Split), bounds[:-1], bounds[1:], strict=True)
    }


def starts(
    split: Split,
    targets: Sequence[range],
    runs: Sequence[range],
    *,
    context: int,
    gap: int,
    horizon: int,
    stride: int,
    name: str,
) -> NDArray[np.int64]:
    """Return the first frames of all windows of a split, ascending, at least one.

    In each stretch of the split the last possible window is taken, and from it backwards every ``stride``-th: so the
    newest frames are always predicted.

    Args:
        split: the split's name, for messages.
        targets: what `split_runs` returns for this split.
        runs: the series' runs.
        context: frames shown, ≥ 1.
        gap: frames skipped between what is shown and what is predicted, ≥ 0.
        horizon: frames predicted, ≥ 1.
        stride: steps from one window to the next, ≥ 1.
        name: the series' name, for messages.

    Returns:
        Shape (windows,): a window of start s shows frames s … s + context - 1 and predicts
        s + context + gap … s + context + gap + horizon - 1.

    Raises:
        ValueError: a number lies outside its range.
        DataError: not one window fits.
    """
    context, horizon, stride = (
        as_count(word, value) for word, value in (("context", context), ("horizon", horizon), ("stride", stride))
    )
    gap = as_integer("gap", gap, "≥ 0", lambda count: count >= 0)
    length = context + gap + horizon
    found: list[int] = []
    for target in targets:
        first = max(_run_of(target, runs).start, target.start - context - gap)
        found += sorted(range(target.stop - length, first - 1, -stride))
    if not found:
        raise DataError(f"{name}: {_too_few(split, targets, runs, context, gap, horizon)}")
    return np.array(found, np.int64)


def order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the order in which an epoch goes through ``count`` windows: a permutation of 0 … count-1, read-only.

    It depends on its arguments alone, so a run that is resumed, or that asks for one epoch only, sees the same windows.

    Raises:
        ValueError: ``count`` is not an integer ≥ 1, or ``seed`` or ``epoch`` not one of 0 … 2**64 - 1.
    """
    return _order(seed, epoch, as_count("count", count))


def windows_of(indices: Sequence[int] | range, count: int, *, seed: int) -> NDArray[np.int64]:
    """Return which of ``count`` windows stand at these places of a training that goes through them again and again.

    Index i is place i % count of epoch i // count.

    Raises:
        ValueError: as `order`.
    """
    count = as_count("count", count)
    return np.array([order(seed, i // count, count)[i % count] for i in indices], np.int64)


@lru_cache(maxsize=4)  # a batch may span two epochs
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    permutation = generator(seed, "windows", sample=epoch).random(count).argsort(kind="stable").astype(np.int64)
    permutation.setflags(write=False)
    return permutation


def _common(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _too_few(
    split: Split, targets: Sequence[range], runs: Sequence[range], context: int, gap: int, horizon: int
) -> str:
    """Say how many frames a window needs and how many there are."""
    skipped = f", {gap} skipped" if gap else ""
    needed = f"{context + gap + horizon} frames in a row, {context} shown{skipped}, {horizon} predicted"
    if not targets:
        return f"no {split} window fits: it needs {needed}; the split has 0 frames"
    longest = max(targets, key=len)
    before = longest.start - _run_of(longest, runs).start
    there = f"the split has at most {len(longest)} in a row, and {before} before them"
    return f"no {split} window fits: it needs {needed}, the predicted ones of the split; {there}"


def _run_of(target: range, runs: Sequence[range]) -> range:
    return next(run for run in runs if target.start in run)
