from __future__ import annotations

import os
from pathlib import Path

import pytest

from convlstm.whole_files import write_whole


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_file_appears_whole_or_not_at_all(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scores.json"
    write_whole(file, b"old")
    write_whole(file, b"newer")

    def full(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, b"newest")
    assert file.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [file]
