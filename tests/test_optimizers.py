"""The optimizers against their formulas, written out for one number at a time, and against PyTorch's own numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.backends import Array
from convlstm.optimizers import SGD, Adam, AdamW, Momentum, Optimizer, RMSProp, restore
from tests.golden import record_optimizers as recorder
from tests.numerical import read_only

STEPS = 100
OPTIMIZERS: dict[str, Callable[[float], Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": lambda rate: Momentum(rate, 0.8, nesterov=True),
    "rmsprop": RMSProp,
    "rmsprop with momentum": lambda rate: RMSProp(rate, momentum=0.9),
    "adam": Adam,
    "adamw": AdamW,
}
MOMENTS = {
    "sgd": [],
    "momentum": ["u"],
    "nesterov": ["u"],
    "rmsprop": ["v"],
    "rmsprop with momentum": ["v", "u"],
    "adam": ["m", "v"],
    "adamw": ["m", "v"],
}


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


# Formulas ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_its_sum(nesterov: bool) -> None:
    """Unrolled, u after step t is Σ_s μ^(t-s) g_s."""
    rate, mu = 0.01, 0.7

    def unrolled(gs: list[float], w: float) -> float:
        us = [math.fsum(mu ** (t - s) * gs[s] for s in range(t + 1)) for t in range(len(gs))]
        moves = [g + mu * u for g, u in zip(gs, us, strict=True)] if nesterov else us
        return w - rate * math.fsum(moves)

    assert_close(run(Momentum(rate, mu, nesterov), STEPS), every_element(unrolled))


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_rmsprop_is_its_formula(mu: float) -> None:
    def formula(gs: list[float], w: float) -> float:
        rate, decay, epsilon = 0.01, 0.8, 1e-3
        v = u = 0.0
        for g in gs:
            v = decay * v + (1 - decay) * g**2
            u = mu * u + g / (math.sqrt(v) + epsilon)
            w = w - rate * u
        return w

    assert_close(run(RMSProp(0.01, 0.8, 1e-3, mu), STEPS), every_element(formula))


def test_adamw_without_gradients_only_decays() -> None:
    parameters = start()
    for _ in range(3):
        AdamW(0.5, weight_decay=0.1).step(parameters, {name: 0 * w for name, w in parameters.items()})
    assert_close(parameters, {name: 0.95**3 * w for name, w in start().items()})


def test_adamw_without_decay_has_the_bits_of_adam() -> None:
    assert in_bytes(run(AdamW(0.01, weight_decay=0), 10)) == in_bytes(run(Adam(0.01), 10))


# Of Adam before it kept its moments by name; a run's ledger depends on every bit.
ADAM_AFTER_10_STEPS = {
    "w": "52731dbdccb31dc050190440",
    "m": "3280b9bcf6edad3fbe356941",
    "v": "e75d023be02a1240e0dd9543",
}


def test_adam_has_the_bits_it_always_had() -> None:
    """Elementwise + - * / and roots alone: IEEE 754 fixes them on every machine."""
    parameters = {"b": np.array([0.5, -1.25, 3.0], np.float32)}
    optimizer = Adam(0.125, beta1=0.75, beta2=0.625, epsilon=2.0**-20)  # the powers of these are exact
    for step in range(10):
        optimizer.step(parameters, {"b": parameters["b"] * np.array([0.3, -0.7, step], np.float32)})
    arrays = {"w": parameters["b"], **{moment: kept["b"] for moment, kept in optimizer.moments.items()}}
    assert {name: array.tobytes().hex() for name, array in arrays.items()} == ADAM_AFTER_10_STEPS


def test_rms_and_adam_do_not_see_the_scale_of_the_gradients() -> None:
    """To the last bit where the scale is a power of 2 and ε is nothing."""
    for optimizer in (RMSProp, Adam):
        ends = []
        for scale in (1.0, 1024.0):
            parameters, stepper = start(), optimizer(0.01, epsilon=1e-300)
            for step in range(5):
                stepper.step(parameters, {name: scale * g for name, g in gradients_at(step).items()})
            ends.append(in_bytes(parameters))
        assert ends[0] == ends[1]


# PyTorch -------------------------------------------------------------------------------------------------------------


def ours(kind: str, lr: float, **given_: Any) -> Optimizer:
    """Return our optimizer for the settings of PyTorch's."""
    if "betas" in given_:
        given_["beta1"], given_["beta2"] = given_.pop("betas")
    names = {"alpha": "decay", "eps": "epsilon"}
    named = {names.get(name, name): value for name, value in given_.items()}
    kinds: dict[str, Callable[..., Optimizer]] = {
        "SGD": Momentum if named else SGD, "RMSprop": RMSProp, "Adam": Adam, "AdamW": AdamW
    }  # fmt: skip
    return kinds[kind](lr, **named)


def from_hex(numbers: str) -> Array:
    return np.array([float.fromhex(number) for number in numbers.split()])


@pytest.mark.parametrize("name", recorder.OPTIMIZERS)
def test_the_numbers_are_pytorchs(name: str) -> None:
    """100 steps, parameters compared after every tenth; the largest difference found is 3.2e-14."""
    kind, given_ = recorder.OPTIMIZERS[name]
    recorded = json.loads(recorder.FILE.read_text("utf-8"))["optimizers"][name]
    assert list(recorded) == [str(step) for step in range(10, 101, 10)]
    optimizer, constants = ours(kind, **given_), {key: np.array(a) for key, a in recorder.CONSTANTS.items()}
    parameters = read_only({key: np.array(a) for key, a in recorder.START.items()})
    for step in range(1, recorder.STEPS + 1):
        optimizer.step(parameters, recorder.gradients(parameters, **constants))
        for key, numbers in recorded.get(str(step), {}).items():
            np.testing.assert_allclose(parameters[key].ravel(), from_hex(numbers), rtol=1e-13, atol=0)


def test_the_recorded_numbers_are_pytorchs_still() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: its recorded numbers are not recorded again")
    recorded, now = json.loads(recorder.FILE.read_text("utf-8")), recorder.record()
    for part in ("optimizers", "schedules", "clipping"):
        then_numbers, now_numbers = dict(leaves(recorded[part])), dict(leaves(now[part]))
        assert list(then_numbers) == list(now_numbers)
        for key, numbers in then_numbers.items():
            np.testing.assert_allclose(from_hex(numbers), from_hex(now_numbers[key]), 1e-13, err_msg=str(key))


def leaves(tree: Any, *path: str) -> list[tuple[tuple[str, ...], str]]:
    """Return all (keys, string) of nested dictionaries."""
    if isinstance(tree, str):
        return [(path, tree)]
    return [leaf for key, branch in tree.items() for leaf in leaves(branch, *path, key)]


# What every optimizer keeps to ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_arrays_given_are_left_alone(name: str) -> None:
    """They are read-only here, so that a step in place would raise; and none of them may come back."""
    optimizer, parameters = OPTIMIZERS[name](0.1), start()
    for step in range(2):
        gradients, given_ = gradients_at(step), dict(parameters)
        optimizer.step(parameters, gradients)
        kept = [array for arrays in optimizer.moments.values() for array in arrays.values()]
        for array in kept:
            array.flags.writeable = False
        for key, w in parameters.items():
            w.flags.writeable = False
            assert not any(np.shares_memory(w, other) for other in (given_[key], gradients[key], *kept))
            assert (w != given_[key]).any()


@pytest.mark.parametrize("rate", [0.01, np.float64(0.01)], ids=["python", "numpy"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_float32_stays_float32(name: str, rate: float) -> None:
    """A number of NumPy's, too, as a schedule may compute it."""
    optimizer = OPTIMIZERS[name](rate)
    optimizer.learning_rate = rate
    parameters = run(optimizer, 3, "float32")
    kept = [array for arrays in optimizer.moments.values() for array in arrays.values()]
    assert {array.dtype for array in (*parameters.values(), *kept)} == {np.dtype("float32")}


def test_settings_that_are_numpys_numbers() -> None:
    half = np.float64(0.5)
    for optimizer in (Momentum(half, half, True), RMSProp(half, half, half, half), AdamW(half, half, half, half, half)):
        assert {w.dtype for w in run(optimizer, 2, "float32").values()} == {np.dtype("float32")}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_equal_runs_have_equal_bits(name: str) -> None:
    one, other = run(OPTIMIZERS[name](0.01), 10, "float32"), run(OPTIMIZERS[name](0.01), 10, "float32")
    assert in_bytes(one) == in_bytes(other)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_set_from_outside_is_the_one_taken(name: str) -> None:
    later = OPTIMIZERS[name](0.5)
    later.learning_rate = 0.01
    assert in_bytes(run(later, 3)) == in_bytes(run(OPTIMIZERS[name](0.01), 3))


@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        (None, KeyError, "^\"parameter 'W' has no gradient\"$"),
        ([1.0], TypeError, r"^gradients\['W'\] must be an array of float32 or float64; got list$"),
        (np.ones(3), ValueError, r"gradient of 'W' must have shape \(2, 3\) and dtype float64; got \(3,\) and float64"),
        (np.ones((2, 3), np.float32), ValueError, r"gradient of 'W' must .* dtype float64; got \(2, 3\) and float32"),
    ],
    ids=["missing", "list", "shape", "dtype"],
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_raises_changes_nothing(name: str, gradient: Any, error: type[Exception], message: str) -> None:
    faulty = {"b": np.ones(3)} if gradient is None else {"b": np.ones(3), "W": gradient}
    optimizer, parameters = OPTIMIZERS[name](0.1), start()
    optimizer.step(parameters, gradients_at(0))
    assert_a_step_changes_nothing(optimizer, parameters, faulty, error, message)


def assert_a_step_changes_nothing(
    optimizer: Optimizer, parameters: dict[str, Array], gradients: Any, error: type[Exception], message: str
) -> None:
    before, steps, moments = dict(parameters), optimizer.steps, optimizer.moments
    with pytest.raises(error, match=message):
        optimizer.step(parameters, gradients)
    assert all(parameters[key] is w for key, w in before.items())
    assert optimizer.steps == steps
    assert optimizer.moments is moments


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_that_are_none_of_these_parameters(name: str) -> None:
    for gradients, error, message in [
        ({**gradients_at(0), "c": np.ones(1)}, ValueError, "^gradient of 'c' belongs to no parameter; there are W, b$"),
        (None, TypeError, "^gradients must be a dictionary of arrays; got NoneType$"),
        ([np.ones(3)], TypeError, "^gradients must be a dictionary of arrays; got list$"),
    ]:
        assert_a_step_changes_nothing(OPTIMIZERS[name](0.1), start(), gradients, error, message)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_that_are_not_floats(name: str) -> None:
    """They would have become so."""
    whole = {"W": np.arange(3)}
    message = r"^parameters\['W'\] must be an array of float32 or float64; got int64$"
    assert_a_step_changes_nothing(OPTIMIZERS[name](0.1), dict(whole), whole, TypeError, message)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("rate", [-1, math.nan, math.inf, "a", None])
def test_an_impossible_learning_rate_set_from_outside(name: str, rate: Any) -> None:
    optimizer = OPTIMIZERS[name](0.1)
    optimizer.learning_rate = rate
    message = f"^learning_rate must be >= 0 and finite; got {rate!r}$"
    assert_a_step_changes_nothing(optimizer, start(), gradients_at(0), ValueError, message)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_that_a_schedule_brought_down_to_0_moves_nothing(name: str) -> None:
    optimizer = OPTIMIZERS[name](0.1)
    optimizer.learning_rate = 0.0
    assert in_bytes(run(optimizer, 2)) == in_bytes(start())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_held_from_before_a_step_take_it_back(name: str) -> None:
    """So does training, where a step makes a weight infinite."""
    optimizer, parameters = OPTIMIZERS[name](0.1), start()
    optimizer.step(parameters, gradients_at(0))
    before, steps, moments = dict(parameters), optimizer.steps, optimizer.moments
    optimizer.step(parameters, gradients_at(1))
    once = in_bytes(parameters)
    parameters.update(before)
    optimizer.steps, optimizer.moments = steps, moments
    optimizer.step(parameters, gradients_at(1))
    assert in_bytes(parameters) == once


# Restoring -----------------------------------------------------------------------------------------------------------


def in_bytes(arrays: Mapping[str, Array]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_by_name(name: str) -> None:
    optimizer, parameters = OPTIMIZERS[name](0.1), start()
    assert (optimizer.steps, optimizer.moments) == (0, {moment: {} for moment in MOMENTS[name]})
    optimizer.step(parameters, gradients_at(0))
    assert optimizer.steps == 1
    assert list(optimizer.moments) == MOMENTS[name]
    for arrays in optimizer.moments.values():
        assert {key: array.shape for key, array in arrays.items()} == {"W": (2, 3), "b": (3,)}


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(sorted(OPTIMIZERS)), st.integers(0, 5), st.integers(1, 5), st.sampled_from(["float32", "float64"])
)
def test_restored_it_goes_on_with_the_same_bits(name: str, before: int, after: int, dtype: str) -> None:
    """The arrays have gone through bytes, as through a file, and are read-only."""
    never_stopped, parameters = OPTIMIZERS[name](0.1), start(dtype)
    for step in range(before):
        never_stopped.step(parameters, gradients_at(step, dtype))
    resumed = OPTIMIZERS[name](0.1)
    stored = {moment: read_only(arrays) for moment, arrays in reversed(never_stopped.moments.items())}
    again = read_only(parameters)
    restore(resumed, never_stopped.steps, stored, again)
    for step in range(before, before + after):
        never_stopped.step(parameters, gradients_at(step, dtype))
        resumed.step(again, gradients_at(step, dtype))
    assert in_bytes(again) == in_bytes(parameters)
    assert resumed.steps == never_stopped.steps == before + after
    assert list(resumed.moments) == list(never_stopped.moments)
    for moment, arrays in resumed.moments.items():
        assert in_bytes(arrays) == in_bytes(never_stopped.moments[moment])


def test_what_is_restored_is_not_the_dictionary_given() -> None:
    optimizer, parameters = Momentum(0.1), start()
    stored = {"u": start()}
    restore(optimizer, 1, stored, parameters)
    stored["u"].clear()
    assert list(optimizer.moments["u"]) == ["W", "b"]


@pytest.mark.parametrize(
    ("name", "steps", "moments", "message"),
    [
        *[("adam", n, {"m": {}, "v": {}}, f"^steps must be an integer ≥ 0; got {n!r}$") for n in (-1, 1.5, "a", True)],
        ("adam", 2, {"u": start()}, r"moments must be those of Adam \(m, v\); got u"),
        ("sgd", 2, {"m": start(), "v": start()}, r"moments must be those of SGD \(none\); got m, v"),
        ("adamw", 2, {}, r"moments must be those of AdamW \(m, v\); got none"),
        ("rmsprop", 2, {"v": start(), "u": start()}, r"moments must be those of RMSProp \(v\); got u, v"),
        ("adam", 2, {"m": start(), "v": {"b": np.ones(3)}}, "moment 'v' of 'W' is missing"),
        ("adam", 2, {"m": {}, "v": {}}, "moment 'm' of 'W' is missing"),
        (
            "adam", 2, {"m": {**start(), "c": np.ones(1)}, "v": start()},
            "moment 'm' of 'c' must not be there after 2 steps of these parameters",
        ),
        ("momentum", 0, {"u": start()}, "moment 'u' of 'W' must not be there after 0 steps of these parameters"),
        (
            "momentum", 1, {"u": {**start(), "b": np.ones((3, 1))}},
            r"moment 'u' of 'b' must have shape \(3,\) and dtype float64; got \(3, 1\) and float64",
        ),
        ("momentum", 1, {"u": start("float32")}, r"moment 'u' of 'W' must have .* float64; got \(2, 3\) and float32"),
    ],
)  # fmt: skip
def test_moments_that_do_not_fit_are_named(
    name: str, steps: Any, moments: dict[str, dict[str, Array]], message: str
) -> None:
    optimizer = OPTIMIZERS[name](0.1)
    before = optimizer.moments
    with pytest.raises(ValueError, match=message):
        restore(optimizer, steps, moments, start())
    assert optimizer.steps == 0
    assert optimizer.moments is before


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        (None, "moments must be a dictionary of dictionaries of arrays; got NoneType"),
        ({"u": 1}, r"moments\['u'\] must be a dictionary of arrays; got int"),
        ({"u": {"W": 1, "b": 1}}, r"moments\['u'\]\['W'\] must be an array of float32 or float64; got int"),
    ],
)
def test_what_are_no_moments(moments: Any, message: str) -> None:
    optimizer = Momentum(0.1)
    with pytest.raises(TypeError, match=f"^{message}$"):
        restore(optimizer, 1, moments, start())
    assert (optimizer.steps, optimizer.moments) == (0, {"u": {}})


def test_defaults_are_those_that_the_docstrings_name() -> None:
    momentum, rmsprop, adam, adamw = Momentum(1), RMSProp(1), Adam(1), AdamW(1)
    assert (momentum.momentum, momentum.nesterov) == (0.9, False)
    assert (rmsprop.decay, rmsprop.epsilon, rmsprop.momentum) == (0.9, 1e-8, 0)
    assert (adam.beta1, adam.beta2, adam.epsilon) == (adamw.beta1, adamw.beta2, adamw.epsilon) == (0.9, 0.999, 1e-8)
    assert adamw.weight_decay == 0.01


# Impossible settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("rate", [0, -0.1, float("nan"), float("inf"), "a", None, [0.1], np.array([0.1, 0.2])])
def test_an_impossible_learning_rate(name: str, rate: Any) -> None:
    with pytest.raises(ValueError, match=f"^learning_rate must be > 0 and finite; got {re.escape(repr(rate))}$"):
        OPTIMIZERS[name](rate)


@pytest.mark.parametrize(
    ("kind", "setting", "value", "right"),
    [
        (Momentum, "momentum", 1.0, "lie in 0 … 1, without 1"),
        (Momentum, "momentum", "a", "lie in 0 … 1, without 1"),
        (Momentum, "nesterov", "no", "be True or False"),
        (Momentum, "nesterov", 1, "be True or False"),
        (Momentum, "momentum", -0.1, "lie in 0 … 1, without 1"),
        (RMSProp, "decay", 1.0, "lie in 0 … 1, without 1"),
        (RMSProp, "momentum", 1.5, "lie in 0 … 1, without 1"),
        (RMSProp, "epsilon", 0.0, "be > 0 and finite"),
        *[
            (kind, *case)
            for kind in (Adam, AdamW)
            for case in [
                ("beta1", 1.0, "lie in 0 … 1, without 1"),
                ("beta1", -0.1, "lie in 0 … 1, without 1"),
                ("beta2", 1.0, "lie in 0 … 1, without 1"),
                ("beta2", float("nan"), "lie in 0 … 1, without 1"),
                ("epsilon", 0.0, "be > 0 and finite"),
            ]
        ],
        (AdamW, "weight_decay", None, "be >= 0 and finite"),
        (AdamW, "weight_decay", -0.01, "be >= 0 and finite"),
        (AdamW, "weight_decay", float("inf"), "be >= 0 and finite"),
        (AdamW, "weight_decay", float("nan"), "be >= 0 and finite"),
    ],
)
def test_an_impossible_setting(kind: Callable[..., Optimizer], setting: str, value: Any, right: str) -> None:
    with pytest.raises(ValueError, match=f"^{setting} must {right}; got {value!r}$"):
        kind(0.1, **{setting: value})
