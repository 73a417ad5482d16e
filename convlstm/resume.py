"""`convlstm train --resume`: which run is meant, whether it is the one asked for, and what has changed since."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convlstm.backends import get_backend
from convlstm.config import PRESETS, Config, ConfigError, load_config
from convlstm.recorded_run import NoRun, differing_environments
from convlstm.run_directory import RunDirectoryError, has_begun, is_finished, unfinished_run
from convlstm.run_environment import environment, read_environment
from convlstm.settings import differing_settings


@dataclass(frozen=True)
class Unfinished:
    """A run to go on with.

    Attributes:
        backend: what it is to be computed on.
        changed: what bits may depend on and is different now, a line each.
        finished: whether there is nothing left to do.
    """

    backend: str
    changed: list[str]
    finished: bool


def find_run(what: str, out: Path | None) -> Path:
    """Return the directory of the run to resume.

    Args:
        what: a preset, a TOML file, or a run directory.
        out: a run directory.  Without it, and where `what` is none either, the newest unfinished runs/PRESET-N.

    Raises:
        NoRun: the directory holds no run, or two directories are named.
        RunDirectoryError: there is no unfinished run.
    """
    named = Path(what) if is_run_directory(what) else None
    if named is not None and out is not None and named.resolve() != out.resolve():
        raise NoRun(f"--resume goes on in one directory; got {named} and --out {out}")
    if named is None and out is None and _is_no_configuration(what):
        raise NoRun(f"there is no run directory {what}")
    directory = named or out or unfinished_run(Path(what).stem)
    if not directory.is_dir():
        raise NoRun(f"there is no run directory {directory}; without --resume a run starts in it")
    if not (directory / "ledger.jsonl").is_file():
        hint = "put it back" if any(directory.iterdir()) else "without --resume a run starts in it"
        raise NoRun(f"{directory} holds no ledger.jsonl, so there is no run to resume; {hint}")
    return directory


def _is_no_configuration(what: str) -> bool:
    """Say whether this can only have been meant as a directory."""
    return what not in PRESETS and not what.endswith(".toml") and not Path(what).exists()


def is_run_directory(what: str) -> bool:
    """Say whether `convlstm train WHAT` names a directory, and neither a preset nor a file."""
    return what not in PRESETS and Path(what).is_dir()


def as_argument(directory: Path) -> str:
    """Return what names a run directory in `convlstm train --resume`, and neither a preset nor an option."""
    name = str(directory)
    return f"./{name}" if name in PRESETS or name.startswith("-") else name


def recorded_config(directory: Path) -> Config:
    """Return the configuration of the run in a directory.

    Raises:
        NoRun: it has none.
        RunDirectoryError: it has lost it.
        ConfigError: it cannot be read.
    """
    if not has_begun(directory):
        raise NoRun(f"{directory} holds no config.toml: its run was ended before it began; name a preset or file, too")
    return load_config(str(directory / "config.toml"))


def look_at(directory: Path, config: Config, backend: str | None) -> Unfinished:
    """Compare the run in a directory with what is asked for.

    Args:
        directory: from `find_run`.
        config: what is asked for.
        backend: what is asked for; None: what the run was begun on.

    Raises:
        ConfigError: the run has other settings; the message names them.
        RunDirectoryError: the run has lost its config.toml.
        BackendUnavailable: see `get_backend`.
    """
    if not has_begun(directory):
        return Unfinished(backend or "auto", [], finished=False)
    differing = differing_settings(recorded_config(directory), config, " is {} there, {} is asked for")
    if differing:
        raise ConfigError(f"the run in {directory} has other settings: {'; '.join(differing)}")
    finished = is_finished(directory)
    try:
        recorded = read_environment(directory)
    except RunDirectoryError as error:  # it says nothing that the run's steps need
        return Unfinished(backend or "auto", [f"{error}; it is written anew"], finished)
    chosen = backend or str(recorded.get("backend", "numpy"))
    return Unfinished(chosen, differing_environments(recorded, environment(get_backend(chosen))), finished)
