"""What scores cannot be made of: each is an error of one line that names it, and leaves the sums as they were."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from convlstm.metrics import Totals
from tests.plain_scores import SHAPE, C, H, N, T, W, complete, totals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "horizon must be"),
        ({"value_range": 0.0}, "value_range must be a number above 0, or None; got 0.0"),
        ({"value_range": math.nan}, "value_range must be a number above 0, or None; got nan"),
        ({"value_range": math.inf}, "value_range must be"),
        ({"thresholds": [math.nan]}, "a threshold must be a finite float32; got nan"),
        ({"thresholds": [1e39]}, "a threshold must be a finite float32; got 1e\\+39"),
        ({"thresholds": [0.5, 0.5000001]}, "differ in their first six digits; got 0.5000001 and 0.5"),
    ],
)
def test_what_is_no_setting_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Totals(**{"horizon": 1, "value_range": None, **options})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["forecast", "truth"])
def test_a_number_that_is_not_finite_is_placed_and_nothing_is_added(which: str, value: float) -> None:
    forecast, truth = complete()
    sums = totals(forecast, truth, structural=False)
    before = sums.scores()
    arrays = {"forecast": forecast.copy(), "truth": truth.copy()}
    arrays[which][2, 1, 0, 4, 5] = value
    with pytest.raises(ValueError, match=f"{which} of sample 5 is {value} at lead time 2, channel 0, row 4, column 5"):
        sums.add(**arrays)
    assert sums.scores() == before
    hidden = np.ones(SHAPE, bool)
    hidden[2, 1, 0, 4, 5] = False
    sums.add(**arrays, valid=hidden)


@pytest.mark.parametrize(
    ("forecast", "truth", "valid", "message"),
    [
        ((N, T, C, H), SHAPE, None, r"forecast must have shape \(N, 2, C, H, W\)"),
        ((N, T + 1, C, H, W), SHAPE, None, r"forecast must have shape .* got \(3, 3, 2, 9, 10\)"),
        ((N, T, 0, H, W), SHAPE, None, r"forecast must have shape .* not 0; got"),
        (SHAPE, (N, T, 1, H, W), None, r"truth must have the shape of forecast, \(3, 2, 2, 9, 10\); got \(3, 2, 1,"),
        (SHAPE, SHAPE, (N, T, 1, H, W), r"valid must have the shape of forecast, .*; got \(3, 2, 1,"),
        ((N, T, C, 8, W), (N, T, C, 8, W), None, r"frames must have the shape \(2, 9, 10\) of those before them; got"),
    ],
)
def test_shapes_that_do_not_fit_are_named(forecast: Any, truth: Any, valid: Any, message: str) -> None:
    sums = totals(*complete(), structural=False)
    with pytest.raises(ValueError, match=message):
        sums.add(np.zeros(forecast, "f4"), np.zeros(truth, "f4"), None if valid is None else np.ones(valid, bool))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"forecast": [[0.5]]}, "forecast must be a NumPy array of floating-point numbers; got list"),
        ({"truth": np.zeros(SHAPE, np.uint8)}, "truth must be a NumPy array of floating-point numbers; got uint8"),
        ({"valid": np.ones(SHAPE)}, "valid must be a NumPy array of bool; got float64"),
    ],
)
def test_what_is_no_such_array_is_named(given: dict[str, Any], message: str) -> None:
    forecast, truth = complete()
    with pytest.raises(TypeError, match=message):
        Totals(T, value_range=None).add(**{"forecast": forecast, "truth": truth, **given})
