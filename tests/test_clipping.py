"""Clipping: which gradients are touched, by what they are divided, and that nothing infinite is made to look well."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from convlstm.backends import Array
from convlstm.clipping import CLIPPINGS, clip_global_norm, clip_tensors
from tests.numerical import read_only

tensors = arrays_of.arrays(
    st.sampled_from([np.float32, np.float64]),
    arrays_of.array_shapes(max_dims=3, max_side=4),
    elements=st.floats(-(2.0**20), 2.0**20, width=32),
)
gradients_of_a_step = st.dictionaries(st.sampled_from(["W_x", "W_h", "b", "p_i"]), tensors, min_size=1)


def length(*arrays: Array) -> float:
    """The L2 norm, by exact summation."""
    return math.sqrt(math.fsum(float(g) ** 2 for array in arrays for g in array.flat))


# A tensor with any |g| > 1 is divided by its L2 norm ------------------------------------------------------------


def test_tensor_rule_on_numbers_that_one_can_check_in_the_head() -> None:
    given_ = read_only(
        {
            "over": np.array([3.0, -4.0]),  # norm 5
            "under zero": np.array([[-2.0, 0.0]]),  # a large negative element counts too
            "at one": np.array([1.0, -1.0]),  # norm 1.41, but no element above 1
            "small": np.array([0.5, 0.25]),
            "zero": np.zeros(3),
        }
    )
    clipped = clip_tensors(given_)
    assert {name: g.tolist() for name, g in clipped.items()} == {
        "over": [0.6, -0.8],
        "under zero": [[-1.0, 0.0]],
        "at one": [1.0, -1.0],
        "small": [0.5, 0.25],
        "zero": [0, 0, 0],
    }


@settings(deadline=None)
@given(gradients_of_a_step)
def test_tensor_rule(given_: dict[str, Array]) -> None:
    clipped = clip_tensors(read_only(given_))
    assert list(clipped) == list(given_)
    for name, g in given_.items():
        assert clipped[name].dtype == g.dtype
        expected = g / length(g) if abs(g).max() > 1 else g
        np.testing.assert_allclose(clipped[name], expected, rtol=1e-6 if g.dtype == np.float32 else 1e-14)


def test_tensors_that_are_short_enough_are_passed_on_bit_for_bit() -> None:
    g = np.linspace(-1, 1, 7, dtype=np.float32)
    assert clip_tensors({"b": g})["b"].tobytes() == g.tobytes()


# All tensors together -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(gradients_of_a_step, st.sampled_from([0.01, 1.0, 50.0]))
def test_global_norm(given_: dict[str, Array], max_norm: float) -> None:
    before = length(*given_.values())
    clipped = clip_global_norm(read_only(given_), max_norm)
    assert list(clipped) == list(given_)
    scale = min(1, max_norm / before) if before else 1
    for name, g in given_.items():
        assert clipped[name].dtype == g.dtype
        np.testing.assert_allclose(clipped[name], g * scale, rtol=1e-6, atol=1e-30)
    assert length(*clipped.values()) <= max_norm * (1 + 1e-6)


def test_global_norm_of_zeros_is_zeros() -> None:
    clipped = clip_global_norm({"W": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float32)})
    assert all((g == 0).all() for g in clipped.values())


@pytest.mark.parametrize("max_norm", [0, -1, float("nan")])
def test_global_norm_refuses_an_impossible_norm(max_norm: float) -> None:
    with pytest.raises(ValueError, match=f"max_norm must be > 0; got {max_norm}"):
        clip_global_norm({"b": np.ones(2)}, max_norm)


def test_squares_of_float32_do_not_overflow() -> None:
    g = np.full(4, 1e30, np.float32)
    np.testing.assert_allclose(clip_tensors({"b": g})["b"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(clip_global_norm({"b": g})["b"], 0.5, rtol=1e-6)


# Every rule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", CLIPPINGS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(rule: str, poison: float) -> None:
    """An optimizer must see it: a clipped infinity that became 1 would hide that training has diverged."""
    rules = dict(CLIPPINGS)
    with np.errstate(invalid="ignore"):  # ∞/∞ is the very thing asked for
        clipped = {str(name): clip({"b": np.array([poison, 5.0])}) for name, clip in rules.items()}[rule]
    assert not np.isfinite(clipped["b"]).all()


@pytest.mark.parametrize("rule", CLIPPINGS.values(), ids=CLIPPINGS.keys())
def test_the_dictionary_given_is_not_the_one_returned(rule: object) -> None:
    given_ = {"b": np.array([7.0])}
    assert callable(rule)
    assert rule(given_) is not given_
    assert given_["b"].tolist() == [7.0]


def test_none_leaves_all_as_it_is() -> None:
    g = np.array([1e6])
    assert CLIPPINGS["none"]({"b": g})["b"] is g
