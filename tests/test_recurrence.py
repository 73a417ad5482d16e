"""What the time loop leaves out because it is zero or not asked for, or computes again: the rest must not notice.

The proof of the backpropagation through time itself is in test_layer.py, of steps that are missing in test_masks.py.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, Draws
from convlstm.backends import Array
from convlstm.recurrence import Start, Unrolled, add_given, unroll_backward, unroll_forward, unrolled_again
from tests.layer_problems import Problem, assert_same_bits
from tests.numerical import directional_error, freeze


@pytest.fixture
def unrolled() -> tuple[ConvLSTM, Any, list[Array]]:
    layer = ConvLSTM(2, 3, peephole="channel", dtype="float64", backend="numpy")
    rng = np.random.default_rng(0)
    layer.parameters = {name: rng.standard_normal(array.shape) for name, array in layer.parameters.items()}
    xs = [rng.standard_normal((1, 2, 4, 5)) for _ in range(4)]
    hs, _, kept = unroll_forward(Start(layer.cell(4, 5), xs))
    return layer, kept, [rng.standard_normal(h.shape) for h in hs]


def backward(
    layer: ConvLSTM, kept: Any, dhs: Any, dstate: Any = (None, None), to_x: bool = True, to_state: bool = True
) -> tuple[Any, Any, dict[str, Array]]:
    gradients = layer.zero_gradients()
    dxs, before = unroll_backward(kept, dhs, dstate, gradients, to_x=to_x, to_state=to_state)
    return dxs, before, gradients.total()


def test_steps_that_the_loss_does_not_read_count_as_zeros(unrolled: tuple[ConvLSTM, Any, list[Array]]) -> None:
    layer, kept, dhs = unrolled
    zero = np.zeros_like(dhs[0])
    with_zeros = backward(layer, kept, [zero, dhs[1], zero, zero], (zero, zero))
    with_none = backward(layer, kept, [None, dhs[1], None, None])
    np.testing.assert_array_equal(with_zeros[0], with_none[0])
    np.testing.assert_array_equal(with_zeros[1], with_none[1])
    for name, gradient in with_zeros[2].items():
        np.testing.assert_array_equal(gradient, with_none[2][name])


def test_what_is_not_wanted_is_not_returned_and_changes_nothing_else(
    unrolled: tuple[ConvLSTM, Any, list[Array]],
) -> None:
    layer, kept, dhs = unrolled
    dxs, (dh_first, dc_first), gradients = backward(layer, kept, dhs)
    no_dxs, (no_dh, same_dc), same_gradients = backward(layer, kept, dhs, to_x=False, to_state=False)
    assert len(dxs) == 4
    assert dh_first is not None
    assert no_dxs == [None] * 4
    assert no_dh is None
    np.testing.assert_array_equal(dc_first, same_dc)
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, same_gradients[name])


def test_gradients_are_added_to_what_is_there(unrolled: tuple[ConvLSTM, Any, list[Array]]) -> None:
    layer, kept, dhs = unrolled
    _, _, once = backward(layer, kept, dhs)
    twice = layer.zero_gradients()
    for _ in range(2):
        unroll_backward(kept, dhs, (None, None), twice, to_x=False, to_state=False)
    both = twice.total()
    for name, gradient in once.items():
        np.testing.assert_allclose(both[name], 2 * gradient, rtol=1e-13)


def test_as_many_gradients_as_steps(unrolled: tuple[ConvLSTM, Any, list[Array]]) -> None:
    layer, kept, dhs = unrolled
    with pytest.raises(ValueError, match="zip"):
        backward(layer, kept, dhs[:-1])


def test_none_counts_as_zeros_in_a_sum(unrolled: tuple[ConvLSTM, Any, list[Array]]) -> None:
    layer, _, (a, b, *_) = unrolled
    cell = layer.cell(4, 5)
    both = add_given(cell, a, b)
    assert both is not None
    np.testing.assert_array_equal(both, a + b)
    assert add_given(cell, a, None) is a
    assert add_given(cell, None, b) is b
    assert add_given(cell, None, None) is None


def test_a_gradient_that_is_not_wanted_does_not_pass_a_missing_first_step_either(
    unrolled: tuple[ConvLSTM, Any, list[Array]],
) -> None:
    layer, kept, dhs = unrolled
    again = unroll_forward(kept.start._replace(valid=[False, True, False, True]))[2]
    _, (wanted, dc), gradients = backward(layer, again, dhs)
    _, (dh, same_dc), same_gradients = backward(layer, again, dhs, to_state=False)
    assert wanted is not None
    assert dh is None
    np.testing.assert_array_equal(same_dc, dc)
    assert_same_bits(same_gradients, gradients)


@pytest.mark.parametrize("there", [True, False], ids=["there", "missing"])
def test_without_any_gradient_nothing_is_sent_back(unrolled: tuple[ConvLSTM, Any, list[Array]], there: bool) -> None:
    layer, kept, _ = unrolled
    again = unroll_forward(kept.start._replace(valid=[there] * 4))[2]
    for dhs in (None, [None] * 4):
        dxs, (dh, dc), gradients = backward(layer, again, dhs)
        assert all(dx is None or not dx.any() for dx in dxs)
        assert dh is None or not dh.any()
        assert dc is not None
        assert not dc.any()
        assert not any(gradient.any() for gradient in gradients.values())


# Steps computed again ---------------------------------------------------------------------------------------------


def test_what_was_kept_is_not_computed_again(unrolled: tuple[ConvLSTM, Any, list[Array]]) -> None:
    layer, kept, dhs = unrolled
    assert unrolled_again(kept) is kept
    again = unrolled_again(kept.start)
    assert again is not kept
    assert isinstance(again, Unrolled)
    one, other = backward(layer, kept, dhs), backward(layer, again, dhs)
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    assert_same_bits(one[2], other[2])


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "float32": {"dtype": "float32"},
    "everything": {
        "bias": "pixel", "peephole": "pixel", "layer_norm": "pixel", "spatial_shape": (4, 5), "dropout": 0.3,
        "recurrent_dropout": 0.3, "call": {"draws": Draws(1)},
    },
    "mask": {
        "call": {"mask": np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)},
        "layer_norm": "channel",
    },
    "stride": {"stride": 2, "recurrent_kernel_size": 2},
    "no input": {"in_channels": None},
    "three threads": {"threads": 3},
}  # fmt: skip


@pytest.mark.parametrize("state", [True, False], ids=["from a state", "from zeros"])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_recomputing_changes_no_bit(options: dict[str, Any], state: bool) -> None:
    given = Problem(3, 5, (4, 5), state=state, **{"in_channels": 2, "hidden_channels": 3, **options})
    right = given.results()
    for k in (1, 2, 3, 4, 5, 6, 100):
        given.call["recompute"] = k
        assert_same_bits(given.results(), right)


def test_recomputed_gradients_against_differences() -> None:
    given = Problem(2, 5, (4, 5), in_channels=2, hidden_channels=3, call={"recompute": 2})
    assert directional_error(given.loss, given.arrays, given.gradients()) < 1e-7


def test_only_the_last_steps_are_kept() -> None:
    given = Problem(2, 7, (4, 5), in_channels=2, hidden_channels=3, call={"recompute": 3})
    _, _, cache = given.forward(given.arrays)
    assert len(cache.parts) == 2
    for _, chunks in cache.parts:
        assert [type(kept) for kept in chunks] == [Start, Start, Unrolled]
        assert [len(kept.xs) for kept in chunks[:2]] == [3, 3]
        assert len(chunks[2].steps) == 1


def test_backward_twice_of_recomputed_steps_gives_the_same() -> None:
    given = Problem(2, 5, (4, 5), in_channels=2, hidden_channels=3, call={"recompute": 2})
    _, _, cache = given.forward(given.arrays)
    freeze(cache)
    once, again = (given.layer.backward(cache, given.u_h, given.u_state) for _ in range(2))
    np.testing.assert_array_equal(once[0], again[0])
    assert_same_bits(once[2], again[2])


def peak(recompute: int | None) -> int:
    """Return the bytes that forward and backward of 64 steps need at once."""
    layer = ConvLSTM(1, 8, 1, backend="numpy")
    x = np.zeros((1, 64, 1, 48, 48), "float32")
    tracemalloc.start()
    try:
        h, _, cache = layer.forward(x, recompute=recompute)
        layer.backward(cache, h)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_recomputing_needs_less_memory() -> None:
    peak(None)  # what is made once and stays
    assert peak(8) < 0.5 * peak(None)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2"])
def test_wrong_settings_are_named(value: Any) -> None:
    given = Problem(1, 2, (4, 5), in_channels=2, hidden_channels=3, call={"recompute": value})
    with pytest.raises(ValueError, match=r"^recompute must be an integer ≥ 1; got "):
        given.results()
