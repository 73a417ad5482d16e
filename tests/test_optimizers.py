"""The optimizers against their formulas, written out for one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from convlstm.backends import Array
from convlstm.optimizers import SGD, Adam, Optimizer
from tests.numerical import read_only

STEPS = 100
OPTIMIZERS: dict[str, Callable[[float], Optimizer]] = {"sgd": SGD, "adam": Adam}


def start(dtype: str = "float64") -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return read_only({"W": rng.normal(size=(2, 3)).astype(dtype), "b": rng.normal(size=3).astype(dtype)})


def gradients_at(step: int, dtype: str = "float64") -> dict[str, Array]:
    """Different every step and of very different sizes, one element always 0."""
    rng = np.random.default_rng(1000 + step)
    b = rng.normal(size=3) * [1e-6, 1, 0]
    return read_only({"W": (10 * rng.normal(size=(2, 3))).astype(dtype), "b": b.astype(dtype)})


def run(optimizer: Optimizer, steps: int, dtype: str = "float64") -> dict[str, Array]:
    parameters = start(dtype)
    for step in range(steps):
        optimizer.step(parameters, gradients_at(step, dtype))
    return parameters


def every_element(rule: Callable[[list[float], float], float]) -> Mapping[str, Array]:
    """Apply a rule from (all gradients of one element, its first value) to its last value."""
    first, history = start(), [gradients_at(step) for step in range(STEPS)]
    last = {name: np.zeros_like(w) for name, w in first.items()}
    for name, w in first.items():
        for index in np.ndindex(w.shape):
            last[name][index] = rule([float(gradients[name][index]) for gradients in history], float(w[index]))
    return last


def assert_close(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert list(got) == list(expected)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-12, atol=1e-12)


def test_sgd_is_its_formula() -> None:
    assert_close(run(SGD(0.01), STEPS), every_element(lambda gs, w: w - 0.01 * math.fsum(gs)))


def test_adam_is_algorithm_1_of_kingma_and_ba() -> None:
    def algorithm_1(gs: list[float], w: float) -> float:
        alpha, beta1, beta2, epsilon = 0.02, 0.8, 0.99, 1e-6
        m = v = 0.0
        for t, g in enumerate(gs, start=1):
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            m_hat = m / (1 - beta1**t)
            v_hat = v / (1 - beta2**t)
            w = w - alpha * m_hat / (math.sqrt(v_hat) + epsilon)
        return w

    assert_close(run(Adam(0.02, beta1=0.8, beta2=0.99, epsilon=1e-6), STEPS), every_element(algorithm_1))


def test_adams_first_step_is_the_learning_rate_against_the_sign() -> None:
    parameters = {"b": np.array([1.0, 1.0, 1.0])}
    Adam(0.125).step(parameters, {"b": np.array([1e3, -1e-3, 0.0])})
    np.testing.assert_allclose(parameters["b"], [0.875, 1.125, 1.0], rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_arrays_given_are_left_alone(name: str) -> None:
    """They are read-only here, so that a step in place would raise; and none of them may come back."""
    parameters, gradients = start(), gradients_at(0)
    given = dict(parameters)
    OPTIMIZERS[name](0.1).step(parameters, gradients)
    for key, w in parameters.items():
        assert not np.shares_memory(w, given[key])
        assert not np.shares_memory(w, gradients[key])
        assert (w != given[key]).any()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_float32_stays_float32(name: str) -> None:
    optimizer = OPTIMIZERS[name](0.01)
    parameters = run(optimizer, 3, "float32")
    assert {w.dtype for w in parameters.values()} == {np.dtype("float32")}
    if isinstance(optimizer, Adam):
        assert {array.dtype for array in (*optimizer.m.values(), *optimizer.v.values())} == {np.dtype("float32")}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_equal_runs_have_equal_bits(name: str) -> None:
    one, other = run(OPTIMIZERS[name](0.01), 10, "float32"), run(OPTIMIZERS[name](0.01), 10, "float32")
    assert {key: w.tobytes() for key, w in one.items()} == {key: w.tobytes() for key, w in other.items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_missing_gradient_is_named(name: str) -> None:
    with pytest.raises(KeyError, match="W"):
        OPTIMIZERS[name](0.1).step({"W": np.ones(2)}, {})


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("rate", [0, -0.1, float("nan"), float("inf")])
def test_an_impossible_learning_rate(name: str, rate: float) -> None:
    with pytest.raises(ValueError, match=f"learning_rate must be > 0 and finite; got {rate}"):
        OPTIMIZERS[name](rate)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("beta1", 1.0), ("beta1", -0.1), ("beta2", 1.0), ("beta2", float("nan")), ("epsilon", 0.0)],
)
def test_an_impossible_setting_of_adam(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{setting} must .*; got {value}"):
        Adam(0.1, **{setting: value})
