"""Every pattern planted on a right gradient is called by its name; right gradients are never accused."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from convlstm import check_gradients
from convlstm.backends import Array
from convlstm.gradcheck.patterns import ROTATED, gate_orders, name_derivative, rearrangements
from tests.gradient_problems import THREE, Problem, Shape

Change = Callable[[Array], Array]


def line(shape: Shape, change: Change, sizes: dict[str, int] | None = None, seed: int = 0) -> str:
    """The diagnosis of one changed gradient beside one that is right."""
    problem = Problem({"W": shape, "other": (7,)}, seed)
    report = problem.check({"W": change(problem.gradients_at_start()["W"])}, sizes)
    assert list(report.faults) == ["W"], report
    return report.faults["W"]


def blocks(a: Array, order: tuple[int, ...], axis: int) -> Array:
    parts = np.split(a, len(order), axis)
    return np.concatenate([parts[k] for k in order], axis)


# Right gradients ------------------------------------------------------------------------------------------------------


@given(
    shape=arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4),
    other=arrays_of.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=4),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(["float64", "float32"]),
)
@settings(max_examples=40, deadline=None)
def test_right_gradients_are_never_accused(shape: Shape, other: Shape, seed: int, dtype: str) -> None:
    problem = Problem({"W": shape, "other": other}, seed)
    right = problem.gradients_at_start()
    report = problem.check({name: gradient.astype(dtype) for name, gradient in right.items()})
    assert report.ok, report
    assert {row.status for row in report.rows} == {"right"}


@given(shape=st.sampled_from([(2, 5), (8, 3), (6, 2, 3, 3), (4, 4)]), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_no_pattern_is_seen_in_a_gradient_of_noise(shape: Shape, seed: int) -> None:
    noise = np.random.default_rng(seed + 5000).normal(size=shape)
    said = line(shape, lambda a: noise, seed=seed)
    assert "no pattern found" in said or "only this gradient is wrong" in said
    assert "cosine to the right gradient" in said
    found = re.search(r"(\d+) of (\d+) entries wrong", said)
    assert found
    assert found[1] == found[2]
    assert int(found[2]) >= 0.8 * math.prod(shape)  # the rounding of one may look like a kink: it cannot be told


# One number for all ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (4, 6), (2, 3, 3, 3)])
@pytest.mark.parametrize(
    ("factor", "sizes", "said"),
    [
        (0.0, {}, "zero: nothing was ever added"),
        (-1.0, {}, "wrong sign: exactly minus the right gradient"),
        (2.0, {}, "constant factor 2: .*2x where the loss has ½x², or accumulated twice"),
        (0.5, {}, "constant factor 0.5 = 1/2: .*x where the loss has x², or a mean over 2"),
        (1 / 8, {"N": 8, "T": 10}, "constant factor 0.125 = 1/8: .* divided by N = 8 "),
        (1 / 10, {"N": 8, "T": 10}, "constant factor 0.1 = 1/10: .* divided by T = 10 "),
        (1 / 80, {"N": 8, "T": 10}, "constant factor 0.0125 = 1/80: .* divided by N·T = 80 "),
        (80.0, {"N": 8, "T": 10}, "constant factor 80: .* not divided by N·T = 80 "),
        (10.0, {"N": 8, "T": 10}, "constant factor 10: .* not divided by T = 10 "),
        (0.01, {}, "learning rate"),
        (1 / 12, {}, "= 1/12: a mean over 12"),
        (12.0, {}, "a sum over 12"),
        (3.0, {}, "accumulated 3 times"),
        (-2.0, {}, "wrong sign and constant factor -2"),
        (0.7321, {}, "constant factor 0.7321$"),
    ],
)
def test_factor_is_named(shape: Shape, factor: float, sizes: dict[str, int], said: str) -> None:
    assert re.search(said, line(shape, lambda a: factor * a, sizes))


@given(exponent=st.floats(-6, 6), sign=st.sampled_from([-1, 1]), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_any_factor_is_found(exponent: float, sign: int, seed: int) -> None:
    factor = sign * (10**exponent + 1.3e-3)
    said = line((3, 4), lambda a: factor * a, seed=seed)
    if math.isclose(factor, -1, rel_tol=1e-4):
        assert "wrong sign" in said
    else:
        assert f"constant factor {factor:.4g}" in said
        assert ("wrong sign" in said) == (sign < 0)


@pytest.mark.parametrize("factor", [-2.0, 0.01, 64.0, 1024.0, 1e5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_factor_is_found_in_float32_too(factor: float, dtype: str) -> None:
    assert f"constant factor {factor:.4g}" in line((4, 6), lambda a: (factor * a).astype(dtype))


def test_single_entry_is_only_called_a_multiple_if_programs_make_that_one() -> None:
    assert "constant factor 2" in line((1,), lambda a: 2 * a)
    assert "wrong sign" in line((1,), lambda a: -a)
    assert "constant factor" not in line((1,), lambda a: 1.37 * a)


@pytest.mark.parametrize("shape", [(5,), (4, 6)])
def test_one_number_everywhere(shape: Shape) -> None:
    said = line(shape, lambda a: np.full_like(a, 0.37))
    assert said.startswith("every entry is the same number")
    assert ("np.outer" if len(shape) > 1 else "summed over all axes, that of the units too") in said


def test_not_zero_where_the_loss_does_not_depend_on_it() -> None:
    def loss(parameters: dict[str, Array]) -> float:
        return float(np.maximum(parameters["W"] - 5, 0).sum())

    report = check_gradients(loss, {"W": np.full(3, 4.9)}, {"W": np.ones(3)})
    assert "not zero (up to 1 an entry), while the loss does not depend on it here" in report.faults["W"]


# Entries in other places ----------------------------------------------------------------------------------------------

CASES: list[tuple[str, Shape, Change, str]] = [
    ("transposed", (5, 5), lambda a: a.T, "transposed"),
    ("rotated O,I,K,K", (5, 2, 3, 3), lambda a: a[:, :, ::-1, ::-1], ROTATED),
    ("rotated O,I,K,L", (5, 2, 3, 2), lambda a: a[:, :, ::-1, ::-1], ROTATED),
    ("rotated K,K,I,O", (3, 3, 2, 5), lambda a: a[::-1, ::-1], ROTATED),
    ("rotated 1-D", (5, 2, 3), lambda a: a[..., ::-1], "the kernel's gradient stands in reverse order"),
    ("upside down", (5, 2, 3, 3), lambda a: a[:, :, ::-1], "in reverse order along its height"),
    ("mirrored", (5, 2, 3, 3), lambda a: a[..., ::-1], "in reverse order along its width"),
    ("kernel transposed", (5, 2, 3, 3), lambda a: a.swapaxes(2, 3), "height and width of the kernel's gradient are"),
    ("channels", (3, 3, 3, 3), lambda a: a.swapaxes(0, 1), "input and output channels are swapped"),
    (
        "channels of each gate",
        (12, 3, 3, 3),
        lambda a: a.reshape(4, 3, 3, 3, 3).swapaxes(1, 2).reshape(12, 3, 3, 3),
        "input and output channels are swapped within each gate",
    ),
    (
        "gates transposed",
        (12, 3),
        lambda a: a.reshape(4, 3, 3).swapaxes(1, 2).reshape(12, 3),
        "input and output channels are swapped within each gate",
    ),
    ("shifted down", (5, 7), lambda a: np.roll(a, 1, 0), "shifted by one along axis 0"),
    ("shifted right", (5, 7), lambda a: np.roll(a, -1, 1), "shifted by one along axis 1"),
    ("shifted vector", (7,), lambda a: np.roll(a, 1), "shifted by one along axis 0"),
]


@pytest.mark.parametrize(("shape", "change", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rearranged_gradient_is_recognised(shape: Shape, change: Change, said: str, dtype: str) -> None:
    assert said in line(shape, lambda a: change(a).astype(dtype))


@pytest.mark.parametrize(("shape", "change", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_rearranged_and_scaled_gradient_is_recognised(shape: Shape, change: Change, said: str) -> None:
    found = line(shape, lambda a: -change(a))
    assert said in found
    assert found.endswith("; and wrong sign: exactly minus the right gradient")


def test_swapped_channels_without_gates_are_not_said_to_be_of_gates() -> None:
    assert "within each gate" not in line((3, 3, 3, 3), lambda a: a.swapaxes(0, 1))


ORDERS = [order for gates in (3, 4) for order in itertools.permutations(range(gates)) if order != tuple(range(gates))]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(map(str, order)))
@pytest.mark.parametrize("last", [False, True], ids=["first axis", "last axis"])
@pytest.mark.parametrize("ndim", [2, 4])
def test_every_order_of_gates_is_recognised(order: tuple[int, ...], last: bool, ndim: int) -> None:
    """As PyTorch stacks them, (G·C, D) and (G·C, D, K, K), and as Keras does, (D, G·C) and (K, K, D, G·C)."""
    gates, ones, axis = len(order), (1,) * (ndim - 2), (ndim - 1) * last
    shape = (*ones, 5, 2 * gates) if last else (2 * gates, 5, *ones)
    said = line(shape, lambda a: blocks(a, order, axis))
    moved = [place + 1 for place, block in enumerate(order) if place != block]
    assert said.startswith("gates swapped" if len(moved) == 2 else "gates in another order")
    assert f"blocks {' and '.join(map(str, moved))} of {gates} along axis {axis}" in said


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 2, 1, 3), (3, 0, 1, 2)])
def test_gates_of_a_bias_are_recognised(order: tuple[int, ...]) -> None:
    assert line((12,), lambda a: blocks(a, order, 0)).startswith("gates ")


@pytest.mark.parametrize("shape", [(4,), (3, 3), (4, 3), (12, 3, 3, 3), (3, 3, 2, 8), (2, 3, 4), (6,)])
def test_rearrangements_hold_the_same_numbers_elsewhere(shape: Shape) -> None:
    a = np.random.default_rng(0).normal(size=shape)
    found = list(rearrangements(a))
    assert found
    for description, moved in found:
        assert description
        assert moved.shape == shape
        np.testing.assert_array_equal(np.sort(moved, None), np.sort(a, None))


@pytest.mark.parametrize(
    ("shape", "orders"),
    [((8, 5), 23 + 1), ((6, 5), 5 + 1), ((5, 8), 23 + 1), ((3, 3, 5, 8), 23 + 1), ((12,), 23 + 5 + 1), ((4, 3), 1)],
)
def test_gate_orders_are_all_orders_once(shape: Shape, orders: int) -> None:
    a = np.arange(float(math.prod(shape))).reshape(shape)
    found = [moved.tobytes() for _, moved in gate_orders(a)]
    assert len(found) == orders
    assert a.tobytes() not in found
    assert len(set(found)) >= orders - 1  # two halves exchanged are an order of four quarters too


def test_blocks_of_a_single_unit_are_not_taken_for_gates() -> None:
    assert "gates" not in line((4, 5), lambda a: a[[0, 2, 1, 3]])
    assert "gate " not in line((4, 5), lambda a: a * np.array([1.0, 1.0, -1.0, 1.0])[:, None])


# Only a part is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gates", [3, 4])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("factor", "said"),
    [(0.0, "zero"), (-1.0, "wrong sign"), (2.0, "constant factor 2"), (None, "cosine to the right gradient")],
)
def test_only_one_gate_is_wrong(gates: int, axis: int, factor: float | None, said: str) -> None:
    shape = (2 * gates, 5) if axis == 0 else (5, 2 * gates)
    noise = np.random.default_rng(3).normal(size=shape)
    for gate in range(gates):

        def change(a: Array, gate: int = gate) -> Array:
            bad = [noise if factor is None else factor * a]
            parts = np.split(a, gates, axis)
            parts[gate] = np.split(bad[0], gates, axis)[gate]
            return np.concatenate(parts, axis)

        found = line(shape, change)
        assert found.startswith(f"only gate {gate + 1} of {gates} along axis {axis} is wrong: ")
        assert said in found


def test_two_gates_wrong() -> None:
    signs = np.repeat([1.0, -1.0, 1.0, -1.0], 3)
    assert line((12, 5), lambda a: a * signs[:, None]).startswith(
        "only gate 2 and 4 of 4 along axis 0 is wrong: wrong s"
    )


@pytest.mark.parametrize(("at", "said"), [((2, 4), "wrong only at 2 along axis 0"), ((0, 0), "wrong only at 0")])
def test_one_wrong_entry_is_placed(at: tuple[int, int], said: str) -> None:
    def change(a: Array) -> Array:
        changed = a.copy()
        changed[at] += 0.1
        return changed

    found = line((5, 7), change)
    assert said in found
    assert "1 of 35 entries wrong, by up to" in found


def test_one_wrong_entry_is_not_called_a_wrong_gate() -> None:
    def change(a: Array) -> Array:
        changed = a.copy()
        changed[7, 2] += 0.1
        return changed

    found = line((12, 5), change)
    assert "1 of 60 entries wrong" in found
    assert "wrong only at 7 along axis 0" in found


@pytest.mark.parametrize("axis", [0, 1])
def test_one_wrong_row_is_placed(axis: int) -> None:
    def change(a: Array) -> Array:
        changed = a.swapaxes(0, axis).copy()
        changed[3] = np.random.default_rng(0).normal(size=changed[3].shape)
        return changed.swapaxes(0, axis)

    assert f"wrong only at 3 along axis {axis}" in line((7, 5), change)


# Wrong derivatives of activations -------------------------------------------------------------------------------------


def sigmoid(z: Array) -> Array:
    s: Array = 1 / (1 + np.exp(-z))
    return s


def slope_of_sigmoid(s: Array) -> Array:
    slope: Array = s * (1 - s)
    return slope


def slope_of_tanh(t: Array) -> Array:
    slope: Array = 1 - t**2
    return slope


SLOPES: list[tuple[str, Callable[[Array], Array], str]] = [
    ("sigmoid, of s again", lambda z: slope_of_sigmoid(sigmoid(sigmoid(z))) / slope_of_sigmoid(sigmoid(z)), "a second"),
    ("tanh, of t again", lambda z: slope_of_tanh(np.tanh(np.tanh(z))) / slope_of_tanh(np.tanh(z)), "a second time"),
    ("sigmoid, of z", lambda z: slope_of_sigmoid(z) / slope_of_sigmoid(sigmoid(z)), "z(1-z) or 1-z²"),
    ("tanh, of z", lambda z: slope_of_tanh(z) / slope_of_tanh(np.tanh(z)), "z(1-z) or 1-z²"),
    ("sigmoid, left out", lambda z: 1 / slope_of_sigmoid(sigmoid(z)), "left out, or taken of another function"),
    ("tanh, left out", lambda z: 1 / slope_of_tanh(np.tanh(z)), "left out, or taken of the activation"),
    ("sigmoid, tanh's", lambda z: slope_of_tanh(sigmoid(z)) / slope_of_sigmoid(sigmoid(z)), "left out"),
    ("tanh, sigmoid's", lambda z: slope_of_sigmoid(np.tanh(z)) / slope_of_tanh(np.tanh(z)), ""),
]


@pytest.mark.parametrize(("factors", "said"), [case[1:] for case in SLOPES], ids=[case[0] for case in SLOPES])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_derivative_of_an_activation(
    factors: Callable[[Array], Array], said: str, axis: int, seed: int
) -> None:  # fmt: skip
    z = np.random.default_rng(seed).normal(0, 1.5, 7)
    shape = (7, 5) if axis == 0 else (5, 7)
    found = line(shape, lambda a: a * (factors(z)[:, None] if axis == 0 else factors(z)), seed=seed)
    k = factors(z)
    assert found.startswith(f"each unit is off by a factor of its own ({k.min():.3g} … {k.max():.3g}): the derivative ")
    assert said in found


@given(z=arrays_of.arrays("float64", (8,), elements=st.floats(-6, 6)))
@settings(max_examples=60, deadline=None)
def test_limits_of_wrong_derivatives_hold_for_every_z(z: Array) -> None:
    """What name_derivative claims of each is true of the formulas; near z = 0 or far away they tell little."""
    assume(z.min() < -0.6 and abs(z).min() < 1)
    for name, factors, said in SLOPES[:5]:
        assert said in name_derivative(factors(z).tolist()), name


@pytest.mark.parametrize("factors", [[0.5, 3.0], [-1.0, 2.0]])
def test_other_factors_have_no_certain_cause(factors: list[float]) -> None:
    assert "s(1-s) needs s = σ(z), 1-t² needs t = tanh(z)" in name_derivative(factors)


# Clipping and decay ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12,), (4, 6), (4, 2, 3, 3)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_clipped_by_value(shape: Shape, dtype: str) -> None:
    def change(a: Array) -> Array:
        bound = float(np.quantile(abs(a), 0.6))
        return np.clip(a, -bound, bound).astype(dtype)

    bound = float(np.quantile(abs(Problem({"W": shape, "other": (7,)}).gradients_at_start()["W"]), 0.6))
    assert line(shape, change).startswith(f"clipped to ±{bound:.4g} before it was compared")


def above_the_right_ones(a: Array) -> Array:
    changed = a.copy()
    changed[0, :2] = 2 * abs(a).max()
    return changed


def with_signs_lost(a: Array) -> Array:
    bound = float(np.quantile(abs(a), 0.6))
    return np.where(abs(a) > bound, bound, a)


def with_another_entry_wrong(a: Array) -> Array:
    bound = float(np.quantile(abs(a), 0.6))
    changed = np.clip(a, -bound, bound)
    changed.flat[np.argmin(abs(a))] += bound / 2
    return changed


@pytest.mark.parametrize("change", [above_the_right_ones, with_signs_lost, with_another_entry_wrong])
def test_what_clipping_cannot_have_made_is_not_called_clipped(change: Change) -> None:
    assert "clipped" not in line((5, 7), change)


@pytest.mark.parametrize("weight", [0.1, 0.01, -0.5, 1.0])
def test_weight_decay(weight: float) -> None:
    problem = Problem({"W": (4, 6), "other": (7,)})
    right = problem.gradients_at_start()
    report = problem.check({"W": right["W"] + weight * problem.parameters["W"]})
    assert f"it holds {weight:.4g} times the parameter itself: weight decay" in report.faults["W"]


def test_weight_decay_in_all() -> None:
    problem = Problem({"W": (4, 6), "other": (7,)})
    right = problem.gradients_at_start()
    report = problem.check({name: g + 0.1 * problem.parameters[name] for name, g in right.items()})
    assert set(report.faults) == {"W", "other"}
    assert all("weight decay" in said for said in report.faults.values())


@pytest.mark.parametrize("bound", [1.0, 0.5, 0.25])
def test_clipped_by_the_norm_of_each(bound: float) -> None:
    problem = Problem(THREE)
    right = problem.gradients_at_start()
    assert len({round(float(np.linalg.norm(g)), 3) for g in right.values()}) == 3
    report = problem.check({name: g * min(1, bound / np.linalg.norm(g)) for name, g in right.items()})
    clipped = {name for name, g in right.items() if np.linalg.norm(g) > bound}
    assert clipped
    assert set(report.faults) == clipped
    for said in report.faults.values():
        assert said.startswith("scaled by clipping before it was compared: its norm is ")
        assert f"its norm is {bound:.6g}" in said


@pytest.mark.parametrize("bound", [1.0, 0.5, 0.01])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_clipped_by_the_norm_of_all(bound: float, dtype: str) -> None:
    problem = Problem(THREE)
    right = problem.gradients_at_start()
    k = bound / math.sqrt(sum(float((g**2).sum()) for g in right.values()))
    assert k < 1
    report = problem.check({name: (k * g).astype(dtype) for name, g in right.items()})
    assert set(report.faults) == set(THREE)
    for said in report.faults.values():
        assert f"the norm of all gradients together is {bound:.6g}" in said
        assert f"the same constant factor {k:.4g}" in said


def test_one_round_norm_of_all_with_different_factors_is_not_clipping() -> None:
    problem = Problem(THREE)
    factors = {"W_x": 0.3, "W_h": 0.2, "b": 0.1}
    scaled = {name: factors[name] * g for name, g in problem.gradients_at_start().items()}
    total = math.sqrt(sum(float((g**2).sum()) for g in scaled.values()))
    report = problem.check({name: g * 0.5 / total for name, g in scaled.items()})
    assert set(report.faults) == set(THREE)
    assert not any("together" in said for said in report.faults.values())


def test_clipping_changes_no_sign() -> None:
    problem = Problem(THREE)
    g = problem.gradients_at_start()["W_x"]
    said = problem.check({"W_x": -0.5 * g / np.linalg.norm(g)}).faults["W_x"]
    assert said.startswith("wrong sign and constant factor")
    assert "its norm is" not in said


def test_clipped_inside_the_time_loop() -> None:
    """Clipped after each step: the norm is exactly the bound, the direction another."""
    problem = Problem(THREE)
    g = problem.gradients_at_start()["W_x"] + np.random.default_rng(0).normal(size=(4, 6))
    report = problem.check({"W_x": g / np.linalg.norm(g)})
    assert report.faults["W_x"].startswith("clipped inside the time loop: its norm is exactly 1")
