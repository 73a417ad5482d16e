from __future__ import annotations

import io
import math
import os
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm.event_files import EventFile
from convlstm.page.pictures import Colours

pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")


def events(data: bytes) -> list[Any]:
    """Return the entries of an event file, whose lengths and checksums must all be right."""
    from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped, unused-ignore]
    from tensorboardX.record_writer import masked_crc32c  # type: ignore[import-untyped, unused-ignore]

    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        content, end = data[12 : 12 + length], 12 + length
        assert struct.unpack("<I", data[8:12]) == (masked_crc32c(data[:8]),)
        assert struct.unpack("<I", data[end : end + 4]) == (masked_crc32c(content),)
        found.append(Event.FromString(content))
        data = data[end + 4 :]
    return found


def values(path: Path) -> list[tuple[str, int, Any]]:
    """Return name, step and content of what was added to a file."""
    entries = events(path.read_bytes())[2:]
    return [(entry.summary.value[0].tag, entry.step, entry.summary.value[0]) for entry in entries]


def test_the_checksum_is_that_of_the_format() -> None:
    """RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 0x8a9136aa; the format turns it by 15 bits and adds."""
    from tensorboardX.record_writer import masked_crc32c  # type: ignore[import-untyped, unused-ignore]

    crc = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_file_begins_with_its_version_and_where_it_takes_over(tmp_path: Path) -> None:
    with EventFile(tmp_path / "a" / "b", first_step=7) as file:
        assert file.path.parent == tmp_path / "a" / "b"
        assert "tfevents" in file.path.name
    version, start = events(file.path.read_bytes())
    assert version.file_version == "brain.Event:2"
    assert start.session_log.status == start.session_log.START
    assert start.step == 7
    assert start.wall_time > 0


def test_numbers_come_back(tmp_path: Path) -> None:
    numbers: list[Any] = [0.25, math.inf, -math.inf, math.nan, 1e300, np.float32(0.1)]
    with EventFile(tmp_path) as file:
        for step, number in enumerate(numbers):
            file.scalar("loss/train", number, 10**9 * step)
    found = values(file.path)
    assert [(name, step) for name, step, _ in found] == [("loss/train", 10**9 * step) for step in range(6)]
    right = np.array([0.25, np.inf, -np.inf, np.nan, np.inf, 0.1], np.float32)
    assert np.array_equal([value.simple_value for _, _, value in found], right, equal_nan=True)


@pytest.mark.parametrize("shape", [(4, 8), (1, 4, 8), (3, 4, 8)])
def test_frames_come_back(shape: tuple[int, ...], tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    frame = np.random.default_rng(0).random(shape, np.float32)
    frame[..., 1, 2] = np.nan
    frame.setflags(write=False)
    with EventFile(tmp_path) as file:
        file.image("forecast", frame, 3)
        file.image("field", frame, 4, colours=Colours("viridis", 0, 2))
    for (name, step, value), right in zip(values(file.path), (("forecast", 3), ("field", 4)), strict=True):
        assert (name, step) == right
        assert (value.image.height, value.image.width) == (256, 512)
        with image.open(io.BytesIO(value.image.encoded_image_string)) as picture:
            pixels = np.array(picture.convert("RGBA")).astype(int)[32::64, 32::64]
        colours = Colours("grey", 0, 1) if name == "forecast" else Colours("viridis", 0, 2)
        drawn = frame.reshape(-1, 4, 8)[0]
        assert (pixels[..., 3] == np.where(np.isnan(drawn), 0, 255)).all()
        there = ~np.isnan(drawn)
        assert (pixels[..., :3][there] == colours.palette()[colours.indices(drawn)][there]).all()


def test_texts_come_back(tmp_path: Path) -> None:
    with EventFile(tmp_path) as file:
        file.text("config", "größe = 2\n")
    ((name, step, value),) = values(file.path)
    assert (name, step) == ("config", 0)
    assert value.metadata.plugin_data.plugin_name == "text"
    assert value.tensor.string_val == ["größe = 2\n".encode()]
    assert [dim.size for dim in value.tensor.tensor_shape.dim] == [1]


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4, 8), (0, 8), (0, 4, 8)])
def test_other_shapes_are_no_frames(shape: tuple[int, ...], tmp_path: Path) -> None:
    with EventFile(tmp_path) as file, pytest.raises(ValueError, match=r"frame must have shape \(H, W\)"):
        file.image("forecast", np.zeros(shape, np.float32), 0)
    assert values(file.path) == []


def test_every_opening_makes_a_file_that_is_read_after_the_others(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.elsewhere").write_bytes(b"")
    paths = []
    for number in range(12):
        with EventFile(tmp_path, first_step=number) as file:
            file.scalar("loss", number, number)
            paths.append(file.path)
    assert sorted(paths) == paths
    assert [value.simple_value for path in paths for _, _, value in values(path)] == list(range(12))
    paths[4].unlink()
    with EventFile(tmp_path) as file:
        assert file.path.name > paths[-1].name


def test_each_entry_is_there_at_once_and_no_thread_is_started(tmp_path: Path) -> None:
    threads = threading.enumerate()
    with EventFile(tmp_path) as file:
        for step in range(20):
            file.scalar("loss", step, step)
            assert len(values(file.path)) == step + 1
        assert threading.enumerate() == threads


class _Failing:
    """A file that takes a few bytes of an entry, and then none."""

    def __init__(self, file: Any, error: BaseException) -> None:
        self._file, self._error, self._took = file, error, False

    def write(self, data: Any) -> int:
        if self._took:
            raise self._error
        self._took = True
        return int(self._file.write(data[:9]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_half_an_entry_is_taken_back(error: BaseException, tmp_path: Path) -> None:
    with EventFile(tmp_path) as file:
        file.scalar("loss", 1, 0)
        whole = file._file
        file._file = _Failing(whole, error)  # type: ignore[assignment]
        with pytest.raises(type(error)) as raised:
            file.scalar("loss", 2, 1)
        assert getattr(raised.value, "filename", str(file.path)) == str(file.path)
        assert len(values(file.path)) == 1
        file._file = whole
        file.scalar("loss", 3, 2)
    assert [(step, value.simple_value) for _, step, value in values(file.path)] == [(0, 1), (2, 3)]


def test_an_entry_is_written_on_where_it_was_taken_in_parts(tmp_path: Path) -> None:
    class Reluctant(_Failing):
        def write(self, data: Any) -> int:
            return int(self._file.write(data[:5]))

    with EventFile(tmp_path) as file:
        file._file = Reluctant(file._file, OSError())  # type: ignore[assignment]
        file.scalar("loss", 1, 0)
    assert len(values(file.path)) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    monkeypatch.setattr(Path, "open", lambda path, *mode, **options: io.FileIO(full, "w"))
    with pytest.raises(OSError, match="No space left") as raised:
        EventFile(tmp_path)
    assert raised.value.filename == str(tmp_path / "events.out.tfevents.000001")


def test_the_file_is_closed_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), EventFile(tmp_path) as file:
        raise KeyboardInterrupt
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.scalar("loss", 1, 0)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "events").write_bytes(b"")
    with pytest.raises(OSError, match="events") as raised:
        EventFile(tmp_path / "events")
    assert raised.value.filename == str(tmp_path / "events")


def test_tensorboardx_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboardX"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ModuleNotFoundError, match=r'tensorboardX.*pip install "\.\[tensorboard\]"'):
        EventFile(tmp_path / "events")
    assert not (tmp_path / "events").exists()
