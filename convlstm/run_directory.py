"""Where a run's files are kept: a directory that holds a run and nothing else, and is never overwritten unasked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from convlstm.ledger import open_locked
from convlstm.whole_files import was_left_half_written

DATA, CLIMATOLOGY = "data.json", "climatology.safetensors"
RUN_FILES = (
    "config.toml", "environment.json", DATA, "ledger.jsonl", "weights.safetensors", "scores.json", "forecast.png",
)  # fmt: skip
# What only some runs have: those of frames from files, and those that were looked at later.
MORE_FILES = (CLIMATOLOGY, "evaluation.json", "report.html")
CHECKPOINTS, EVENTS = "checkpoints", "events"  # folders of the files that checkpoint.py and event_files.py write
INSIDE = {
    CHECKPOINTS: re.compile(r"(\.)?step-\d{8,}\.(json|safetensors)(?(1)\.\w+\.tmp)"),
    EVENTS: re.compile(r"events\.out\.tfevents\.\d+"),
}


class RunDirectoryError(ValueError):
    """A run directory that cannot be used; the message names it."""


def make_run_directory(directory: Path | None, preset: str, *, overwrite: bool, used: Sequence[str] = ()) -> Path:
    """Make the directory and return it; without a name the first free of runs/PRESET-1, runs/PRESET-2, …

    Raises:
        RunDirectoryError: it exists and `overwrite` was not said, or what is there is not a run, or holds a file that
            the new run is to start from, one of `used`, or it cannot be made or cleared.
        LedgerError: another process trains the run that is there.
    """
    try:
        if directory is None:
            return _first_free(Path("runs"), preset)
        if directory.is_dir() and any(directory.iterdir()):
            for path in used:
                if directory.resolve() in Path(path).resolve().parents:
                    raise RunDirectoryError(f"{directory} holds {path}, which the run is to use; name another --out")
            _clear(directory, overwrite)
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        place = error.filename or directory
        raise RunDirectoryError(f"cannot use {place} as a run directory: {error.strerror}") from None
    return directory


def unfinished_run(preset: str) -> Path:
    """Return the newest of runs/PRESET-1, runs/PRESET-2, … that has begun and is not finished.

    Raises:
        RunDirectoryError: there is none.
    """
    numbered = [(re.fullmatch(re.escape(preset) + r"-(\d+)", path.name), path) for path in Path("runs").glob("*")]
    for _, path in sorted(((int(match[1]), path) for match, path in numbered if match), reverse=True):
        if (path / "ledger.jsonl").is_file() and not is_finished(path):
            return path
    raise RunDirectoryError(f"there is no unfinished run runs/{preset}-N to resume; without --resume a new one starts")


def is_finished(directory: Path) -> bool:
    """Say whether a run has all that it is to leave; an emptied ledger is none."""
    return was_scored(directory) and (directory / "forecast.png").is_file()


def was_scored(directory: Path) -> bool:
    """Say whether a run has taken all its steps and come to its scores."""
    ledger, last = directory / "ledger.jsonl", ("weights.safetensors", "scores.json")
    return ledger.is_file() and ledger.stat().st_size > 0 and all((directory / name).is_file() for name in last)


def has_begun(directory: Path) -> bool:
    """Say whether a run has written its settings, as it does before the first step.

    Raises:
        RunDirectoryError: it has taken steps, but its settings are gone, so that nobody can say which run it was.
    """
    ledger, checkpoints = directory / "ledger.jsonl", directory / CHECKPOINTS
    steps = ledger.is_file() and ledger.stat().st_size > 0
    if not (directory / "config.toml").is_file() and (steps or any(checkpoints.glob("step-*.json"))):
        choice = "put it back, or say --overwrite to begin anew"
        raise RunDirectoryError(
            f"{directory} holds a run's steps, but {directory / 'config.toml'} is missing: {choice}"
        )
    return (directory / "config.toml").is_file()


def half_written(directory: Path) -> list[Path]:
    """Return what a killed process left of a run's files, those of its checkpoints apart."""
    return sorted(path for path in directory.glob(".*.tmp") if was_left_half_written(path, (*RUN_FILES, *MORE_FILES)))


def _first_free(parent: Path, preset: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        directory = parent / f"{preset}-{number}"
        try:
            directory.mkdir()
            return directory
        except FileExistsError:
            number += 1


def _clear(directory: Path, overwrite: bool) -> None:
    """Delete an earlier run's files, and nothing else, if told to."""
    if not overwrite:
        choice = "--overwrite to replace the run in it, --resume to continue it"
        raise RunDirectoryError(f"{directory} exists; name another --out, or say {choice}")
    files, folders = sorted(directory.iterdir()), [directory / name for name in INSIDE if _is_folder(directory / name)]
    inside = [path for folder in folders for path in sorted(folder.iterdir())]
    strangers = [path for path in files if not _is_of_a_run(path)] + [path for path in inside if not _is_ours(path)]
    if strangers:
        stranger = strangers[0].relative_to(directory)
        raise RunDirectoryError(f"{directory} holds {stranger}, which is no part of a run; it is left as it is")
    if directory / "ledger.jsonl" not in files:  # a config.toml alone is somebody's own
        raise RunDirectoryError(f"{directory} holds no ledger.jsonl, so it is no run; it is left as it is")
    last = sorted(files, key=lambda path: path.name == "ledger.jsonl")  # so that who is killed here can go on
    try:
        with closing(open_locked(directory / "ledger.jsonl")):
            for path in [*inside, *last]:
                path.rmdir() if path in folders else path.unlink()
    except OSError as error:
        raise RunDirectoryError(f"cannot delete {error.filename}: {error.strerror}") from None


def _is_folder(path: Path) -> bool:
    """Say whether this is a folder itself and not a link to one, whose files may be somebody else's."""
    return path.is_dir() and not path.is_symlink()


def _is_of_a_run(path: Path) -> bool:
    """Say whether a run wrote this: its folder, one of its files, or what a killed run left of one, .NAME.….tmp."""
    if path.name in INSIDE:
        return _is_folder(path)
    names = (*RUN_FILES, *MORE_FILES)
    return (path.name in names or was_left_half_written(path, names)) and not path.is_dir()


def _is_ours(path: Path) -> bool:
    """Say whether a run wrote this file of one of its folders."""
    return bool(INSIDE[path.parent.name].fullmatch(path.name)) and not path.is_dir()
