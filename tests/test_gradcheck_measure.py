"""Which entries are right, wrong, or cannot be told: tolerances, samples, directions, the search by halves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm import check_gradients
from convlstm.backends import Array
from convlstm.gradcheck.differences import Differences
from convlstm.gradcheck.measure import DIRECTIONS, FULL, SAMPLE, Measured, Meter


class Sines:
    """Σ u·sin(W), whose gradient u·cos(W) is known and has no two equal entries."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.W, self.u = rng.uniform(-1, 1, shape), rng.normal(1, 0.3, shape)
        self.gradient = self.u * np.cos(self.W)

    def loss(self, parameters: dict[str, Array]) -> float:
        return float((self.u * np.sin(parameters["W"])).sum())

    def measured(self, gradient: Array, dtype: str = "float64") -> Measured:
        """What is known of a gradient after every check."""
        meter = Meter(Differences(self.loss, {"W": self.W}), float(abs(gradient).max()), 0, lambda text: None)
        measured = meter.start("W", np.asarray(gradient, np.float64), dtype)
        meter.check_entries(measured, meter.sample(measured))
        meter.check_directions(measured)
        return measured


# Verdicts -------------------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_right_gradient_is_right_in_every_entry(size: int, seed: int) -> None:
    measured = Sines((size,), seed).measured(Sines((size,), seed).gradient)
    assert measured.status == "right"
    assert measured.count("right") == size
    assert measured.largest_error < 1e-7


@pytest.mark.parametrize("off", [1e-4, 1e-2, 1.0, -1e-4, -3.0])
def test_wrong_entry_is_wrong_and_the_others_right(off: float) -> None:
    sines = Sines((3, 5))
    wrong = sines.gradient.copy()
    wrong[1, 2] += off
    measured = sines.measured(wrong)
    assert measured.status == "wrong"
    assert [k for k, status in zip(measured.flat, measured.statuses, strict=True) if status == "wrong"] == [7]
    assert measured.known()[0].tolist() == list(range(15))
    assert measured.wrong().tolist() == [k == 7 for k in range(15)]
    assert measured.largest_error == pytest.approx(abs(off) / measured.scale, rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "relative", "status"),
    [
        ("float64", 1e-4, "wrong"),
        ("float64", 1e-5, "wrong"),
        ("float64", 1e-8, "right"),
        ("float32", 1e-2, "wrong"),
        ("float32", 3e-3, "wrong"),
        ("float32", 1e-5, "right"),
        ("float16", 1.0, "wrong"),
        ("float16", 1e-3, "right"),
    ],
)
def test_tolerance_follows_the_precision_of_the_gradient(dtype: str, relative: float, status: str) -> None:
    sines = Sines((20,))
    assert sines.measured((sines.gradient * (1 + relative)).astype(dtype), dtype).status == status


def test_float32_numbers_in_a_float64_array_are_recognised() -> None:
    sines = Sines((20,))
    single = sines.gradient.astype(np.float32).astype(np.float64)
    assert not np.allclose(single, sines.gradient, rtol=1e-8, atol=0)
    assert sines.measured(single).status == "right"
    assert sines.measured(single).rtol == sines.measured(single, "float32").rtol > 1e-4


@pytest.mark.parametrize("number", [0.0, 0.5, 2.0])
def test_numbers_that_float32_holds_anyway_are_not_taken_for_float32(number: float) -> None:
    sines = Sines((20,))
    assert sines.measured(np.full(20, number)).rtol == 1e-6


def test_small_entry_beside_large_ones_is_held_to_the_large_ones_scale() -> None:
    sines = Sines((20,))
    sines.u[3] = sines.gradient[3] = 0.0
    almost, wrong = sines.gradient.copy(), sines.gradient.copy()
    almost[3], wrong[3] = 1e-12, 1e-3
    assert sines.measured(almost).status == "right"
    assert sines.measured(wrong).status == "wrong"


# Which entries are looked at ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (FULL,), (4, FULL // 4)])
def test_all_entries_of_a_small_parameter(shape: tuple[int, ...]) -> None:
    measured = Sines(shape).measured(Sines(shape).gradient)
    assert sorted(measured.flat) == list(range(int(np.prod(shape))))


@given(size=st.integers(FULL + 1, 600), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_of_a_larger_one_the_largest_and_some_at_random(size: int, seed: int) -> None:
    sines = Sines((size,), seed)
    meter = Meter(Differences(sines.loss, {"W": sines.W}), 1.0, seed, lambda text: None)
    sample = meter.sample(meter.start("W", sines.gradient, "float64"))
    assert SAMPLE // 2 <= len(sample) == len(set(sample)) <= SAMPLE
    assert set(np.argsort(-abs(sines.gradient))[: SAMPLE // 4].tolist()) <= set(sample)
    assert sample == meter.sample(meter.start("W", sines.gradient, "float64"))


def test_another_seed_takes_another_sample() -> None:
    sines = Sines((1000,))
    samples = []
    for seed in (0, 1):
        meter = Meter(Differences(sines.loss, {"W": sines.W}), 1.0, seed, lambda text: None)
        samples.append(meter.sample(meter.start("W", sines.gradient, "float64")))
    assert samples[0] != samples[1]


def test_what_is_documented_is_what_is_checked() -> None:
    assert check_gradients.__doc__ is not None
    assert f"up to {FULL} entries is checked, of a larger one {SAMPLE} and" in check_gradients.__doc__
    assert DIRECTIONS == 2
    assert "two random directions" in check_gradients.__doc__


def test_entries_already_checked_are_not_checked_again() -> None:
    sines = Sines((10,))
    meter = Meter(Differences(sines.loss, {"W": sines.W}), 1.0, 0, lambda text: None)
    measured = meter.start("W", sines.gradient, "float64")
    meter.check_entries(measured, [3, 4])
    meter.check_entries(measured, [4, 3, 5])
    assert measured.flat == [3, 4, 5]


@pytest.mark.parametrize(
    ("u", "W"), [([1.0, -1.0, 1.0, -1.0], [0.5, 0.5, -0.2, -0.2]), ([1.0] * 4, [0.0] * 4), ([1e-8] * 4, [0.0] * 4)]
)
def test_loss_that_is_zero_at_the_point_is_checked_as_closely_as_others(u: list[float], W: list[float]) -> None:
    sines = Sines((4,))
    sines.u, sines.W = np.array(u), np.array(W)
    gradient = sines.u * np.cos(sines.W)
    assert sines.loss({"W": sines.W}) == 0
    assert sines.measured(gradient).status == "right"
    assert sines.measured(1.01 * gradient).status == "wrong"


# Directions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 12_345, 100_099])
def test_one_wrong_entry_of_a_hundred_thousand_is_found(at: int) -> None:
    sines = Sines((7, 110, 130))
    wrong = sines.gradient.copy()
    wrong.flat[at] += 0.5
    report = check_gradients(sines.loss, {"W": sines.W}, {"W": wrong})
    index = np.unravel_index(at, wrong.shape)
    assert list(report.faults) == ["W"]
    assert "1 of" in report.faults["W"]
    assert f"wrong only at {index[0]} along axis 0" in report.faults["W"]
    assert report.evaluations < 1000


def test_right_gradient_of_many_entries_is_right_along_directions_too() -> None:
    sines = Sines((300, 30))
    measured = sines.measured(sines.gradient)
    assert measured.status == measured.direction == "right"
    assert measured.direction_error < 1e-6


def test_gradient_wrong_by_little_everywhere_outside_the_sample() -> None:
    sines = Sines((50, 60))
    meter = Meter(Differences(sines.loss, {"W": sines.W}), 1.0, 0, lambda text: None)
    seen = meter.sample(meter.start("W", sines.gradient, "float64"))
    wrong = sines.gradient * 0.99
    wrong.flat[seen] = sines.gradient.flat[seen]
    measured = sines.measured(wrong)
    assert measured.status == "wrong"
    assert measured.direction == "wrong"


def test_lines_through_a_wrong_entry_show_which_row_is_wrong() -> None:
    sines = Sines((40, 50))
    wrong = sines.gradient.copy()
    wrong[17] *= -1
    meter = Meter(Differences(sines.loss, {"W": sines.W}), 1.0, 0, lambda text: None)
    measured = meter.start("W", wrong, "float64")
    meter.check_directions(measured)
    rows = {k // 50 for k, bad in zip(measured.known()[0], measured.wrong(), strict=True) if bad}
    assert rows == {17}
    assert measured.count("wrong") >= 8
    assert measured.count("right") >= 5


def test_progress_names_the_parameter_and_how_far_it_is() -> None:
    said: list[str] = []
    sines = Sines((5,))
    check_gradients(sines.loss, {"W": sines.W}, {"W": sines.gradient}, progress=said.append)
    assert said[:2] == ["W: 0 entries checked", "W: 1 entries checked"]


# Kinks ----------------------------------------------------------------------------------------------------------------


def relu_loss(parameters: dict[str, Array]) -> float:
    return float((np.arange(1.0, 7.0) * np.maximum(parameters["W"], 0)).sum())


@pytest.mark.parametrize("at_zero", [0.0, 0.3, 1.0])
def test_any_slope_between_the_two_at_a_kink_will_do(at_zero: float) -> None:
    W = np.array([-1.0, 0.5, 0.0, 2.0, 0.0, 1.0])
    gradient = np.arange(1.0, 7.0) * np.where(W == 0, at_zero, W > 0)
    report = check_gradients(relu_loss, {"W": W}, {"W": gradient})
    assert report.ok, report
    assert any("not smooth" in remark and "2 of 6" in remark for remark in report.remarks)


@pytest.mark.parametrize("at_zero", [-0.5, 1.5])
def test_a_slope_outside_them_cannot_be_right(at_zero: float) -> None:
    W = np.zeros(6)
    report = check_gradients(relu_loss, {"W": W}, {"W": at_zero * np.arange(1.0, 7.0)})
    assert not report.ok


def test_wrong_entries_beside_kinks_are_found() -> None:
    W = np.array([-1.0, 0.5, 0.0, 2.0, 0.0, 1.0])
    gradient = np.arange(1.0, 7.0) * (W > 0)
    gradient[3] *= -1
    assert "W" in check_gradients(relu_loss, {"W": W}, {"W": gradient}).faults


# Cannot be told -------------------------------------------------------------------------------------------------------


def test_where_the_loss_has_no_derivative_at_all_nothing_is_claimed() -> None:
    def loss(parameters: dict[str, Array]) -> float:
        return float(np.sqrt(parameters["W"]).sum())

    report = check_gradients(loss, {"W": np.zeros(4)}, {"W": np.ones(4)})
    assert not report.ok
    assert report.faults["W"].startswith("cannot be told: in 4 of 4 entries")
    assert report.rows[0].status == "undecided"
