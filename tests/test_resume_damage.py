"""Resuming past damage: a checkpoint, a ledger or a configuration that is not what it was."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from convlstm import training
from convlstm.checkpoint import CheckpointError, read_checkpoint
from convlstm.ledger import LedgerError, open_locked
from convlstm.run_directory import RunDirectoryError
from convlstm.trainer import Trainer
from tests.killed_runs import content
from tests.resumed_runs import STOPPED, assert_same_end, flip, no_picture, sigterm, stopped, trained, whole
from tests.runs import changed

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")


pytestmark = pytest.mark.usefixtures("no_picture", "sigterm")


@pytest.mark.parametrize("end", ["json", "safetensors"])
def test_past_a_damaged_checkpoint_it_goes_on_from_the_one_before(end: str, stopped: Path, whole: Path) -> None:
    folder = stopped / "checkpoints"
    flip(folder / f"step-00000003.{end}")
    said: list[str] = []
    trained(stopped, STOPPED, said=said)
    assert said[0].startswith(f"{folder / f'step-00000003.{end}'} is damaged: its bits have changed")
    assert said[1:] == [f"going on from {folder / 'step-00000002.json'}"]
    assert_same_end(stopped, whole)


def test_a_damaged_checkpoint_stays_until_a_newer_one_is_safe(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(stopped / "checkpoints" / "step-00000003.json")
    before = content(stopped / "checkpoints")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "write_checkpoint", full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        trained(stopped, STOPPED)
    assert content(stopped / "checkpoints") == before


def test_where_no_checkpoint_is_sound_it_goes_on_from_the_beginning(stopped: Path, whole: Path) -> None:
    for file in (stopped / "checkpoints").glob("*.json"):
        flip(file)
    said: list[str] = []
    trained(stopped, STOPPED, said=said)
    assert [line.split(" is ")[0] for line in said[:3]] == [
        str(stopped / "checkpoints" / f"step-0000000{step}.json") for step in (3, 2, 1)
    ]
    assert said[3] == f"{stopped} holds no checkpoint to go on from; going on from step 0, to the same bits"
    assert_same_end(stopped, whole)


@pytest.mark.parametrize("more", [b'{"step": 3, "loss": 0.', b"\x00" * 50, b'{"step": 3}\n{"step": 4}\n'])
def test_what_the_ledger_has_beyond_the_checkpoint_is_cut_off(more: bytes, stopped: Path, whole: Path) -> None:
    with (stopped / "ledger.jsonl").open("ab") as end:
        end.write(more)
    trained(stopped, STOPPED)
    assert_same_end(stopped, whole)


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_ledger_that_is_not_the_checkpoints_is_an_error_that_names_both(damage: str, stopped: Path) -> None:
    ledger = stopped / "ledger.jsonl"
    if damage == "flipped":
        flip(ledger)
    else:
        ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:2]))
    before = content(stopped)
    there = 3 if damage == "flipped" else 2
    right = (
        rf"ledger\.jsonl \({there} lines\) does not begin with the 3 lines that it held; .*step-00000003\.json needs"
    )
    with pytest.raises(LedgerError, match=right):
        trained(stopped, STOPPED)
    assert content(stopped) == before


def test_a_config_that_was_edited_is_an_error_that_names_both(stopped: Path) -> None:
    with (stopped / "config.toml").open("a") as end:
        end.write("# mine\n")
    before = content(stopped)
    with pytest.raises(CheckpointError, match=r"config\.toml is not that of its checkpoints: .*step-00000003\.json"):
        trained(stopped, STOPPED)
    assert content(stopped) == before


def test_a_checkpoint_of_other_settings_is_refused(stopped: Path) -> None:
    found = read_checkpoint(stopped / "checkpoints", 3)
    with pytest.raises(CheckpointError, match=r"the checkpoint stands at .*'seed': 5.*; this run at .*'seed': 6"):
        Trainer(changed(STOPPED, seed=6), "numpy").restore(found)


def test_a_run_that_goes_on_elsewhere_is_left_alone(stopped: Path) -> None:
    before = content(stopped)
    said: list[str] = []
    with (
        closing(open_locked(stopped / "ledger.jsonl")),
        pytest.raises(LedgerError, match=r"ledger\.jsonl is being written by another process: the run in it goes on$"),
    ):
        trained(stopped, STOPPED, said=said)
    assert said == []
    assert content(stopped) == before
