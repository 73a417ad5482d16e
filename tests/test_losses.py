"""The losses: each value against the plain formula, each gradient against central differences, and their extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from convlstm.backends import Array
from convlstm.losses import LOSSES, Loss, LossName, counted, sigmoid, sigmoid_gradient
from tests.numerical import numeric_gradients, read_only

SHAPE = (2, 3, 4, 5)


def operands(dtype: str = "float64") -> tuple[Array, Array]:
    """Predictions (or logits) and targets in 0 … 1, read-only; none so near its target that |p - y| has its kink."""
    rng = np.random.default_rng(0)
    p, y = rng.normal(0, 2, SHAPE), rng.uniform(0, 1, SHAPE)
    assert abs(p - y).min() > 1e-4
    arrays = read_only({"p": p.astype(dtype), "y": y.astype(dtype)})
    return arrays["p"], arrays["y"]


def plain_term(name: LossName, p: float, y: float) -> float:
    """One element's loss as textbooks write it."""
    if name == "mse":
        return (p - y) ** 2
    if name == "mae":
        return abs(p - y)
    probability = 1 / (1 + math.exp(-p))
    return -(y * math.log(probability) + (1 - y) * math.log(1 - probability))


@pytest.mark.parametrize("name", LOSSES)
def test_value_is_the_plain_formula(name: LossName) -> None:
    p, y = operands()
    expected = math.fsum(plain_term(name, a, b) for a, b in zip(p.flat, y.flat, strict=True))
    assert float(LOSSES[name].value(p, y)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_the_value(name: LossName) -> None:
    p, y = operands()
    numeric = numeric_gradients(lambda arrays: float(LOSSES[name].value(arrays["p"], y)), {"p": p})["p"]
    np.testing.assert_allclose(LOSSES[name].gradient(p, y), numeric, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_value_is_float64_and_gradient_keeps_its_dtype(loss: Loss, dtype: str) -> None:
    p, y = operands(dtype)
    assert loss.value(p, y).dtype == np.float64
    assert loss.value(p, y).shape == ()
    assert loss.gradient(p, y).dtype == dtype
    assert loss.gradient(p, y).shape == SHAPE


def test_value_of_many_float32_terms_keeps_its_digits() -> None:
    p = np.full(10**6, 0.1, np.float32)
    error = float(LOSSES["mae"].value(p, np.zeros_like(p))) / (1e6 * float(np.float32(0.1))) - 1
    assert abs(error) < 1e-12  # added up in float32 it is 1e-8 and, one after the other, 1e-2


def test_only_the_cross_entropy_takes_logits() -> None:
    assert [name for name, loss in LOSSES.items() if loss.on_logits] == ["bce"]


# Where plain formulas overflow ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("logit", "target", "value", "gradient"),
    [(1000, 1, 0, 0), (1000, 0, 1000, 1), (-1000, 0, 0, 0), (-1000, 1, 1000, -1), (0, 0.5, math.log(2), 0)],
)
def test_cross_entropy_of_extreme_logits(
    dtype: str, logit: float, target: float, value: float, gradient: float
) -> None:
    z, y = np.array([[[[logit]]]], dtype), np.array([[[[target]]]], dtype)
    assert float(LOSSES["bce"].value(z, y)) == pytest.approx(value, rel=1e-6)
    assert LOSSES["bce"].gradient(z, y).item() == gradient


@settings(deadline=None)
@given(arrays_of.arrays(np.float32, 5, elements=st.floats(-1000, 1000, width=32)))
def test_cross_entropy_is_finite_and_not_negative(z: Array) -> None:
    for y in (np.zeros_like(z), np.full_like(z, 0.25), np.ones_like(z)):
        assert 0 <= float(LOSSES["bce"].value(z, y)) < 5001
        assert np.isfinite(LOSSES["bce"].gradient(z, y)).all()


@settings(deadline=None)
@given(st.floats(-1000, 1000))
def test_sigmoid_is_the_logistic_function(z: float) -> None:
    expected = 1 / (1 + math.exp(-z)) if z > -700 else 0.0
    assert float(sigmoid(np.array(z))) == pytest.approx(expected, abs=2e-16)


def test_sigmoid_gradient_is_that_of_sigmoid() -> None:
    z, dy = operands()
    numeric = numeric_gradients(lambda arrays: float((dy * sigmoid(arrays["z"])).sum()), {"z": z})["z"]
    np.testing.assert_allclose(sigmoid_gradient(dy, sigmoid(z)), numeric, rtol=1e-7, atol=1e-9)


def test_sigmoid_keeps_float32() -> None:
    z = np.array([-1000, 0, 1000], np.float32)
    assert sigmoid(z).dtype == np.float32
    assert sigmoid(z).tolist() == [0, 0.5, 1]
    assert sigmoid_gradient(z, sigmoid(z)).dtype == np.float32


@pytest.mark.parametrize("name", LOSSES)
def test_a_nan_is_not_hidden(name: LossName) -> None:
    p = np.array([0.5, np.nan])
    assert math.isnan(float(LOSSES[name].value(p, np.zeros(2))))
    assert np.isnan(LOSSES[name].gradient(p, np.zeros(2))).tolist() == [False, True]


# Elements that do not count -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outside", [3e38, -3e38, np.inf, np.nan])
@pytest.mark.parametrize("name", LOSSES)
def test_what_does_not_count_adds_exactly_nothing(name: LossName, outside: float, dtype: str) -> None:
    """Whatever stands there, in prediction or target; and no warning of what would overflow, which would fail here."""
    p, y = operands(dtype)
    valid = np.random.default_rng(1).random(SHAPE) < 0.6
    right = math.fsum(plain_term(name, float(a), float(b)) for a, b in zip(p[valid], y[valid], strict=True))
    for other_p, other_y in [(p, y), (np.where(valid, p, outside), y), (p, np.where(valid, y, outside))]:
        given = counted(LOSSES[name], other_p.astype(dtype), other_y.astype(dtype), valid)
        assert [array.dtype for array in given] == [dtype, dtype]
        assert float(LOSSES[name].value(*given)) == pytest.approx(right, rel=1e-6 if dtype == "float32" else 1e-12)
        gradient = LOSSES[name].gradient(*given)
        assert not gradient[~valid].any()
        np.testing.assert_array_equal(gradient[valid], LOSSES[name].gradient(p, y)[valid])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_zero_where_it_says(name: LossName, dtype: str) -> None:
    p, y = np.full(3, LOSSES[name].zero_at, dtype), np.zeros(3, dtype)
    assert float(LOSSES[name].value(p, y)) == 0
    assert not LOSSES[name].gradient(p, y).any()


def test_where_all_count_nothing_is_copied() -> None:
    p, y = operands()
    given = counted(LOSSES["bce"], p, y, None)
    assert given[0] is p
    assert given[1] is y
