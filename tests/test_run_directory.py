"""The run directory: whose files are never touched."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from convlstm.ledger import LedgerError, open_locked
from convlstm.run_directory import (
    CHECKPOINTS,
    EVENTS,
    MORE_FILES,
    RUN_FILES,
    RunDirectoryError,
    half_written,
    has_begun,
    is_finished,
    make_run_directory,
    was_scored,
)


def a_run_in(directory: Path, *more: str) -> Path:
    directory.mkdir()
    for name in (*RUN_FILES, *more):
        (directory / name).write_text(name)
    return directory


def content(directory: Path) -> dict[str, str | None]:
    return {path.name: path.read_text() if path.is_file() else None for path in directory.iterdir()}


def test_a_new_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    assert make_run_directory(tmp_path / "a" / "b", "digits", overwrite=False) == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    assert make_run_directory(tmp_path, "digits", overwrite=False) == tmp_path


def test_without_a_name_the_first_free_number_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [str(make_run_directory(None, name, overwrite=False)) for name in ("digits", "digits", "other")]
    assert names == [str(Path("runs") / name) for name in ("digits-1", "digits-2", "other-1")]
    # Numbers are not reused even when told to overwrite: that is about a directory that was named.
    assert make_run_directory(None, "digits", overwrite=True) == Path("runs/digits-3")


def test_a_run_is_never_overwritten_without_being_told(tmp_path: Path) -> None:
    run = a_run_in(tmp_path / "run")
    before = content(run)
    with pytest.raises(RunDirectoryError, match=r"run exists; name another --out, or say --overwrite"):
        make_run_directory(run, "digits", overwrite=False)
    assert content(run) == before


def test_a_run_is_overwritten_when_told(tmp_path: Path) -> None:
    run = a_run_in(tmp_path / "run")
    assert make_run_directory(run, "digits", overwrite=True) == run
    assert content(run) == {}


def test_a_run_that_is_still_trained_is_never_overwritten(tmp_path: Path) -> None:
    run = a_run_in(tmp_path / "run")
    before = content(run)
    with (
        closing(open_locked(run / "ledger.jsonl")),
        pytest.raises(LedgerError, match=r"ledger\.jsonl is being written by another process: the run in it goes on$"),
    ):
        make_run_directory(run, "digits", overwrite=True)
    assert content(run) == before
    make_run_directory(run, "digits", overwrite=True)
    assert content(run) == {}


def test_what_cannot_be_deleted_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run_in(tmp_path / "run")

    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunDirectoryError, match=r"^cannot delete .*run/config\.toml: Read-only file system$"):
        make_run_directory(run, "digits", overwrite=True)


@pytest.mark.parametrize("lost", ["ledger.jsonl", "weights.safetensors", "scores.json", "forecast.png"])
def test_a_run_is_finished_when_it_has_all_that_it_is_to_leave(lost: str, tmp_path: Path) -> None:
    run = a_run_in(tmp_path / "run")
    assert is_finished(run)
    assert was_scored(run)
    (run / lost).unlink()
    assert not is_finished(run)
    assert was_scored(run) == (lost == "forecast.png")


def test_an_emptied_ledger_is_none(tmp_path: Path) -> None:
    run = a_run_in(tmp_path / "run")
    (run / "ledger.jsonl").write_bytes(b"")
    assert not is_finished(run)
    (run / "config.toml").unlink()
    assert not has_begun(run)


CHECKPOINT_NAMES = (
    "step-00000050.json", "step-00000050.safetensors", "step-100000000.json", ".step-00000100.json.0123456789ab.tmp",
)  # fmt: skip


EVENT_NAMES = ("events.out.tfevents.0", "events.out.tfevents.150")
FOLDERS = {CHECKPOINTS: CHECKPOINT_NAMES, EVENTS: EVENT_NAMES}


def with_folder(run: Path, folder: str, *names: str) -> Path:
    (run / folder).mkdir()
    for name in names:
        (run / folder / name).write_text(name)
    return run


@pytest.mark.parametrize("folders", [[CHECKPOINTS], [EVENTS], [CHECKPOINTS, EVENTS]], ids=" ".join)
def test_a_runs_folders_are_overwritten_with_it(tmp_path: Path, folders: list[str]) -> None:
    run = a_run_in(tmp_path / "run")
    for folder in folders:
        with_folder(run, folder, *FOLDERS[folder])
    make_run_directory(run, "digits", overwrite=True)
    assert content(run) == {}


def test_what_only_some_runs_have_is_overwritten_with_them(tmp_path: Path) -> None:
    run = a_run_in(tmp_path / "run", *MORE_FILES, *(f".{name}.0123456789ab.tmp" for name in MORE_FILES))
    assert {path.name for path in half_written(run)} == {f".{name}.0123456789ab.tmp" for name in MORE_FILES}
    make_run_directory(run, "digits", overwrite=True)
    assert content(run) == {}


STRANGERS = {
    CHECKPOINTS: (
        "notes.txt", "step-50.json", "step-00000050.json.tmp", ".step-00000050.json", "step-00000050.npz",
        EVENT_NAMES[0],
    ),
    EVENTS: (
        "notes.txt", "events.out.tfevents", "events.out.tfevents.1700000000.host.12.0", "events.out.tfevents.0.tmp",
        CHECKPOINT_NAMES[0],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("folder", "stranger"), [(folder, one) for folder in STRANGERS for one in STRANGERS[folder]])
def test_a_strangers_file_in_a_runs_folder_is_never_touched(tmp_path: Path, folder: str, stranger: str) -> None:
    run = with_folder(a_run_in(tmp_path / "run"), folder, *FOLDERS[folder], stranger)
    before = content(run), content(run / folder)
    with pytest.raises(RunDirectoryError, match=f"run holds {Path(folder) / stranger}, which is no part of a run"):
        make_run_directory(run, "digits", overwrite=True)
    assert (content(run), content(run / folder)) == before


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_within_a_runs_folder_is_never_touched(tmp_path: Path, folder: str) -> None:
    run = with_folder(a_run_in(tmp_path / "run"), folder)
    (run / folder / FOLDERS[folder][0]).mkdir()
    with pytest.raises(RunDirectoryError, match=f"run holds {Path(folder) / FOLDERS[folder][0]}, which is no part"):
        make_run_directory(run, "digits", overwrite=True)
    assert (run / folder / FOLDERS[folder][0]).is_dir()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_file_that_is_called_like_a_runs_folder_is_never_touched(tmp_path: Path, folder: str) -> None:
    run = a_run_in(tmp_path / "run", folder)
    with pytest.raises(RunDirectoryError, match=f"run holds {folder}, which is no part of a run"):
        make_run_directory(run, "digits", overwrite=True)
    assert (run / folder).read_text() == folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_that_lies_elsewhere_is_never_touched(tmp_path: Path, folder: str) -> None:
    elsewhere = with_folder(tmp_path, folder, *FOLDERS[folder]) / folder
    run = a_run_in(tmp_path / "run")
    (run / folder).symlink_to(elsewhere)
    with pytest.raises(RunDirectoryError, match=f"run holds {folder}, which is no part of a run"):
        make_run_directory(run, "digits", overwrite=True)
    assert set(content(elsewhere)) == set(FOLDERS[folder])


def test_whoever_is_killed_while_clearing_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger, which says that it is a run, goes last."""
    run = with_folder(a_run_in(tmp_path / "run"), CHECKPOINTS, *CHECKPOINT_NAMES)
    with_folder(run, EVENTS, *EVENT_NAMES)
    unlink = Path.unlink
    deleted: list[str] = []

    def dying(path: Path, missing_ok: bool = False) -> None:
        if len(deleted) == len(deleted_before) + 1:
            raise KeyboardInterrupt
        unlink(path, missing_ok)
        deleted.append(path.name)

    monkeypatch.setattr(Path, "unlink", dying)
    while True:
        deleted_before = list(deleted)
        try:
            make_run_directory(run, "digits", overwrite=True)
        except KeyboardInterrupt:
            continue
        break
    assert deleted[-1] == "ledger.jsonl"
    assert sorted(deleted) == sorted([*RUN_FILES, *CHECKPOINT_NAMES, *EVENT_NAMES])
    assert content(run) == {}


def test_what_was_left_half_written_is_found(tmp_path: Path) -> None:
    left = (".scores.json.0123.tmp", ".weights.safetensors.0123456789ab.tmp")
    run = a_run_in(tmp_path / "run", *left, ".notes.txt.tmp", "config.toml.tmp")
    assert [path.name for path in half_written(run)] == sorted(left)


def test_the_weights_to_start_from_are_never_overwritten(tmp_path: Path) -> None:
    directory = a_run_in(tmp_path / "run")
    before = sorted(directory.iterdir())
    with pytest.raises(RunDirectoryError, match=r"weights\.safetensors, which the run is to use; name another --out"):
        make_run_directory(directory, "digits", overwrite=True, used=[str(directory / "weights.safetensors")])
    assert sorted(directory.iterdir()) == before


def test_the_frames_to_learn_on_are_never_overwritten(tmp_path: Path) -> None:
    """Even deep in a folder of the run's, where they would be a stranger in any case, and named by a link."""
    run = a_run_in(tmp_path / "run")
    (tmp_path / "link").symlink_to(run)
    before = content(run)
    for frames in (run / "a" / "frames.npy", tmp_path / "link" / "frames.npy"):
        with pytest.raises(RunDirectoryError, match=r"frames\.npy, which the run is to use; name another --out"):
            make_run_directory(run, "digits", overwrite=True, used=["package:p/f.nc", str(frames)])
    assert content(run) == before


def test_frames_in_the_folder_above_are_none_of_the_runs(tmp_path: Path) -> None:
    run = a_run_in(tmp_path / "run")
    make_run_directory(run, "digits", overwrite=True, used=[str(tmp_path), str(tmp_path / "run.npy")])
    assert content(run) == {}


def test_what_a_killed_run_left_half_written_is_part_of_it(tmp_path: Path) -> None:
    left = (".config.toml.tmp", ".weights.safetensors.0123456789ab.tmp", ".forecast.png.123.tmp")
    run = a_run_in(tmp_path / "run", *left)
    make_run_directory(run, "digits", overwrite=True)
    assert content(run) == {}


@pytest.mark.parametrize("stranger", ["notes.txt", ".git", "ledger.jsonl.bak", ".notes.txt.tmp", "config.toml.tmp"])
def test_a_directory_with_a_strangers_file_is_never_touched(tmp_path: Path, stranger: str) -> None:
    run = a_run_in(tmp_path / "run", stranger)
    before = content(run)
    with pytest.raises(
        RunDirectoryError, match=f"run holds {stranger}, which is no part of a run; it is left as it is"
    ):
        make_run_directory(run, "digits", overwrite=True)
    assert content(run) == before


def test_a_folder_that_is_called_like_a_runs_file_is_never_touched(tmp_path: Path) -> None:
    run = a_run_in(tmp_path / "run")
    (run / "scores.json").unlink()
    a_run_in(run / "scores.json")
    with pytest.raises(RunDirectoryError, match=r"run holds scores\.json, which is no part of a run"):
        make_run_directory(run, "digits", overwrite=True)
    assert set(content(run / "scores.json")) == set(RUN_FILES)


def test_a_directory_that_holds_only_somebodys_config_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[model]")
    with pytest.raises(RunDirectoryError, match=r"holds no ledger\.jsonl, so it is no run"):
        make_run_directory(tmp_path, "digits", overwrite=True)
    assert content(tmp_path) == {"config.toml": "[model]"}


def test_a_link_to_a_run_stays_a_link(tmp_path: Path) -> None:
    run = a_run_in(tmp_path / "run")
    (tmp_path / "latest").symlink_to(run)
    make_run_directory(tmp_path / "latest", "digits", overwrite=True)
    assert (tmp_path / "latest").is_symlink()
    assert content(run) == {}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_no_directory(tmp_path: Path, overwrite: bool) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "run"):
        with pytest.raises(RunDirectoryError, match=r"^cannot use .*file.* as a run directory: \w+"):
            make_run_directory(out, "digits", overwrite=overwrite)
    assert file.read_text() == "mine"


def test_a_place_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acted, since no place is closed to root, as whom tests may run."""

    def refuse(path: object, *arguments: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(RunDirectoryError, match=r"^cannot use .*run as a run directory: Permission denied$"):
        make_run_directory(tmp_path / "run", "digits", overwrite=False)


def test_runs_may_not_be_a_link_that_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mkdir says "exists" for ever, as a taken number does once."""
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to(tmp_path / "unmounted" / "disk")
    with pytest.raises(RunDirectoryError, match="cannot use runs as a run directory"):
        make_run_directory(None, "digits", overwrite=False)
