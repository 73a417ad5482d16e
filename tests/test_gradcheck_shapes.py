"""Gradients that do not fit: what they are, found by trying; names that are missing or too many."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays_of

from convlstm import check_gradients
from convlstm.backends import Array
from convlstm.gradcheck.shapes import missing, refits, superfluous

Shape = tuple[int, ...]
Change = Callable[[Array], Array]


def faults(shape: Shape, change: Change) -> dict[str, str]:
    """The diagnosis of a right gradient to `W`, once it is changed to another shape."""
    rng = np.random.default_rng(0)
    W, u = rng.normal(size=shape), rng.normal(1, 0.5, shape)

    def loss(parameters: dict[str, Array]) -> float:
        return float((u * np.tanh(parameters["W"])).sum())

    report = check_gradients(loss, {"W": W}, {"W": change(u * (1 - np.tanh(W) ** 2))})
    assert not report.ok
    assert [row.status for row in report.rows] == ["wrong"]
    return report.faults


def spread(axes: tuple[int, ...], lengths: tuple[int, ...]) -> Change:
    """Make a gradient that sums to the right one over these axes of the new shape."""

    def change(a: Array) -> Array:
        whole = np.expand_dims(a, axes)
        shape = list(whole.shape)
        for axis, length in zip(axes, lengths, strict=True):
            shape[axis] = length
        parts = np.random.default_rng(1).uniform(0.1, 1, shape)
        spread_out: Array = whole * parts / parts.sum(axis=axes, keepdims=True)
        return spread_out

    return change


CASES: list[tuple[str, Shape, Change, str]] = [
    ("transposed", (3, 5), lambda a: a.T, "transposed: it has shape (5, 3), the parameter (3, 5)"),
    ("channels", (4, 2, 3, 3), lambda a: a.swapaxes(0, 1), "input and output channels are swapped: it has shape (2, 4"),
    ("bias (N, C)", (5,), spread((0,), (7,)), "not summed over the batch (axis 0): shape (7, 5) for (5,)"),
    (
        "bias (N, C, H, W)",
        (5,),
        spread((0, 2, 3), (2, 3, 4)),
        "not summed over the batch and the pixels (axes (0, 2, 3",
    ),
    (
        "bias (C, H, W)",
        (5,),
        spread((1, 2), (3, 4)),
        "not summed over the pixels (axes (1, 2)): shape (5, 3, 4) for (5,)",
    ),
    ("bias (T, N, C)", (5,), spread((0, 1), (3, 2)), "not summed over axes (0, 1) (the batch, time or the pixels)"),
    ("weight (N, I, O)", (3, 5), spread((0,), (4,)), "not summed over axis 0 (the batch, time or the pixels)"),
    ("bias (1, C)", (5,), lambda a: a[None], "not summed over the batch (axis 0): shape (1, 5) for (5,)"),
    ("a column", (5,), lambda a: a[:, None], "(5, 1) for (5,)"),
    ("scalar (1,)", (), lambda a: a[None], "(1,) for ()"),
    ("scalar for (1,)", (1,), lambda a: a[0], "the numbers are right, but in shape () for (1,)"),
    ("scalar (N,)", (1,), spread((1,), (6,)), "not summed over"),
    ("flat", (3, 4), lambda a: a.ravel(), "the numbers are right, but in shape (12,) for (3, 4)"),
    ("other shape", (3, 4), lambda a: a.reshape(2, 6), "the numbers are right, but in shape (2, 6) for (3, 4)"),
]


@pytest.mark.parametrize(("shape", "change", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gradient_of_another_shape_is_understood(shape: Shape, change: Change, said: str, dtype: str) -> None:
    assert said in faults(shape, lambda a: np.asarray(change(a)).astype(dtype))["W"]


@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: np.ones((7, 7)), lambda a: 1.3 * a.T, lambda a: a[:0]])
def test_hopeless_shape_is_only_stated(change: Change) -> None:
    said = faults((3, 5), change)["W"]
    assert said == f"shape {change(np.zeros((3, 5))).shape}, while the parameter has (3, 5)"


def test_large_transposed_gradient_is_tried_on_a_sample() -> None:
    assert faults((40, 30), lambda a: a.T)["W"].startswith("transposed")


@given(
    gradient=arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    shape=arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
)
@settings(max_examples=100, deadline=None)
def test_everything_tried_has_the_parameters_shape(gradient: Shape, shape: Shape) -> None:
    for description, fitted in refits(shape, np.arange(float(math.prod(gradient))).reshape(gradient)):
        assert fitted.shape == shape
        assert "\n" not in description


def test_sums_are_tried_over_every_set_of_axes() -> None:
    gradient = np.random.default_rng(0).normal(size=(2, 5, 3, 4))
    totals = [fitted for description, fitted in refits((5,), gradient) if "not summed" in description]
    assert len(totals) == 1
    np.testing.assert_allclose(totals[0], gradient.sum(axis=(0, 2, 3)))


# Names ----------------------------------------------------------------------------------------------------------------


def quadratic(parameters: dict[str, Array]) -> float:
    return float(sum((p**2).sum() for p in parameters.values()))


W = np.arange(1.0, 4.0)


def test_missing_gradient() -> None:
    report = check_gradients(quadratic, {"W": W, "bias": W}, {"W": 2 * W})
    assert report.faults == {"bias": "missing: no gradient was given under this name"}
    assert [row.status for row in report.rows] == ["right", "wrong"]


def test_superfluous_gradient() -> None:
    report = check_gradients(quadratic, {"W": W}, {"W": 2 * W, "bias": W})
    assert report.faults == {"bias": "a gradient was given, but there is no such parameter"}


def test_gradient_under_a_like_name() -> None:
    report = check_gradients(quadratic, {"W": W, "bias": W}, {"W": 2 * W, "bais": 2 * W})
    assert report.faults["bias"].endswith("; there is one called 'bais'")
    assert report.faults["bais"].endswith("; is 'bias' meant?")
    assert list(report.faults) == ["bias", "bais"]


def test_no_gradients_at_all() -> None:
    assert set(check_gradients(quadratic, {"W": W, "b": W}, {}).faults) == {"W", "b"}


def test_a_name_is_suggested_only_if_it_is_near() -> None:
    assert missing("W_x", ["dW_x", "other"]).endswith("there is one called 'dW_x'")
    assert "called" not in missing("W_x", ["momentum"])
    assert superfluous("dW_x", ["W_x", "W_h"]).endswith("is 'W_x' meant?")
    assert "meant" not in superfluous("momentum", ["W_x"])
