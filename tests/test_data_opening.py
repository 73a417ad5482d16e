"""The one door to frames: by ending, from folders in natural order, from packages; each fault one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.data.opening import ENDINGS, natural, open_series
from convlstm.data.series import DataError
from tests.bad_files import FRAMES, MAKERS, bad_files, write_good

for package in ("h5py", "scipy", "xarray", "h5netcdf", "PIL"):
    pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, tuple[str, ...]]]:
    return bad_files(tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize("name", [*MAKERS, "no permission"])
def test_a_bad_file_is_one_line_that_begins_with_its_name(
    bad: dict[str, tuple[Path, tuple[str, ...]]], name: str
) -> None:
    if name not in bad:
        pytest.skip("the superuser may read everything")
    path, words = bad[name]
    with pytest.raises(DataError) as caught:
        open_series(path).read(0, len(FRAMES))
    message = str(caught.value)
    assert message.startswith(f"{path}")
    assert message.count("\n") == 0
    for word in words:
        assert word in message


@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5", ".nc", ".tif", ".gif"])
def test_the_ending_says_who_reads(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_good(tmp_path / f"frames{ending}")
    series = open_series(tmp_path / f"frames{ending}")
    np.testing.assert_array_equal(series.read(0, 6), FRAMES[:, None])
    monkeypatch.chdir(tmp_path)
    os.rename(f"frames{ending}", f"FRAMES{ending.upper()}")
    again = open_series(f"FRAMES{ending.upper()}", missing=3)
    assert again.name == f"FRAMES{ending.upper()}"
    assert np.isnan(again.read(0, 6)).sum() == 1


def test_axes_and_variable_reach_the_reader(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", rain=FRAMES, wind=FRAMES[..., None])
    assert open_series(tmp_path / "a.npz", variable=" wind ", axes=" thwc ").shape == (6, 1, 4, 5)


def test_one_image_is_no_series(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(FRAMES[0].astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: is one image; name the folder that holds the frames"):
        open_series(tmp_path / "a.png")
    assert open_series(tmp_path).shape == (1, 1, 4, 5)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"a\.npy: is neither a file nor a folder"):
        open_series(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a\0.npy", "x" * 300 + ".npy", "a.npy/b.npy"])
def test_names_that_no_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", FRAMES)
    with pytest.raises(DataError, match="cannot be read: "):
        open_series(name)


# Folders --------------------------------------------------------------------------------------------------------------


NAMES = ["", "1", "frame", "frame1", "frame02", "frame2", "frame10", "frame10b2", "frame10b11", "g1", "²"]


@given(st.permutations(NAMES))
def test_numbers_in_names_count_as_numbers(names: list[str]) -> None:
    assert sorted(names, key=natural) == NAMES


@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5", ".nc", ".tif"])
def test_the_files_of_a_folder_are_one_series(tmp_path: Path, ending: str) -> None:
    for k in (1, 2, 10):
        write_good(tmp_path / f"part{k}{ending}", FRAMES + k)
    (tmp_path / "README.txt").write_text("frames")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / f"folder{ending}").mkdir()
    series = open_series(tmp_path)
    assert (series.shape, series.name, series.runs) == ((18, 1, 4, 5), f"{tmp_path}", (range(18),))
    assert series.files == tuple(tmp_path / f"part{k}{ending}" for k in (1, 2, 10))
    np.testing.assert_array_equal(series.read(4, 14), np.concatenate([FRAMES + k for k in (1, 2, 10)])[4:14, None])


def test_a_file_of_a_folder_may_hold_one_frame(tmp_path: Path) -> None:
    for k in range(6):
        np.save(tmp_path / f"{k}.npy", FRAMES[k])
    series = open_series(tmp_path)
    assert series.runs == (range(6),)
    np.testing.assert_array_equal(series.read(0, 6), FRAMES[:, None])


def test_sequences_of_a_folder_stay_apart(tmp_path: Path) -> None:
    for k in range(2):
        np.save(tmp_path / f"{k}.npy", FRAMES.reshape(2, 3, 4, 5))
    assert open_series(tmp_path, axes="NTHW").runs == tuple(range(k, k + 3) for k in (0, 3, 6, 9))
    for k in range(2):
        np.save(tmp_path / f"{k}.npy", FRAMES.reshape(1, 6, 1, 4, 5))
    assert open_series(tmp_path).runs == (range(6), range(6, 12))


def test_a_bad_file_of_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("frames")
    np.save("frames/1.npy", FRAMES)
    Path("frames/2.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"^frames/2\.npy: is empty$"):
        open_series("frames")
    np.save("frames/2.npy", np.full((2, 4, 5), np.inf))
    with pytest.raises(DataError, match=r"^frames/2\.npy: frame 1 \(counted from 0\) holds inf"):
        open_series("frames").read(7, 8)


# Packages -------------------------------------------------------------------------------------------------------------


def test_a_file_of_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_frames" / "data").mkdir(parents=True)
    (tmp_path / "some_frames" / "__init__.py").write_text("raise RuntimeError('imported')")
    np.save(tmp_path / "some_frames" / "data" / "a.npy", FRAMES)
    monkeypatch.syspath_prepend(tmp_path)
    series = open_series("package:some_frames/data/a.npy")
    assert series.name == "package:some_frames/data/a.npy"
    assert series.files == (tmp_path / "some_frames" / "data" / "a.npy",)
    assert open_series("package:some_frames/data").shape == (6, 1, 4, 5)
    assert "some_frames" not in sys.modules
    with pytest.raises(DataError, match=r"^package:some_frames/b\.npy: no such file or folder$"):
        open_series("package:some_frames/b.npy")


def test_a_package_that_is_not_there_is_to_be_installed() -> None:
    with pytest.raises(
        DataError, match=r"^package:no_such_data/a\.nc: the package no_such_data is not .*; pip install no-such-data$"
    ):
        open_series("package:no_such_data/a.nc")


@pytest.mark.parametrize(
    "name", ["package:", "package:numpy", "package:/a.npy", "package:a.b/a.npy", "package:numpy/../a.npy"]
)
def test_a_package_needs_a_name_and_a_file(name: str) -> None:
    with pytest.raises(DataError, match=r"right is package:NAME/FILE, a file inside an installed package$"):
        open_series(name)


def test_all_known_endings_are_listed() -> None:
    for ending in (".npy", ".npz", ".h5", ".he5", ".nc", ".cdf", ".png", ".tiff", ".gif", ".jpeg", ".bmp", ".webp"):
        assert ending in ENDINGS
