"""Pictures of frames: read back by another program, every value has the colour that it should."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from convlstm.page.pictures import Colours, coarser, data_address, png, scale_address


def pixels(address: str) -> NDArray[np.uint8]:
    """Return a picture as red, green, blue and how opaque, (H, W, 4)."""
    image = pytest.importorskip("PIL.Image", reason="pillow, which reads pictures back, is not installed")
    kind, data = address.split(",")
    assert kind == "data:image/png;base64"
    read: NDArray[np.uint8] = np.asarray(image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))
    return read


def test_viridis_is_that_of_matplotlib() -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    share = np.linspace(0, 1, 255)
    right = 255 * np.asarray(matplotlib.colormaps["viridis"](share))[:, :3]
    assert np.abs(Colours("viridis", 0, 1).palette()[1:] - right).max() <= 3  # neighbours differ by so much


def test_values_go_to_colours_in_order_and_to_the_ends_beyond() -> None:
    frame = np.array([[-np.inf, -5, 0, 0.5, 1, 5, np.inf]])
    shown = pixels(data_address(frame, Colours("grey", 0, 1)))
    assert shown[0, :, 0].tolist() == [0, 0, 0, 128, 255, 255, 255]
    assert (shown[..., 3] == 255).all()


def test_missing_values_and_they_alone_are_see_through() -> None:
    frame = np.array([[np.nan, 0.0], [1.0, np.nan]], np.float32)
    shown = pixels(data_address(frame, Colours("viridis", 0, 1)))
    assert (shown[..., 3] == [[0, 255], [255, 0]]).all()


def test_a_difference_of_none_is_nearly_white_and_signs_are_told_apart() -> None:
    shown = pixels(data_address(np.array([[-1.0, 0.0, 1.0]]), Colours("difference", -1, 1))).astype(int)
    assert shown[0, 1, :3].min() >= 245
    assert shown[0, 0, 2] > shown[0, 0, 0]
    assert shown[0, 2, 0] > shown[0, 2, 2]


def test_the_scale_goes_through_all_colours() -> None:
    colours = Colours("viridis", 3, 4)
    assert (pixels(scale_address(colours))[0, :, :3] == colours.palette()[1:]).all()


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_a_picture_holds_its_pixels(indices: NDArray[np.uint8]) -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    shown = pixels("data:image/png;base64," + base64.b64encode(png(indices, grey)).decode())
    assert (shown[..., 0] == indices).all()


@pytest.mark.parametrize(
    ("name", "low", "high", "words"),
    [
        ("jet", 0, 1, "colours must be one of viridis, grey, difference; got 'jet'"),
        ("grey", 1, 1, "colours must go from a number to a larger one; got 1 and 1"),
        ("grey", 0, np.nan, "got 0 and nan"),
        ("grey", -np.inf, 0, "got -inf and 0"),
    ],
)
def test_what_are_no_colours(name: str, low: float, high: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Colours(name, low, high)


def test_coarser_is_the_mean_of_what_is_there() -> None:
    frames = np.array([[[1, 3, np.nan, np.nan, 9], [5, np.nan, np.nan, np.nan, 11]]])
    assert np.array_equal(coarser(frames, 2), [[[3, np.nan, 10]]], equal_nan=True)
    assert np.array_equal(coarser(frames, 1), frames, equal_nan=True)


@given(st.integers(1, 6), st.integers(1, 7), st.integers(1, 7))
def test_coarser_has_the_shape_it_says_and_keeps_a_constant(factor: int, height: int, width: int) -> None:
    small = coarser(np.full((2, height, width), 2.5, np.float32), factor)
    assert small.shape == (2, -(-height // factor), -(-width // factor))
    assert (small == 2.5).all()


def test_coarser_takes_infinity() -> None:
    small = coarser(np.array([[[np.inf, 0.0], [-np.inf, np.inf]]]), 2)
    assert np.isfinite(small).all()
