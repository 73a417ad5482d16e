"""A run's environment.json: its form, and the weights that a run started from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convlstm.backends import get_backend
from convlstm.config import Config, ConfigError
from convlstm.run_directory import RunDirectoryError
from convlstm.run_environment import check_initial_weights, environment, initial_weights_digest, read_environment
from tests.runs import changed


def test_what_was_written_is_read(tmp_path: Path) -> None:
    made = environment(get_backend("numpy")) | {"resumed": [{"step": 3, "changed": ["numpy: 1 then, 2 now"]}]}
    (tmp_path / "environment.json").write_text(json.dumps(made))
    assert read_environment(tmp_path) == made


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[]", "it is no JSON object"),
        ('{"backend": 1}', "backend is 1"),
        ('{"packages": []}', r"packages is \[\]"),
        ('{"weights_sha256": null}', "weights_sha256 is None"),
        ('{"resumed": {}}', "resumed is {}"),
        ('{"resumed": [3]}', "resumed holds 3"),
        ('{"resumed": [{"changed": []}]}', r"resumed holds {'changed': \[\]}"),
        ('{"resumed": [{"step": 3, "changed": "numpy"}]}', "resumed holds {'step': 3"),
        ("{", "Expecting property name"),
    ],
)
def test_another_form_is_named(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=rf"^cannot read .*environment\.json: {fault}"):
        read_environment(tmp_path)


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"^cannot read .*environment\.json: No such file or directory$"):
        read_environment(tmp_path)


@pytest.mark.parametrize("change", ["content", "name", "one more"])
def test_any_change_of_a_folder_of_weights_is_noticed(change: str, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "W.txt").write_text("1")
    config = changed(Config(), weights=str(folder))
    recorded = initial_weights_digest(config)
    check_initial_weights(config, recorded)
    if change == "name":
        (folder / "W.txt").rename(folder / "b.txt")
    else:
        (folder / ("W.txt" if change == "content" else "b.txt")).write_text("2")
    with pytest.raises(ConfigError, match=f"{folder} has changed since the run started from it: its SHA-256 was"):
        check_initial_weights(config, recorded)


def test_without_a_file_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert initial_weights_digest(Config()) == {}
    check_initial_weights(Config(), {"weights_sha256": "00"})
    check_initial_weights(changed(Config(), weights=str(tmp_path / "gone")), {"weights_sha256": "00"})
