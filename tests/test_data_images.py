"""Frames in images: every mode as stored, what is transparent is missing, all alike, damage named."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm.data.images import COLOURS, open_images
from convlstm.data.series import DataError, Series, Wanted

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

GREY = np.arange(0, 240, 2, dtype=np.uint8).reshape(6, 4, 5)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)  # (6, 4, 5, 3)


def open_(*paths: Path, **wanted: Any) -> Series:
    return open_images("folder", [(path, path.name) for path in paths], Wanted(**wanted))


def save(path: Path, array: Any, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def save_pages(path: Path, frames: Any, **options: Any) -> Path:
    pages = [Image.fromarray(frame) for frame in frames]
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "gif", "webp"])
def test_grey_images_are_one_channel_as_stored(tmp_path: Path, ending: str) -> None:
    options: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
    paths = [save(tmp_path / f"{k}.{ending}", GREY[k], **options) for k in range(6)]
    series = open_(*paths)
    if ending == "webp":  # which knows colours alone
        assert series.channels == COLOURS
    else:
        assert (series.shape, series.channels) == ((6, 1, 4, 5), ())
    assert (series.name, series.files, series.runs) == ("folder", tuple(paths), (range(6),))
    np.testing.assert_array_equal(series.read(1, 4)[:, :1], GREY[1:4, None])


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "webp"])
def test_colours_are_three_channels(tmp_path: Path, ending: str) -> None:
    options: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
    series = open_(*(save(tmp_path / f"{k}.{ending}", COLOUR[k], **options) for k in range(6)))
    assert (series.shape, series.channels) == ((6, 3, 4, 5), ("red", "green", "blue"))
    np.testing.assert_array_equal(series.read(2, 6), COLOUR[2:].transpose(0, 3, 1, 2))


def test_jpeg_is_read_nearly_as_stored(tmp_path: Path) -> None:
    series = open_(save(tmp_path / "a.jpg", np.full((8, 8), 77, np.uint8), quality=100))
    assert np.abs(series.read(0, 1) - 77).max() <= 1


@pytest.mark.parametrize(
    ("array", "ending"),
    [
        (np.array([[0, 1, 65535]], np.uint16), "png"),
        (np.array([[0, 1, 65535]], np.uint16), "tif"),
        (np.array([[0, -1, 2**20]], np.int32), "tif"),
        (np.array([[0.25, -1, np.nan]], np.float32), "tif"),
        (np.array([[True, False, True]]), "png"),
        (np.array([[True, False, True]]), "tif"),
    ],
)
def test_numbers_of_other_widths_are_as_stored(tmp_path: Path, array: Any, ending: str) -> None:
    np.testing.assert_array_equal(open_(save(tmp_path / f"a.{ending}", array)).read(0, 1), array[None, None])


def test_big_endian_values_are_as_stored(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (2, 1), bytes([1, 0, 0, 2])).save(tmp_path / "a.tif")
    assert open_(tmp_path / "a.tif").read(0, 1).ravel().tolist() == [256, 2]


# Transparency and palettes --------------------------------------------------------------------------------------------


def test_what_is_wholly_transparent_is_missing(tmp_path: Path) -> None:
    alpha = np.full((4, 5, 1), 255, np.uint8)
    alpha[1, 2], alpha[1, 3] = 0, 1
    coloured = save(tmp_path / "a.png", np.concatenate([COLOUR[0], alpha], axis=-1))
    right = COLOUR[0].transpose(2, 0, 1).astype(np.float32)
    right[:, 1, 2] = np.nan
    np.testing.assert_array_equal(open_(coloured).read(0, 1)[0], right)
    grey = save(tmp_path / "b.png", np.concatenate([GREY[0][..., None], alpha], axis=-1))
    right = GREY[0].astype(np.float32)
    right[1, 2] = np.nan
    np.testing.assert_array_equal(open_(grey).read(0, 1)[0, 0], right)


@pytest.mark.parametrize(("array", "clear"), [(GREY[0], 14), (GREY[0].astype(np.uint16) * 256, 14 * 256)])
def test_the_transparent_value_of_a_grey_png_is_missing(tmp_path: Path, array: Any, clear: int) -> None:
    frame = open_(save(tmp_path / "a.png", array, transparency=clear)).read(0, 1)[0, 0]
    np.testing.assert_array_equal(frame, np.where(array == clear, np.nan, array))


def test_the_missing_value_is_nan(tmp_path: Path) -> None:
    frame = open_(save(tmp_path / "a.png", GREY[0]), missing=14).read(0, 1)[0, 0]
    np.testing.assert_array_equal(frame, np.where(GREY[0] == 14, np.nan, GREY[0]))


def with_palette(path: Path, colours: Any, **options: Any) -> Path:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette(np.array(colours, np.uint8).tobytes())
    image.save(path, **options)
    return path


REDS, GREYS = [[9, 0, 0], [99, 0, 0], [7, 7, 7]], [[9, 9, 9], [5, 5, 5], [7, 7, 7]]


def test_a_palette_is_its_colours(tmp_path: Path) -> None:
    assert open_(with_palette(tmp_path / "a.png", REDS)).read(0, 1)[0, :, 0].T.tolist() == REDS
    assert open_(with_palette(tmp_path / "b.png", GREYS)).read(0, 1)[0, :, 0].T.tolist() == [[9], [5], [7]]
    both = open_(tmp_path / "b.png", tmp_path / "a.png").read(0, 2)  # one colour anywhere makes all coloured
    assert both[:, :, 0].transpose(0, 2, 1).tolist() == [GREYS, REDS]


def test_the_transparent_entry_of_a_palette_is_missing(tmp_path: Path) -> None:
    frame = open_(with_palette(tmp_path / "a.png", REDS, transparency=1)).read(0, 1)[0]
    assert np.isnan(frame[:, 0]).tolist() == [[False, True, False]] * 3


# Several frames in a file ---------------------------------------------------------------------------------------------


def test_an_animated_gif_is_its_frames(tmp_path: Path) -> None:
    path = save_pages(tmp_path / "a.gif", GREY)
    series = open_(path)
    assert (series.shape, series.runs) == ((6, 1, 4, 5), (range(6),))
    np.testing.assert_array_equal(series.read(2, 5), GREY[2:5, None])
    np.testing.assert_array_equal(series.read(1, 3), GREY[1:3, None])  # back again
    assert open_(path, path).shape == (12, 1, 4, 5)


def test_an_animated_gif_that_has_a_colour_late_is_coloured(tmp_path: Path) -> None:
    frames = np.repeat(GREY[:3, ..., None], 3, axis=-1)
    frames[2, 0, 0] = (255, 0, 0)
    series = open_(save_pages(tmp_path / "a.gif", frames))
    assert series.channels == COLOURS
    np.testing.assert_array_equal(series.read(0, 3), frames.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("frames", [GREY, COLOUR, GREY.astype(np.float32) / 7])
def test_the_pages_of_a_tiff_are_its_frames(tmp_path: Path, frames: Any) -> None:
    right = frames.transpose(0, 3, 1, 2) if frames.ndim == 4 else frames[:, None]
    np.testing.assert_array_equal(open_(save_pages(tmp_path / "a.tif", frames)).read(1, 6), right[1:])


def test_pages_must_be_alike(tmp_path: Path) -> None:
    path = save_pages(tmp_path / "a.tif", [GREY[0], GREY[0], GREY[0][:, 1:]])
    with pytest.raises(DataError, match=r"^a\.tif: frame 2: has 4 × 4 pixels; frame 0 has 5 × 4 pixels"):
        open_(path)


def test_a_gif_that_grows_is_refused(tmp_path: Path) -> None:
    path = save_pages(tmp_path / "a.gif", GREY)
    data = bytearray(path.read_bytes())
    second = data.index(b"\x2c", data.index(b"\x2c") + 1)  # where the place and size of the second frame stand
    data[second + 5] += 3  # its width
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"^a\.gif: "):
        open_(path).read(0, 2)


# Refusals -------------------------------------------------------------------------------------------------------------


def test_images_must_be_alike(tmp_path: Path) -> None:
    first, second = save(tmp_path / "1.png", GREY[0]), save(tmp_path / "2.png", GREY[1])
    with pytest.raises(DataError, match=r"^3\.png: has 4 × 4 pixels; 1\.png has 5 × 4 pixels, and all must be alike$"):
        open_(first, second, save(tmp_path / "3.png", GREY[2][:, 1:]))
    with pytest.raises(DataError, match=r"^3\.png: has mode RGB; 1\.png has L, and all must be alike$"):
        open_(first, second, save(tmp_path / "3.png", COLOUR[2]))


def test_other_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^a\.jpg: has colours of mode CMYK; right are grey, RGB, RGBA and a palette"):
        open_(save(tmp_path / "a.jpg", COLOUR[0], "CMYK"))


def test_colours_of_16_bits_are_refused_since_pillow_halves_them(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=">u2").reshape(2, 2, 3)
    (tmp_path / "a.png").write_bytes(png_of(pixels))
    with pytest.raises(DataError, match=r"^a\.png: has 16 bits for each of its colours, of which Pillow reads 8"):
        open_(tmp_path / "a.png")


def png_of(pixels: Any) -> bytes:
    """Write a PNG of 16 bits a colour, which Pillow cannot."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    H, W, _ = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">2I5B", W, H, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_an_image_cut_short_is_found_when_it_is_read(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{k}.png", np.random.default_rng(k).integers(0, 255, (64, 64), np.uint8)) for k in (0, 1)]
    paths[1].write_bytes(paths[1].read_bytes()[:2000])
    series = open_(*paths)
    assert series.read(0, 1).shape == (1, 1, 64, 64)
    with pytest.raises(DataError, match=r"^1\.png: cannot be read: .*truncated"):
        series.read(0, 2)


@pytest.mark.parametrize("limit", [10, 15])  # of which Pillow warns and raises
def test_an_image_as_large_as_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = save(tmp_path / "a.png", GREY[0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"^a\.png: cannot be read: Image size \(20 pixels\) exceeds limit of"):
        open_(path)


def test_what_pillow_logs_is_not_printed(tmp_path: Path) -> None:
    """In a process of its own, since pytest catches logs."""
    path = save(tmp_path / "a.tif", COLOUR[0])
    data = path.read_bytes()
    samples = struct.pack("<HHI", 277, 3, 1)  # the tag of how many samples a pixel has, and that it is one short number
    assert data.count(samples) == 1
    path.write_bytes(data.replace(samples + b"\3", samples + b"\x80"))
    program = (
        "import sys, convlstm.data.opening as o\ntry: o.open_series(sys.argv[1])\nexcept ValueError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: ")
    assert done.stderr == ""


def test_what_pillow_warns_of_does_not_leak(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = save(tmp_path / "a.tif", GREY[0])
    data = path.read_bytes()
    path.write_bytes(data + b"\0" * 3)
    open_(path).read(0, 1)
    assert not recwarn.list


@pytest.mark.parametrize("wanted", [{"variable": "red"}, {"axes": "THW"}])
def test_an_image_has_nothing_to_choose(tmp_path: Path, wanted: Any) -> None:
    with pytest.raises(DataError, match=r"^folder: images have neither variables nor axes to choose"):
        open_(save(tmp_path / "a.png", GREY[0]), **wanted)


def test_no_file_stays_open(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", GREY[0])
    series = open_(path)
    series.read(0, 1)
    path.unlink()
    with pytest.raises(DataError, match=r"^a\.png: cannot be read: No such file or directory"):
        series.read(0, 1)


def test_without_pillow_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", GREY[0])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r'PIL is missing; in the clone, pip install "\.\[files\]"'):
        open_(path)
