"""One forecast as a file: arrays (.npy, .npz), a map for other tools (.nc), or an animation to look at (.gif).

The same forecast makes the same bytes, with the same versions of NumPy, h5netcdf and Pillow: no file holds a date.
"""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.animation import gif
from convlstm.data.series import Axis, south_first, units_of_channels
from convlstm.whole_files import write_whole


class TargetError(ValueError):
    """A forecast cannot be written there; the message begins with the file's name."""


@dataclass(frozen=True)
class Forecast:
    """Frames that were forecast, with what is known about them.

    Attributes:
        frames: (T_out, C, H, W) float32, in the units of the data; NaN where there is nothing to forecast.
        shown: (T_in, C, H, W), the frames that were read before them.
        channels: a name for each channel, or none at all.
        variable: what the values are called, "sst".
        names: what else they are called: standard_name, "sea_surface_temperature", and long_name.
        units: of the values, "K".
        times: (T_out,), datetime64.
        clock: (T_out,), numbers with units and a calendar, where the times are none that datetime64 knows.
        y: where the rows lie.
        x: where the columns lie.
        attributes: what else a .nc file shall say, such as the model's run.
    """

    frames: NDArray[np.float32]
    shown: NDArray[np.float32]
    channels: tuple[str, ...] = ()
    variable: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    units: str = ""
    times: NDArray[np.datetime64] | None = None
    clock: Axis | None = None
    y: Axis | None = None
    x: Axis | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that all fit one another.

        Raises:
            ValueError: something does not have the shape that frames ask for.
        """
        if self.frames.ndim != 4 or 0 in self.frames.shape or self.frames.dtype != np.float32:
            raise ValueError(
                f"frames must be float32 of shape (T, C, H, W), none 0; got {self.frames.dtype} of {self.frames.shape}"
            )
        T, C, H, W = self.frames.shape
        if self.shown.shape[1:] != (C, H, W) or not len(self.shown):
            raise ValueError(f"shown must have shape (T_in, {C}, {H}, {W}) as frames have; got {self.shown.shape}")
        if len(self.channels) not in (0, C):
            raise ValueError(f"channels must name each of {C} channels, or none; got {', '.join(self.channels)}")
        if self.times is not None and self.times.shape != (T,):
            raise ValueError(f"times must have shape ({T},) as frames have; got {self.times.shape}")
        if self.times is not None and self.clock is not None:
            raise ValueError("times and clock are two ways to say the same; one must be None")
        for name, axis, right in (("clock", self.clock, T), ("y", self.y, H), ("x", self.x, W)):
            if axis is not None and axis.values.shape != (right,):
                raise ValueError(f"{name} must have shape ({right},) as frames have; got {axis.values.shape}")


def check_target(path: str | os.PathLike[str], *, sources: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Check that a forecast can be written to this file, before it is computed.

    Args:
        path: the file.
        sources: files that must stay as they are: those that the forecast is made from.

    Raises:
        TargetError: the suffix is none of .npy, .npz, .nc and .gif; the folder is missing or may not be written to; the
            file is a folder or one of the sources.
        ModuleNotFoundError: what writes such files is not installed.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in WRITERS:
        raise TargetError(f"{target}: a forecast is written as {', '.join(WRITERS)}; got {suffix or 'no suffix'!r}")
    if target.is_dir():
        raise TargetError(f"{target}: is a folder; a forecast is written to a file")
    if not target.parent.is_dir():
        raise TargetError(f"{target}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise TargetError(f"{target}: nothing may be written to the folder {target.parent}")
    for source in sources:
        if target.exists() and Path(source).exists() and target.samefile(source):
            raise TargetError(f"{target}: the forecast is made from this file; it is not written over it")
    for package in NEEDED.get(suffix, ()):
        if importlib.util.find_spec(package) is None:
            raise _missing(suffix, package)


def save_forecast(path: str | os.PathLike[str], forecast: Forecast) -> None:
    """Write a forecast; a file that exists is replaced in one step, and stays as it was where that fails.

    - ``.npy``: the frames, (T, H, W) where there is one channel, else (T, C, H, W).
    - ``.npz``: the same array as ``forecast``; where known, ``times`` (datetime64[ns]) and the map's axes under their
      names, ``latitude`` and ``longitude`` or whatever the data call them.  Of a calendar that datetime64 does not know
      ``times`` are numbers, and ``times_units`` says of what: "days since 1850-01-01 noleap".
    - ``.nc``: NetCDF-4 with CF conventions, a variable for each named channel; unnamed channels share one variable
      that has a dimension ``channel``.  Missing values are NaN, which ``_FillValue`` says.  Times keep their calendar.
    - ``.gif``: see `convlstm.animation.gif`.  North is above: where rows have units, as latitude has, and begin in the
      south, their order is turned round.

    `open_series` reads the frames of the first three back with no option where there is one variable.

    Raises:
        TargetError, ModuleNotFoundError: as `check_target`.
        OSError: the file cannot be written, as on a full disk.
    """
    check_target(path)
    target = Path(path)
    write_whole(target, WRITERS[target.suffix.lower()](forecast))


def _missing(suffix: str, package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f'a forecast as {suffix} needs {package}, which is missing; in the clone, pip install ".[files]"', name=package
    )


# Arrays ---------------------------------------------------------------------------------------------------------------


def _array(forecast: Forecast) -> NDArray[np.float32]:
    """Return what is read back by its rank alone: (T, H, W) or (T, C, H, W)."""
    return forecast.frames[:, 0] if forecast.frames.shape[1] == 1 else forecast.frames


def _npy(forecast: Forecast) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, _array(forecast), allow_pickle=False)
    return buffer.getvalue()


def _npz(forecast: Forecast) -> bytes:
    arrays: dict[str, Any] = {"forecast": _array(forecast)}
    if forecast.times is not None:
        arrays["times"] = forecast.times.astype("M8[ns]")
    if forecast.clock is not None:
        arrays["times"] = forecast.clock.values
        arrays["times_units"] = np.array(f"{forecast.clock.units} {forecast.clock.calendar}".strip())
    for name, axis in zip(_map_names(forecast), (forecast.y, forecast.x), strict=True):
        if axis is not None:
            arrays[name] = axis.values
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


RESERVED = {"time", "times", "times_units", "channel", "forecast", "file", "allow_pickle"}


def _map_names(forecast: Forecast) -> tuple[str, str]:
    """Return the names of the map's axes: the data's own, or y and x where those could not be told from others."""
    y = _plain(forecast.y.name if forecast.y else "", "y")
    x = _plain(forecast.x.name if forecast.x else "", "x")
    return ("y", "x") if y == x or RESERVED & {y, x} else (y, x)


def _plain(name: str, otherwise: str) -> str:
    """Return a name that files can bear: in both formats a slash would make a folder; HDF5 knows a dot as another."""
    return name.replace("/", "_") if name.strip(".") and name.isprintable() else otherwise


# NetCDF ---------------------------------------------------------------------------------------------------------------


def _nc(forecast: Forecast) -> bytes:
    """Return a NetCDF-4 file, made in memory: HDF5 leaves half a file, open, where the disk is full."""
    import h5netcdf  # type: ignore[import-untyped, unused-ignore]

    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w", track_order=False) as file:  # with the order HDF5 1.14 writes the time of day
        file.attrs["Conventions"] = "CF-1.8"
        file.attrs["title"] = " of ".join(filter(None, ("Forecast", _plain(forecast.variable, ""))))
        for key, text in forecast.attributes.items():
            file.attrs[key] = text
        _add_time(file, forecast)
        _add_map(file, forecast)
        _add_values(file, forecast)
    return buffer.getvalue()


def _add_time(file: Any, forecast: Forecast) -> None:
    file.dimensions["time"] = len(forecast.frames)
    if forecast.times is not None:
        clock = _counted(forecast.times)
    elif forecast.clock is not None:
        clock = forecast.clock
    else:
        return
    variable = file.create_variable("time", ("time",), data=np.asarray(clock.values))
    for key, text in (("units", clock.units), ("calendar", clock.calendar), ("standard_name", "time"), ("axis", "T")):
        if text:
            variable.attrs[key] = text


def _counted(times: NDArray[np.datetime64]) -> Axis:
    """Return times as numbers of seconds, or of nanoseconds where seconds are not exact."""
    nanoseconds = times.astype("M8[ns]").astype(np.int64)
    is_whole = not (nanoseconds % 1_000_000_000).any()
    values = nanoseconds // 1_000_000_000 if is_whole else nanoseconds
    unit = "seconds" if is_whole else "nanoseconds"
    return Axis("time", values, f"{unit} since 1970-01-01 00:00:00", "proleptic_gregorian")


def _add_map(file: Any, forecast: Forecast) -> None:
    standard = {"lat": "latitude", "latitude": "latitude", "lon": "longitude", "longitude": "longitude"}
    axes = ((forecast.y, "Y"), (forecast.x, "X"))
    for name, (axis, letter), size in zip(_map_names(forecast), axes, forecast.frames.shape[2:], strict=True):
        file.dimensions[name] = size
        if axis is None:
            continue
        variable = file.create_variable(name, (name,), data=np.asarray(axis.values))
        variable.attrs["axis"] = letter
        if axis.units:
            variable.attrs["units"] = axis.units
        if name.lower() in standard:
            variable.attrs["standard_name"] = standard[name.lower()]


def _add_values(file: Any, forecast: Forecast) -> None:
    rows, columns = _map_names(forecast)
    channels = [_plain(name, "") for name in forecast.channels]
    taken = {"", "time", rows, columns}
    if channels and len(set(channels)) == len(channels) and not taken & set(channels):
        for c, (name, units) in enumerate(zip(channels, units_of_channels(forecast.units, len(channels)), strict=True)):
            _add_variable(
                file, name, ("time", rows, columns), forecast.frames[:, c], {**forecast.names, "units": units}
            )
        return
    attributes = {**forecast.names, "units": forecast.units}
    name = _plain(forecast.variable, "forecast")
    name = "forecast" if name in {*taken, "channel"} else name
    if len(forecast.frames[0]) == 1:
        _add_variable(file, name, ("time", rows, columns), forecast.frames[:, 0], attributes)
        return
    file.dimensions["channel"] = len(forecast.frames[0])
    _add_variable(file, name, ("time", "channel", rows, columns), forecast.frames, attributes)


def _add_variable(
    file: Any, name: str, axes: tuple[str, ...], values: NDArray[np.float32], attributes: Mapping[str, str]
) -> None:
    variable = file.create_variable(name, axes, data=values, fillvalue=np.float32(np.nan))
    for key, text in attributes.items():
        if text:
            variable.attrs[key] = text


# Pictures -------------------------------------------------------------------------------------------------------------


def _gif(forecast: Forecast) -> bytes:
    rows = slice(None, None, -1 if south_first(forecast.y) else 1)
    return gif(forecast.shown[:, :, rows], forecast.frames[:, :, rows], forecast.channels)


WRITERS: dict[str, Callable[[Forecast], bytes]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".nc": _nc,
    ".gif": _gif,
}
NEEDED = {".nc": ("h5py", "h5netcdf"), ".gif": ("PIL",)}
