"""Frames in .npy and .npz files: right, lazily, never unpickled."""

from __future__ import annotations

import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm.data.arrays import open_npy, open_npz
from convlstm.data.series import DataError, Series, Wanted

FRAMES = np.arange(6 * 4 * 5, dtype=np.float32).reshape(6, 4, 5)
OPEN = "/proc/self/fd"


def open_(path: Path, **wanted: Any) -> Series:
    return (open_npy if path.suffix == ".npy" else open_npz)(path, path.name, Wanted(**wanted))


def save(path: Path, **arrays: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, next(iter(arrays.values())))
    else:
        (np.savez_compressed if "packed" in path.name else np.savez)(path, **arrays)
    return path


NAMES = ["frames.npy", "frames.npz", "packed.npz"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["?", "u1", "<i2", ">i4", "f2", "f4", ">f8"])
def test_every_dtype_is_read(tmp_path: Path, name: str, dtype: str) -> None:
    array = (FRAMES % 2).astype(dtype)
    series = open_(save(tmp_path / name, frames=array))
    assert (series.name, series.shape, series.runs) == (name, (6, 1, 4, 5), (range(6),))
    assert series.files == (tmp_path / name,)
    assert (series.channels, series.units, series.times) == ((), "", None)
    np.testing.assert_array_equal(series.read(2, 5), (FRAMES % 2)[2:5, None])


@pytest.mark.parametrize("name", NAMES)
def test_columns_first_in_memory_and_other_axes(tmp_path: Path, name: str) -> None:
    array = np.asfortranarray(FRAMES.transpose(1, 2, 0))
    series = open_(save(tmp_path / name, frames=array), axes="HWT", missing=7)
    frames = series.read(0, 6)
    np.testing.assert_array_equal(np.nan_to_num(frames, nan=7), FRAMES[:, None])
    assert np.isnan(frames).sum() == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_is_a_copy(tmp_path: Path, name: str) -> None:
    series = open_(save(tmp_path / name, frames=FRAMES))
    frames = series.read(0, 2)
    frames[:] = -1
    assert type(frames) is np.ndarray
    np.testing.assert_array_equal(series.read(0, 2), FRAMES[:2, None])


def test_a_file_larger_than_memory_is_read_in_parts(tmp_path: Path) -> None:
    """A file of 64 GiB that is almost all hole: it takes a few KiB of the disk."""
    with (tmp_path / "large.npy").open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**24, 32, 32)}
        np.lib.format.write_array_header_2_0(stream, header)
        start = stream.tell()
        stream.seek(start + 4 * 32 * 32 * 9_000_000)
        stream.write(np.float32(3).tobytes())
        stream.truncate(start + 4 * 32 * 32 * 2**24)
    series = open_(tmp_path / "large.npy")
    frames = series.read(8_999_999, 9_000_001)
    assert series.shape == (2**24, 1, 32, 32)
    assert frames.sum() == frames[1, 0, 0, 0] == 3


@pytest.mark.parametrize("name", NAMES[:2])
def test_only_what_is_asked_for_comes_into_memory(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, frames=np.ones((400, 128, 128), np.float32))  # 25 MiB
    tracemalloc.start()
    assert open_(tmp_path / name).read(200, 202).all()
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


def test_a_packed_array_is_unpacked_once_and_not_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = open_(save(tmp_path / "packed.npz", frames=np.zeros((400, 128, 128), np.float32)))  # 25 MiB
    opened: list[str] = []
    original = zipfile.ZipFile.open

    def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
        opened.append(member.filename)
        return original(archive, member)

    monkeypatch.setattr(zipfile.ZipFile, "open", open_member)
    tracemalloc.start()
    for k in range(5):
        assert not series.read(k, k + 1).any()
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()
    assert opened == ["frames.npy"]


@pytest.mark.skipif(not Path(OPEN).exists(), reason="the system does not list a process's open files")
@pytest.mark.parametrize("name", NAMES)
def test_no_file_stays_open(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, frames=FRAMES)
    before = len(os.listdir(OPEN))
    series = open_(tmp_path / name)
    series.read(0, 1)
    del series
    assert len(os.listdir(OPEN)) == before


def test_the_only_frames_of_an_npz_are_found(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", frames=FRAMES, times=np.arange(6), labels=np.array(["a"]))
    assert open_(path).shape == (6, 1, 4, 5)
    with pytest.raises(DataError, match=r"^a\.npz: has shape \(6,\)"):
        open_(path, variable="times")
    with pytest.raises(DataError, match=r"^a\.npz: has no variable 'frame'; the nearest is 'frames'"):
        open_(path, variable="frame")


def test_one_of_several_is_chosen(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", rain=FRAMES, wind=-FRAMES)
    assert open_(path, variable="wind").read(5, 6).min() == -119
    with pytest.raises(DataError, match=r"^a\.npz: holds 2 arrays .*: rain \(6, 4, 5\) of float32; wind"):
        open_(path)


def test_a_variable_of_an_npy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^a\.npy: a \.npy file holds one array without a name"):
        open_(save(tmp_path / "a.npy", a=FRAMES), variable="rain")


class Explosive:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", NAMES)
def test_objects_are_never_unpickled(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / name, frames=np.full((2, 2, 2), Explosive()))
    with pytest.raises(DataError, match=r"dtype object, Python objects, which are never unpickled"):
        open_(tmp_path / name, variable="" if name.endswith("npy") else "frames")
    assert not Path("exploded").exists()


def test_a_damaged_packed_array_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "packed.npz", frames=np.random.default_rng(0).random((50, 20, 20)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"^packed\.npz: cannot be read: "):
        open_(path).read(0, 1)


def test_a_member_shorter_than_its_header_says_is_refused(tmp_path: Path) -> None:
    npy = save(tmp_path / "a.npy", a=FRAMES).read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("frames.npy", npy[:-1])
    with pytest.raises(DataError, match=r"^a\.npz: frames: is cut short: it has 479 bytes .* promises 480"):
        open_(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda data: data.replace(b"(6, 4, 5)", b"(-6,-4,5)"), "its header says shape"),
        (lambda data: data.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09"), r"version 9\.0; right are 1\.0 and 2\.0"),
        (lambda data: data.replace(b"'shape'", b"'shade'"), "cannot be read"),
        (lambda data: data[:7], r"version 0\.0"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, edit: Any, words: str) -> None:
    path = save(tmp_path / "a.npy", a=FRAMES)
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(DataError, match=f"^a.npy: .*{words}"):
        open_(path)
