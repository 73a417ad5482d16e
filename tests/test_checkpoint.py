"""Checkpoints: what is written comes back to the bit, and no damage to it goes unnoticed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm import checkpoint as checkpoint_module
from convlstm.checkpoint import (
    Checkpoint,
    CheckpointError,
    DamagedCheckpoint,
    ForeignCheckpoint,
    best_step,
    delete_old_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    saved_steps,
    write_checkpoint,
)
from convlstm.ledger import Position
from tests.numerical import read_only

POSITION = {"random": {"seed": 2**64 - 1, "step": 7}, "schedule": {"name": "linear"}}


def checkpoint(step: int, score: float | None = None) -> Checkpoint:
    rng = np.random.default_rng(step)
    arrays = [
        read_only({"layers.0.W_x": rng.normal(size=(4, 1, 3, 3)).astype(np.float32), "b": rng.normal(size=4)})
        for _ in range(3)
    ]
    ledger = Position(step, "ab" * 32, "cd" * 32)
    return Checkpoint(step, arrays[0], {"m": arrays[1], "v": arrays[2]}, POSITION, ledger, "ef" * 32, score)


def newest(folder: Path) -> Checkpoint | None:
    return newest_checkpoint(folder, "ef" * 32, lambda text: None)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


# What is written comes back -------------------------------------------------------------------------------------------


def test_every_bit_comes_back(folder: Path) -> None:
    wrote = checkpoint(7, score=0.1)
    write_checkpoint(folder, wrote)
    read = read_checkpoint(folder, 7)
    assert replace(read, weights={}, moments={}) == replace(wrote, weights={}, moments={})
    for name, array in wrote.weights.items():
        assert (read.weights[name].dtype, read.weights[name].tobytes()) == (array.dtype, array.tobytes())
    assert read.moments.keys() == wrote.moments.keys()
    for kind, named in wrote.moments.items():
        for name, array in named.items():
            assert read.moments[kind][name].tobytes() == array.tobytes()


def test_an_optimizer_that_remembers_nothing(folder: Path) -> None:
    write_checkpoint(folder, replace(checkpoint(7), moments={}))
    assert read_checkpoint(folder, 7).moments == {}


def test_what_is_read_may_be_computed_with_as_any_other_array(folder: Path) -> None:
    """Aligned, writable and in C order, so that nothing is computed in another way than before."""
    turned = {name: np.asfortranarray(w) for name, w in checkpoint(7).weights.items()}
    write_checkpoint(folder, replace(checkpoint(7), weights=turned))
    for name, array in read_checkpoint(folder, 7).weights.items():
        assert array.flags.c_contiguous
        assert array.flags.aligned
        assert array.flags.writeable
        assert array.tobytes() == turned[name].tobytes()


def test_its_files_are_safetensors_and_json(folder: Path) -> None:
    write_checkpoint(folder, checkpoint(7))
    assert files(folder) == {"step-00000007.json", "step-00000007.safetensors"}
    header = (folder / "step-00000007.safetensors").read_bytes()[8:]
    assert header.startswith(b'{"')
    assert b'"moments/m/layers.0.W_x"' in header
    facts = json.loads((folder / "step-00000007.json").read_text())
    assert list(facts) == [
        "format", "step", "position", "ledger", "configuration", "validation_mse", "tensors", "checksum",
    ]  # fmt: skip
    assert facts["ledger"] == {"steps": 7, "digest": "ab" * 32, "sha256": "cd" * 32}


def test_two_equal_checkpoints_are_equal_files(folder: Path, tmp_path: Path) -> None:
    for where in (folder, tmp_path / "other"):
        write_checkpoint(where, checkpoint(7))
    for name in files(folder):
        assert (folder / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


# Damage ---------------------------------------------------------------------------------------------------------------


def whole_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "checkpoints"
    write_checkpoint(folder, checkpoint(7, score=0.25))
    return folder


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_flipped_bit_is_noticed_and_the_file_named(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = whole_checkpoint(tmp_path_factory)
    file = folder / data.draw(st.sampled_from(sorted(files(folder))))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    with pytest.raises(DamagedCheckpoint) as raised:
        read_checkpoint(folder, 7)
    assert str(raised.value).startswith(f"{file} is damaged: ")


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_truncation_is_noticed_and_the_file_named(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = whole_checkpoint(tmp_path_factory)
    file = folder / data.draw(st.sampled_from(sorted(files(folder))))
    content = file.read_bytes()
    left = data.draw(st.integers(0, len(content) - 1))
    file.write_bytes(content[:left])
    with pytest.raises(DamagedCheckpoint, match=rf"is damaged: it (is cut off after|has) {left} bytes") as raised:
        read_checkpoint(folder, 7)
    assert str(raised.value).startswith(f"{file} ")


def test_a_missing_half(folder: Path) -> None:
    write_checkpoint(folder, checkpoint(7))
    (folder / "step-00000007.safetensors").unlink()
    with pytest.raises(DamagedCheckpoint, match=r"step-00000007\.safetensors is missing"):
        read_checkpoint(folder, 7)
    with pytest.raises(DamagedCheckpoint, match=r"step-00000008\.json is missing"):
        read_checkpoint(folder, 8)


def test_a_disk_that_cannot_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(folder, checkpoint(7))

    def broken(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "read_bytes", broken)
    for ask in (lambda: read_checkpoint(folder, 7), lambda: best_step(folder), lambda: newest(folder)):
        with pytest.raises(CheckpointError, match=r"step-00000007\.json cannot be read: Input/output error") as raised:
            ask()
        assert type(raised.value) is CheckpointError  # and no damage, past which a run would go on


def test_what_cannot_be_read_is_not_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        write_checkpoint(folder, checkpoint(step))
    read, before = Path.read_bytes, files(folder)

    def closed(path: Path) -> bytes:
        if path.name == "step-00000002.safetensors":
            raise OSError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", closed)
    with pytest.raises(CheckpointError, match=r"step-00000002\.safetensors cannot be read: Permission denied"):
        delete_old_checkpoints(folder, 3, keep=1)
    assert files(folder) == before


def test_facts_of_another_step_are_not_taken_for_its_own(folder: Path) -> None:
    write_checkpoint(folder, checkpoint(7))
    (folder / "step-00000007.json").rename(folder / "step-00000009.json")
    with pytest.raises(ForeignCheckpoint, match=r"step-00000009\.json is a copy of the checkpoint of step 7"):
        read_checkpoint(folder, 9)


def test_tensors_of_another_step_are_not_taken_for_its_own(folder: Path) -> None:
    for step in (7, 8):
        write_checkpoint(folder, checkpoint(step))
    (folder / "step-00000007.safetensors").replace(folder / "step-00000008.safetensors")
    with pytest.raises(DamagedCheckpoint, match=r"step-00000008\.safetensors is damaged: its bits have changed"):
        read_checkpoint(folder, 8)


@pytest.mark.parametrize("text", ["[]\n}\n", "1", "null", "{}\n", "[" * 100_000, "\xff"])
def test_json_that_is_no_checkpoint(text: str, folder: Path) -> None:
    write_checkpoint(folder, checkpoint(7))
    (folder / "step-00000007.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedCheckpoint, match=r"step-00000007\.json is damaged"):
        read_checkpoint(folder, 7)


# Which one ------------------------------------------------------------------------------------------------------------


def test_the_newest_sound_one_is_offered_and_the_damaged_are_named(folder: Path) -> None:
    for step in (2, 10, 100):
        write_checkpoint(folder, checkpoint(step))
    (folder / "step-00000100.json").write_bytes(b"")
    content = (folder / "step-00000010.safetensors").read_bytes()
    (folder / "step-00000010.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said: list[str] = []
    changed = "its bits have changed, its SHA-256 is not the recorded one"
    found = newest_checkpoint(folder, "ef" * 32, said.append)
    assert found is not None
    assert found.step == 2
    assert said == [
        f"{folder / 'step-00000100.json'} is damaged: it is cut off after 0 bytes",
        f"{folder / 'step-00000010.safetensors'} is damaged: {changed}",
    ]
    assert saved_steps(folder) == [2, 10, 100]  # nothing is deleted


def strays(folder: Path) -> dict[str, str]:
    """Put what is none of the run's among its checkpoints; return what is said of each, the newest first."""
    write_checkpoint(folder, replace(checkpoint(60), configuration="00" * 32))
    shutil.copy(folder / "step-00000010.json", folder / "step-00000050.json")
    shutil.copy(folder / "step-00000010.safetensors", folder / "step-00000050.safetensors")
    (folder / "step-00000040.json").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_module, "FORMAT", 2)
        write_checkpoint(folder, checkpoint(30, score=0.0))
    return {
        "step-00000050.json": "is a copy of the checkpoint of step 10",
        "step-00000040.json": "is a directory",
        "step-00000030.json": "is of format 2; this version reads format 1",
        "step-00000060.json": "was saved with another config.toml",
    }


def test_strays_are_passed_over_with_a_word(folder: Path) -> None:
    for step in (5, 10):
        write_checkpoint(folder, checkpoint(step))
    expected = [f"{folder / name} {what}" for name, what in strays(folder).items()]
    said: list[str] = []
    found = newest_checkpoint(folder, "ef" * 32, said.append)
    assert found is not None
    assert (found.step, said) == (10, expected)


def test_strays_take_nobodys_place_and_stay(folder: Path) -> None:
    for step in (5, 10):
        write_checkpoint(folder, checkpoint(step, score=step / 10))
    strays(folder)
    assert best_step(folder) == 5
    write_checkpoint(folder, checkpoint(70, score=0.9))
    delete_old_checkpoints(folder, 70, keep=2)
    assert saved_steps(folder) == [5, 10, 30, 40, 50, 60, 70]
    write_checkpoint(folder, checkpoint(80, score=0.9))
    delete_old_checkpoints(folder, 80, keep=1)
    assert saved_steps(folder) == [5, 30, 40, 50, 60, 80]


def test_where_all_are_another_configurations_it_is_an_error(folder: Path) -> None:
    write_checkpoint(folder, checkpoint(7))
    said: list[str] = []
    with pytest.raises(
        CheckpointError, match=r"config\.toml is not that of its checkpoints: .*step-00000007\.json was saved with an"
    ):
        newest_checkpoint(folder, "00" * 32, said.append)
    assert said == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_tensors_that_are_damaged_displace_none_that_are_sound(damage: str, folder: Path) -> None:
    for step, score in ((1, 0.3), (2, 0.1), (3, 0.2), (4, 0.4)):
        write_checkpoint(folder, checkpoint(step, score))
    file = folder / "step-00000002.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + (b"" if damage == "cut" else bytes([content[-1] ^ 1])))
    if damage == "missing":
        file.unlink()
    assert best_step(folder) == 3
    delete_old_checkpoints(folder, 4, keep=1)
    assert saved_steps(folder) == [3, 4]


def test_there_is_none(folder: Path) -> None:
    said: list[str] = []
    assert newest_checkpoint(folder, "ef" * 32, said.append) is None
    folder.mkdir()
    (folder / "step-00000007.safetensors").write_bytes(b"half")  # what a killed process left
    (folder / ".step-00000007.json.abc.tmp").write_bytes(b"half")
    (folder / "step-7.json").write_bytes(b"not ours")
    assert newest_checkpoint(folder, "ef" * 32, said.append) is None
    assert best_step(folder) is None
    assert said == []


def test_steps_of_more_than_eight_digits(folder: Path) -> None:
    for step in (99_999_999, 100_000_000):
        write_checkpoint(folder, checkpoint(step))
    assert saved_steps(folder) == [99_999_999, 100_000_000]
    delete_old_checkpoints(folder, 100_000_000, keep=1)
    assert saved_steps(folder) == [100_000_000]


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.5, 0.2, 0.3], 20), ([0.2, 0.2, 0.3], 10), ([None, 0.4, None], 20), ([None, None, None], None)],
)
def test_the_best_is_the_first_with_the_smallest_validation_error(
    scores: list[float | None], best: int | None, folder: Path
) -> None:
    for step, score in zip((10, 20, 30), scores, strict=True):
        write_checkpoint(folder, checkpoint(step, score))
    assert best_step(folder) == best


def test_the_last_and_the_best_are_kept(folder: Path) -> None:
    scores = {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3, 5: 0.2}
    kept = []
    for step, score in scores.items():
        write_checkpoint(folder, checkpoint(step, score))
        delete_old_checkpoints(folder, step, keep=2)
        kept.append(saved_steps(folder))
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5]]
    assert files(folder) == {f"step-0000000{step}.{end}" for step in (2, 4, 5) for end in ("json", "safetensors")}


def test_damaged_and_half_written_ones_go_when_a_newer_one_is_safe(folder: Path) -> None:
    for step in (2, 4, 8):
        write_checkpoint(folder, checkpoint(step, score=1 / step))
    for name in ("step-00000004.json", "step-00000008.json", "step-00000003.safetensors", ".step-00000006.json.ab.tmp"):
        (folder / name).write_bytes(b"half")
    (folder / "notes.txt").write_bytes(b"mine")
    write_checkpoint(folder, checkpoint(6))  # the run went on from 2 and stopped at 6
    delete_old_checkpoints(folder, 6, keep=2)
    assert saved_steps(folder) == [2, 6]  # 4 takes nobody's place
    assert files(folder) == {f"step-0000000{n}.{end}" for n in (2, 6) for end in ("json", "safetensors")} | {
        "notes.txt"
    }


# Writing --------------------------------------------------------------------------------------------------------------


def test_the_facts_come_last_and_each_name_is_brought_down(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors, then facts; of both the content before the name, and the folder after it."""
    happened: list[Any] = []
    replace_file, fsync = os.replace, os.fsync

    def noted_replace(source: Any, target: Any) -> None:
        happened.append(Path(target).suffix)
        replace_file(source, target)

    def noted_fsync(number: int) -> None:
        happened.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "content")
        fsync(number)

    monkeypatch.setattr(os, "replace", noted_replace)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    write_checkpoint(folder, checkpoint(7))
    assert happened == ["folder", "content", ".safetensors", "folder", "content", ".json", "folder"]


def test_no_number_is_written_that_json_has_not(folder: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_checkpoint(folder, checkpoint(7, score=float("nan")))
    assert saved_steps(folder) == []
