"""Files that hold no frames, each with the words that whoever opens it must say."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Words = tuple[str, ...]
Maker = Callable[[Path], tuple[Path, Words]]

FRAMES = np.arange(6 * 4 * 5, dtype=np.float32).reshape(6, 4, 5)


def bad_files(folder: Path) -> dict[str, tuple[Path, Words]]:
    """Make them all in a folder; return for each its path and the words that the one line about it must hold.

    h5py, scipy and Pillow must be installed.
    """
    made = {}
    for name, make in MAKERS.items():
        place = folder / name.replace(" ", "_")
        place.mkdir()
        made[name] = make(place)
    if os.geteuid() != 0:  # the superuser may read everything
        (folder / "locked.npy").write_bytes(b"")
        (folder / "locked.npy").chmod(0)
        made["no permission"] = (folder / "locked.npy", ("Permission denied",))
    return made


def _absent(place: Path) -> tuple[Path, Words]:
    return place / "frames.npy", ("no such file or folder",)


def _bytes(ending: str, data: bytes, *words: str) -> Maker:
    def make(place: Path) -> tuple[Path, Words]:
        path = place / f"frames{ending}"
        path.write_bytes(data)
        return path, words

    return make


def _array(array: object, *words: str) -> Maker:
    def make(place: Path) -> tuple[Path, Words]:
        np.save(place / "frames.npy", np.asarray(array))
        return place / "frames.npy", words

    return make


def _cut_short(ending: str, *words: str) -> Maker:
    """A sound file without its second half."""

    def make(place: Path) -> tuple[Path, Words]:
        path = place / f"frames{ending}"
        write_good(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path, words

    return make


def _cut_short_netcdf4(place: Path) -> tuple[Path, Words]:
    import h5py  # type: ignore[import-untyped, unused-ignore]

    with h5py.File(place / "frames.nc", "w") as file:
        file["frames"] = FRAMES
    data = (place / "frames.nc").read_bytes()
    (place / "frames.nc").write_bytes(data[: len(data) // 2])
    return place / "frames.nc", ("cannot be read", "truncated file")


def write_good(path: Path, frames: NDArray[np.float32] = FRAMES) -> None:
    """Write (T, H, W) whole numbers to a file of this ending."""
    if path.suffix == ".npy":
        np.save(path, frames)
    elif path.suffix == ".npz":
        np.savez(path, frames=frames)
    elif path.suffix == ".h5":
        import h5py  # type: ignore[import-untyped, unused-ignore]

        with h5py.File(path, "w") as file:
            file["frames"] = frames
    elif path.suffix == ".nc":
        from scipy.io import netcdf_file  # type: ignore[import-untyped, unused-ignore]

        with netcdf_file(path, "w") as file:
            for name, size in zip(("time", "y", "x"), frames.shape, strict=True):
                file.createDimension(name, size)
            file.createVariable("frames", "f4", ("time", "y", "x"))[:] = frames
    else:
        from PIL import Image

        pages = [Image.fromarray(frame.astype(np.uint8)) for frame in frames]
        pages[0].save(path, save_all=True, append_images=pages[1:])


def _two_arrays(place: Path) -> tuple[Path, Words]:
    np.savez(place / "frames.npz", rain=FRAMES, wind=FRAMES)
    return place / "frames.npz", ("2 arrays", "data.variable", "rain", "wind")


def _no_array(place: Path) -> tuple[Path, Words]:
    with zipfile.ZipFile(place / "frames.npz", "w"):
        pass
    return place / "frames.npz", ("nothing at all",)


def _empty_folder(place: Path) -> tuple[Path, Words]:
    return place, ("no file of frames", ".npy", ".nc")


def _two_kinds(place: Path) -> tuple[Path, Words]:
    for ending in (".npy", ".npz"):
        write_good(place / f"frames{ending}")
    return place, ("two kinds", "frames.npy", "frames.npz")


def _two_shapes(place: Path) -> tuple[Path, Words]:
    np.save(place / "a1.npy", FRAMES)
    np.save(place / "a2.npy", FRAMES[:, :, 1:])
    return place, ("a2.npy", "(1, 4, 4)", "a1.npy", "(1, 4, 5)")


def _infinite(place: Path) -> tuple[Path, Words]:
    frames = FRAMES.copy()
    frames[3, 1, 1] = np.inf
    np.save(place / "frames.npy", frames)
    return place / "frames.npy", ("frame 3", "inf", "data.missing")


MAKERS: dict[str, Maker] = {
    "not there": _absent,
    "empty folder": _empty_folder,
    "folder of two kinds": _two_kinds,
    "folder of two shapes": _two_shapes,
    "unknown ending": _bytes(".mat", b"MATLAB", "unknown ending '.mat'", ".npy", ".hdf5"),
    "one image": _bytes(".png", b"\x89PNG", "is no image"),
    "two arrays": _two_arrays,
    "no array": _no_array,
    "infinite": _infinite,  # which is seen when the frame is read
    "complex": _array(FRAMES.astype(np.complex64), "complex64", "right are bool, integers and floating-point numbers"),
    "text": _array([[["a"]]], "text", "right are bool, integers and floating-point numbers"),
    "dates": _array(np.zeros((2, 2, 2), "M8[s]"), "dates", "right are bool, integers and floating-point numbers"),
    "objects": _array(np.full((2, 2, 2), None), "object", "never unpickled"),
    "records": _array(np.zeros((2, 2, 2), [("a", "f4")]), "structured", "records"),
    "no frames": _array(FRAMES[:0], "(0, 4, 5)", "axis T has length 0"),
    "one axis": _array(FRAMES[:, 0, 0], "shape (6,)", "(T, H, W)", "data.axes"),
    "six axes": _array(FRAMES[None, None, None], "shape (1, 1, 1, 6, 4, 5)", "data.axes"),
    "channels last": _array(np.zeros((2, 8, 9, 3)), "looks like axes THWC", "data.axes"),
    "no channels": _array(np.zeros((2, 65, 9, 9)), "65 channels as TCHW", "NTHW"),
    **{f"empty {ending}": _bytes(ending, b"", "is empty") for ending in (".npy", ".npz", ".h5", ".nc", ".tif")},
    **{
        f"page of the web as {ending}": _bytes(ending, b"<!DOCTYPE html>", words)
        for ending, words in {
            ".npy": "is no .npy data: it begins with b'<!DOCTYP'",
            ".npz": "cannot be read",
            ".h5": "is no HDF5 file: it begins with b'<!DOCTYP'",
            ".nc": "is no NetCDF file: it begins with b'<!DOCTYP'",
            ".tif": "is no image that Pillow knows: it begins with b'<!DOCTYP'",
        }.items()
    },
    "cut short .npy": _cut_short(".npy", "is cut short", "promises 480"),
    **{f"cut short {ending}": _cut_short(ending, "cannot be read") for ending in (".npz", ".h5", ".nc", ".tif")},
    "cut short NetCDF-4": _cut_short_netcdf4,
    "HDF4": _bytes(".hdf", b"\x0e\x03\x13\x01 and more", "HDF4"),
    "CDF-5": _bytes(".nc", b"CDF\x05 and more", "CDF-5", "nccopy"),
}
