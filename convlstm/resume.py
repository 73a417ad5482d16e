"""`convlstm train --resume`: which run is meant, whether it is the one asked for, and what has changed since."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from convlstm.backends import get_backend
from convlstm.config import PRESETS, Config, ConfigError, load_config
from convlstm.recorded_run import NoRun, differing_environments
from convlstm.run_directory import unfinished_run
from convlstm.settings import differing_settings
from convlstm.training import environment


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
    directory = named or out or unfinished_run(Path(what).stem)
    if not (directory / "ledger.jsonl").is_file():
        raise NoRun(f"{directory} holds no ledger.jsonl, so there is no run to resume; without --resume one starts")
    return directory


def is_run_directory(what: str) -> bool:
    """Say whether `convlstm train WHAT` names a directory, and neither a preset nor a file."""
    return what not in PRESETS and Path(what).is_dir()


def recorded_config(directory: Path) -> Config:
    """Return the configuration of the run in a directory.

    Raises:
        NoRun: it has none.
        ConfigError: it cannot be read.
    """
    if not (directory / "config.toml").is_file():
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
        NoRun: a file of the run cannot be read.
        BackendUnavailable: see `get_backend`.
    """
    if not (directory / "config.toml").is_file():  # ended before the first step
        return Unfinished(backend or "auto", [], finished=False)
    differing = differing_settings(recorded_config(directory), config, " is {} there, {} is asked for")
    if differing:
        raise ConfigError(f"the run in {directory} has other settings: {'; '.join(differing)}")
    try:
        recorded = json.loads((directory / "environment.json").read_text(encoding="utf-8"))
        recorded_backend = str(recorded["backend"])
        differing_environments(recorded, recorded)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoRun(f"cannot read {directory / 'environment.json'}: {error}") from None
    chosen = backend or recorded_backend
    changed = differing_environments(recorded, environment(get_backend(chosen)))
    finished = all((directory / name).is_file() for name in ("scores.json", "forecast.png"))
    return Unfinished(chosen, changed, finished)
