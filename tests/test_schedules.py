"""Schedules: against PyTorch's own numbers, at their first and last steps, and where warm-up hands over."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.schedules import (
    SCHEDULES,
    ScheduleName,
    constant,
    cosine,
    learning_rate_factor,
    linear,
    one_cycle,
    warm_up,
)
from tests.golden import record_optimizers as recorder


def factors(name: Any, steps: int, **settings: Any) -> list[float]:
    return [learning_rate_factor(name, step, steps, **settings) for step in range(steps)]


# Single schedules ------------------------------------------------------------------------------------------------


def test_constant() -> None:
    assert [constant(step, 4) for step in range(4)] == [1, 1, 1, 1]


def test_linear_starts_full_and_ends_one_step_above_zero() -> None:
    assert [linear(step, 4) for step in range(4)] == pytest.approx([1, 0.75, 0.5, 0.25])


def test_linear_has_the_bits_it_always_had() -> None:
    """A run's ledger depends on every one."""
    assert [linear(step, 300) for step in range(300)] == [1 - step / 300 for step in range(300)]


def test_step() -> None:
    assert factors("step", 7, step_every=3, step_factor=0.5) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert [SCHEDULES["step"](step, 300) for step in (0, 99, 100, 299)] == [1, 1, 0.1, 0.1**2]


def test_cosine() -> None:
    assert [cosine(step, 4) for step in range(4)] == pytest.approx([1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4])


def test_one_cycle_rises_to_the_whole_rate_and_falls_to_almost_none() -> None:
    cycle = [one_cycle(step, 10) for step in range(10)]
    assert cycle[:3] == pytest.approx([1 / 25, 0.52, 1])  # the peak is at 0.3 · 10 - 1 = 2
    assert cycle[2:] == sorted(cycle[2:], reverse=True)
    assert cycle[-1] == pytest.approx(4e-6)


def test_one_cycle_of_one_step_is_its_end() -> None:
    assert one_cycle(0, 1) == pytest.approx(4e-6)


# PyTorch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", recorder.SCHEDULES, ids=lambda which: recorder.key(*which))
def test_the_numbers_are_pytorchs(which: tuple[ScheduleName, int, int]) -> None:
    """The largest difference found is 1.1e-14, of "cosine", which PyTorch multiplies up from step to step."""
    name, steps, warmup_steps = which
    recorded = json.loads(recorder.FILE.read_text("utf-8"))["schedules"][recorder.key(*which)]
    found = factors(
        name, steps, warmup_steps=warmup_steps, step_every=recorder.STEP_EVERY, step_factor=recorder.STEP_FACTOR
    )
    assert found == pytest.approx([float.fromhex(number) for number in recorded.split()], rel=1e-13, abs=0)


# Of torch.optim 2.13.0, as `recorder._factors` makes them: (steps, warm-up steps) and the first four factors.
CYCLES_WITHOUT_A_RISE = {
    (4, 3): [0.04 / 3, 0.08 / 3, 0.04, 4e-6],
    (5, 3): [0.04 / 3, 0.08 / 3, 0.04, 0.811745653949763],
    (6, 3): [0.04 / 3, 0.08 / 3, 0.04, 0.9944154354509117],
    (2, 1): [0.04, 4e-6],
}


@pytest.mark.parametrize("steps", CYCLES_WITHOUT_A_RISE)
def test_warm_up_to_a_cycle_without_a_rise_is_pytorchs(steps: tuple[int, int]) -> None:
    """The cycle of so few steps does not begin at 1/25; the warm-up ends there all the same."""
    found = factors("one-cycle", steps[0], warmup_steps=steps[1])[:4]
    assert found == pytest.approx(CYCLES_WITHOUT_A_RISE[steps], rel=1e-13, abs=0)


# Warm-up and the one function that a configuration calls ---------------------------------------------------------


def test_warm_up() -> None:
    assert [warm_up(step, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1]


def test_the_schedule_begins_where_warm_up_ends() -> None:
    assert factors("linear", 6, warmup_steps=2) == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert factors("constant", 3, warmup_steps=1) == [1, 1, 1]


def test_warm_up_before_one_cycle_rises_to_where_the_cycle_begins() -> None:
    found = factors("one-cycle", 14, warmup_steps=4)
    assert found[:5] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.04])
    assert found[4:] == [one_cycle(step, 10) for step in range(10)]


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 300), st.data())
def test_every_factor_is_a_share_of_the_base_rate(name: ScheduleName, steps: int, data: st.DataObject) -> None:
    warmup_steps = data.draw(st.integers(0, steps - 1))
    found = factors(name, steps, warmup_steps=warmup_steps, step_every=data.draw(st.integers(1, 50)))
    assert all(type(factor) is float and 0 < factor <= 1 + 1e-15 for factor in found)
    assert found[:warmup_steps] == sorted(found[:warmup_steps])
    if name != "one-cycle":
        assert found[warmup_steps:] == sorted(found[warmup_steps:], reverse=True)


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 300), st.data())
def test_without_warm_up_it_is_the_schedule_alone(name: ScheduleName, steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))
    assert learning_rate_factor(name, step, steps) == SCHEDULES[name](step, steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cosin"}, "schedule must be one of constant, linear, step, cosine, one-cycle; got 'cosin'"),
        ({"name": []}, r"schedule must be one of constant, linear, step, cosine, one-cycle; got \[\]"),
        *[({"step": n}, f"step must be an integer in 0 … steps - 1 = 99; got {n!r}") for n in (-1, 100, 0.5, "a")],
        *[
            ({"warmup_steps": n}, f"warmup_steps must be an integer in 0 … steps - 1 = 99; got {n!r}")
            for n in (-1, 100, 0.5, None, True)
        ],
        *[({"steps": n}, f"steps must be an integer ≥ 1; got {n!r}") for n in (0, 9.5, math.inf, "a")],
        *[({"step_every": n}, f"step_every must be an integer ≥ 1; got {n!r}") for n in (0, 1.5, math.nan, "a")],
        ({"step_factor": "a"}, "step_factor must be > 0 and finite; got 'a'"),
        ({"step_factor": 0.0}, "step_factor must be > 0 and finite; got 0.0"),
        ({"step_factor": math.inf}, "step_factor must be > 0 and finite; got inf"),
        ({"step_factor": math.nan}, "step_factor must be > 0 and finite; got nan"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        learning_rate_factor(**{"name": "cosine", "step": 0, "steps": 100, **arguments})


def test_a_factor_that_no_number_holds() -> None:
    settings = {"step_every": 1, "step_factor": 1e300}
    assert factors("step", 2, **settings) == [1, 1e300]
    with pytest.raises(ValueError, match=r"^step_factor\^⌊step/step_every⌋ must be < 2\^1024; got 1e\+300\^2$"):
        factors("step", 3, **settings)
