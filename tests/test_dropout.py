"""Dropout: where masks are drawn, what they are, and gradients through them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm import ConvLSTM, ConvLSTMStack, Draws
from convlstm.backends import Array, get_backend
from convlstm.dropout import NOTHING, Drop, draw_mask, dropped
from tests.layer_problems import Problem, WholeBatch, assert_proved, assert_same_bits
from tests.numerical import directional_error, freeze

BACKEND = get_backend("numpy")
BOTH: dict[str, Any] = {"dropout": 0.3, "recurrent_dropout": 0.4}
DRAWS = Draws(seed=3, step=5, first=7)


def mask(
    draws: Draws = DRAWS, part: slice = slice(0, 3), p: float = 0.25, purpose: str = "x",
    shape: tuple[int, ...] = (2, 5, 6), dtype: str = "float64",
) -> Array:  # fmt: skip
    return draw_mask(BACKEND, draws, part, p, purpose, shape, np.dtype(dtype))


# Masks ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(p=st.floats(0, 0.95), dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 2**64 - 1))
def test_every_element_is_dropped_or_scaled_up(p: float, dtype: str, seed: int) -> None:
    found = mask(Draws(seed), p=p, dtype=dtype)
    assert found.shape == (3, 2, 5, 6)
    assert found.dtype == dtype
    assert set(found.ravel().tolist()) <= {0.0, float(np.dtype(dtype).type(1 / (1 - p)))}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_mean(p: float) -> None:
    """Within five standard deviations of 40000 draws."""
    found = mask(p=p, shape=(10, 40, 100), part=slice(0, 1))
    assert abs((found == 0).mean() - p) < 5 * (p * (1 - p) / found.size) ** 0.5
    assert abs(found.mean() - 1) < 5 * (p / (1 - p) / found.size) ** 0.5


def test_nothing_is_dropped_with_probability_zero() -> None:
    np.testing.assert_array_equal(mask(p=0.0), 1.0)


def test_a_more_dropped_mask_drops_the_same_and_more() -> None:
    assert (mask(p=0.6)[mask(p=0.2) == 0] == 0).all()


def test_equal_places_have_equal_masks() -> None:
    np.testing.assert_array_equal(mask(), mask())


@pytest.mark.parametrize(
    "other",
    [
        {"draws": DRAWS._replace(seed=4)},
        {"draws": DRAWS._replace(step=6)},
        {"draws": DRAWS._replace(first=10)},
        {"purpose": "h"},
        {"purpose": "layers.1.x"},
        {"part": slice(3, 6)},
    ],
    ids=str,
)
def test_other_places_have_other_masks(other: dict[str, Any]) -> None:
    different = (mask() != mask(**other)).mean(axis=(1, 2, 3))
    assert (different > 0.1).all()  # in every sample; 2p(1-p) = 0.375 on average


def test_samples_differ() -> None:
    assert len({sample.tobytes() for sample in mask(part=slice(0, 8))}) == 8


@given(first=st.integers(0, 100), begin=st.integers(0, 5), length=st.integers(1, 4))
def test_a_samples_mask_depends_on_its_global_index_alone(first: int, begin: int, length: int) -> None:
    found = mask(DRAWS._replace(first=first), slice(begin, begin + length))
    for n in range(length):
        alone = mask(DRAWS._replace(first=first + begin + n), slice(0, 1))
        np.testing.assert_array_equal(found[n], alone[0])


def test_the_rule_is_the_documented_one() -> None:
    """Seed, purpose, sample and step of the random space: a run of today is repeated by tomorrow's code."""
    from convlstm.randomness import generator

    uniform = generator(3, "dropout/layers.0.x", sample=9, step=5).random((2, 5, 6))
    found = mask(purpose="layers.0.x", part=slice(2, 3), p=0.25)[0]
    np.testing.assert_array_equal(found, np.where(uniform < 0.25, 0.0, 1 / 0.75))


def test_dropped_without_a_mask_is_the_same_array() -> None:
    maps = mask()
    assert dropped(maps, None) is maps
    np.testing.assert_array_equal(dropped(maps, maps), maps * maps)


# In a layer -------------------------------------------------------------------------------------------------------


def problem(N: int = 3, T: int = 3, draws: Draws | None = DRAWS, **options: Any) -> Problem:
    call = {"draws": draws, **options.pop("call", {})}
    return Problem(N, T, (4, 5), call=call, **{"in_channels": 2, "hidden_channels": 3, **BOTH, **options})


def masks_of(layer: ConvLSTM, draws: Draws | None = DRAWS, part: slice = slice(0, 3)) -> Drop:
    return layer.draw(draws, part, (2, 4, 5), (3, 4, 5))


def test_forward_is_the_layer_without_dropout_on_masked_maps() -> None:
    """The same masks at every time step: of x by masking x outside, of h₋ step by step with masked states."""
    whole = problem(peephole="channel")
    h, _, _ = whole.forward(whole.arrays)
    masks = masks_of(whole.layer)
    assert masks.x is not None
    assert masks.h is not None
    plain = ConvLSTM(2, 3, peephole="channel", dtype="float64", backend="numpy")
    plain.parameters = dict(whole.layer.parameters)
    x, before, c = whole.arrays["x"] * masks.x[:, None], whole.arrays["h0"], whole.arrays["c0"]
    for t in range(3):
        _, (before, c), _ = plain.forward(x[:, t : t + 1], (before * masks.h, c))
        np.testing.assert_array_equal(h[:, t], before)


def test_layers_and_roles_have_their_own_masks() -> None:
    settings: dict[str, Any] = {"dropout": 0.5, "recurrent_dropout": 0.5, "backend": "numpy"}
    stack = ConvLSTMStack(3, (3, 3), bidirectional=True, **settings)
    drops = [layer.draw(DRAWS, slice(0, 1), (3, 4, 5), (3, 4, 5)) for layer in stack.layers]
    masks = [mask.tobytes() for drop in drops for mask in drop if mask is not None]
    assert len(masks) == len(set(masks)) == 8


def test_a_layers_own_probabilities() -> None:
    assert masks_of(problem().layer, draws=None) == NOTHING
    only_x, only_h = (masks_of(problem(**{**BOTH, name: 0.0}).layer) for name in ("recurrent_dropout", "dropout"))
    assert only_x.h is None
    assert only_x.x is not None
    assert only_h.x is None
    assert only_h.h is not None
    both = masks_of(problem(dropout=0.25, recurrent_dropout=0.5).layer)
    assert both.x is not None
    assert both.h is not None
    assert both.x.max() == 1 / 0.75
    assert both.h.max() == 2.0


def test_without_draws_nothing_is_dropped() -> None:
    assert_same_bits(problem(draws=None).results(), problem(dropout=0.0, recurrent_dropout=0.0).results())
    assert not np.array_equal(problem().results()["h"], problem(draws=None).results()["h"])


@pytest.mark.parametrize("role", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize("state", [True, False])
def test_every_element(role: str, state: bool) -> None:
    rates: dict[str, Any] = {**dict.fromkeys(BOTH, 0.0), role: 0.4}
    small = Problem(2, 3, (2, 2), in_channels=1, hidden_channels=1, kernel_size=2, state=state,
                    call={"draws": DRAWS}, **rates)  # fmt: skip
    assert_proved(small)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer norm": {"layer_norm": "channel"},
    "stride": {"stride": 2, "recurrent_kernel_size": 2},
    "valid": {"padding": "valid", "recurrent_kernel_size": 2},
    "no input": {"in_channels": None},
    "from zeros": {"state": False},
    "recompute": {"call": {"recompute": 1}},
    "mask": {"call": {"mask": np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1]], bool)}},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_random_direction(options: dict[str, Any]) -> None:
    given = problem(peephole="channel", **options)
    assert directional_error(given.loss, given.arrays, given.gradients()) < 1e-7


@pytest.mark.parametrize("lost", ["x", "h"])
def test_a_lost_mask_in_the_backward_is_seen(lost: str) -> None:
    whole = problem()
    h, _, cache = whole.forward(whole.arrays)
    for _, chunks in cache.parts:
        for unrolled in chunks:
            drop = unrolled.start.drop._replace(**{lost: None})
            unrolled.steps[:] = [step._replace(drop=drop) for step in unrolled.steps]
    dx, (dh0, dc0), gradients = whole.layer.backward(cache, whole.u_h, whole.u_state)
    assert h.any()
    assert directional_error(whole.loss, whole.arrays, {**gradients, "x": dx, "h0": dh0, "c0": dc0}) > 1e-2


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_batch_in_two_parts_is_the_whole(cut: int) -> None:
    whole = problem(N=4)
    right = whole.results()
    first, second = (whole.of(part).results() for part in (slice(0, cut), slice(cut, 4)))
    for name in ("h", "h_T", "c_T", "dx", "dh0", "dc0"):
        np.testing.assert_array_equal(np.concatenate([first[name], second[name]]), right[name], err_msg=name)
    for name in whole.layer.parameters:
        np.testing.assert_allclose(first["d" + name] + second["d" + name], right["d" + name], rtol=1e-11, atol=1e-12)
    losses = [part.loss(part.arrays) for part in (whole, whole.of(slice(0, cut)), whole.of(slice(cut, 4)))]
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-12)


def test_a_batch_at_once_meets_the_same_masks() -> None:
    one_by_one, at_once = problem(), problem()
    at_once.layer.backend = WholeBatch(1)
    found, right = at_once.results(), one_by_one.results()
    for name, array in right.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_change_no_bit(threads: int) -> None:
    assert_same_bits(problem(N=5, threads=threads).results(), problem(N=5).results())


def test_a_step_of_training_later_drops_others() -> None:
    assert not np.array_equal(problem().results()["h"], problem(draws=DRAWS._replace(step=6)).results()["h"])


def test_float32_stays_float32() -> None:
    assert {array.dtype.name for array in problem(dtype="float32").results().values()} == {"float32"}


@pytest.mark.parametrize("value", [1.0, -0.1, 1.5, float("nan"), "0.5", None, True])
@pytest.mark.parametrize("name", ["dropout", "recurrent_dropout"])
def test_wrong_probabilities_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a probability p with 0 ≤ p < 1; got "):
        ConvLSTM(1, 2, backend="numpy", **{name: value})


def test_read_only_maps_stay_as_they_are() -> None:
    maps, drawn = mask(), mask(purpose="h")
    freeze((maps, drawn))
    dropped(maps, drawn)
    np.testing.assert_array_equal(maps, mask())
