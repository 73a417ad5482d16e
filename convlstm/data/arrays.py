"""Frames in NumPy's own files, mapped into memory: of a file larger than memory only what is asked for is read."""

from __future__ import annotations

import math
import shutil
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from convlstm.data.layout import Array, Take, chosen, laid_out, series_of
from convlstm.data.series import DataError, Series, Wanted, damage_named

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_LOCAL_HEADER = struct.Struct("<26x2H")  # of a zip member: how long its name and its extra field are


def open_npy(path: Path, name: str, wanted: Wanted) -> Series:
    """Open a ``.npy`` file.  Objects in it are never unpickled.

    Raises:
        DataError: it is not a sound file of that kind, or not one of frames.
    """
    if wanted.variable:
        raise DataError(f"{name}: a .npy file holds one array without a name; leave data.variable empty")
    with damage_named(name), path.open("rb") as stream:
        array, order = _header(name, stream)
        layout = laid_out(name, array, wanted)
        _check_length(name, array, path.stat().st_size - stream.tell())
        mapped = _mapped(stream, stream.tell(), array, order)
    return series_of(name, layout, mapped.__getitem__, wanted.missing, files=(path,))


def open_npz(path: Path, name: str, wanted: Wanted) -> Series:
    """Open a ``.npz`` file; a compressed array is unpacked into an unnamed temporary file at the first read.

    Raises:
        DataError: it is not a sound file of that kind, holds no frames, or several arrays that can be some.
    """
    with damage_named(name), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if not info.is_dir()}
        arrays = {key: _array_of(f"{name}: {key}", archive, info) for key, info in members.items()}
        variable = chosen(name, arrays, wanted)
        layout = laid_out(name, arrays[variable], wanted)
    take = _taking_member(path, name, members[variable])
    return series_of(name, layout, take, wanted.missing, files=(path,))


def _array_of(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as stream:
        array, _ = _header(name, stream)
        if array.dtype.kind != "O":
            _check_length(name, array, info.file_size - stream.tell())
    return array


def _header(name: str, stream: IO[bytes]) -> tuple[Array, str]:
    """Read the header of an array; return what it promises, and C or F, its order in memory."""
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY":
        raise DataError(f"{name}: is no .npy data: it begins with {start!r}")
    version = (start[6], start[7]) if len(start) == 8 else (0, 0)
    if version not in _HEADERS:  # (3, 0) is for names of fields alone
        raise DataError(f"{name}: is .npy data of version {version[0]}.{version[1]}; right are 1.0 and 2.0")
    shape, is_fortran, dtype = _HEADERS[version](stream)
    if any(size < 0 for size in shape):
        raise DataError(f"{name}: is damaged: its header says shape {shape}")
    return Array(shape, dtype), "F" if is_fortran else "C"


def _check_length(name: str, array: Array, there: int) -> None:
    promised = math.prod(array.shape) * array.dtype.itemsize
    if there < promised:
        raise DataError(f"{name}: is cut short: it has {there} bytes of data, and its header promises {promised}")


def _mapped(stream: IO[bytes], offset: int, array: Array, order: Any) -> NDArray[Any]:
    return np.memmap(stream, array.dtype, "r", offset, array.shape, order)


def _taking_member(path: Path, name: str, info: zipfile.ZipInfo) -> Take:
    @cache
    def mapped() -> NDArray[Any]:
        with damage_named(name):
            return _mapped_stored(path, name, info) if info.compress_type == 0 else _mapped_unpacked(path, name, info)

    return lambda index: mapped()[index]


def _mapped_stored(path: Path, name: str, info: zipfile.ZipInfo) -> NDArray[Any]:
    with path.open("rb") as stream:
        stream.seek(info.header_offset)
        stream.seek(sum(_LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))), 1)
        array, order = _header(name, stream)
        return _mapped(stream, stream.tell(), array, order)


def _mapped_unpacked(path: Path, name: str, info: zipfile.ZipInfo) -> NDArray[Any]:
    with tempfile.TemporaryFile() as unpacked:
        with zipfile.ZipFile(path) as archive, archive.open(info) as packed:
            shutil.copyfileobj(packed, unpacked, 1 << 20)  # to the end, where the checksum is compared
        unpacked.seek(0)
        array, order = _header(name, unpacked)
        return _mapped(unpacked, unpacked.tell(), array, order)
