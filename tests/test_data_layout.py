"""Axes by letters: frames of every order of axes, guesses by rank and their refusals, the choice among arrays."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.data.layout import Array, Layout, chosen, laid_out, series_of
from convlstm.data.series import DataError, Wanted

SIZES = {"N": 3, "T": 4, "C": 2, "H": 5, "W": 6, "-": 1}
FLOAT = np.dtype("f4")

ORDERS = ["".join(order) for letters in ("THW", "TCHW", "NTHW") for order in itertools.permutations(letters)]
ORDERS += ["NTCHW", "TNHWC", "WHCTN", "T-HW", "TH-W", "C-NHWT", "HW", "CHW", "HWC"]


def array_of(axes: str) -> Any:
    sizes = [SIZES[letter] for letter in axes]
    array = np.arange(np.prod(sizes), dtype=np.float32).reshape(sizes)
    array.flags.writeable = False
    return array


def all_frames(axes: str) -> Any:
    """All frames (T, C, H, W), by NumPy's own means."""
    array = array_of(axes).squeeze(tuple(k for k, letter in enumerate(axes) if letter == "-"))
    axes = axes.replace("-", "")
    for letter in "NTC":
        if letter not in axes:
            array, axes = array[None], letter + axes
    array = np.einsum(f"{axes}->NTCHW", array)
    return array.reshape(-1, *array.shape[2:])


@given(st.sampled_from(ORDERS), st.data())
def test_any_order_of_axes_gives_the_same_frames(axes: str, data: Any) -> None:
    array, right = array_of(axes), all_frames(axes)
    layout = Layout(axes, array.shape)
    assert layout.shape == right.shape
    start = data.draw(st.integers(0, len(right) - 1))
    stop = data.draw(st.integers(start + 1, len(right)))
    np.testing.assert_array_equal(layout.cut(array.__getitem__, start, stop), right[start:stop])


def test_each_sequence_is_a_run() -> None:
    assert Layout("TNHW", (4, 3, 5, 6)).runs == (range(4), range(4, 8), range(8, 12))
    assert Layout("HWT", (5, 6, 4)).runs == (range(4),)


def test_only_what_is_asked_for_is_taken() -> None:
    taken = []

    def take(index: Any) -> Any:
        taken.append(index)
        return array_of("NTHW")[index]

    Layout("NTHW", (3, 4, 5, 6)).cut(take, 3, 5)
    every = slice(None)
    assert taken == [(0, slice(3, 4), every, every), (1, slice(0, 1), every, every)]


@pytest.mark.parametrize(("shape", "axes"), [((4, 5, 6), "THW"), ((4, 2, 5, 6), "TCHW"), ((3, 4, 2, 5, 6), "NTCHW")])
def test_the_rank_says_the_axes(shape: tuple[int, ...], axes: str) -> None:
    assert laid_out("a.npy", Array(shape, FLOAT), Wanted()) == Layout(axes, shape)


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        ((5, 6), "", r"has shape \(5, 6\); right are \(T, H, W\).* one frame \(H, W\) is right in a folder"),
        ((4, 8, 8, 3), "", "looks like axes THWC; set data.axes to that, or to TCHW"),
        ((2, 4, 8, 8, 1), "", "looks like axes NTHWC"),
        ((20, 100, 64, 64), "", "100 channels as TCHW; set data.axes, perhaps to NTHW or TNHW"),
        ((3, 20, 100, 64, 64), "", "100 channels as NTCHW"),
        ((4, 5, 6), "THH", "must name T, H and W once each.*got 'THH'"),
        ((4, 5, 6), "TXY", "got 'TXY'"),
        ((4, 5, 6), "T-HW", "got 'T-HW'"),
        ((4, 5, 6), "CHW", "got 'CHW'"),
        ((4, 5, 6), "TCHW", r"axes 'TCHW' are 4; the array has 3, \(4, 5, 6\)"),
        ((4, 0, 6), "", r"its shape is \(4, 0, 6\), and its axis H has length 0"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], axes: str, words: str) -> None:
    with pytest.raises(DataError, match=f"^a.npy: .*{words}"):
        laid_out("a.npy", Array(shape, FLOAT), Wanted(axes=axes))


def test_who_says_the_axes_gets_them() -> None:
    assert laid_out("a.npy", Array((4, 8, 8, 3), FLOAT), Wanted(axes="TCHW")).shape == (4, 8, 8, 3)
    assert laid_out("a.npy", Array((4, 8, 8, 3), FLOAT), Wanted(axes="THWC")).shape == (4, 3, 8, 8)
    assert laid_out("a.npy", Array((20, 100, 64, 64), FLOAT), Wanted(axes="TNHW")).shape == (2000, 1, 64, 64)


def test_a_file_of_a_folder_may_hold_one_frame() -> None:
    assert laid_out("a.npy", Array((5, 6), FLOAT), Wanted(in_folder=True)).shape == (1, 1, 5, 6)
    assert laid_out("a.npy", Array((5, 6, 3), FLOAT), Wanted(axes="HWC", in_folder=True)).shape == (1, 3, 5, 6)


ARRAYS = {
    "rain": Array((4, 5, 6), FLOAT),
    "flags": Array((4, 5, 6), np.dtype("S1")),
    "time": Array((4,), FLOAT),
    "deep/wind": Array((4, 2, 5, 6), FLOAT),
}


def test_the_only_array_that_can_be_frames_is_chosen() -> None:
    assert chosen("a.h5", {name: ARRAYS[name] for name in ("time", "flags", "rain")}, Wanted()) == "rain"
    assert chosen("a.h5", ARRAYS, Wanted(axes="THWC")) == "deep/wind"
    assert chosen("a.h5", ARRAYS, Wanted(variable="/deep/wind")) == "deep/wind"
    assert chosen("a.h5", {"time": ARRAYS["time"]}, Wanted()) == "time"  # whose shape is then refused


@pytest.mark.parametrize(
    ("names", "variable", "words"),
    [
        (ARRAYS, "", r"2 arrays that can be frames; data.variable chooses one: rain \(4, 5, 6\) of float32; deep/wind"),
        (["time", "flags"], "", "no array of numbers with axes for time, height and width; it holds time"),
        (ARRAYS, "rian", "has no variable 'rian'; the nearest is 'rain'"),
        (ARRAYS, "q", "has no variable 'q'; right are deep/wind, flags, rain, time"),
    ],
)
def test_a_choice_that_cannot_be_made_lists_what_there_is(names: Any, variable: str, words: str) -> None:
    with pytest.raises(DataError, match=f"^a.h5: .*{words}"):
        chosen("a.h5", {name: ARRAYS[name] for name in names}, Wanted(variable=variable))


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (3, 2), (0, 5)])
def test_frames_that_are_not_there_are_refused(start: int, stop: int) -> None:
    series = series_of("a.npy", Layout("THW", (4, 5, 6)), array_of("THW").__getitem__, None)
    with pytest.raises(ValueError, match=rf"frames must lie in 0 … 4, one at least; got start {start}, stop {stop}"):
        series.read(start, stop)
