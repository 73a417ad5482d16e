"""Frames in HDF5 files: right, lazily, from whatever group."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm.data.hdf5 import open_hdf5
from convlstm.data.series import DataError, Series, Wanted

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

FRAMES = np.arange(6 * 4 * 5, dtype=np.float32).reshape(6, 4, 5)
OPEN = "/proc/self/fd"


def open_(path: Path, **wanted: Any) -> Series:
    return open_hdf5(path, path.name, Wanted(**wanted))


def save(path: Path, arrays: dict[str, Any], **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
            file[name].attrs.update(attributes)
    return path


@pytest.mark.parametrize("dtype", ["?", "u1", ">i4", "f2", "f4", ">f8"])
def test_every_dtype_is_read(tmp_path: Path, dtype: str) -> None:
    series = open_(save(tmp_path / "a.h5", {"frames": (FRAMES % 2).astype(dtype)}))
    assert (series.shape, series.runs, series.files) == ((6, 1, 4, 5), (range(6),), (tmp_path / "a.h5",))
    np.testing.assert_array_equal(series.read(2, 5), (FRAMES % 2)[2:5, None])


@pytest.mark.parametrize("options", [{}, {"chunks": (1, 1, 4, 5), "compression": "gzip"}])
def test_packed_or_not_and_of_other_axes(tmp_path: Path, options: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("deep/frames", data=FRAMES.reshape(2, 3, 4, 5).transpose(1, 0, 2, 3), **options)
    series = open_(tmp_path / "a.h5", axes="TNHW", variable="/deep/frames")
    assert (series.runs, series.variable) == ((range(3), range(3, 6)), "deep/frames")
    np.testing.assert_array_equal(series.read(1, 5), FRAMES[1:5, None])


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """A dataset of 64 GiB, of which one chunk is written."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("frames", (2**24, 32, 32), "f4", chunks=(1, 32, 32))
        made[9_000_000] = 3
    assert (open_(tmp_path / "a.h5").read(8_999_999, 9_000_001)[:, 0] == [[[0]], [[3]]]).all()


def test_attributes_say_what_is_missing_and_how_it_is_packed(tmp_path: Path) -> None:
    stored = np.arange(-2, 6, dtype=np.int16).reshape(2, 2, 2)
    attributes: dict[str, Any] = {"_FillValue": np.array([-2], np.int16), "missing_value": np.int16(5), "units": b"K"}
    series = open_(save(tmp_path / "a.h5", {"f": stored}, **attributes, scale_factor=0.5, add_offset=np.float32(10)))
    assert series.units == "K"
    frames = series.read(0, 2).ravel()
    np.testing.assert_array_equal(frames, [np.nan, 9.5, 10, 10.5, 11, 11.5, 12, np.nan])
    again = open_(
        save(tmp_path / "b.h5", {"f": stored}, missing_value=np.array([-2, 5], np.int16), units="m"), missing=0
    )
    np.testing.assert_array_equal(again.read(0, 2).ravel(), [np.nan, -1, np.nan, 1, 2, 3, 4, np.nan])
    assert again.units == "m"


def test_a_packing_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^a\.h5: f: the attribute scale_factor must be a number; got 'x'"):
        open_(save(tmp_path / "a.h5", {"f": FRAMES}, scale_factor="x"))


def test_the_only_frames_are_found_and_several_are_listed(tmp_path: Path) -> None:
    others = {"time": np.arange(6), "deep/names": np.array([[[b"a"]]]), "deep/er/none": h5py.Empty("f4")}
    path = save(tmp_path / "a.h5", {**others, "deep/frames": FRAMES})
    assert open_(path).shape == (6, 1, 4, 5)
    with pytest.raises(DataError, match=r"^a\.h5: has no variable 'deep/frame'; the nearest is 'deep/frames'"):
        open_(path, variable="deep/frame")
    with pytest.raises(DataError, match=r"^a\.h5: has no variable 'deep'"):  # a group
        open_(path, variable="deep")
    with pytest.raises(DataError, match=r"^a\.h5: holds 2 arrays that can be frames; .*: rain \(6, 4, 5\) of float32;"):
        open_(save(tmp_path / "a.h5", {"rain": FRAMES, "wind": FRAMES}))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (FRAMES.astype(np.complex64), "dtype complex64"),
        (np.array([[["a"]]], h5py.string_dtype()), "dtype object"),
        (FRAMES[:0], r"shape is \(0, 4, 5\)"),
        (FRAMES[0], r"has shape \(4, 5\)"),
    ],
)
def test_what_cannot_be_frames_is_refused(tmp_path: Path, array: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"^a.h5: .*{words}"):
        open_(save(tmp_path / "a.h5", {"frames": array}))


def test_a_damaged_chunk_is_found_when_it_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("frames", data=FRAMES, chunks=(1, 4, 5), fletcher32=True)
        at = made.id.get_chunk_info(3).byte_offset
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[at] ^= 0xFF
    (tmp_path / "a.h5").write_bytes(data)
    series = open_(tmp_path / "a.h5")
    np.testing.assert_array_equal(series.read(0, 3), FRAMES[:3, None])
    with pytest.raises(DataError, match=r"^a\.h5: frames: cannot be read: "):
        series.read(2, 4)


@pytest.mark.skipif(not Path(OPEN).exists(), reason="the system does not list a process's open files")
def test_the_file_is_closed_with_the_series(tmp_path: Path) -> None:
    save(tmp_path / "a.h5", {"frames": FRAMES})
    before = len(os.listdir(OPEN))
    series = open_(tmp_path / "a.h5")
    series.read(0, 1)
    assert len(os.listdir(OPEN)) == before + 1
    del series
    assert len(os.listdir(OPEN)) == before


def test_a_file_behind_a_user_block_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file["frames"] = FRAMES
    assert open_(tmp_path / "a.h5").shape == (6, 1, 4, 5)


def test_without_h5py_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.h5", {"frames": FRAMES})
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match=r'h5py is missing; in the clone, pip install "\.\[files\]"'):
        open_(path)
