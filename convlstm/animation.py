"""A forecast as an animated GIF: the frames that were shown, then those that follow, which a coloured border marks.

Every frame is made of indices into one palette of 256 colours, by rounding alone, so that the same arrays make the same
pixels everywhere, and with one version of Pillow the same bytes.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from convlstm.page.pictures import MISSING, Colours
from convlstm.report import ACCENT, PAPER, RULE

MILLISECONDS = 250  # a frame is shown
BORDER = 4  # pixels
LAST, QUIET, MARKED = 253, 254, 255  # indices: the brightest value, the border of a shown frame, that of a forecast one
LEVELS = (6, 7, 6)  # of red, green and blue; 252 colours, indices 1 … 252
SMALLEST, LARGEST = 256, 1024  # pixels of a frame's longer side
NAMES = ((), ("r", "g", "b"), ("red", "green", "blue"))

Frames = NDArray[np.float32]
Indices = NDArray[np.uint8]


def gif(shown: Frames, forecast: Frames, channels: tuple[str, ...] = ()) -> bytes:
    """Return a GIF of four frames a second, again and again: the shown ones, then the forecast ones in a red border.

    Values have the colours that `colours_of` gives to the shown frames.  Three channels that have no names, or those of
    red, green and blue, are drawn as colours; of others the first is drawn.  Where a value is missing, the pixel is
    beige, which no map has.  The size is that of `enlarged`, and the border.

    Args:
        shown: (T_in, C, H, W), NaN where a value is missing.
        forecast: (T_out, C, H, W), likewise.
        channels: a name for each channel, or none at all.

    Raises:
        ModuleNotFoundError: Pillow is not installed.
    """
    is_coloured = shown.shape[1] == 3 and tuple(name.lower() for name in channels) in NAMES
    frames = np.concatenate([shown, forecast])  # (T, C, H, W)
    if is_coloured:
        indices, palette = _mixed(frames, colours_of(shown)), _mixed_palette()
    else:
        colours = colours_of(shown[:, 0])
        indices = np.stack([np.minimum(colours.indices(frame), LAST) for frame in frames[:, 0]])
        palette = colours.palette()
    palette[[MISSING, QUIET, MARKED]] = [list(bytes.fromhex(colour[1:])) for colour in (RULE, PAPER, ACCENT)]
    pictures = [_bordered(picture, QUIET if t < len(shown) else MARKED) for t, picture in enumerate(enlarged(indices))]
    return _encoded(pictures, palette)


def colours_of(frames: Frames) -> Colours:
    """Return grey from 0 to 1 where all values lie there, otherwise viridis from the least value to the greatest.

    NaN and infinities say nothing.  Frames of one value have its colour in the middle.
    """
    values = frames[np.isfinite(frames)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return Colours("grey", 0.0, 1.0)
    if low == high:
        low, high = low - max(1, abs(low)), high + max(1, abs(high))
    return Colours("viridis", low, high)


def enlarged(indices: Indices) -> Indices:
    """Return frames (T, H, W) whose longer side has 256 … 1024 pixels; a shorter side up to 256 grows with it.

    Every pixel becomes a square of a whole number of pixels; of a frame that is larger, every second, third … is taken.
    """
    longer, shorter = max(indices.shape[1:]), min(indices.shape[1:])
    every = -(-longer // LARGEST)
    zoom = max(-(-SMALLEST // longer), min(LARGEST // longer, SMALLEST // shorter), 1)
    return indices[:, ::every, ::every].repeat(zoom, axis=1).repeat(zoom, axis=2)


def _mixed(frames: Frames, colours: Colours) -> Indices:
    """Return indices (T, H, W) of frames (T, 3, H, W), whose channels are rounded to few levels each."""
    share = (np.clip(frames.astype(np.float64), colours.low, colours.high) - colours.low) / (colours.high - colours.low)
    missing = np.isnan(share)
    levels = np.rint(np.where(missing, 0, share) * (np.array(LEVELS)[:, None, None] - 1)).astype(np.int64)
    mixed = 1 + (levels[:, 0] * LEVELS[1] + levels[:, 1]) * LEVELS[2] + levels[:, 2]
    return np.where(missing.any(axis=1), MISSING, mixed).astype(np.uint8)


def _mixed_palette() -> NDArray[np.uint8]:
    """Return red, green and blue of each index of `_mixed`, (256, 3)."""
    palette: NDArray[np.uint8] = np.zeros((256, 3), np.uint8)
    count = LEVELS[0] * LEVELS[1] * LEVELS[2]
    levels = np.stack(np.unravel_index(np.arange(count), LEVELS), axis=-1)
    palette[1 : count + 1] = np.rint(255 * levels / (np.array(LEVELS) - 1))
    return palette


def _bordered(picture: Indices, colour: int) -> Indices:
    H, W = picture.shape
    framed = np.full((H + 2 * BORDER, W + 2 * BORDER), colour, np.uint8)
    framed[BORDER:-BORDER, BORDER:-BORDER] = picture
    return framed


def _encoded(pictures: list[Indices], palette: NDArray[np.uint8]) -> bytes:
    """Return the file; Pillow makes one frame of those that follow one another and are alike, and shows it longer."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'an animation needs Pillow, and {error.name} is missing; in the clone, pip install ".[files]"',
            name=error.name,
        ) from error
    images = []
    for picture in pictures:
        image = Image.frombytes("P", picture.shape[::-1], picture.tobytes())
        image.putpalette(palette.tobytes())
        images.append(image)
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": images[1:], "duration": MILLISECONDS, "loop": 0, "optimize": False}
    images[0].save(buffer, "GIF", **options)
    return buffer.getvalue()
