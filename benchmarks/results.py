"""One file format for whatever was measured.

    {"environment": {…}, "benchmarks": {"train_step": {"shi": {"seconds": {"PyTorch": [0.70, …], …}, …}, …}, …}}

Every benchmark has rows, every row the seconds of its contenders, one figure for each round; `measure.row` makes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.measure import Rows
from convlstm.whole_files import write_whole


class ResultsError(ValueError):
    """A file that does not hold results; the message names it."""


def write_results(path: Path, environment: dict[str, Any], benchmarks: dict[str, Rows]) -> None:
    """Write results, whole or not at all."""
    write_whole(path, (json.dumps({"environment": environment, "benchmarks": benchmarks}, indent=1) + "\n").encode())


def read_results(path: Path) -> tuple[dict[str, Any], dict[str, Rows]]:
    """Return the environment, and each benchmark's rows.

    Raises:
        ResultsError: it cannot be read, or `write_results` did not write it.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        environment, benchmarks = held["environment"], held["benchmarks"]
        rows = [row for rows in benchmarks.values() for row in rows.values()]
        numbers = [number for row in rows for values in row["seconds"].values() for number in values]
        if not isinstance(environment, dict) or not all(isinstance(number, float) for number in numbers):
            raise ValueError("seconds must be numbers")
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path} holds no results of `python -m benchmarks --json`: {error!r}") from None
    return environment, benchmarks
