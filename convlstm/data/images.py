"""Frames in image files, read by Pillow: one a file, or several in an animated GIF or a TIFF of several pages."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convlstm.data.layout import Layout, series_of
from convlstm.data.series import DataError, Series, Wanted, concatenated, damage_named

if TYPE_CHECKING:
    from PIL import Image

_SILENT = logging.NullHandler()  # else Python prints what Pillow logs, beside the error that it raises
COLOURS = ("red", "green", "blue")

# Pillow's modes: values as stored; those that are converted, grey or coloured.
STORED = ("1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
GREY, COLOURED, PALETTE = ("LA", "La"), ("RGB", "RGBA", "RGBX", "RGBa"), ("P", "PA")


@dataclass(frozen=True)
class _Look:
    """What the headers of an image file say."""

    frames: int
    size: tuple[int, int]  # (W, H)
    mode: str
    grey: bool


def open_images(name: str, files: Sequence[tuple[Path, str]], wanted: Wanted) -> Series:
    """Open image files, each a path and its name in messages, as one series: grey values or red, green and blue.

    A pixel that is wholly transparent is missing.  Values are as stored; a palette's are its colours.

    Raises:
        DataError: a file is not an image, or of another size or kind than the first.
        ModuleNotFoundError: Pillow is not installed.
    """
    if wanted.variable or wanted.axes:
        raise DataError(f"{name}: images have neither variables nor axes to choose; leave both empty")
    looks = [_look(path, label) for path, label in files]
    for (_, label), look in zip(files, looks, strict=True):
        _check_alike(label, look, files[0][1], looks[0])
    channels = () if all(look.grey for look in looks) else COLOURS
    parts = [
        partial(_opened, path, label, look, channels, wanted) for (path, label), look in zip(files, looks, strict=True)
    ]
    return concatenated(name, parts)


def _opened(path: Path, name: str, look: _Look, channels: tuple[str, ...], wanted: Wanted) -> Series:
    W, H = look.size
    layout = Layout("TCHW", (look.frames, len(channels) or 1, H, W))

    def take(index: tuple[int | slice, ...]) -> NDArray[Any]:
        assert isinstance(index[0], slice)
        with _image(path, name) as image:
            frames = []
            for i in range(index[0].start, index[0].stop):
                image.seek(i)
                frames.append(_pixels(image, bool(channels)))
                if frames[-1].shape != layout.shape[1:]:  # a GIF may grow
                    raise DataError(
                        f"{name}: frame {i} has {image.width} × {image.height} pixels; frame 0 has {W} × {H}"
                    )
        return np.stack(frames)

    return series_of(name, layout, take, wanted.missing, channels=channels, files=(path,))


@contextmanager
def _image(path: Path, name: str) -> Iterator[Image.Image]:
    """Open an image; one so large that Pillow warns of it is refused."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'images are read by Pillow, and {error.name} is missing; in the clone, pip install ".[files]"',
            name=error.name,
        ) from error
    logging.getLogger("PIL").addHandler(_SILENT)
    with damage_named(name):
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # until damage_named puts back what was
        try:
            with Image.open(path) as image:
                yield image
        except UnidentifiedImageError as error:
            with path.open("rb") as stream:
                raise DataError(f"{name}: is no image that Pillow knows: it begins with {stream.read(8)!r}") from error


def _look(path: Path, name: str) -> _Look:
    with _image(path, name) as image:
        frames = int(getattr(image, "n_frames", 1))
        mode, size = "P" if image.format == "GIF" else image.mode, image.size
        if mode not in STORED + GREY + COLOURED + PALETTE:
            raise DataError(f"{name}: has colours of mode {mode}; right are grey, RGB, RGBA and a palette")
        if mode in GREY + COLOURED and any(";16" in str(tile) for tile in getattr(image, "tile", ())):
            raise DataError(f"{name}: has 16 bits for each of its colours, of which Pillow reads 8; save it as .npy")
        if image.format == "GIF":
            grey = all(_is_grey(image, i) for i in range(frames))
        else:
            grey = _is_grey(image, 0) if mode in PALETTE else mode not in COLOURED
            for i in range(1, frames):  # a page of a TIFF has its own size
                image.seek(i)
                _check_alike(
                    f"{name}: frame {i}", _Look(1, image.size, image.mode, grey), "frame 0", _Look(1, size, mode, grey)
                )
    return _Look(frames, size, mode, grey)


def _is_grey(image: Image.Image, frame: int) -> bool:
    image.seek(frame)
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    return bool((red == green).all() and (red == blue).all())


def _check_alike(name: str, look: _Look, first_name: str, first: _Look) -> None:
    if look.size != first.size:
        got, right = (f"{W} × {H} pixels" for W, H in (look.size, first.size))
        raise DataError(f"{name}: has {got}; {first_name} has {right}, and all must be alike")
    if look.mode != first.mode:
        raise DataError(f"{name}: has mode {look.mode}; {first_name} has {first.mode}, and all must be alike")


def _pixels(image: Image.Image, coloured: bool) -> NDArray[Any]:
    """Return a frame (C, H, W), NaN where it is wholly transparent."""
    if image.mode in STORED and "transparency" not in image.info and not coloured:
        return np.asarray(image)[None]
    if image.mode in STORED and image.mode not in ("1", "L"):
        return np.where(np.asarray(image) == image.info["transparency"], np.nan, np.asarray(image))[None]
    pixels = np.asarray(image.convert("RGBA")).transpose(2, 0, 1)  # (4, H, W)
    colours = pixels[:3] if coloured else pixels[:1]
    return np.where(pixels[3] == 0, np.float32(np.nan), colours.astype(np.float32))
