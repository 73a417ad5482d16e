"""Sequences of different length in one batch: each sample must be what it is alone, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm import Draws, mask_of_lengths, recurrence
from convlstm.backends import Array, get_backend
from convlstm.masks import at_step, check_mask, steps_of
from convlstm.recurrence import Start, unroll_backward, unroll_forward
from tests.layer_problems import Problem, WholeBatch, assert_proved, assert_same_bits
from tests.numerical import directional_error, freeze

BACKEND = get_backend("numpy")
MASKS = {
    "lengths": [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]],
    "holes": [[1, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1]],
    "late": [[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]],
    "one has none": [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]],
    "a step has none": [[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]],
    "all": [[1, 1, 1, 1]] * 3,
    "none": [[0, 0, 0, 0]] * 3,
}
every_mask = pytest.mark.parametrize("mask", [np.array(rows, bool) for rows in MASKS.values()], ids=MASKS)
with_and_without_state = pytest.mark.parametrize("state", [True, False], ids=["from a state", "from zeros"])


def problem(mask: Any, **options: Any) -> Problem:
    call = {"mask": mask, **options.pop("call", {})}
    N, T = np.shape(mask)
    chosen = {"in_channels": 2, "hidden_channels": 3, "peephole": "channel", **options}
    return Problem(N, T, (4, 5), call=call, **chosen)


def alone(whole: Problem, n: int) -> dict[str, Array] | None:
    """Return the results of sample n on its own frames without a mask; None where it has none.

    Where it keeps its state, h repeats, so what the loss reads there it reads of the last frame.
    """
    mask = whole.call["mask"][n]
    if not mask.any():
        return None
    one = whole.of(slice(n, n + 1))
    del one.call["mask"]
    u_h, dh0 = np.zeros_like(one.u_h[:, mask]), np.zeros_like(one.u_h[:, 0])
    for t in range(len(mask)):
        last = int(mask[: t + 1].sum()) - 1
        if last >= 0:
            u_h[:, last] += one.u_h[:, t]
        else:
            dh0 += one.u_h[:, t]
    one.arrays["x"], one.u_h = one.arrays["x"][:, mask], u_h
    found = one.results()
    found["dh0"] = found["dh0"] + dh0
    return found


@with_and_without_state
@every_mask
def test_each_sample_is_what_it_is_alone(mask: Array, state: bool) -> None:
    whole = problem(mask, state=state)
    found = whole.results()
    sums = {name: np.zeros_like(array) for name, array in whole.layer.parameters.items()}
    for n in range(3):
        right = alone(whole, n)
        if right is None:
            continue
        np.testing.assert_array_equal(found["h"][n, mask[n]], right["h"][0])
        for name in ("h_T", "c_T"):
            np.testing.assert_array_equal(found[name][n], right[name][0], err_msg=name)
        np.testing.assert_allclose(found["dx"][n, mask[n]], right["dx"][0], rtol=1e-11, atol=1e-13)
        for name in ("dh0", "dc0"):
            np.testing.assert_allclose(found[name][n], right[name][0], rtol=1e-11, atol=1e-13, err_msg=name)
        sums = {name: total + right["d" + name] for name, total in sums.items()}
    for name, total in sums.items():
        np.testing.assert_allclose(found["d" + name], total, rtol=1e-11, atol=1e-12, err_msg=name)


@with_and_without_state
@every_mask
def test_a_sample_keeps_its_state_where_it_has_no_frame(mask: Array, state: bool) -> None:
    whole = problem(mask, state=state)
    found = whole.results()
    for n, t in np.ndindex(mask.shape):
        before = found["h"][n, t - 1] if t else whole.arrays["h0"][n] if state else np.zeros((3, 4, 5))
        if not mask[n, t]:
            np.testing.assert_array_equal(found["h"][n, t], before)
            np.testing.assert_array_equal(found["dx"][n, t], 0)
    np.testing.assert_array_equal(found["h"][:, -1], found["h_T"])


@with_and_without_state
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("padding", [np.nan, np.inf, 1e300])
@every_mask
def test_what_stands_in_the_padding_does_not_count(mask: Array, padding: float, at_once: bool, state: bool) -> None:
    given = problem(mask, state=state, layer_norm="channel")
    if at_once:
        given.layer.backend = WholeBatch(1)
    right = given.results()
    given.arrays["x"] = np.where(mask[:, :, None, None, None], given.arrays["x"], padding)
    assert_same_bits(given.results(), right)
    assert all(np.isfinite(array).all() for array in right.values())


def test_a_sample_without_frames_adds_nothing_and_hands_its_gradients_on() -> None:
    mask = np.array([[0, 0, 0, 0]], bool)
    given = problem(mask)
    found = given.results()
    for name, state in (("h_T", "h0"), ("c_T", "c0")):
        np.testing.assert_array_equal(found[name], given.arrays[state])
    for name in given.layer.parameters:
        assert not found["d" + name].any()
    np.testing.assert_allclose(found["dh0"], given.u_h.sum(axis=1) + given.u_state[0], rtol=1e-12)
    np.testing.assert_array_equal(found["dc0"], given.u_state[1])


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "per pixel": {"bias": "pixel", "peephole": "pixel", "layer_norm": "pixel", "spatial_shape": (4, 5)},
    "dropout": {"dropout": 0.4, "recurrent_dropout": 0.4, "call": {"draws": Draws(1)}},
    "recompute": {"call": {"recompute": 2}},
    "no input": {"in_channels": None},
    "stride": {"stride": (2, 1), "recurrent_kernel_size": 2},
    "constant bias": {"bias": None, "forget_bias": 1.0},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


@with_and_without_state
@every_variant
@every_mask
def test_a_batch_at_once_agrees_with_one_by_one(mask: Array, variant: dict[str, Any], state: bool) -> None:
    """Where a step is there in some samples only, CuPy computes it for all and takes what belongs."""
    right, at_once = problem(mask, state=state, **variant).results(), problem(mask, state=state, **variant)
    at_once.layer.backend = WholeBatch(1)
    found = at_once.results()
    assert found.keys() == right.keys()
    for name, array in right.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-12, err_msg=name)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@every_variant
@pytest.mark.parametrize("mask", [np.array(MASKS[name], bool) for name in ("lengths", "holes", "late")])
def test_a_random_direction(mask: Array, variant: dict[str, Any], at_once: bool) -> None:
    given = problem(mask, **variant)
    if at_once:
        given.layer.backend = WholeBatch(1)
    assert directional_error(given.loss, given.arrays, given.gradients()) < 1e-7


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
def test_every_element(at_once: bool) -> None:
    mask = np.array([[1, 0, 1], [0, 1, 0]], bool)
    small = Problem(2, 3, (2, 2), in_channels=1, hidden_channels=1, kernel_size=2, peephole="channel",
                    call={"mask": mask})  # fmt: skip
    if at_once:
        small.layer.backend = WholeBatch(1)
    assert_proved(small)


def test_float32_stays_float32_at_once() -> None:
    given = problem(np.array(MASKS["holes"], bool), dtype="float32", state=False, layer_norm="channel")
    given.layer.backend = WholeBatch(1)
    assert {array.dtype.name for array in given.results().values()} == {"float32"}


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_change_no_bit(threads: int) -> None:
    mask = np.array(MASKS["holes"], bool)
    assert_same_bits(problem(mask, threads=threads).results(), problem(mask).results())


def test_a_mask_that_is_true_throughout_is_no_mask() -> None:
    given = problem(np.ones((2, 3), bool))
    right = given.results()
    given.call["mask"] = None
    assert_same_bits(given.results(), right)


def test_steps_that_no_sample_has_are_not_computed() -> None:
    given = problem(np.array(MASKS["a step has none"], bool), state=False)
    cell = given.layer.cell(4, 5)
    xs = [given.arrays["x"][:1, t] for t in range(4)]
    hs, state, kept = unroll_forward(Start(cell, xs, valid=[True, False, True, False]))
    assert [step is None for step in kept.steps] == [False, True, False, True]
    dxs, _ = unroll_backward(kept, hs, (None, None), given.layer.zero_gradients(), to_x=True, to_state=True)
    assert [dx is None for dx in dxs] == [False, True, False, True]
    assert hs[3] is hs[2] is state[0]


@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    state=st.booleans(), at_once=st.booleans(), recompute=st.sampled_from([None, 1, 3]),
)  # fmt: skip
def test_a_random_direction_for_any_lengths(
    lengths: list[int], state: bool, at_once: bool, recompute: int | None
) -> None:
    given = problem(mask_of_lengths(lengths, 4), state=state, call={"recompute": recompute})
    if at_once:
        given.layer.backend = WholeBatch(1)
    gradients = given.gradients()
    if any(lengths) or state:
        assert directional_error(given.loss, given.arrays, gradients) < 1e-6
    else:
        assert not any(array.any() for array in gradients.values())


FAULTS = {
    "what passes a missing step unchanged is lost": lambda there, step, passing: np.where(there, step, 0),
    "a missing step is taken for one that is there": lambda there, step, passing: step,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_planted_faults_are_seen(fault: Callable[..., Array], monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem(np.array(MASKS["holes"], bool))
    given.layer.backend = WholeBatch(1)
    _, _, cache = given.forward(given.arrays)
    with monkeypatch.context() as patch:
        patch.setattr(recurrence, "np", SimpleNamespace(where=fault))
        dx, (dh0, dc0), gradients = given.layer.backward(cache, given.u_h, given.u_state)
    assert directional_error(given.loss, given.arrays, {**gradients, "x": dx, "h0": dh0, "c0": dc0}) > 1e-3


# The functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_mask_of_lengths(kind: Any) -> None:
    right = [[False, False, False], [True, False, False], [True, True, True]]
    found = mask_of_lengths(kind([0, 1, 3]), 3)
    assert found.dtype == np.bool_
    assert found.tolist() == right


@pytest.mark.parametrize("lengths", [[-1, 2], [4], [1.0], [True], 2, [[1]], [], ["1"], None], ids=repr)
def test_wrong_lengths_are_named(lengths: Any) -> None:
    with pytest.raises(ValueError, match=r"^lengths must be integers in 0 … T = 3, one for each sample; got "):
        mask_of_lengths(lengths, 3)


@pytest.mark.parametrize("T", [0, -1, 2.0, "3", True])
def test_a_wrong_number_of_steps_is_named(T: Any) -> None:
    with pytest.raises(ValueError, match=r"^T must be an integer ≥ 1; got "):
        mask_of_lengths([0], T)


MASK = np.ones((2, 3), bool)


def test_a_right_mask_passes() -> None:
    check_mask(MASK, (2, 3))
    check_mask(None, (2, 3))


@pytest.mark.parametrize(
    ("mask", "error", "said"),
    [
        (MASK.tolist(), TypeError, "mask must be a NumPy array of bool; got list"),
        (MASK.astype("int64"), TypeError, "mask must be a NumPy array of bool; got int64"),
        (MASK.astype("float64"), TypeError, "mask must be a NumPy array of bool; got float64"),
        (MASK.T, ValueError, r"mask must have shape \(2, 3\); got \(3, 2\)"),
        (MASK[0], ValueError, r"mask must have shape \(2, 3\); got \(3,\)"),
        (MASK[:1], ValueError, r"mask must have shape \(2, 3\); got \(1, 3\)"),
    ],
)
def test_wrong_masks_are_named(mask: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"^{said}$"):
        check_mask(mask, (2, 3))
    with pytest.raises(error, match=f"^{said}$"):
        problem(MASK, call={"mask": mask}).results()
    with pytest.raises(error, match=f"^shown{said[4:]}$"):
        check_mask(mask, (2, 3), "shown")


def test_a_step_is_there_in_all_in_none_or_in_some() -> None:
    mask = np.array([[1, 0, 1], [1, 0, 0]], bool)
    freeze(mask)
    everywhere, nowhere, somewhere = steps_of(mask, slice(0, 2), BACKEND) or []
    assert everywhere is True
    assert nowhere is False
    np.testing.assert_array_equal(somewhere, np.array([True, False]).reshape(2, 1, 1, 1), strict=True)
    assert steps_of(mask, slice(1, 2), BACKEND) == [True, False, False]
    assert steps_of(None, slice(0, 2), BACKEND) is None
    assert at_step(mask[:, 0], BACKEND) is True


def test_a_masked_array_whose_own_mask_would_be_lost_is_no_mask() -> None:
    with pytest.raises(TypeError, match="mask must be a NumPy array of bool; got MaskedArray"):
        check_mask(np.ma.masked_array(np.ones((1, 2), bool), mask=[[True, False]]), (1, 2))


def test_lists_within_lengths_are_named() -> None:
    with pytest.raises(ValueError, match=r"lengths must be integers .* got \[\[1\], \[1, 2\]\]"):
        mask_of_lengths([[1], [1, 2]], 3)
