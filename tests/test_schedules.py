from __future__ import annotations

import pytest

from convlstm.schedules import constant, linear


def test_constant() -> None:
    assert [constant(step, 4) for step in range(4)] == [1, 1, 1, 1]


def test_linear_starts_full_and_ends_one_step_above_zero() -> None:
    assert [linear(step, 4) for step in range(4)] == pytest.approx([1, 0.75, 0.5, 0.25])
