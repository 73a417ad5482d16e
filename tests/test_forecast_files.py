from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.animation import gif
from convlstm.data.opening import open_series
from convlstm.data.series import Axis
from convlstm.forecast_files import Forecast, TargetError, check_target, save_forecast

T, H, W = 3, 4, 5
SUFFIXES = [".npy", ".npz", ".nc", ".gif"]
TIMES: Any = np.array(["2006-04-16T00", "2006-05-16T12", "2006-06-16T00"], "M8[ns]")


def frames(count: int = T, channels: int = 1, seed: int = 0) -> Any:
    """Return temperatures, one of them missing; they may not be changed."""
    values = 280 + 10 * np.random.default_rng(seed).random((count, channels, H, W), np.float32)
    values[:, :, 1, 2] = np.nan
    values.setflags(write=False)
    return values


def forecast(count: int = 1, **known: Any) -> Forecast:
    return Forecast(frames(T, count), frames(2, count, seed=1), **known)


def on_a_map(**known: Any) -> Forecast:
    rows = Axis("latitude", np.linspace(-5, 4, H, dtype=np.float32), "degrees_north")
    columns = Axis("longitude", np.linspace(0, 9, W), "degrees_east")
    known = {"variable": "sst", "units": "K", "times": TIMES, "y": rows, "x": columns, **known}
    return forecast(attributes={"source": "monthly.nc", "run": "runs/sst-1"}, **known)


def read_back(path: Path, **options: Any) -> tuple[Any, Any]:
    series = open_series(path, **options)
    return series, series.read(0, series.shape[0])


# What is read back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".nc"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_frames_are_read_back_without_an_option(suffix: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    save_forecast(path, forecast(channels))
    series, found = read_back(path)
    assert np.array_equal(found, frames(T, channels), equal_nan=True)
    assert series.runs == (range(T),)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_every_shape_is_read_back(count: int, channels: int, height: int, width: int, is_dated: bool) -> None:
    values = np.random.default_rng(0).random((count, channels, height, width), np.float32)
    times = TIMES[:count] if is_dated else None
    with TemporaryDirectory() as folder:
        for suffix in (".npy", ".npz", ".nc"):
            save_forecast(Path(folder, f"o{suffix}"), Forecast(values, values, times=times))
            assert np.array_equal(read_back(Path(folder, f"o{suffix}"))[1], values)


def test_arrays_have_the_times_and_the_map(tmp_path: Path) -> None:
    save_forecast(tmp_path / "out.npz", on_a_map())
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"forecast", "times", "latitude", "longitude"}
        assert arrays["forecast"].shape == (T, H, W)
        assert arrays["times"].dtype == np.dtype("M8[ns]")
        assert (arrays["times"] == TIMES).all()
        assert np.array_equal(arrays["longitude"], np.linspace(0, 9, W))
    _, found = read_back(tmp_path / "out.npz", variable="forecast")
    assert np.array_equal(found, frames(), equal_nan=True)


def test_a_map_tells_what_it_is(tmp_path: Path) -> None:
    save_forecast(tmp_path / "out.nc", on_a_map())
    series, found = read_back(tmp_path / "out.nc")
    assert np.array_equal(found, frames(), equal_nan=True)
    assert series.units == "K"
    assert (series.times == TIMES).all()
    for axis, right in ((series.y, on_a_map().y), (series.x, on_a_map().x)):
        assert (axis.name, axis.units) == (right.name, right.units)  # type: ignore[union-attr]
        assert np.array_equal(axis.values, right.values)  # type: ignore[union-attr]


def test_other_tools_read_the_map(tmp_path: Path) -> None:
    """xarray decodes by the conventions."""
    xarray = pytest.importorskip("xarray")
    save_forecast(tmp_path / "out.nc", on_a_map())
    with xarray.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as data:
        assert data.sst.dims == ("time", "latitude", "longitude")
        assert data.sst.dtype == np.float32
        assert np.isnan(data.sst.encoding["_FillValue"])
        assert (data.time.values == TIMES).all()
        assert data.time.encoding["calendar"] == "proleptic_gregorian"
        assert data.latitude.attrs == {"axis": "Y", "units": "degrees_north", "standard_name": "latitude"}
        assert data.longitude.attrs == {"axis": "X", "units": "degrees_east", "standard_name": "longitude"}
        right = {"title": "Forecast of sst", "source": "monthly.nc", "run": "runs/sst-1", "Conventions": "CF-1.8"}
        assert data.attrs == right


@pytest.mark.parametrize("step", [1, 10**9, 86_400 * 10**9])
def test_times_are_exact(step: int, tmp_path: Path) -> None:
    times: Any = (1_600_000_000_000_000_000 + step * np.arange(T)).astype("M8[ns]")
    save_forecast(tmp_path / "out.nc", on_a_map(times=times))
    assert (read_back(tmp_path / "out.nc")[0].times == times).all()


CLOCKS = [
    Axis("time", np.array([15.5, 45.0, 74.5]), "days since 2001-01-01", "noleap"),
    Axis("time_centered", np.array([15.0, 45.0, 75.0]), "days since 2001-01-01 12:00:00", "360_day"),
    Axis("time", np.array([1.0, 2.0, 3.0]), "days since 1066-10-14"),
    Axis("t", np.array([1.0, 2.0, 3.0]), "months"),
    Axis("t", np.array([1.0, 2.0, 3.0])),
]


@pytest.mark.parametrize("clock", CLOCKS, ids=["noleap", "360_day", "1066", "months", "numbers"])
def test_other_calendars_are_kept(clock: Axis, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    made = on_a_map(times=None, clock=clock)
    save_forecast(tmp_path / "out.nc", made)
    found = read_back(tmp_path / "out.nc")[0].clock
    assert (found.name, found.units, found.calendar) == ("time", clock.units, clock.calendar)
    assert found.values.tolist() == clock.values.tolist()
    with xarray.open_dataset(tmp_path / "out.nc", engine="h5netcdf", decode_times=False) as data:
        assert data.time.values.tolist() == clock.values.tolist()
        texts = {"units": clock.units, "calendar": clock.calendar, "standard_name": "time", "axis": "T"}
        assert data.time.attrs == {key: text for key, text in texts.items() if text}
    save_forecast(tmp_path / "again.nc", made)
    assert (tmp_path / "out.nc").read_bytes() == (tmp_path / "again.nc").read_bytes()


def test_arrays_have_other_calendars_too(tmp_path: Path) -> None:
    save_forecast(tmp_path / "out.npz", on_a_map(times=None, clock=CLOCKS[0], y=Axis("times_units", np.arange(H))))
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"forecast", "times", "times_units", "y", "x"}
        assert arrays["times"].tolist() == CLOCKS[0].values.tolist()
        assert str(arrays["times_units"]) == "days since 2001-01-01 noleap"


def test_a_variable_keeps_its_names(tmp_path: Path) -> None:
    names = {"standard_name": "sea_surface_temperature", "long_name": "warmth of the sea"}
    save_forecast(tmp_path / "out.nc", on_a_map(names=names))
    series = open_series(tmp_path / "out.nc")
    assert (series.variable, series.names, series.units) == ("sst", names, "K")


@pytest.mark.parametrize(
    ("name", "kept"),
    [("a/b", "a_b"), (".", "forecast"), ("..", "forecast"), ("a\0b", "forecast"), ("\udc80", "forecast")],
)
def test_a_name_that_no_file_can_bear(name: str, kept: str, tmp_path: Path) -> None:
    save_forecast(tmp_path / "out.nc", forecast(variable=name))
    assert open_series(tmp_path / "out.nc").variable == kept


def test_each_named_channel_is_a_variable(tmp_path: Path) -> None:
    save_forecast(tmp_path / "out.nc", forecast(2, channels=("u", "v"), units="m s-1"))
    for c, name in enumerate("uv"):
        series, found = read_back(tmp_path / "out.nc", variable=name)
        assert np.array_equal(found, frames(T, 2)[:, c : c + 1], equal_nan=True)
        assert series.units == "m s-1"
    series, found = read_back(tmp_path / "out.nc", variable="u,v")
    assert np.array_equal(found, frames(T, 2), equal_nan=True)
    assert series.channels == ("u", "v")


AXES = [("time", "x"), ("forecast", "y"), ("y", "y"), ("file", "allow_pickle"), ("a/b", "a/b"), ("", "y"), ("x", "y")]


@pytest.mark.parametrize("names", AXES)
@pytest.mark.parametrize("suffix", [".npz", ".nc"])
def test_names_that_mean_something_else_do_no_harm(names: tuple[str, str], suffix: str, tmp_path: Path) -> None:
    rows, columns = Axis(names[0], np.arange(H)), Axis(names[1], np.arange(W))
    for channels in ((), ("y", "u"), ("u", "u"), ("time", "v"), ("", "v"), ("channel", "a/b")):
        odd = forecast(2, y=rows, x=columns, times=TIMES, channels=channels, variable="channel")
        save_forecast(tmp_path / f"out{suffix}", odd)
        variable = ",".join(channels).replace("/", "_") if suffix == ".nc" and channels == ("channel", "a/b") else ""
        _, found = read_back(tmp_path / f"out{suffix}", variable=variable)
        assert np.array_equal(found, frames(T, 2), equal_nan=True)


def test_an_animation_is_made_of_shown_and_forecast_frames(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    save_forecast(tmp_path / "out.gif", forecast(3, channels=("u", "v", "w")))
    assert (tmp_path / "out.gif").read_bytes() == gif(frames(2, 3, seed=1), frames(T, 3), ("u", "v", "w"))


@pytest.mark.parametrize(
    ("latitudes", "units", "turned"),
    [((-1, 0, 1, 2), "degrees_north", True), ((2, 1, 0, -1), "degrees_north", False), ((0, 1, 2, 3), "", False)],
)
def test_north_is_above(latitudes: tuple[int, ...], units: str, turned: bool, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    save_forecast(tmp_path / "out.gif", forecast(y=Axis("y", np.array(latitudes), units)))
    shown, ahead = frames(2, seed=1), frames(T)
    right = gif(shown[:, :, ::-1], ahead[:, :, ::-1]) if turned else gif(shown, ahead)
    assert (tmp_path / "out.gif").read_bytes() == right


def test_the_same_forecast_makes_the_same_bytes(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        save_forecast(tmp_path / f"a{suffix}", on_a_map())
    time.sleep(2.1)  # ZIP counts time in steps of two seconds, HDF5 in seconds
    for suffix in SUFFIXES:
        save_forecast(tmp_path / f"b{suffix.upper()}", on_a_map())
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix.upper()}").read_bytes()


# Where it is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_file_appears_whole_or_not_at_all(
    suffix: str, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"out{suffix}"
    save_forecast(path, forecast())
    before = path.read_bytes()

    def full(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left") as raised:
        save_forecast(path, on_a_map())
    assert raised.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_exists_is_replaced(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old" * 100_000)
    save_forecast(path, forecast())
    save_forecast(tmp_path / f"new{suffix}", forecast())
    assert path.read_bytes() == (tmp_path / f"new{suffix}").read_bytes()


@pytest.mark.parametrize("name", ["out.png", "out", "out.npy.gz", ".npy"])
def test_other_kinds_of_file_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"written as \.npy, \.npz, \.nc, \.gif; got") as raised:
        save_forecast(tmp_path / name, forecast())
    assert str(raised.value).startswith(str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out.npy").mkdir()
    with pytest.raises(TargetError, match=r"out\.npy: is a folder"):
        check_target(tmp_path / "out.npy")
    with pytest.raises(TargetError, match=r"there is no folder .*missing"):
        check_target(tmp_path / "missing" / "out.npy")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TargetError, match="there is no folder"):
        check_target(tmp_path / "file" / "out.npy")


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda folder, mode: not mode & os.W_OK)  # the superuser may everything
    with pytest.raises(TargetError, match=r"out\.npy: nothing may be written to the folder"):
        check_target(tmp_path / "out.npy")


def test_the_frames_it_is_made_from_are_not_written_over(tmp_path: Path) -> None:
    source, other, link = tmp_path / "in.npy", tmp_path / "out.npy", tmp_path / "link.npy"
    source.write_bytes(b"frames")
    link.symlink_to(source)
    check_target(other, sources=[source])
    other.write_bytes(b"old")
    check_target(other, sources=[source, tmp_path / "gone.npy"])
    for same in (source, link, tmp_path / ".." / tmp_path.name / "in.npy"):
        with pytest.raises(TargetError, match="made from this file"):
            check_target(same, sources=[other, source])


@pytest.mark.parametrize(("suffix", "package"), [(".nc", "h5py"), (".nc", "h5netcdf"), (".gif", "PIL")])
def test_what_is_not_installed_is_said_before_any_work(
    suffix: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ModuleNotFoundError, match=rf'needs {package}.*pip install "\.\[files\]"') as raised:
        check_target(tmp_path / f"out{suffix}")
    assert raised.value.name == package
    check_target(tmp_path / "out.npy")


# What fits one another ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"frames": frames()[0]}, "frames must be float32 of shape"),
        ({"frames": frames().astype(np.float64)}, "got float64"),
        ({"frames": frames()[:0]}, "none 0"),
        ({"shown": frames()[:, :, 1:]}, "shown must have shape"),
        ({"shown": frames()[:0]}, "shown must have shape"),
        ({"channels": ("u", "v")}, "channels must name each of 1"),
        ({"times": TIMES[:2]}, r"times must have shape \(3,\)"),
        ({"clock": Axis("t", np.zeros(T - 1))}, r"clock must have shape \(3,\)"),
        ({"clock": Axis("t", np.zeros(T)), "times": TIMES}, "one must be None"),
        ({"y": Axis("y", np.zeros(W))}, r"y must have shape \(4,\)"),
        ({"x": Axis("x", np.zeros(H))}, r"x must have shape \(5,\)"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Forecast(**{"frames": frames(), "shown": frames(), **changed})
