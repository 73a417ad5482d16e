"""`check_gradients` with losses, arrays and arguments of every kind."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm import check_gradients
from convlstm.backends import Array
from tests import cupy_stand_in
from tests.gradient_problems import PARAMETERS, RIGHT, gradients, loss
from tests.numerical import read_only

# Losses that allow no check -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "the loss is nan at these parameters: nothing can be compared before it is finite"),
        (math.inf, "the loss is inf at these parameters: nothing can be compared before it is finite"),
    ],
)
def test_loss_that_is_not_finite(value: float, said: str) -> None:
    report = check_gradients(lambda p: loss(p) + value, PARAMETERS, RIGHT)
    assert report.faults == {"loss": said}
    assert not report.ok
    assert str(report) == f"loss: {said}\n1 found at fault"


def test_loss_with_dropout() -> None:
    rng = np.random.default_rng(0)

    def noisy(parameters: dict[str, Array]) -> float:
        return loss({**parameters, "W": parameters["W"] * (rng.random((4, 3)) > 0.5)})

    report = check_gradients(noisy, PARAMETERS, RIGHT)
    assert list(report.faults) == ["loss"]
    assert "not deterministic" in report.faults["loss"]
    assert "dropout" in report.faults["loss"]


def test_loss_that_writes_into_its_argument() -> None:
    def training_step(parameters: dict[str, Array]) -> float:
        value = loss(parameters)
        parameters["W"] -= 0.01 * RIGHT["W"]
        return value

    before = PARAMETERS["W"].copy()
    report = check_gradients(training_step, PARAMETERS, RIGHT)
    assert list(report.faults) == ["loss"]
    assert "changes parameters['W']" in report.faults["loss"]
    np.testing.assert_array_equal(PARAMETERS["W"], before)


def test_loss_that_ignores_its_argument() -> None:
    report = check_gradients(lambda p: loss(PARAMETERS), PARAMETERS, RIGHT)
    assert list(report.faults) == ["loss"]
    assert report.faults["loss"].startswith("the loss does not read its parameters")


def test_constant_loss_whose_gradients_are_zero_is_never_passed_in_silence() -> None:
    report = check_gradients(lambda p: 1.5, PARAMETERS, {n: np.zeros_like(p) for n, p in PARAMETERS.items()})
    assert "does not read" in str(report)


def test_unread_parameter_with_a_gradient_of_zero_is_right_and_remarked() -> None:
    report = check_gradients(loss, {**PARAMETERS, "unused": np.ones(3)}, {**RIGHT, "unused": np.zeros(3)})
    assert report.ok
    assert any("does not read 'unused'" in remark for remark in report.remarks)
    assert {row.name: row.status for row in report.rows}["unused"] == "right"


def test_unread_parameter_with_another_gradient_is_wrong() -> None:
    report = check_gradients(loss, {**PARAMETERS, "unused": np.ones(3)}, {**RIGHT, "unused": np.full(3, 0.25)})
    assert list(report.faults) == ["unused"]
    assert report.faults["unused"].startswith(
        "the loss does not read this parameter, yet its gradient is not zero (up to"
    )
    assert {row.name: row.status for row in report.rows}["unused"] == "unread"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradient_that_is_not_finite_is_placed(bad: float) -> None:
    broken = RIGHT["W"].copy()
    broken[2, 1] = bad
    report = check_gradients(loss, PARAMETERS, {**RIGHT, "W": broken})
    assert report.faults == {"W": f"not finite: {bad} at [2, 1]"}


# Gradients as a function ----------------------------------------------------------------------------------------------


def test_gradients_may_be_a_function() -> None:
    assert check_gradients(loss, PARAMETERS, gradients).ok


def test_function_whose_gradients_accumulate() -> None:
    kept = {name: np.zeros_like(p) for name, p in PARAMETERS.items()}

    def accumulating(parameters: dict[str, Array]) -> dict[str, Array]:
        for name, gradient in gradients(parameters).items():
            kept[name] += gradient
        return kept

    report = check_gradients(loss, PARAMETERS, accumulating)
    assert set(report.faults) == {"W", "b"}
    assert all(said.startswith("accumulated over calls") for said in report.faults.values())


def test_function_whose_gradients_are_random() -> None:
    rng = np.random.default_rng(0)
    report = check_gradients(loss, PARAMETERS, lambda p: {**gradients(p), "b": RIGHT["b"] + 1e-3 * rng.random(4)})
    assert list(report.faults) == ["b"]
    assert report.faults["b"].startswith("not deterministic: a second call at the same parameters")


def test_function_whose_second_gradients_have_another_shape() -> None:
    calls: list[int] = []

    def changing(parameters: dict[str, Array]) -> dict[str, Array]:
        calls.append(0)
        return gradients(parameters) if len(calls) == 1 else {"W": RIGHT["W"].T}

    report = check_gradients(loss, PARAMETERS, changing)
    assert set(report.faults) == {"W", "b"}
    assert all("a second call gives another shape, or none" in said for said in report.faults.values())


def test_function_of_gradients_gets_copies() -> None:
    def destructive(parameters: dict[str, Array]) -> dict[str, Array]:
        found = gradients(parameters)
        for parameter in parameters.values():
            parameter[...] = 0
        return found

    before = {name: p.copy() for name, p in PARAMETERS.items()}
    assert check_gradients(loss, PARAMETERS, destructive).ok
    for name, p in before.items():
        np.testing.assert_array_equal(PARAMETERS[name], p)


def test_loss_that_changes_the_gradients_is_remarked() -> None:
    given_gradients = {name: g.copy() for name, g in RIGHT.items()}

    def meddling(parameters: dict[str, Array]) -> float:
        given_gradients["b"] += 1
        return loss(parameters)

    report = check_gradients(meddling, PARAMETERS, given_gradients)
    assert report.ok
    assert any("calling the loss changed gradients['b']" in remark for remark in report.remarks)
    assert not any("'W'" in remark for remark in report.remarks)


# Arrays of every kind -------------------------------------------------------------------------------------------------


def arranged(kind: str, array: Array) -> Array:
    if kind == "read-only":
        return read_only({"": array})[""]
    if kind == "Fortran":
        return np.asfortranarray(array)
    if kind == "strided":
        wide = np.full([2 * n for n in array.shape], np.nan)
        wide[(slice(None, None, 2),) * array.ndim] = array
        return wide[(slice(None, None, 2),) * array.ndim]
    if kind == "reversed":
        return np.ascontiguousarray(array[::-1])[::-1]
    return array.astype(kind)


@pytest.mark.parametrize("kind", ["read-only", "Fortran", "strided", "reversed", "float32", ">f8"])
def test_arrays_in_any_memory(kind: str) -> None:
    parameters = {name: arranged(kind, p) for name, p in PARAMETERS.items()}
    right = {
        name: arranged(kind, g) for name, g in gradients({n: np.asarray(p) for n, p in parameters.items()}).items()
    }
    assert check_gradients(loss, parameters, right).ok
    report = check_gradients(loss, parameters, {**right, "W": arranged(kind, -right["W"])})
    assert list(report.faults) == ["W"]
    assert report.faults["W"].startswith("wrong sign")


def test_nothing_that_is_given_is_changed() -> None:
    parameters = {name: p.copy() for name, p in PARAMETERS.items()}
    wrong = {"W": 2 * RIGHT["W"], "b": RIGHT["b"].reshape(2, 2)}
    snapshots = [{name: (a.tobytes(), a.shape, id(a)) for name, a in given.items()} for given in (parameters, wrong)]
    check_gradients(loss, parameters, wrong)
    after = [{name: (a.tobytes(), a.shape, id(a)) for name, a in given.items()} for given in (parameters, wrong)]
    assert after == snapshots


def test_loss_gets_a_dictionary_of_new_float64_arrays_in_the_order_given() -> None:
    def picky(parameters: dict[str, Array]) -> float:
        assert type(parameters) is dict
        assert list(parameters) == ["W", "b"]
        for name, array in parameters.items():
            assert isinstance(array, np.ndarray)
            assert array.dtype == np.float64
            assert array.shape == PARAMETERS[name].shape
            assert array.flags.writeable
            assert not np.shares_memory(array, PARAMETERS[name])
        return loss(parameters)

    assert check_gradients(picky, PARAMETERS, RIGHT).ok


def test_loss_that_raises_on_float64_is_checked_in_float32() -> None:
    def single(parameters: dict[str, Array]) -> float:
        if parameters["W"].dtype != np.float32:
            raise ValueError("this model computes in float32")
        return loss(parameters)

    parameters = {name: p.astype("float32") for name, p in PARAMETERS.items()}
    report = check_gradients(single, parameters, gradients(parameters))
    assert report.ok, report
    assert any("takes no float64 parameters" in remark for remark in report.remarks)
    report = check_gradients(single, parameters, {**gradients(parameters), "b": -gradients(parameters)["b"]})
    assert list(report.faults) == ["b"]
    assert report.faults["b"].startswith("wrong sign")


def test_error_that_the_loss_raises_is_the_callers() -> None:
    def broken(parameters: dict[str, Array]) -> float:
        raise ZeroDivisionError("in the user's own code")

    with pytest.raises(ZeroDivisionError, match="in the user's own code"):
        check_gradients(broken, PARAMETERS, RIGHT)


@pytest.mark.parametrize("value", [np.array(0.7), np.float64(0.7), np.array([0.7])])
def test_scalars(value: Array) -> None:
    def sine(parameters: dict[str, Array]) -> float:
        return float(np.sin(parameters["s"]).sum())

    assert check_gradients(sine, {"s": value}, {"s": np.cos(value)}).ok
    assert check_gradients(sine, {"s": value}, {"s": -np.cos(value)}).faults["s"].startswith("wrong sign")


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2, 2)])
def test_empty_arrays_beside_others(shape: tuple[int, ...]) -> None:
    report = check_gradients(loss, {**PARAMETERS, "none": np.zeros(shape)}, {**RIGHT, "none": np.zeros(shape)})
    assert report.ok, report
    assert f"{shape}" in str(report)


def test_gradients_may_be_tiny_or_huge() -> None:
    for scale in (1e-12, 1e-6, 1e6, 1e12):

        def scaled(parameters: dict[str, Array], scale: float = scale) -> float:
            return scale * loss(parameters)

        assert check_gradients(scaled, PARAMETERS, {n: scale * g for n, g in RIGHT.items()}).ok
        report = check_gradients(scaled, PARAMETERS, {n: 2 * scale * g for n, g in RIGHT.items()})
        assert all(said.startswith("constant factor 2") for said in report.faults.values())
        assert set(report.faults) == {"W", "b"}


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None)
def test_any_seed_will_do_and_the_same_gives_the_same(seed: int) -> None:
    first, second = (check_gradients(loss, PARAMETERS, RIGHT, seed=seed) for _ in range(2))
    assert first.ok
    assert first == second


@given(
    size=st.sampled_from([1, 3, 12, 100, 1000]), seed=st.integers(0, 10_000), offset=st.sampled_from([0.0, 2.0, 50.0])
)
@settings(max_examples=25, deadline=None)
def test_right_gradients_of_a_loss_rounded_to_float32_are_never_accused(size: int, seed: int, offset: float) -> None:
    """However few of the roundings the smallest steps cross."""
    a = np.random.default_rng(seed).normal(size=size)

    def single(parameters: dict[str, Array]) -> np.float32:
        return np.float32(offset + np.sin(parameters["a"]).sum())

    report = check_gradients(single, {"a": a}, {"a": np.cos(a)})  # type: ignore[arg-type]
    assert not any(row.status == "wrong" for row in report.rows), report


@pytest.mark.parametrize("seed", [0, 1, 2, 64])
@pytest.mark.parametrize("spread", [0.03, 1.0], ids=["active", "saturated"])
def test_right_gradients_of_a_net_in_float32_are_never_accused(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    W, x = rng.normal(0, spread, (1000, 3)).astype("float32"), rng.normal(size=(5, 1000)).astype("float32")

    def mean(parameters: dict[str, Array]) -> float:
        return float((np.tanh(x @ parameters["W"].astype("float32")) ** 2).mean())

    t = np.tanh(x @ W)
    report = check_gradients(mean, {"W": W}, {"W": x.T @ (2 * t * (1 - t**2)) / t.size})
    assert not any(row.status == "wrong" for row in report.rows), report
    assert report.ok or spread == 1, report


class DeviceArray(cupy_stand_in.ndarray):
    """The stand-in for CuPy's arrays, with the two of CuPy's methods that gradcheck needs besides."""

    def astype(self, dtype: npt.DTypeLike, order: str = "K") -> DeviceArray:
        assert order in "CK"
        return DeviceArray(np.array(self.memory, dtype=dtype, order="C"))

    def set(self, host: Array) -> None:
        assert isinstance(host, np.ndarray)
        assert host.dtype == self.dtype, "CuPy: Not same dtype"
        assert host.shape == self.shape, "CuPy: Shape mismatch"
        assert host.flags.c_contiguous or host.flags.f_contiguous
        self.memory[...] = host


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_arrays_on_a_device(order: Any, dtype: str) -> None:
    def on_device(arrays: Mapping[str, Array]) -> dict[str, DeviceArray]:
        return {name: DeviceArray(np.asarray(a, dtype=dtype, order=order)) for name, a in arrays.items()}

    def to_host(arrays: Mapping[str, Any]) -> dict[str, Array]:
        assert all(type(a) is DeviceArray for a in arrays.values())
        return {name: a.get() for name, a in arrays.items()}

    def device_loss(parameters: dict[str, Array]) -> DeviceArray:
        return DeviceArray(loss(to_host(parameters)))

    single = to_host(on_device(PARAMETERS))
    right = gradients(single)
    assert check_gradients(device_loss, on_device(PARAMETERS), on_device(right)).ok  # type: ignore[arg-type]
    report = check_gradients(
        device_loss,  # type: ignore[arg-type]
        on_device(PARAMETERS),
        lambda p: on_device({**gradients(to_host(p)), "W": 2 * right["W"]}),
    )
    assert list(report.faults) == ["W"]
    assert report.faults["W"].startswith("constant factor 2")


# Arguments that are not as they should be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "given_gradients", "said"),
    [
        ([1.0], {}, "parameters must be a dictionary of arrays; got list"),
        (np.ones(3), {}, "parameters must be a dictionary of arrays; got ndarray"),
        ({1: np.ones(3)}, {}, "parameters must have texts as keys; got 1"),
        ({"W": [1.0, 2.0]}, {}, "parameters['W'] must be a NumPy or CuPy array; got list"),
        ({"W": 1.0}, {}, "parameters['W'] must be a NumPy or CuPy array; got float"),
        ({"W": None}, {}, "parameters['W'] must be a NumPy or CuPy array; got NoneType"),
        ({"W": np.ones(3, int)}, {}, "parameters['W'] must hold floating numbers; got dtype int64"),
        ({"W": np.ones(3, complex)}, {}, "parameters['W'] must hold floating numbers; got dtype complex128"),
        ({"W": np.ones(3, bool)}, {}, "parameters['W'] must hold floating numbers; got dtype bool"),
        (PARAMETERS, None, "gradients must be a dictionary of arrays; got NoneType"),
        (PARAMETERS, [RIGHT["W"]], "gradients must be a dictionary of arrays; got list"),
        (PARAMETERS, {"W": [1.0]}, "gradients['W'] must be a NumPy or CuPy array; got list"),
        (PARAMETERS, {"W": None}, "gradients['W'] must be a NumPy or CuPy array; got NoneType"),
        (PARAMETERS, {"W": np.ones((4, 3), int)}, "gradients['W'] must hold floating numbers; got dtype int64"),
        (PARAMETERS, lambda p: None, "gradients(parameters) must be a dictionary of arrays; got NoneType"),
        (PARAMETERS, lambda p: {"W": 1.0}, "gradients(parameters)['W'] must be a NumPy or CuPy array; got float"),
    ],
)
def test_wrong_types_are_named(parameters: Any, given_gradients: Any, said: str) -> None:
    with pytest.raises(TypeError) as raised:
        check_gradients(loss, parameters, given_gradients)
    assert str(raised.value) == said


def test_no_parameters() -> None:
    with pytest.raises(ValueError, match=r"^parameters must hold at least one array; got an empty dictionary$"):
        check_gradients(loss, {}, {})


# What it needs --------------------------------------------------------------------------------------------------------

NUMPY_ALONE = """
import sys
for name in ("chainer", "cupy", "scipy", "threadpoolctl", "rich", "typer", "safetensors", "matplotlib", "sklearn",
             "tomli", "tomli_w"):
    sys.modules[name] = None
import numpy as np
from convlstm import check_gradients, check_gradients_over_time
W = np.arange(1.0, 7.0).reshape(2, 3)
def loss(parameters):
    return (parameters["W"] ** 2).sum()
assert check_gradients(loss, {"W": W}, {"W": 2 * W}).ok
print(check_gradients(loss, {"W": W}, {"W": W}).faults["W"])
assert check_gradients_over_time(lambda T: (loss, {"W": W}, {"W": 2 * W})).ok
"""


def test_only_numpy_is_needed() -> None:
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NUMPY_ALONE],
        cwd=root, capture_output=True, check=False, encoding="utf-8", timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.startswith("constant factor 0.5")
