from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from convlstm.whole_files import was_left_half_written, write_whole


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_file_appears_whole_or_not_at_all(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scores.json"
    write_whole(file, b"old")
    write_whole(file, b"newer")

    def full(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left") as raised:
        write_whole(file, b"newest")
    assert raised.value.filename == str(file)
    assert file.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [file]


def test_the_folder_is_brought_down_after_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could take the name away again."""
    happened: list[str] = []
    replace, fsync = os.replace, os.fsync

    def noted_replace(source: Path, target: Path) -> None:
        happened.append("name")
        replace(source, target)

    def noted_fsync(number: int) -> None:
        happened.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "content")
        fsync(number)

    monkeypatch.setattr(os, "replace", noted_replace)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    write_whole(tmp_path / "scores.json", b"new")
    assert happened == ["content", "name", "folder"]


@pytest.mark.parametrize(
    ("name", "left"),
    [
        (".a.json.0123.tmp", True),
        (".a.json.tmp", True),
        (".b.json.0123.tmp", False),
        ("a.json.tmp", False),
        (".a.json.0123", False),
    ],
)
def test_what_a_killed_process_left(name: str, left: bool) -> None:
    assert was_left_half_written(Path("folder") / name, ("a.json", "c.json")) is left
