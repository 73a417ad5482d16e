from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.animation import BORDER, LARGEST, MILLISECONDS, SMALLEST, colours_of, enlarged, gif
from convlstm.page.pictures import Colours
from convlstm.report import ACCENT, PAPER, RULE

ZOOM = 64  # frames of 4×8 pixels grow to 256×512
QUIET, MARKED, MISSING = ([*bytes.fromhex(colour[1:])] for colour in (PAPER, ACCENT, RULE))


def frames(T: int, C: int = 1, H: int = 4, W: int = 8, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).random((T, C, H, W), np.float32)
    values.setflags(write=False)
    return values


def pictures(data: bytes) -> tuple[Any, list[int]]:
    """Return every frame of a GIF, (T, H, W, 3), and how long each is shown; Pillow must say it is shown for ever."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels, durations = [], []
    with image.open(io.BytesIO(data)) as file:
        assert file.info["loop"] == 0
        for t in range(file.n_frames):
            file.seek(t)
            pixels.append(np.array(file.convert("RGB")).astype(int))
            durations.append(file.info["duration"])
    return np.stack(pixels), durations


def inside(picture: Any) -> Any:
    """Return the middle of each pixel of a frame."""
    return picture[BORDER:-BORDER, BORDER:-BORDER][ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM]


def test_shown_frames_come_first_and_forecast_ones_are_marked() -> None:
    shown, forecast = frames(3), frames(2, seed=1)
    found, durations = pictures(gif(shown, forecast))
    assert found.shape == (5, 4 * ZOOM + 2 * BORDER, 8 * ZOOM + 2 * BORDER, 3)
    assert durations == [MILLISECONDS] * 5 == [250] * 5
    for t, frame in enumerate([*shown, *forecast]):
        border = np.concatenate([found[t][:BORDER].reshape(-1, 3), found[t][:, -BORDER:].reshape(-1, 3)])
        assert (border == (QUIET if t < 3 else MARKED)).all()
        grey = inside(found[t])
        assert (grey[..., 0] == grey[..., 2]).all()
        assert np.abs(grey[..., 0] - 255 * frame[0]).max() <= 3


def test_a_field_has_the_colours_of_the_shown_range() -> None:
    shown, forecast = 270 + 30 * frames(1), 260 + 60 * frames(1, seed=1)  # some below, some above
    found, _ = pictures(gif(shown, forecast))
    colours = Colours("viridis", float(shown.min()), float(shown.max()))
    for t, frame in enumerate((shown[0, 0], forecast[0, 0])):
        right = colours.palette()[colours.indices(frame)].astype(int)
        assert np.abs(inside(found[t]) - right).max() <= 5  # the two brightest shades are given to the borders


def test_three_colours_are_themselves_and_other_channels_are_not_mixed() -> None:
    shown = np.array(frames(2, C=3))
    shown[0, 0, 0, 0], shown[0, 1, 0, 0], shown[0, 2, 0, 0] = 1, 0, 0.5
    found, _ = pictures(gif(shown, shown[1:], ("R", "G", "B")))
    assert np.abs(inside(found[0])[0, 0] - [255, 0, 127]).max() <= 26  # half of a step of 1/5
    assert np.abs(inside(found[0]) - 255 * shown[0].transpose(1, 2, 0)).max() <= 26
    assert gif(shown, shown[1:]) == gif(shown, shown[1:], ("red", "Green", "BLUE"))
    wind = gif(shown, shown[1:], ("u", "v", "w"))
    assert wind == gif(shown[:, :1], shown[1:, :1])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_missing_is_beige_in_every_map(channels: int) -> None:
    for scale in (1, 300):
        shown, forecast = np.array(frames(1, channels)) * scale, np.array(frames(1, channels, seed=1)) * scale
        forecast[0, 0, 1, 2] = np.nan
        found, _ = pictures(gif(shown.astype(np.float32), forecast.astype(np.float32)))
        beige = (inside(found[1]) == MISSING).all(axis=-1)
        assert beige[1, 2]
        assert beige.sum() == 1
        assert not (inside(found[0]) == MISSING).all(axis=-1).any()


def test_infinity_is_the_end_of_the_map() -> None:
    forecast = np.array(frames(1))
    forecast[0, 0, 0, :2] = np.inf, -np.inf
    found, _ = pictures(gif(frames(1), forecast))
    assert inside(found[1])[0, 0, 0] >= 250
    assert inside(found[1])[0, 1, 0] == 0


def test_frames_that_stay_as_they_are_keep_their_time() -> None:
    still = frames(1).repeat(4, axis=0)
    _, durations = pictures(gif(still, still))
    assert sum(durations) == 8 * MILLISECONDS


def test_the_same_arrays_make_the_same_bytes() -> None:
    assert gif(frames(2), frames(2, seed=1)) == gif(frames(2), frames(2, seed=1))
    assert gif(frames(2), frames(2, seed=1)) != gif(frames(2), frames(2, seed=2))


@pytest.mark.parametrize(
    ("values", "right"),
    [
        ([0.0, 1.0], Colours("grey", 0, 1)),
        ([0.2, 0.4, np.nan], Colours("grey", 0, 1)),
        ([0.0, 1.5], Colours("viridis", 0, 1.5)),
        ([-0.5, 0.5, np.inf], Colours("viridis", -0.5, 0.5)),
        ([5.0, 5.0], Colours("viridis", 0, 10)),
        ([np.nan], Colours("grey", 0, 1)),
    ],
)
def test_brightness_is_grey_and_a_field_is_not(values: list[float], right: Colours) -> None:
    assert colours_of(np.array(values, np.float32)) == right


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((1, 1), (256, 256)),
        ((32, 32), (256, 256)),
        ((200, 200), (400, 400)),
        ((18, 432), (36, 864)),
        ((480, 480), (480, 480)),
        ((1024, 1), (1024, 1)),
        ((1025, 30), (513, 15)),
        ((3000, 2000), (1000, 667)),
    ],
)
def test_the_size_of_a_picture(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert enlarged(np.zeros((1, *size), np.uint8)).shape == (1, *drawn)


@settings(deadline=None)
@given(st.integers(1, 2500), st.integers(1, 40), st.booleans())
def test_every_picture_has_a_sensible_size(longer: int, shorter: int, upright: bool) -> None:
    shape = (longer, shorter) if upright else (shorter, longer)
    drawn = enlarged(np.zeros((1, *shape), np.uint8)).shape[1:]
    assert min(SMALLEST, max(shape)) <= max(drawn) <= LARGEST


def test_pixels_become_squares() -> None:
    numbers = np.arange(200 * 150, dtype=np.int64).reshape(1, 200, 150).astype(np.uint8)
    drawn = enlarged(numbers)
    assert drawn.shape == (1, 400, 300)
    for down in (0, 1):
        for right in (0, 1):
            assert (drawn[:, down::2, right::2] == numbers).all()


def test_pillow_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r"an animation needs Pillow.*\.\[files\]"):
        gif(frames(1), frames(1))
