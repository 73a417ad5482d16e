"""Numerical derivatives against known ones: how near they come, and how near they say they do."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.backends import Array
from convlstm.gradcheck.differences import Derivative, Differences, LossFault

Function = Callable[[float], float]
FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "sine": (math.sin, math.cos),
    "tanh": (math.tanh, lambda x: 1 / math.cosh(x) ** 2),
    "exp": (math.exp, math.exp),
    "cubic": (lambda x: x**3 - x, lambda x: 3 * x**2 - 1),
    "softplus": (lambda x: math.log1p(math.exp(x)), lambda x: 1 / (1 + math.exp(-x))),
    "pole": (lambda x: 1 / (x - 2.5), lambda x: -1 / (x - 2.5) ** 2),
}


def of_scalar(f: Function, x: float) -> Differences:
    """Differences of a function of one number, at x."""
    return Differences(lambda parameters: f(float(parameters["x"][0])), {"x": np.array([x])})


def slope(f: Function, x: float, expected: float, tolerance: float = 0.0) -> Derivative:
    """The derivative as it is found where a hand-written one is `expected`."""
    return of_scalar(f, x).entry("x", 0, expected, tolerance)


# Smooth functions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
@given(
    scale=st.integers(-6, 6),
    x=st.floats(-2, 2).filter(lambda x: x == 0 or abs(x) > 1e-9),
    off=st.sampled_from([1.01, 2.0, -1.0]),
)
@settings(max_examples=30, deadline=None)
def test_derivative_lies_within_its_error_and_far_from_a_wrong_one(name: str, scale: int, x: float, off: float) -> None:
    f, derivative = FUNCTIONS[name]
    right = 10.0**scale * derivative(x)
    found = slope(lambda x: 10.0**scale * f(x), x, off * right + 1e-3 * 10.0**scale)
    assert abs(found.value - right) <= 2 * found.error  # rounding is estimated by its standard deviation
    assert found.error <= 1e-5 * 10.0**scale * (1 + abs(derivative(x)))
    assert found.kink is None
    assert found.moves


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_right_number_is_met_at_once(name: str, scale: float) -> None:
    f, derivative = FUNCTIONS[name]
    right, tolerance = scale * derivative(0.7), 1e-6 * scale * abs(derivative(0.7))
    differences = of_scalar(lambda x: scale * f(x), 0.7)
    before = differences.evaluations
    found = differences.entry("x", 0, right, tolerance)
    assert abs(found.value - right) <= tolerance + found.error
    assert differences.evaluations - before == 2


@given(exponent=st.floats(0, 5), sign=st.sampled_from([-1, 1]))
@settings(max_examples=25, deadline=None)
def test_large_parameters_are_moved_in_proportion(exponent: float, sign: int) -> None:
    x = sign * 10**exponent
    found = slope(lambda x: x**2, x, 0.0)
    assert abs(found.value - 2 * x) <= 3 * found.error <= 1e-9 * abs(x)


@pytest.mark.parametrize("length", [1.0, 1e-1, 1e-2, 1e-3, 1e-4])
def test_steps_get_small_enough_for_functions_that_turn_quickly(length: float) -> None:
    found = slope(lambda x: math.sin(x / length), 0.3, 0.0)
    right = math.cos(0.3 / length) / length
    assert abs(found.value - right) <= found.error <= 0.05 * abs(right)


def test_extrapolation_is_exact_for_polynomials_of_degree_four() -> None:
    found = slope(lambda x: 1e3 * x**4 + 1e5 * x**3, 0.1, 0.0)
    assert found.value == pytest.approx(4 + 3e3, rel=1e-11)


def test_direction_is_through_all_entries_of_one_parameter() -> None:
    rng = np.random.default_rng(0)
    a, W, v = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    differences = Differences(lambda p: float((a * p["W"] ** 2).sum() + p["b"].sum()), {"W": W, "b": np.ones(2)})
    found = differences.along("W", v, 0.0, 0.0)
    assert abs(found.value - float((2 * a * W * v).sum())) <= found.error <= 1e-8


def test_entry_is_counted_in_the_order_of_c() -> None:
    W = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    differences = Differences(lambda p: float((np.arange(6.0).reshape(2, 3) * p["W"]).sum()), {"W": W})
    found = [differences.entry("W", flat, 9.0, 0.0).value for flat in range(6)]
    np.testing.assert_allclose(found, np.arange(6.0), atol=1e-8)


# Rounding -------------------------------------------------------------------------------------------------------------


def float32_loss(parameters: dict[str, Array]) -> float:
    x = parameters["x"].astype(np.float32)
    return float(np.float32(1) + np.sum(np.tanh(x) * np.float32(0.1), dtype=np.float32))


def test_float32_loss_is_recognised_and_its_error_known() -> None:
    x = np.random.default_rng(0).normal(size=40)
    differences = Differences(float32_loss, {"x": x})
    assert 1e-9 < differences.relative_noise < 1e-6
    assert any("float32" in remark for remark in differences.remarks)
    for k in range(40):
        right = 0.1 / math.cosh(x[k]) ** 2
        found = differences.entry("x", k, 0.0, 1e-9)
        assert abs(found.value - right) <= 2 * found.error <= 1e-3


def test_float64_loss_is_not_called_rounded() -> None:
    differences = of_scalar(math.sin, 1.0)
    assert differences.relative_noise < 1e-14
    assert differences.remarks == []


@pytest.mark.parametrize("value", [0.0, 1e-17, 1e-12])
def test_loss_near_zero_is_not_called_rounded(value: float) -> None:
    """A difference of losses, or a sum that cancels: its noise is small, whatever part of its value it is."""
    differences = of_scalar(lambda x: math.sin(x) - math.sin(0.5) + value, 0.5)
    assert differences.remarks == []
    found = differences.entry("x", 0, 0.0, 0.0)
    assert abs(found.value - math.cos(0.5)) <= found.error <= 1e-5


@pytest.mark.parametrize("planted", [1e-3, 1e-5, 1e-8, 1e-11])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_noise_is_measured_within_a_factor_of_ten(planted: float, scale: float) -> None:
    x = np.random.default_rng(3).normal(size=5)

    def loss(parameters: dict[str, Array]) -> float:
        digest = hashlib.sha256(parameters["x"].tobytes()).digest()
        noise = np.random.default_rng(int.from_bytes(digest[:8], "little")).standard_normal()
        return scale * (1 + float(np.sin(parameters["x"]).sum()) + planted * float(noise))

    differences = Differences(loss, {"x": x})
    assert planted / 10 <= differences.noise / scale <= 10 * planted
    for k in range(5):
        found = differences.entry("x", k, 0.0, 0.0)
        assert abs(found.value - scale * math.cos(x[k])) <= 2 * found.error


@pytest.mark.parametrize("level", [0.0, 1e-9, 1e9])
def test_noise_never_falls_below_rounding_of_the_loss_itself(level: float) -> None:
    differences = of_scalar(lambda x: level + 0 * x, 1.0)
    assert differences.noise >= np.finfo(float).eps * level / 4
    assert differences.relative_noise >= np.finfo(float).eps


# Kinks ----------------------------------------------------------------------------------------------------------------

KINKS: dict[str, tuple[Function, float, tuple[float, float]]] = {
    "abs": (abs, 0.0, (-1.0, 1.0)),
    "relu": (lambda x: max(x, 0.0), 0.0, (0.0, 1.0)),
    "leaky relu, turned": (lambda x: -max(3 * x, 0.1 * x), 0.0, (-3.0, -0.1)),
    "clip, upper bound": (lambda x: min(max(x, -2.0), 2.0), 2.0, (0.0, 1.0)),
    "clip, lower bound": (lambda x: min(max(x, -2.0), 2.0), -2.0, (0.0, 1.0)),
    "beside a smooth part": (lambda x: math.exp(x) + abs(x), 0.0, (0.0, 2.0)),
    "large parameter": (lambda x: abs(x - 1e3), 1e3, (-1.0, 1.0)),
}


@pytest.mark.parametrize("name", KINKS)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_kink_at_the_point_shows_with_its_slopes(name: str, scale: float) -> None:
    f, x, slopes = KINKS[name]
    found = slope(lambda x: scale * f(x), x, 0.123 * scale)
    assert found.kink is not None
    assert found.kink == pytest.approx((scale * slopes[0], scale * slopes[1]), rel=1e-2, abs=1e-2 * scale)


@pytest.mark.parametrize("distance", [1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("side", [-1, 1])
def test_kink_near_the_point_is_kept_out_by_smaller_steps(distance: float, side: int) -> None:
    found = slope(lambda x: abs(x) + x**2, side * distance, 0.0)
    assert found.value == pytest.approx(side * (1 + 2 * distance), rel=1e-4)
    assert found.error < 0.05
    assert found.kink is None


@pytest.mark.parametrize("f", [lambda x: x**2, lambda x: x**4, lambda x: 1e-3 * math.cos(50 * x), lambda x: x**3 + 1])
def test_smooth_functions_have_no_kink(f: Function) -> None:
    assert slope(f, 0.0, 0.123).kink is None


@pytest.mark.parametrize("x", [1.66e-16, 4.6e-17, -1e-15, 1e-12])
@pytest.mark.parametrize("f", [math.sin, lambda x: x**3 - x, lambda x: x], ids=["sine", "cubic", "line"])
def test_two_equal_slopes_are_no_kink(f: Function, x: float) -> None:
    """x is lost in x ± s, so that f(x + s) - 2 f(x) + f(x - s) is - 2 f(x) for every s."""
    assert slope(lambda x: 100 * f(x), x, 0.0).kink is None


# Losses that are not finite, or do not move ---------------------------------------------------------------------------


def log(x: float) -> float:
    return math.log(x) if x > 0 else math.nan


@pytest.mark.parametrize("x", [1e-2, 1e-4, 1e-6])
def test_not_finite_beside_the_point_smaller_steps_tell(x: float) -> None:
    found = slope(log, x, 0.0)
    assert abs(found.value - 1 / x) <= found.error <= 0.1 / x


@pytest.mark.parametrize("beside", [math.nan, math.inf])
def test_not_finite_however_near_nothing_is_claimed(beside: float) -> None:
    found = slope(lambda x: math.sqrt(x) if x >= 0 else beside, 0.0, 0.0)
    assert found.error == math.inf
    assert found.moves


def test_loss_that_does_not_move() -> None:
    differences = Differences(lambda p: float(p["a"].sum()), {"a": np.ones(2), "b": np.ones(3)})
    found = differences.entry("b", 1, 0.0, 0.0)
    assert (found.value, found.moves, found.kink) == (0.0, False, None)
    assert differences.moves("a")
    assert not differences.moves("b")


def test_loss_that_is_flat_only_near_the_point_moves() -> None:
    differences = of_scalar(lambda x: max(x, 0.01), 0.0)
    assert differences.moves("x")
    assert not differences.entry("x", 0, 0.0, 0.0).moves


# What the loss may be and return --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.float64(2), np.array(2.0), np.array([2.0]), np.array([[2.0]]), np.int64(2)]
)
def test_any_single_number_is_a_loss(value: object) -> None:
    differences = Differences(lambda p: value, {"x": np.ones(2)})  # type: ignore[arg-type, return-value]
    assert differences.value == 2.0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "loss must return one number; got "),
        ("2", "loss must return one number; got "),
        (2j, "loss must return one number; got "),
        (np.complex128(2j), "loss must return one number; got"),
        (np.ones(3), r"loss must return one number; got an array of shape \(3,\)"),
        (np.ones((2, 0)), r"loss must return one number; got an array of shape \(2, 0\)"),
        (np.array([1j]), "loss must return one number; got"),
        ([1.0], "loss must return one number; got "),
        ((1.0, {}), "loss must return one number; got "),
    ],
)
def test_anything_else_is_not(value: object, said: str) -> None:
    with pytest.raises(TypeError, match=f"^{said}"):
        Differences(lambda p: value, {"x": np.ones(2)})  # type: ignore[arg-type, return-value]


def test_loss_must_be_a_function() -> None:
    with pytest.raises(TypeError, match=r"^loss must be a function of the parameters; got float$"):
        Differences(1.0, {"x": np.ones(2)})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_loss_must_be_finite(value: float) -> None:
    with pytest.raises(LossFault, match=f"^the loss is {value} at these parameters"):
        of_scalar(lambda x: value, 1.0)


def test_loss_must_repeat_itself() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(LossFault, match="not deterministic"):
        of_scalar(lambda x: x + 1e-12 * float(rng.random()), 1.0)


def test_loss_must_repeat_itself_more_than_once() -> None:
    calls: list[int] = []

    def later(x: float) -> float:
        calls.append(0)
        return x + (len(calls) == 4)

    with pytest.raises(LossFault, match=r"not deterministic: the same parameters give 1.0 and 2.0"):
        of_scalar(later, 1.0)


def test_loss_must_not_write_into_its_argument() -> None:
    def loss(parameters: dict[str, Array]) -> float:
        parameters["b"] -= 0.1
        return float(parameters["a"].sum())

    a, b = np.ones(2), np.ones(3)
    with pytest.raises(LossFault, match=r"changes parameters\['b'\]"):
        Differences(loss, {"a": a, "b": b})
    np.testing.assert_array_equal(b, 1)


def test_every_call_of_the_loss_is_counted() -> None:
    calls = []

    def loss(parameters: dict[str, Array]) -> float:
        calls.append(0)
        return float(np.sin(parameters["x"]).sum())

    differences = Differences(loss, {"x": np.ones(3)})
    differences.entry("x", 1, 5.0, 0.0)
    assert differences.evaluations == len(calls)
