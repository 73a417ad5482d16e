"""What a run directory says of a run: its settings, its ledger, where it was made, and what has changed since."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlstm.backends import get_backend
from convlstm.config import Config, load_config
from convlstm.ledger import Entry, read_ledger
from convlstm.run_directory import RunDirectoryError
from convlstm.run_environment import environment, read_environment


class NoRun(ValueError):
    """A directory that holds no run that can be read; the message names what is missing."""


@dataclass(frozen=True)
class RecordedRun:
    """A run as its directory records it."""

    directory: Path
    config: Config
    ledger: list[Entry]
    environment: dict[str, Any]

    @property
    def backend(self) -> str:
        """The backend it was computed on."""
        return str(self.environment.get("backend", "numpy"))


def read_run(directory: Path) -> RecordedRun:
    """Read a run directory.

    Raises:
        NoRun, LedgerError, ConfigError: a file of it is missing or cannot be read; the message names it.
    """
    for name in ("config.toml", "ledger.jsonl", "environment.json"):
        if not (directory / name).is_file():
            raise NoRun(f"{directory} holds no {name}, so it is no run")
    try:
        recorded = read_environment(directory)
    except RunDirectoryError as error:
        raise NoRun(str(error)) from None
    config = load_config(str(directory / "config.toml"))
    return RecordedRun(directory, config, read_ledger(directory / "ledger.jsonl"), recorded)


def changes_since(run: RecordedRun, backend: str) -> list[str]:
    """Return what numbers may depend on and is different here and now, each in one line."""
    return differing_environments(run.environment, environment(get_backend(backend)))


def differing_environments(
    one: dict[str, Any], other: dict[str, Any], names: tuple[str, str] = ("then", "now")
) -> list[str]:
    """Return in what two environments differ that bits may depend on; threads and cores are no part of that."""
    before, now = dict(_facts(one)), dict(_facts(other))
    return [
        f"{name}: {before.get(name, 'none')} {names[0]}, {now.get(name, 'none')} {names[1]}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _facts(recorded: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("backend", "processor", "python"):
        yield name, str(recorded.get(name))
    if str(recorded.get("backend")).startswith("cupy"):
        yield "device", str(recorded.get("backend_description"))
    yield "BLAS", ", ".join(map(str, recorded.get("blas", [])))
    for package, version in recorded.get("packages", {}).items():
        yield package, str(version)
    for variable, value in recorded.get("variables", {}).items():
        if "THREADS" not in variable and variable != "CONVLSTM_BACKEND":
            yield variable, str(value)
