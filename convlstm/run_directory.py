"""Where a run's files are kept: a directory that holds a run and nothing else, and is never overwritten unasked."""

from __future__ import annotations

from pathlib import Path

RUN_FILES = ("config.toml", "environment.json", "ledger.jsonl", "weights.safetensors", "scores.json", "forecast.png")


class RunDirectoryError(ValueError):
    """A run directory that cannot be used; the message names it."""


def make_run_directory(directory: Path | None, preset: str, *, overwrite: bool, weights: str = "") -> Path:
    """Make the directory and return it; without a name the first free of runs/PRESET-1, runs/PRESET-2, …

    Raises:
        RunDirectoryError: it exists and `overwrite` was not said, or what is there is not a run, or holds the `weights`
            that the new run is to start from, or it cannot be made.
    """
    try:
        if directory is None:
            return _first_free(Path("runs"), preset)
        if directory.is_dir() and any(directory.iterdir()):
            if weights and directory.resolve() in Path(weights).resolve().parents:
                raise RunDirectoryError(f"{directory} holds the weights to start from; name another --out")
            _clear(directory, overwrite)
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        place = error.filename or directory
        raise RunDirectoryError(f"cannot use {place} as a run directory: {error.strerror}") from None
    return directory


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
        raise RunDirectoryError(f"{directory} exists; name another --out, or say --overwrite to replace the run in it")
    files = sorted(directory.iterdir())
    strangers = [path.name for path in files if not _is_of_a_run(path)]
    if strangers:
        raise RunDirectoryError(f"{directory} holds {strangers[0]}, which is no part of a run; it is left as it is")
    if directory / "ledger.jsonl" not in files:  # a config.toml alone is somebody's own
        raise RunDirectoryError(f"{directory} holds no ledger.jsonl, so it is no run; it is left as it is")
    for path in files:
        path.unlink()


def _is_of_a_run(path: Path) -> bool:
    """Say whether a run wrote this: one of its files, or what a killed run left of one, .NAME.….tmp."""
    name = path.name
    half = name.endswith(".tmp") and any(name.startswith(f".{whole}.") for whole in RUN_FILES)
    return (name in RUN_FILES or half) and not path.is_dir()
