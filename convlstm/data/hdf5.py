"""Frames in HDF5 files, read by h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.data.layout import Array, chosen, laid_out, series_of
from convlstm.data.series import DataError, Series, Wanted, damage_named
from convlstm.data.values import equal_to, is_number

HDF4 = b"\x0e\x03\x13\x01"


def open_hdf5(path: Path, name: str, wanted: Wanted) -> Series:
    """Open the dataset of an HDF5 file that is named, ``group/name``, or the only one with three axes or more.

    Its attributes _FillValue, missing_value, scale_factor, add_offset and units count as in NetCDF.

    Raises:
        DataError: it is not a sound file of that kind, holds no frames, or several arrays that can be some.
        ModuleNotFoundError: h5py is not installed.
    """
    try:
        import h5py  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'HDF5 files are read by h5py, and {error.name} is missing; in the clone, pip install ".[files]"',
            name=error.name,
        ) from error
    with damage_named(name):
        _check_kind(path, name, h5py.is_hdf5(path))
        file = h5py.File(path, "r")
        variable = chosen(name, _datasets(file), wanted)
        dataset = file[variable]
        layout = laid_out(name, Array(dataset.shape, dataset.dtype), wanted)
        attributes = dict(dataset.attrs)
        packing = _Packing(f"{name}: {variable}", attributes)
        units = attributes.get("units", "")

    def take(index: tuple[int | slice, ...]) -> NDArray[Any]:
        with damage_named(f"{name}: {variable}"):
            return packing.undo(np.asarray(dataset[index]))

    units = units.decode(errors="replace") if isinstance(units, bytes) else f"{units}"
    return series_of(name, layout, take, wanted.missing, units=units, files=(path,), variable=variable)


def _check_kind(path: Path, name: str, is_hdf5: bool) -> None:
    if not is_hdf5:
        with damage_named(name), path.open("rb") as stream:
            start = stream.read(8)
        if start[:4] == HDF4:
            raise DataError(f"{name}: is an HDF4 file, not HDF5; h4toh5 converts it")
        raise DataError(f"{name}: is no HDF5 file: it begins with {start!r}")


def _datasets(file: Any) -> dict[str, Array]:
    """Return all datasets of a file, of all its groups."""
    found: dict[str, Array] = {}

    def visit(key: str, item: Any) -> None:
        if hasattr(item, "dtype") and item.shape is not None:  # a named type has no shape, an empty dataset None
            found[key] = Array(item.shape, item.dtype)

    file.visititems(visit)
    return found


class _Packing:
    """How numbers are packed: real value = stored * scale_factor + add_offset, and what stored value is missing."""

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self._fills = [v for key in ("_FillValue", "missing_value") for v in _numbers(name, attributes, key)]
        self._scale = next(iter(_numbers(name, attributes, "scale_factor")), 1.0)
        self._offset = next(iter(_numbers(name, attributes, "add_offset")), 0.0)

    def undo(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return real values, NaN where one is missing."""
        if not self._fills and (self._scale, self._offset) == (1, 0):
            return stored
        values = stored.astype(np.float64) * self._scale + self._offset
        for fill in self._fills:
            values[equal_to(stored, fill)] = np.nan
        return values


def _numbers(name: str, attributes: dict[str, Any], key: str) -> list[float]:
    """Return the numbers of an attribute, none where it is not there."""
    given = np.atleast_1d(attributes.get(key, []))
    if not is_number(given.dtype):
        raise DataError(f"{name}: the attribute {key} must be a number; got {attributes[key]!r}")
    return [float(number) for number in given]
