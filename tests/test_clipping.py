"""Clipping: which gradients are touched, by what they are divided, and that nothing infinite is made to look well."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from convlstm.backends import Array
from convlstm.clipping import (
    CLIPPINGS,
    Clipping,
    ClippingName,
    clip_global_norm,
    clip_tensor_norms,
    clip_values,
    normalise_tensors,
)
from tests.golden import record_optimizers as recorder
from tests.numerical import read_only

tensors = arrays_of.arrays(
    st.sampled_from([np.float32, np.float64]),
    arrays_of.array_shapes(max_dims=3, max_side=4),
    elements=st.floats(-(2.0**20), 2.0**20, width=32),
)
limits = st.sampled_from([0.01, 1.0, 50.0])
gradients_of_a_step = st.dictionaries(st.sampled_from(["W_x", "W_h", "b", "p_i"]), tensors, min_size=1)


def length(*arrays: Array) -> float:
    """The L2 norm, by exact summation."""
    return math.sqrt(math.fsum(float(g) ** 2 for array in arrays for g in array.flat))


def relative(g: Array) -> float:
    """What rounding in g's dtype may do."""
    return 1e-6 if g.dtype == np.float32 else 1e-14


# Each element ---------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(gradients_of_a_step, limits)
def test_values(given_: dict[str, Array], limit: float) -> None:
    clipped = clip_values(read_only(given_), limit)
    assert list(clipped) == list(given_)
    for name, g in given_.items():
        assert clipped[name].dtype == g.dtype
        expected = [max(-limit, min(limit, float(element))) for element in g.flat]
        np.testing.assert_array_equal(clipped[name], np.array(expected, g.dtype).reshape(g.shape))


def test_values_beyond_what_float32_holds_clip_nothing() -> None:
    g = np.array([3e38, -1.0], np.float32)
    assert clip_values({"b": g}, 1e300)["b"].tobytes() == g.tobytes()


# Each tensor's norm ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(gradients_of_a_step, limits)
def test_tensor_norms(given_: dict[str, Array], limit: float) -> None:
    clipped = clip_tensor_norms(read_only(given_), limit)
    assert list(clipped) == list(given_)
    for name, g in given_.items():
        assert clipped[name].dtype == g.dtype
        scale = min(1, limit / length(g)) if length(g) else 1
        np.testing.assert_allclose(clipped[name], g * scale, rtol=relative(g), atol=1e-37)
        assert length(clipped[name]) <= limit * (1 + 1e-6)


def test_tensor_norms_leave_the_short_ones_beside_a_long_one() -> None:
    clipped = clip_tensor_norms(read_only({"W": np.array([30.0, -40.0]), "b": np.array([0.3, 0.4])}), 0.5)
    np.testing.assert_allclose(clipped["W"], [0.3, -0.4], rtol=1e-15)
    assert clipped["b"].tolist() == [0.3, 0.4]


# A tensor with any |g| > 1 is divided by its L2 norm ------------------------------------------------------------


def test_normalise_on_numbers_that_one_can_check_in_the_head() -> None:
    given_ = read_only(
        {
            "over": np.array([3.0, -4.0]),  # norm 5
            "under zero": np.array([[-2.0, 0.0]]),  # a large negative element counts too
            "at one": np.array([1.0, -1.0]),  # norm 1.41, but no element above 1
            "small": np.array([0.5, 0.25]),
            "zero": np.zeros(3),
        }
    )
    clipped = normalise_tensors(given_)
    assert {name: g.tolist() for name, g in clipped.items()} == {
        "over": [0.6, -0.8],
        "under zero": [[-1.0, 0.0]],
        "at one": [1.0, -1.0],
        "small": [0.5, 0.25],
        "zero": [0, 0, 0],
    }


@settings(deadline=None)
@given(gradients_of_a_step, limits)
def test_normalise_gives_norm_1_or_the_same_array(given_: dict[str, Array], limit: float) -> None:
    clipped = normalise_tensors(read_only(given_), limit)
    assert list(clipped) == list(given_)
    for name, g in given_.items():
        assert clipped[name].dtype == g.dtype
        if abs(g).max() > limit:
            np.testing.assert_allclose(clipped[name], g / length(g), rtol=relative(g), atol=1e-37)
            assert length(clipped[name]) == pytest.approx(1, rel=1e-6)
        else:
            assert clipped[name].tobytes() == g.tobytes()


@settings(deadline=None)
@given(gradients_of_a_step, st.integers(0, 10))
def test_normalise_does_not_see_the_scale(given_: dict[str, Array], power: int) -> None:
    """Of what is over the limit, to the last bit where it is a power of 2."""
    over = {name: g for name, g in given_.items() if abs(g).max() > 1}
    scaled = {name: g * 2.0**power for name, g in over.items()}
    once, other = normalise_tensors(over), normalise_tensors(scaled)
    assert all(once[name].tobytes() == other[name].tobytes() for name in over)


def test_tensors_that_are_short_enough_are_passed_on_bit_for_bit() -> None:
    g = np.linspace(-1, 1, 7, dtype=np.float32)
    assert normalise_tensors({"b": g})["b"].tobytes() == g.tobytes()


# All tensors together -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(gradients_of_a_step, limits)
def test_global_norm(given_: dict[str, Array], limit: float) -> None:
    before = length(*given_.values())
    clipped = clip_global_norm(read_only(given_), limit)
    assert list(clipped) == list(given_)
    scale = min(1, limit / before) if before else 1
    for name, g in given_.items():
        assert clipped[name].dtype == g.dtype
        np.testing.assert_allclose(clipped[name], g * scale, rtol=1e-6, atol=1e-30)
    assert length(*clipped.values()) <= limit * (1 + 1e-6)


def test_global_norm_of_zeros_is_zeros() -> None:
    clipped = clip_global_norm({"W": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float32)})
    assert all((g == 0).all() for g in clipped.values())


def test_squares_of_float32_do_not_overflow() -> None:
    g = np.full(4, 1e30, np.float32)
    np.testing.assert_allclose(normalise_tensors({"b": g})["b"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(clip_global_norm({"b": g})["b"], 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    "g",
    [
        np.array([3e38, -3e38, 1], np.float32),  # the norm is beyond float32
        np.array([1e200, 1.0]),  # a square is beyond float64
        np.array([1e154, -1e154, 1e154]),  # their sum is
        np.array([1.7e308, 1.7e308]),  # the norm itself is
    ],
)
def test_norms_that_the_dtype_does_not_hold(g: Array) -> None:
    largest = float(abs(g).max())
    direction = g / largest / length(g / largest)
    given_ = read_only({"b": g})
    for rule in (normalise_tensors, clip_tensor_norms, clip_global_norm):
        np.testing.assert_allclose(rule(given_)["b"], direction, rtol=relative(g), atol=1e-37)
        assert rule(given_)["b"].dtype == g.dtype
    np.testing.assert_allclose(clip_global_norm(given_, largest)["b"], direction * largest, rtol=relative(g), atol=0)
    assert clip_global_norm(given_, 1e309)["b"] is given_["b"]


def test_a_norm_beyond_float64_is_of_all_tensors() -> None:
    clipped = clip_global_norm(read_only({"W": np.array([3e200]), "b": np.array([-4e200]), "p": np.ones(2)}), 10)
    np.testing.assert_allclose([*clipped["W"], *clipped["b"]], [6, -8], rtol=1e-15)
    np.testing.assert_allclose(clipped["p"], 2e-200, rtol=1e-15)


# Of these rules before they minded overflow; a run's ledger depends on every bit.
BITS: dict[ClippingName, dict[str, str]] = {
    "value": {
        "W": "9a99993e9a9999be0ad7233c9a99993e",
        "b": "333333333333d33f333333333333d3bf",
    },
    "tensor": {
        "W": "4ab74733c86597b33eed242f9999993e",
        "b": "26083f459734c23fff627109b1e7d0bf",
    },
    "global": {
        "W": "4ab74733c86597b33eed242f9999993e",
        "b": "95f8b2a06f8c463e8b54ef821ef054be",
    },
    "normalise": {
        "W": "136e26344e547cb45f7009300000803f",
        "b": "ea62bec8a657de3fffa467bad12cecbf",
    },
}


@pytest.mark.parametrize("rule", BITS)
def test_ordinary_gradients_have_the_bits_they_always_had(rule: ClippingName) -> None:
    g = read_only({"W": np.array([[3.1, -4.7], [0.01, 2e7]], np.float32), "b": np.array([0.7, -1.3])})
    assert {name: array.tobytes().hex() for name, array in CLIPPINGS[rule](g, 0.3).items()} == BITS[rule]


# PyTorch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", recorder.LIMITS)
def test_the_numbers_are_pytorchs(limit: float) -> None:
    """PyTorch divides by norm + 10⁻⁶; what it lacks by that is put back before comparing."""
    recorded = json.loads(recorder.FILE.read_text("utf-8"))["clipping"]
    given_ = read_only({name: np.array(values) for name, values in recorder.GRADIENTS.items()})
    norm = length(*given_.values())
    lacking = (norm + 1e-6) / norm if limit / (norm + 1e-6) < 1 else 1.0
    by_value, by_norm = clip_values(given_, limit), clip_global_norm(given_, limit)
    for name, g in given_.items():
        values, norms = ([float.fromhex(n) for n in recorded[rule][str(limit)][name].split()] for rule in recorded)
        np.testing.assert_array_equal(by_value[name].ravel(), values)
        np.testing.assert_allclose(by_norm[name].ravel(), np.array(norms) * lacking, rtol=1e-14, atol=0)
        assert g.tolist() == recorder.GRADIENTS[name]


@pytest.mark.parametrize("limit", recorder.LIMITS)
def test_a_tensor_alone_is_clipped_as_all_of_them(limit: float) -> None:
    """So that what holds for "global" holds for "tensor"."""
    for name, values in recorder.GRADIENTS.items():
        g = read_only({name: np.array(values)})
        assert clip_tensor_norms(g, limit)[name].tobytes() == clip_global_norm(g, limit)[name].tobytes()


# Every rule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "a", None])
@pytest.mark.parametrize("rule", CLIPPINGS.values(), ids=CLIPPINGS.keys())
def test_an_impossible_limit(rule: Clipping, limit: Any) -> None:
    for gradients in ({"b": np.ones(2)}, {}):
        with pytest.raises(ValueError, match=f"^limit must be > 0; got {limit!r}$"):
            rule(gradients, limit)


@pytest.mark.parametrize("gradients", [None, [np.ones(2)], {"b": [1.0]}, {"b": None}, {"b": np.ones(2, int)}])
@pytest.mark.parametrize("rule", CLIPPINGS.values(), ids=CLIPPINGS.keys())
def test_what_are_no_gradients(rule: Clipping, gradients: Any) -> None:
    with pytest.raises(TypeError, match=r"^gradients(\['b'\])? must be (an array|a dictionary) of .*; got \w+$"):
        rule(gradients)


@pytest.mark.parametrize("rule", CLIPPINGS.values(), ids=CLIPPINGS.keys())
def test_an_empty_array_stays_as_it_is(rule: Clipping) -> None:
    clipped = rule(read_only({"empty": np.zeros((0, 2), np.float32), "b": np.array([2.0])}))
    assert (clipped["empty"].shape, clipped["empty"].dtype) == ((0, 2), np.dtype("float32"))
    assert clipped["b"].tolist() == [2.0 if rule is CLIPPINGS["none"] else 1.0]
    assert rule({}) == {}


@pytest.mark.parametrize("rule", CLIPPINGS.values(), ids=CLIPPINGS.keys())
def test_the_limit_is_1_where_none_is_given(rule: Clipping) -> None:
    given_ = {"W": np.array([3.0, -4.0]), "b": np.array([0.9, 0.9])}
    without, with_1 = rule(given_), rule(given_, 1.0)
    assert {name: g.tolist() for name, g in without.items()} == {name: g.tolist() for name, g in with_1.items()}


@pytest.mark.parametrize("rule", CLIPPINGS.values(), ids=CLIPPINGS.keys())
def test_an_infinite_limit_clips_nothing(rule: Clipping) -> None:
    g = np.array([3e38, -1e-38, 0], np.float32)
    assert rule({"b": g}, math.inf)["b"].tobytes() == g.tobytes()


@pytest.mark.parametrize("rule", CLIPPINGS.values(), ids=CLIPPINGS.keys())
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(rule: Clipping, poison: float) -> None:
    """An optimizer must see it: a clipped infinity that became 1 would hide that training has diverged."""
    with np.errstate(invalid="ignore"):  # ∞/∞ is the very thing asked for
        clipped = rule({"b": np.array([poison, 5.0])})
    assert not np.isfinite(clipped["b"][0])


def test_what_comes_out_beside_what_is_not_finite() -> None:
    """As the rules' docstrings and docs/optimizers.md say it."""
    with np.errstate(invalid="ignore"):
        found = {
            name: [str(rule({"b": np.array([poison, 5.0]), "W": np.array([5.0])})) for poison in (np.nan, np.inf)]
            for name, rule in CLIPPINGS.items()
        }
    assert found == {
        "none": ["{'b': array([nan,  5.]), 'W': array([5.])}", "{'b': array([inf,  5.]), 'W': array([5.])}"],
        "value": ["{'b': array([nan,  5.]), 'W': array([1.])}", "{'b': array([inf,  5.]), 'W': array([1.])}"],
        "tensor": ["{'b': array([nan, nan]), 'W': array([1.])}", "{'b': array([nan,  0.]), 'W': array([1.])}"],
        "global": ["{'b': array([nan, nan]), 'W': array([nan])}", "{'b': array([nan,  0.]), 'W': array([0.])}"],
        "normalise": ["{'b': array([nan,  5.]), 'W': array([1.])}", "{'b': array([nan,  0.]), 'W': array([1.])}"],
    }


@pytest.mark.parametrize("rule", CLIPPINGS.values(), ids=CLIPPINGS.keys())
@pytest.mark.parametrize("element", [7.0, 0.5])
def test_the_dictionary_given_is_not_the_one_returned(rule: Clipping, element: float) -> None:
    given_ = {"b": np.array([element])}
    assert rule(given_) is not given_
    assert given_["b"].tolist() == [element]


def test_none_leaves_all_as_it_is() -> None:
    g = np.array([1e6])
    assert CLIPPINGS["none"]({"b": g})["b"] is g
