"""Sequences that are made: what is asked for, and which of their frames count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm.data.source import Made, Scored


def made(gap: range = range(0)) -> Made:
    def make(split: str, indices: range) -> NDArray[np.float32]:
        start = {"train": 0, "validation": 100, "test": 200}[split]
        frames = np.zeros((len(indices), 5, 1, 4, 4), np.float32)
        return frames + np.array(indices, np.float32)[:, None, None, None, None] + np.float32(start)

    counts: dict[Scored, int] = {"validation": 2, "test": 7}
    return Made("numbers", make, 4, counts, gap)


def test_what_is_made_is_what_is_read() -> None:
    source = made()
    batch = source.batch("test", range(3, 5))
    assert batch.frames is batch.raw
    assert list(batch.raw[:, 0, 0, 0, 0]) == [203, 204]
    assert batch.valid is None
    assert batch.season is None
    assert source.undo(batch.frames, None) is batch.frames
    assert (source.count("validation"), source.count("test"), source.shape) == (2, 7, (1, 4, 4))
    facts: Any = source.facts
    assert (facts.name, facts.shape, facts.windows) == ("numbers", (1, 4, 4), None)
    assert (facts.lowest, facts.highest, facts.filling, facts.damping) == ((0,), (1,), (0,), ())


@pytest.mark.parametrize("gap", [range(2, 3), range(1, 4)])
def test_skipped_frames_do_not_count(gap: range) -> None:
    valid = made(gap).batch("train", range(2)).valid
    assert valid is not None
    assert valid.shape == (2, 5, 1, 4, 4)
    for t in range(5):
        assert valid[:, t].all() == valid[:, t].any() == (t not in gap)
