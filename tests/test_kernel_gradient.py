"""Gradients to a kernel summed over time steps, several at once: which, that their sum is right, what is held."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.backends import Array, kernel_gradient
from convlstm.backends.contract import KernelGradient
from convlstm.backends.convolution import gradient_weights, gradient_weights_of_many
from convlstm.backends.geometry import POINTWISE, Geometry, resolve_geometry
from convlstm.backends.kernel_gradient import StepByStep, StepsTogether
from convlstm.backends.numpy_backend import WinogradBackend
from tests.numerical import freeze

H, W = 5, 4
THREE = resolve_geometry(H, W, (3, 3))
SHAPE = (3, 2, 3, 3)
STEP_BYTES = 8 * (2 * H * W * 9 + 3 * H * W)  # of columns and dz, in float64


def steps(T: int, N: int = 1, C: int = 2, D: int = 3, dtype: str = "float64") -> list[tuple[Array, Array]]:
    """Return T read-only steps (x, dz)."""
    rng = np.random.default_rng(T)
    made = [
        (rng.standard_normal((N, C, H, W)).astype(dtype), rng.standard_normal((N, D, H, W)).astype(dtype))
        for _ in range(T)
    ]
    freeze(made)
    return made


class Watched:
    """Computes as `gradient_weights_of_many` does, and keeps how many samples came together."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def __call__(self, x: Array, dz: Array, geometry: Geometry) -> Array:
        assert len(x) == len(dz)
        self.taken.append(len(x))
        return gradient_weights_of_many(x, dz, geometry)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let so many steps of (1, 2, H, W) be taken together."""

    def limit(most: float) -> None:
        monkeypatch.setattr(kernel_gradient, "MOST_BYTES", int(most * STEP_BYTES))
        monkeypatch.setattr(kernel_gradient, "MOST_KERNELS", 0)

    return limit


def fed(into: KernelGradient, given: Iterable[tuple[Array, Array]]) -> Array:
    for x, dz in given:
        into.add(x, dz)
    total = into.total()
    assert total is not None
    return total


def one_by_one(given: Iterable[tuple[Array, Array]], geometry: Geometry = THREE) -> Array:
    shares: list[Array] = [gradient_weights(x, dz, geometry) for x, dz in given]
    total: Array = np.sum(shares, axis=0)
    return total


# The sum --------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(T=st.integers(1, 12), N=st.integers(1, 3), most=st.floats(0.3, 8))
def test_the_total_is_the_sum_however_many_are_taken_together(T: int, N: int, most: float) -> None:
    given_steps, watched = steps(T, N), Watched()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_gradient, "MOST_BYTES", int(most * STEP_BYTES))
        patch.setattr(kernel_gradient, "MOST_KERNELS", 0)
        total = fed(StepsTogether(watched, SHAPE, THREE), given_steps)
    np.testing.assert_allclose(total, one_by_one(given_steps), rtol=1e-12, atol=1e-12)
    assert sum(watched.taken) == N * T
    most_together = max(int(most / N), 1)  # greedy: each group as full as it can be
    assert watched.taken[:-1] == [N * most_together] * (len(watched.taken) - 1)
    assert watched.taken[-1] <= N * most_together


def test_step_by_step_is_the_sum() -> None:
    watched, given_steps = Watched(), steps(5, N=2)
    total = fed(StepByStep(watched, THREE), given_steps)
    np.testing.assert_allclose(total, one_by_one(given_steps), rtol=1e-12, atol=1e-12)
    assert watched.taken == [2] * 5


@pytest.mark.parametrize("made", [StepsTogether(gradient_weights, SHAPE, THREE), StepByStep(gradient_weights, THREE)])
def test_without_a_step_there_is_no_sum(made: KernelGradient) -> None:
    assert made.total() is None


def test_a_total_asked_for_twice_is_the_same() -> None:
    for made in (StepsTogether(gradient_weights, SHAPE, THREE), StepByStep(gradient_weights, THREE)):
        first = fed(made, steps(3)).copy()
        again = made.total()
        assert again is not None
        np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize(
    ("most", "taken"), [(2, [2, 2, 2, 1]), (1, [1] * 7), (0.1, [1] * 7), (2.99, [2, 2, 2, 1]), (7, [7])]
)
def test_where_the_bound_is_reached(few: Callable[[float], None], most: float, taken: list[int]) -> None:
    few(most)
    watched = Watched()
    fed(StepsTogether(watched, SHAPE, THREE), steps(7))
    assert watched.taken == taken


def test_large_kernels_have_more_room(few: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    few(1)
    kernel_bytes = 8 * int(np.prod(SHAPE))
    monkeypatch.setattr(kernel_gradient, "MOST_KERNELS", -(-3 * STEP_BYTES // kernel_bytes))  # as much as three steps
    watched = Watched()
    fed(StepsTogether(watched, SHAPE, THREE), steps(7))
    assert watched.taken == [3, 3, 1]


def test_float32_takes_twice_as_many_together(few: Callable[[float], None]) -> None:
    few(2)
    watched = Watched()
    assert fed(StepsTogether(watched, SHAPE, THREE), steps(7, dtype="float32")).dtype == np.float32
    assert watched.taken == [4, 3]


# Bits -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3, 100])
def test_groups_follow_from_the_sequence_alone(few: Callable[[float], None], most: int) -> None:
    """Not from numbers, memory order, or what was summed before."""
    few(most)
    given_steps = steps(8, dtype="float32")
    right = fed(StepsTogether(gradient_weights_of_many, SHAPE, THREE), given_steps)
    other = [tuple(np.asfortranarray(array) for array in step) for step in given_steps]
    np.testing.assert_array_equal(fed(StepsTogether(gradient_weights_of_many, SHAPE, THREE), other), right)  # type: ignore[arg-type]
    groups = []
    for scale in (0, 1, np.nan):
        watched = Watched()
        fed(StepsTogether(watched, SHAPE, THREE), [(x * scale, dz) for x, dz in given_steps])
        groups.append(watched.taken)
    assert groups[0] == groups[1] == groups[2]


def test_other_groups_are_other_bits(few: Callable[[float], None]) -> None:
    """Else nobody would have to say what they follow from."""
    given_steps, found = steps(9, dtype="float32"), []
    for most in (0.5, 1.5, 4.5):
        few(most)
        found.append(fed(StepsTogether(gradient_weights_of_many, SHAPE, THREE), given_steps).tobytes())
    assert len(set(found)) > 1


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0.5, 3])
def test_no_more_steps_are_held_than_are_taken_together(few: Callable[[float], None], most: float) -> None:
    few(most)
    made = StepsTogether(gradient_weights_of_many, SHAPE, THREE)
    alive: list[Any] = []
    for x, dz in steps(20):
        x, dz = x.copy(), dz.copy()
        alive += [weakref.ref(x), weakref.ref(dz)]
        made.add(x, dz)
        del x, dz
        assert sum(reference() is not None for reference in alive) <= 2 * max(most, 1)
    assert made.total() is not None
    assert not any(reference() is not None for reference in alive)


KERNELS = {"1x1": (1, 1), "3x3": (3, 3), "2x2": (2, 2)}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
@pytest.mark.parametrize("of", [gradient_weights, gradient_weights_of_many, WinogradBackend.gradient_weights])
def test_nothing_that_was_given_is_changed_or_shared(
    of: Any, kernel: tuple[int, int], few: Callable[[float], None]
) -> None:
    """The sum begins as the first share, which is added to in place: so no share may be a view of an operand."""
    few(1)
    geometry = resolve_geometry(H, W, kernel)
    assert (geometry == POINTWISE) == (kernel == (1, 1))
    given_steps = steps(4, C=8, D=8)
    before = [(x.copy(), dz.copy()) for x, dz in given_steps]
    for made in (StepsTogether(of, (8, 8, *kernel), geometry), StepByStep(of, geometry)):
        total = fed(made, given_steps)
        assert total.flags.writeable
        np.testing.assert_allclose(total, one_by_one(before, geometry), rtol=1e-12, atol=1e-12)
        for (x, dz), (x_before, dz_before) in zip(given_steps, before, strict=True):
            np.testing.assert_array_equal(x, x_before)
            np.testing.assert_array_equal(dz, dz_before)
            assert not np.shares_memory(total, x)
            assert not np.shares_memory(total, dz)


def test_a_planted_share_that_is_a_view_is_seen(few: Callable[[float], None]) -> None:
    """What the test above would see, if a `gradient_weights` returned part of its operand."""
    few(1)
    view: Any = lambda x, dz, geometry: x  # noqa: E731
    with pytest.raises(ValueError, match="read-only"):
        fed(StepsTogether(view, SHAPE, THREE), steps(2))
    writeable = [(x.copy(), dz) for x, dz in steps(2)]
    total = fed(StepsTogether(view, SHAPE, THREE), writeable)
    assert np.shares_memory(total, writeable[0][0])
    assert not np.array_equal(writeable[0][0], steps(2)[0][0])
