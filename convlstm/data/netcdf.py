"""Frames in NetCDF files, read and decoded by xarray: fill values, packed numbers, times."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.data.layout import MOST_CHANNELS, Array, Layout, laid_out, series_of, unknown_variable
from convlstm.data.series import Axis, DataError, Series, Wanted, damage_named, runs_of_times
from convlstm.data.values import is_number

# What files begin with; scipy reads the classic format, h5netcdf the one that lies in HDF5.
ENGINES = {b"CDF\x01": "scipy", b"CDF\x02": "scipy", b"\x89HDF": "h5netcdf"}
NOT_READ = {
    b"CDF\x05": "NetCDF in the format CDF-5, which is not read; nccopy -k nc4 converts it",
    b"\x0e\x03\x13\x01": "an HDF4 file, not NetCDF; ncdump or h4tonccf_nc4 converts it",
    b"GRIB": "a GRIB file, not NetCDF; grib_to_netcdf or cdo converts it",
}

# Attributes by which the conventions for climate and forecast (CF) tell rows from columns.
ROWS = {"axis": ("Y",), "standard_name": ("latitude", "grid_latitude", "projection_y_coordinate")}
COLUMNS = {"axis": ("X",), "standard_name": ("longitude", "grid_longitude", "projection_x_coordinate")}


# In place of a dimension: what stands for time in a file of one frame.
ONE_FRAME = "(one frame)"


@dataclass(frozen=True)
class _Roles:
    """Which dimension of a variable is what; "" where there is none."""

    letters: str  # one for each dimension, as in a layout
    time: str
    channels: str
    y: str
    x: str


def open_netcdf(path: Path, name: str, wanted: Wanted) -> Series:
    """Open variables of a NetCDF file: those that are named, or the only one over time, y and x.

    Raises:
        DataError: it is not a sound file of that kind, holds no such variable or several, or its times do not increase.
        ModuleNotFoundError: xarray, h5netcdf or scipy is not installed.
    """
    dataset = _opened(path, name)
    times = _time_coordinates(dataset, wanted)
    variables = _chosen(name, dataset, times, wanted)
    dims = dataset[variables[0]].dims
    for other in variables[1:]:
        if dataset[other].dims != dims:
            raise DataError(
                f"{name}: {other} has axes {_described(dataset[other])}; as channels with {variables[0]} it must have "
                f"{_described(dataset[variables[0]])}"
            )
    label = f"{name}: {', '.join(variables)}"
    arrays = [Array(dataset[each].shape, dataset[each].dtype) for each in variables]
    roles = _roles(label, dataset, dims, times, wanted)
    layouts = [
        _laid_out(f"{name}: {each}", array, roles, wanted) for each, array in zip(variables, arrays, strict=True)
    ]
    layout, fields = layouts[0], _metadata(name, dataset, roles, times)
    if len(variables) > 1:
        if "C" in layout.axes:
            raise DataError(f"{label}: cannot be one channel each; they have an axis of channels, {roles.channels}")
        layout = Layout(layout.axes + "C", (*layout.sizes, len(variables)))
        fields["channels"] = tuple(variables)
    else:
        fields |= {"variable": variables[0], "names": _names(dataset, variables[0])}
    fields["units"] = _units(dataset, variables)
    take = _Taking(dataset, label, variables)
    return series_of(name, layout, take, wanted.missing, files=(path,), **fields)


def _opened(path: Path, name: str) -> Any:
    with damage_named(name), path.open("rb") as stream:
        start = stream.read(8)
    if start[:4] not in ENGINES:
        raise DataError(f"{name}: is {NOT_READ.get(start[:4], f'no NetCDF file: it begins with {start!r}')}")
    engine = ENGINES[start[:4]]
    try:
        for package in ("h5py", "h5netcdf") if engine == "h5netcdf" else (engine,):
            importlib.import_module(package)
        import xarray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'NetCDF files are read by xarray, and {error.name} is missing; in the clone, pip install ".[files]"',
            name=error.name,
        ) from error
    with damage_named(name):
        if engine == "h5netcdf":
            _try_hdf5(path)
        # Times are decoded later, and only those of the frames.
        return xarray.open_dataset(path, engine=engine, decode_times=False, decode_coords="all", cache=False)


def _try_hdf5(path: Path) -> None:
    """Open the file as h5netcdf will: where that fails, h5netcdf prints a traceback of its own beside the error."""
    import h5py  # type: ignore[import-untyped, unused-ignore]

    with h5py.File(path, "r") as file:
        file.attrs.get("_nc3_strict")


# Which variables and dimensions ---------------------------------------------------------------------------------------


def _time_coordinates(dataset: Any, wanted: Wanted) -> dict[str, str]:
    """Return the dimensions of time, and for each the variable that holds its times, "" if there is none.

    Of a file in a folder also the time of its one frame, under `ONE_FRAME`.
    """
    found = {}
    for dimension in dataset.sizes:
        along = [n for n, v in dataset.variables.items() if v.dims == (dimension,) and _tells_time(v)]
        along.sort(key=str(dimension).__ne__)  # its own coordinate first
        if along:
            found[dimension] = next((n for n in along if _counts_since(dataset.variables[n])), along[0])
        elif str(dimension).lower() in ("time", "t"):
            own = dataset.variables.get(dimension)
            found[dimension] = dimension if own is not None and is_number(own.dtype) else ""
    single = [n for n, v in dataset.variables.items() if v.dims == () and _tells_time(v)]
    if single and wanted.in_folder:
        found[ONE_FRAME] = "time" if "time" in single else single[0]
    return found


def _tells_time(variable: Any) -> bool:
    attributes = variable.attrs
    named = attributes.get("standard_name") == "time" or attributes.get("axis") == "T"
    return is_number(variable.dtype) and (named or _counts_since(variable))


def _counts_since(variable: Any) -> bool:
    return " since " in str(variable.attrs.get("units", ""))


def _chosen(name: str, dataset: Any, times: dict[str, str], wanted: Wanted) -> list[str]:
    """Return the variables that are meant, each a channel if they are several."""
    if wanted.variable:
        variables = [variable.strip() for variable in wanted.variable.split(",")]
        for variable in variables:
            if variable not in dataset.variables:
                raise unknown_variable(name, variable, [str(each) for each in dataset.data_vars])
        return variables

    def can_be_frames(variable: Any) -> bool:
        if wanted.axes:
            return len(variable.dims) == len(wanted.axes)
        return len(variable.dims) >= 3 and sum(dimension in times for dimension in variable.dims) == 1

    numbers = {str(key): variable for key, variable in dataset.data_vars.items() if is_number(variable.dtype)}
    fitting = [key for key, variable in numbers.items() if can_be_frames(variable)]
    if ONE_FRAME in times and not fitting:
        fitting = [key for key, variable in numbers.items() if len(variable.dims) == 2]
    if len(fitting) == 1:
        return fitting
    listed = "; ".join(f"{key} {_described(numbers[key])}" for key in (fitting or numbers)) or "no numbers"
    if fitting:
        raise DataError(
            f"{name}: holds {len(fitting)} variables that can be frames; data.variable chooses one, or several by "
            f"commas: {listed}"
        )
    raise DataError(
        f"{name}: holds no variable over time, y and x (data.axes can say that another axis is T); it holds {listed}"
    )


def _described(variable: Any) -> str:
    return "(" + ", ".join(f"{dim} {size}" for dim, size in zip(variable.dims, variable.shape, strict=True)) + ")"


def _roles(name: str, dataset: Any, dims: Sequence[str], times: dict[str, str], wanted: Wanted) -> _Roles:
    """Return which dimension is what: by the user's letters, else by what the file says of each and by their order."""
    if wanted.axes:
        by_letter = dict(zip(wanted.axes, dims, strict=False))
        time, channels, y, x = (by_letter.get(letter, "") for letter in "TCHW")
        return _Roles(wanted.axes, "" if "N" in by_letter else time, channels, y, x)
    found = [dim for dim in dims if dim in times] or [ONE_FRAME] * (ONE_FRAME in times)
    rest = [dim for dim in dims if dim not in found]
    if len(found) != 1 or len(rest) < 2:
        raise DataError(
            f"{name}: has axes {', '.join(dims) or 'none'}; right are one of time and two of a map, or set data.axes"
        )
    y, x = _map_dimensions(dataset, rest)
    others = [dim for dim in rest if dim not in (y, x) and dataset.sizes[dim] > 1]
    if len(others) > 1 or (others and dataset.sizes[others[0]] > MOST_CHANNELS):
        sizes = ", ".join(f"{dim} {dataset.sizes[dim]}" for dim in others)
        raise DataError(
            f"{name}: beside time, {y} and {x} it has {sizes}; one axis of at most {MOST_CHANNELS} can be channels, "
            "or set data.axes"
        )
    channels = others[0] if others else ""
    letters = {found[0]: "T", y: "H", x: "W", channels: "C"}
    return _Roles("".join(letters.get(dim, "-") for dim in dims), found[0], channels, y, x)


def _map_dimensions(dataset: Any, dims: Sequence[str]) -> tuple[str, str]:
    """Return the dimensions of rows and columns: those that say so of themselves, else the last two."""

    def marked(marks: dict[str, tuple[str, ...]]) -> list[str]:
        held = {dim: dataset.variables[dim].attrs for dim in dims if dim in dataset.variables}
        return [dim for dim, given in held.items() if any(given.get(key) in right for key, right in marks.items())]

    rows, columns = marked(ROWS), marked(COLUMNS)
    return (rows[0], columns[0]) if len(rows) == len(columns) == 1 and rows != columns else (dims[-2], dims[-1])


def _laid_out(name: str, array: Array, roles: _Roles, wanted: Wanted) -> Layout:
    if wanted.axes:
        return laid_out(name, array, wanted)
    kept = [(letter, size) for letter, size in zip(roles.letters, array.shape, strict=True) if letter != "-"]
    axes = "".join(letter for letter, _ in kept)
    laid_out(name, Array(tuple(size for _, size in kept), array.dtype), Wanted(axes=axes, in_folder=wanted.in_folder))
    return Layout(roles.letters, array.shape)


# What it says of them -------------------------------------------------------------------------------------------------


def _metadata(name: str, dataset: Any, roles: _Roles, times: dict[str, str]) -> dict[str, Any]:
    """Return the fields of a series that tell of time, place and channels."""
    with damage_named(name):
        y, x, channels = (_axis(dataset, dimension) for dimension in (roles.y, roles.x, roles.channels))
        fields: dict[str, Any] = {"y": y, "x": x}
        if channels is not None:
            fields["channels"] = tuple(f"{channels.name} {value}" for value in channels.values.tolist())
        variable = times.get(roles.time)
        decoded, clock = _decoded_times(dataset, variable) if variable else (None, None)
    known = decoded if clock is None else clock.values
    if known is not None:
        fields |= {"times": decoded, "clock": clock, "runs": runs_of_times(name, known)}
    return fields


def _units(dataset: Any, variables: Sequence[str]) -> str:
    units = [_text(dataset, variable, "units") for variable in variables]
    return units[0] if len(set(units)) == 1 else ", ".join(each or "1" for each in units)


def _names(dataset: Any, variable: str) -> dict[str, str]:
    names = {key: _text(dataset, variable, key) for key in ("standard_name", "long_name")}
    return {key: name for key, name in names.items() if name}


def _text(dataset: Any, variable: str, key: str) -> str:
    """Return an attribute without what is not printable, such as the zero that ends it in C; "" if it has none."""
    return "".join(filter(str.isprintable, str(dataset.variables[variable].attrs.get(key, ""))))


def _axis(dataset: Any, dimension: str) -> Axis | None:
    held = dataset.variables.get(dimension)
    if held is None or held.dims != (dimension,) or not is_number(held.dtype):
        return None
    return Axis(dimension, np.array(held.values), _text(dataset, dimension, "units"))


def _decoded_times(dataset: Any, variable: str) -> tuple[NDArray[np.datetime64] | None, Axis | None]:
    """Return times as dates, or, of a calendar or a year that datetime64 has not, as numbers."""
    import xarray

    alone = xarray.Dataset({"times": dataset.variables[variable]})
    units, calendar = (_text(dataset, variable, key) for key in ("units", "calendar"))
    clock = Axis(variable, np.array(alone["times"].values, np.float64, ndmin=1), units, calendar)
    try:
        dates = np.atleast_1d(xarray.decode_cf(alone)["times"].values)
    except (ValueError, OverflowError, ImportError):  # it would need the package cftime
        return None, clock
    if dates.dtype.kind != "M":
        return None, clock
    exact = dates.astype("datetime64[ns]")
    return (exact, None) if (exact.astype(dates.dtype) == dates).all() else (None, clock)


# Reading --------------------------------------------------------------------------------------------------------------


class _Taking:
    """Cuts variables, several along a last axis of channels; the file is closed when nobody holds this any longer."""

    def __init__(self, dataset: Any, name: str, variables: Sequence[str]) -> None:
        self._variables, self._name = [dataset.variables[variable] for variable in variables], name
        weakref.finalize(self, dataset.close)

    def __call__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        with damage_named(self._name):
            if len(self._variables) == 1:
                return np.asarray(self._variables[0][index].values)
            return np.stack([variable[index[:-1]].values for variable in self._variables], axis=-1)
