"""Frames in NetCDF files of both formats: which variable, which dimensions, what is missing, what time it is."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm.data.netcdf import open_netcdf
from convlstm.data.series import DataError, Series, Wanted

xarray = pytest.importorskip("xarray", reason="xarray is not installed")
for package in ("h5netcdf", "scipy"):
    pytest.importorskip(package, reason=f"{package} is not installed")

FRAMES = np.arange(6 * 4 * 5, dtype=np.float32).reshape(6, 4, 5)
MAP = ("time", "lat", "lon")
SINCE = "days since 2001-01-01"
OPEN = "/proc/self/fd"


def open_(path: Path, **wanted: Any) -> Series:
    return open_netcdf(path, path.name, Wanted(**wanted))


def save(path: Path, variables: dict[str, Any], classic: bool = False, **encoding: Any) -> Path:
    kind: dict[str, Any] = {"engine": "h5netcdf"}
    if classic:
        kind = {"engine": "scipy", "format": "NETCDF3_64BIT"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        xarray.Dataset(variables).to_netcdf(path, encoding=encoding, **kind)
    return path


def sea(**more: Any) -> dict[str, Any]:
    """A map of temperature over six days, of which one pixel is land."""
    values = FRAMES.copy()
    values[:, 1, 2] = np.nan
    return {
        "sst": (MAP, values, {"units": "K"}),
        "time": ("time", np.arange(6), {"units": SINCE}),
        "lat": ("lat", np.array([30, 20, 10, 0], np.float32), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(5.0), {"units": "degrees_east"}),
        **more,
    }


@pytest.mark.parametrize("classic", [False, True])
def test_a_map_over_time_is_read_with_all_that_is_said_of_it(tmp_path: Path, classic: bool) -> None:
    extra = {"time_bnds": (("time", "two"), np.zeros((6, 2))), "land": (MAP[1:], FRAMES[0]), "crs": ((), 1)}
    series = open_(save(tmp_path / "a.nc", sea(**extra), classic))
    assert (series.name, series.shape, series.runs, series.units) == ("a.nc", (6, 1, 4, 5), (range(6),), "K")
    assert series.times is not None
    assert series.times.dtype == "M8[ns]"
    np.testing.assert_array_equal(series.times, np.arange("2001-01-01", "2001-01-07", dtype="M8[D]"))
    assert series.y is not None
    assert series.x is not None
    assert (series.y.name, series.y.values.tolist(), series.y.units) == ("lat", [30, 20, 10, 0], "degrees_north")
    assert (series.x.name, series.x.values.tolist(), series.x.units) == ("lon", [0, 1, 2, 3, 4], "degrees_east")
    assert (series.clock, series.files, series.channels) == (None, (tmp_path / "a.nc",), ())
    np.testing.assert_array_equal(series.read(2, 5), sea()["sst"][1][2:5, None])


@pytest.mark.parametrize("classic", [False, True])
def test_packed_numbers_are_unpacked_and_filled_ones_missing(tmp_path: Path, classic: bool) -> None:
    packing = {"dtype": "i2", "scale_factor": 0.5, "add_offset": 100.0, "_FillValue": -1}
    series = open_(save(tmp_path / "a.nc", sea(), classic, sst=packing), missing=119)
    right = sea()["sst"][1][:, None]
    right[5, 0, 3, 4] = np.nan
    np.testing.assert_array_equal(series.read(0, 6), right)


@pytest.mark.parametrize(
    ("dims", "sizes", "axes"),
    [
        (("time", "level", "lat", "lon"), (6, 1, 4, 5), "TCHW"),
        (("level", "member", "time", "lat", "lon"), (1, 1, 6, 4, 5), "NCTHW"),
        (("lat", "lon", "time"), (4, 5, 6), "HWT"),
        (("time", "lon", "lat"), (6, 5, 4), "TWH"),  # told by their attributes
        (("time", "lat", "lon", "level"), (6, 4, 5, 1), "THWC"),
    ],
)
def test_dimensions_in_any_order(tmp_path: Path, dims: Any, sizes: Any, axes: str) -> None:
    order = [letter for letter in axes if letter in "THW"]
    array = FRAMES.transpose(["THW".index(letter) for letter in order]).reshape(sizes)
    marked = {
        "lat": ("lat", np.arange(4.0), {"standard_name": "latitude"}),
        "lon": ("lon", np.arange(5.0), {"axis": "X"}),
    }
    series = open_(save(tmp_path / "a.nc", {"sst": (dims, array), **marked}))
    assert series.shape == (6, 1, 4, 5)
    np.testing.assert_array_equal(series.read(0, 6), FRAMES[:, None])


def test_one_more_dimension_is_the_channels(tmp_path: Path) -> None:
    values = np.stack([FRAMES, -FRAMES], axis=1)
    level = ("level", np.array([500, 850]))
    series = open_(save(tmp_path / "a.nc", {"t": (("time", "level", "y", "x"), values), "level": level}))
    assert series.channels == ("level 500", "level 850")
    np.testing.assert_array_equal(series.read(1, 3), values[1:3])
    assert open_(save(tmp_path / "b.nc", {"t": (("time", "level", "y", "x"), values)})).channels == ()


@pytest.mark.parametrize("sizes", [(2, 65), (2, 3, 2)])
def test_more_dimensions_than_that_are_refused(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    dims = (*("time", "level", "member")[: len(sizes)], "y", "x")
    path = save(tmp_path / "a.nc", {"t": (dims, np.zeros((*sizes, 2, 2)))})
    with pytest.raises(DataError, match=r"^a\.nc: t: beside time, y and x it has level .*data\.axes"):
        open_(path)
    if len(sizes) == 2:
        assert open_(path, axes="TCHW").shape == (2, 65, 2, 2)


def test_several_variables_are_channels(tmp_path: Path) -> None:
    wind = {"u": (MAP, FRAMES, {"units": "m s-1"}), "v": (MAP, -FRAMES, {"units": "m s-1"}), "p": (MAP, FRAMES)}
    path = save(tmp_path / "a.nc", sea() | wind | {"w": (("time", "lat"), FRAMES[:, :, 0])})
    series = open_(path, variable="v, u")
    assert (series.channels, series.units, series.shape) == (("v", "u"), "m s-1", (6, 2, 4, 5))
    np.testing.assert_array_equal(series.read(1, 6), np.stack([-FRAMES, FRAMES], axis=1)[1:])
    assert open_(path, variable="u,sst").units == "m s-1, K"
    assert open_(path, variable="u,v", axes="THW").shape == (6, 2, 4, 5)
    with pytest.raises(DataError, match=r"w has axes \(time 6, lat 4\); as channels with u it must have \(time 6, lat"):
        open_(path, variable="u,w")
    with pytest.raises(
        DataError, match=r"holds 4 variables that can be frames; data\.variable chooses one, .*sst \(time"
    ):
        open_(path)
    with pytest.raises(DataError, match=r"has no variable 'ssst'; the nearest is 'sst'"):
        open_(path, variable="u,ssst")
    with pytest.raises(DataError, match=r"^a\.nc: w: has axes time, lat; right are one of time and two of a map"):
        open_(path, variable="w")


def test_variables_that_have_channels_cannot_be_some(tmp_path: Path) -> None:
    both = {name: (("time", "level", "y", "x"), np.zeros((2, 3, 2, 2))) for name in "ab"}
    with pytest.raises(DataError, match=r"^a\.nc: a, b: cannot be one channel each"):
        open_(save(tmp_path / "a.nc", both), variable="a,b")


def test_without_time_the_axes_must_be_said(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nc", {"t": (("depth", "y", "x"), FRAMES)})
    with pytest.raises(DataError, match=r"no variable over time, y and x \(data\.axes .* t \(depth 6, y 4, x 5\)"):
        open_(path)
    series = open_(path, axes="THW")
    assert (series.times, series.shape) == (None, (6, 1, 4, 5))
    sequences = open_(save(tmp_path / "b.nc", sea(t=(("run", *MAP), np.zeros((2, 6, 4, 5))))), axes="NTHW")
    assert (sequences.runs, sequences.times) == ((range(6), range(6, 12)), None)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (FRAMES[:0], "shape is .0, 4, 5.*axis T has length 0"),
        (np.full((2, 2, 2), b"a"), r"t: has dtype .*right are bool"),
    ],
)
def test_what_cannot_be_frames_is_refused(tmp_path: Path, array: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"^a.nc: .*{words}"):
        open_(save(tmp_path / "a.nc", {"t": (("time", "y", "x"), array)}), variable="t")


# Time -----------------------------------------------------------------------------------------------------------------


def test_a_hole_in_time_ends_a_run(tmp_path: Path) -> None:
    days = np.array([0, 1, 2, 9, 10, 11])
    series = open_(save(tmp_path / "a.nc", sea(time=("time", days, {"units": SINCE}))))
    assert series.runs == (range(3), range(3, 6))


def test_a_day_that_stands_twice_is_refused(tmp_path: Path) -> None:
    days = np.array([0, 1, 1, 2, 3, 4])
    with pytest.raises(DataError, match=r"^a\.nc: times must increase; frames 1 and 2 have the same time, 2001-01-02"):
        open_(save(tmp_path / "a.nc", sea(time=("time", days, {"units": SINCE}))))


@pytest.mark.parametrize(
    "units",
    [
        {"units": SINCE, "calendar": "360_day"},
        {"units": SINCE, "calendar": "noleap"},
        {"units": "days since 0001-01-01", "calendar": "365_day"},
        {"units": "fortnights since the flood"},
        {"units": "months"},
        {},
    ],
)
def test_times_that_no_datetime64_holds_are_a_clock(tmp_path: Path, units: dict[str, str]) -> None:
    days = np.array([0, 1, 2, 3, 9, 10])
    series = open_(save(tmp_path / "a.nc", sea(time=("time", days, units))))
    assert series.times is None
    assert series.clock is not None
    assert series.clock.values.tolist() == days.tolist()
    assert (series.clock.units, series.clock.calendar) == (units.get("units", ""), units.get("calendar", ""))
    assert series.runs == (range(4), range(4, 6))


def test_years_beyond_nanoseconds_are_a_clock(tmp_path: Path) -> None:
    series = open_(save(tmp_path / "a.nc", sea(time=("time", np.arange(6), {"units": "days since 1066-10-14"}))))
    assert (series.times, series.runs) == (None, (range(6),))


def test_one_variable_has_its_names(tmp_path: Path) -> None:
    said = {"units": "K\0", "standard_name": "sea_surface_temperature", "long_name": "warmth\n", "comment": "mine"}
    two = sea(sst=(MAP, FRAMES, said), ice=(MAP, FRAMES))
    path = save(tmp_path / "a.nc", two, classic=True)
    series = open_(path, variable="sst")
    assert (series.variable, series.units) == ("sst", "K")
    assert series.names == {"standard_name": "sea_surface_temperature", "long_name": "warmth"}
    assert (open_(path, variable="ice").variable, open_(path, variable="ice").names) == ("ice", {})
    both = open_(path, variable="ice,sst")
    assert (both.variable, both.names, both.channels) == ("", {}, ("ice", "sst"))


def test_the_coordinate_that_says_since_when_is_the_time(tmp_path: Path) -> None:
    """As NEMO writes it: the dimension's own coordinate is a counter of zeros."""
    counter = {"time": ("time", np.zeros(6), {"axis": "T"}), "centred": ("time", np.arange(6.0), {"units": SINCE})}
    series = open_(save(tmp_path / "a.nc", sea() | counter))
    assert series.times is not None
    assert series.times[5] == np.datetime64("2001-01-06")
    reference = {"reference": ("time", np.zeros(6), {"units": SINCE})}  # stands before the dimension's own
    assert open_(save(tmp_path / "b.nc", reference | sea())).times is not None


def test_a_dimension_of_any_name_is_time_if_its_coordinate_is(tmp_path: Path) -> None:
    forecast = {"v": (("lead", "lat", "lon"), FRAMES), "lead": ("lead", np.arange(6), {"units": SINCE})}
    assert open_(save(tmp_path / "a.nc", forecast)).times is not None
    assert open_(save(tmp_path / "b.nc", {"v": (("T", "y", "x"), FRAMES)})).times is None  # by its name alone


def test_a_file_of_a_folder_may_be_one_map_at_a_time(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nc", {"v": (MAP[1:], FRAMES[0]), "time": ((), 3, {"units": SINCE})})
    series = open_(path, in_folder=True)
    assert series.times is not None
    assert (series.times.tolist(), series.shape) == ([np.datetime64("2001-01-04", "ns").astype(int)], (1, 1, 4, 5))
    np.testing.assert_array_equal(series.read(0, 1), FRAMES[:1, None])
    with pytest.raises(DataError, match="holds no variable over time, y and x"):
        open_(path)


# Files ----------------------------------------------------------------------------------------------------------------


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """A variable of 64 GiB, of which one frame is written."""
    import h5netcdf  # type: ignore[import-untyped, unused-ignore]

    with h5netcdf.File(tmp_path / "a.nc", "w") as file:
        file.dimensions = {"time": 2**24, "y": 32, "x": 32}
        variable = file.create_variable("v", ("time", "y", "x"), "f4", chunks=(1, 32, 32))
        variable[9_000_000] = 3
    assert (open_(tmp_path / "a.nc").read(8_999_999, 9_000_001)[:, 0] == [[[0]], [[3]]]).all()


def test_a_file_cut_short_is_one_error_and_no_print(tmp_path: Path) -> None:
    """In a process of its own, since pytest catches what a destructor raises."""
    path = save(tmp_path / "a.nc", sea())
    path.write_bytes(path.read_bytes()[:-100])
    program = (
        "import sys, convlstm.data.opening as o\ntry: o.open_series(sys.argv[1])\nexcept ValueError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be read: ")
    assert "truncated file" in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(not Path(OPEN).exists(), reason="the system does not list a process's open files")
@pytest.mark.parametrize("classic", [False, True])
def test_the_file_is_closed_with_the_series(tmp_path: Path, classic: bool) -> None:
    path = save(tmp_path / "a.nc", sea(), classic)
    before = len(os.listdir(OPEN))
    series = open_(path)
    series.read(0, 1)
    assert len(os.listdir(OPEN)) > before
    del series
    assert len(os.listdir(OPEN)) == before
    with pytest.raises(DataError):
        open_(path, variable="v")
    assert len(os.listdir(OPEN)) == before


def test_a_damaged_chunk_is_found_when_it_is_read(tmp_path: Path) -> None:
    import h5py  # type: ignore[import-untyped, unused-ignore]

    path = save(tmp_path / "a.nc", sea(), sst={"fletcher32": True, "chunksizes": (1, 4, 5)})
    with h5py.File(path) as file:
        at = file["sst"].id.get_chunk_info(3).byte_offset
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    series = open_(path)
    assert series.read(0, 3).shape == (3, 1, 4, 5)
    with pytest.raises(DataError, match=r"^a\.nc: sst: cannot be read: "):
        series.read(2, 4)


@pytest.mark.parametrize("package", ["xarray", "h5netcdf", "h5py"])
def test_without_a_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    path = save(tmp_path / "a.nc", sea())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf'{package} is missing; in the clone, pip install "\.\[files\]"'):
        open_(path)
