"""A layer's parameters: shapes and initial values; and the tree in which samples are summed, whoever brings them."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.backends import Array
from convlstm.parameters import Kind, SampleSum, initial_layer, layer_shapes, uniform
from tests.numerical import read_only

# The tree ---------------------------------------------------------------------------------------------------------


def contribution(sample: int) -> dict[str, Array]:
    """Numbers of very different sizes, so that another order of additions shows in the last bits; read-only."""
    rng = np.random.default_rng(sample)
    sizes = 10.0 ** rng.integers(-4, 5, size=20)
    return read_only(
        {"W": (sizes * rng.normal(size=20)).astype(np.float32), "b": rng.normal(size=()).astype(np.float32)}
    )


def bits(arrays: dict[str, Array]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


def summed(order: list[int]) -> dict[str, bytes]:
    total = SampleSum()
    for sample in order:
        total.add(sample, contribution(sample))
    return bits(total.total())


def by_definition(N: int) -> dict[str, bytes]:
    """SampleSum's docstring, written down recursively."""

    def node(first: int, count: int) -> dict[str, Array]:  # samples first … first + count - 1, count a power of two
        if count == 1:
            return contribution(first)
        left, right = node(first, count // 2), node(first + count // 2, count // 2)
        return {name: left[name] + right[name] for name in left}

    def rest(first: int) -> dict[str, Array]:  # the largest node that fits, plus the sum of what is left over
        largest = 2 ** ((N - first).bit_length() - 1)
        head = node(first, largest)
        if first + largest == N:
            return head
        tail = rest(first + largest)
        return {name: head[name] + tail[name] for name in head}

    return bits(rest(0))


@pytest.mark.parametrize("N", range(1, 18))
def test_the_tree_is_the_documented_one(N: int) -> None:
    assert summed(list(range(N))) == by_definition(N)


def test_the_order_of_additions_would_show() -> None:
    """Else the tests here would prove nothing: one after the other is not the tree's order, and the bits differ."""
    one_after_the_other = contribution(0)
    for sample in range(1, 17):
        one_after_the_other = {name: a + contribution(sample)[name] for name, a in one_after_the_other.items()}
    assert bits(one_after_the_other) != by_definition(17)


@pytest.mark.parametrize("N", range(1, 6))
def test_every_permutation_of_few_samples_has_the_same_bits(N: int) -> None:
    assert {str(summed(list(order))) for order in itertools.permutations(range(N))} == {str(by_definition(N))}


@settings(deadline=None)
@given(st.integers(6, 17).flatmap(lambda N: st.permutations(range(N))))
def test_any_permutation_of_many_samples_has_the_same_bits(order: list[int]) -> None:
    assert summed(order) == by_definition(len(order))


@pytest.mark.parametrize("N", range(1, 18))
@pytest.mark.parametrize("threads", [2, 5])
def test_every_split_over_threads_has_the_same_bits(N: int, threads: int) -> None:
    total = SampleSum()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda sample: total.add(sample, contribution(sample)), range(N)))
    assert bits(total.total()) == by_definition(N)


@settings(deadline=None)
@given(st.data())
def test_a_sample_added_twice_is_caught(data: st.DataObject) -> None:
    """Whether or not it has been added to others in the meantime."""
    order = data.draw(st.lists(st.integers(0, 20), min_size=1, unique=True))
    again = data.draw(st.sampled_from(order))
    total = SampleSum()
    for sample in order:
        total.add(sample, contribution(sample))
    before = bits(total.total())
    with pytest.raises(ValueError, match=f"sample {again} was added twice"):
        total.add(again, contribution(again))
    assert bits(total.total()) == before


def test_no_sample_at_all() -> None:
    with pytest.raises(ValueError, match="no sample has been added"):
        SampleSum().total()


def test_total_may_be_asked_for_along_the_way() -> None:
    total = SampleSum()
    for sample in range(7):
        total.add(sample, contribution(sample))
        assert bits(total.total()) == by_definition(sample + 1)


# Shapes -----------------------------------------------------------------------------------------------------------

SHAPES: dict[str, Any] = {"bias": "channel", "peephole": None, "spatial_shape": None}


def shapes(**changed: Any) -> dict[str, tuple[int, ...]]:
    return layer_shapes(2, 3, (5, 4), (3, 1), **{**SHAPES, **changed})


def test_shapes_of_kernels() -> None:
    assert shapes(bias=None) == {"W_x": (12, 2, 5, 4), "W_h": (12, 3, 3, 1)}


@pytest.mark.parametrize(("kind", "shape"), [("channel", ()), ("pixel", (6, 7))])
def test_shapes_of_biases_and_peepholes(kind: Kind, shape: tuple[int, ...]) -> None:
    both = shapes(bias=kind, peephole=kind, spatial_shape=(6, 7))
    assert list(both) == ["W_x", "W_h", "b", "p_i", "p_f", "p_o"]
    assert both["b"] == (12, *shape)
    assert both["p_i"] == both["p_f"] == both["p_o"] == (3, *shape)


@pytest.mark.parametrize(("kind", "shape"), [("channel", ()), ("pixel", (6, 7))])
def test_the_shape_of_gains(kind: Kind, shape: tuple[int, ...]) -> None:
    """They stand before the bias, as in γ∘ẑ + b; one kind does not bind another."""
    with_gain = shapes(layer_norm=kind, spatial_shape=(6, 7))
    assert list(with_gain) == ["W_x", "W_h", "gain", "b"]
    assert with_gain["gain"] == (12, *shape)
    assert with_gain["b"] == (12,)


def test_a_layer_without_input_has_no_kernel_over_it() -> None:
    assert layer_shapes(0, 3, (5, 4), (3, 1), **SHAPES) == {"W_h": (12, 3, 3, 1), "b": (12,)}


@pytest.mark.parametrize("what", ["bias", "peephole", "layer_norm"])
def test_per_pixel_needs_the_pixels(what: str) -> None:
    with pytest.raises(ValueError, match=rf'{what}="pixel" needs spatial_shape=\(H, W\)'):
        shapes(**{what: "pixel"})


# Initial values ---------------------------------------------------------------------------------------------------


def initial(seed: int = 0, purpose: str = "layers.0.", dtype: str = "float32", **changed: Any) -> dict[str, Array]:
    return initial_layer(shapes(**changed), dtype, seed, purpose)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_fill_the_range_of_their_common_fan(dtype: str) -> None:
    parameters = initial(dtype=dtype)
    bound = (2 * 5 * 4 + 3 * 3 * 1) ** -0.5
    for name in ("W_x", "W_h"):
        assert parameters[name].dtype == dtype
        assert parameters[name].max() <= np.dtype(dtype).type(bound)
        assert parameters[name].min() >= -np.dtype(dtype).type(bound)
        assert parameters[name].max() > 0.9 * bound
        assert parameters[name].min() < -0.9 * bound
        assert abs(parameters[name].mean()) < 0.2 * bound


@pytest.mark.parametrize("kind", ["channel", "pixel"])
def test_only_the_forget_gates_bias_is_one(kind: Kind) -> None:
    b = initial(bias=kind, spatial_shape=(6, 7))["b"]
    assert (b[3:6] == 1).all()
    assert (np.delete(b, slice(3, 6), axis=0) == 0).all()


def test_the_forget_gates_bias_may_be_another() -> None:
    b = initial_layer(shapes(), "float32", 0, "", -2.5)["b"]
    np.testing.assert_array_equal(b, np.array([0] * 3 + [-2.5] * 3 + [0] * 6, "float32"), strict=True)
    assert initial_layer(shapes(bias=None), "float32", 0, "", -2.5).keys() == {"W_x", "W_h"}


@pytest.mark.parametrize("kind", ["channel", "pixel"])
def test_gains_are_one(kind: Kind) -> None:
    assert (initial(layer_norm=kind, spatial_shape=(6, 7))["gain"] == 1).all()


def test_without_input_the_fan_is_that_of_the_state() -> None:
    parameters = initial_layer(layer_shapes(0, 3, (5, 4), (3, 3), **SHAPES), "float64", 0, "")
    bound = (3 * 3 * 3) ** -0.5
    assert 0.9 * bound < np.abs(parameters["W_h"]).max() <= bound


def test_peepholes_are_zero() -> None:
    parameters = initial(peephole="pixel", spatial_shape=(6, 7))
    assert all((parameters[name] == 0).all() for name in ("p_i", "p_f", "p_o"))


def test_float32_values_are_the_float64_ones_rounded() -> None:
    single, double = initial(dtype="float32"), initial(dtype="float64")
    for name, array in double.items():
        np.testing.assert_array_equal(single[name], array.astype(np.float32))


def test_equal_askings_have_equal_values() -> None:
    assert bits(initial()) == bits(initial())


def test_seed_layer_and_kernel_each_have_their_own_values() -> None:
    drawn = [
        initial()["W_x"].ravel()[:36],
        initial()["W_h"].ravel()[:36],
        initial(seed=1)["W_x"].ravel()[:36],
        initial(purpose="layers.1.")["W_x"].ravel()[:36],
    ]
    assert len({array.tobytes() for array in drawn}) == 4
    # Not the same numbers at another place either, as one generator for all would give with another order of drawing.
    assert len(np.unique(np.concatenate(drawn))) > 4 * 36 - 3


def test_what_a_layer_holds_does_not_change_its_kernels() -> None:
    """A bias more must not shift the draws: variants of one seed stay comparable."""
    plain, rich = initial(bias=None), initial(
        bias="pixel", peephole="pixel", layer_norm="pixel", spatial_shape=(6, 7)
    )  # fmt: skip
    for name in ("W_x", "W_h"):
        np.testing.assert_array_equal(plain[name], rich[name])


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 2**64 - 1))
def test_uniform_stays_within_its_bound(bound: float, seed: int) -> None:
    values = uniform((50,), bound, "float64", seed, "test")
    assert abs(values).max() <= bound
    assert (values < 0).any()
    assert (values > 0).any()
