"""Measuring in a process of its own, where nothing else has been loaded, computed or allowed threads before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Skipped

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = "skipped"


def in_own_process(module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
    """Run ``python -m benchmarks.MODULE ARGUMENTS…`` and return the JSON of its last line.

    Raises:
        Skipped: it said that it cannot take part; see `answer`.
        RuntimeError: it failed; the message is the last line of what it said.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    finished = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        env={**os.environ, "PYTHONPATH": path, **(environment or {})}, capture_output=True, text=True,
    )  # fmt: skip
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"python -m benchmarks.{module} {' '.join(arguments)} failed: {last}")
    answered = json.loads(finished.stdout.splitlines()[-1])
    if SKIPPED in answered:
        raise Skipped(answered[SKIPPED])
    return answered


def answer(found: Mapping[str, Any] | Skipped) -> None:
    """Print what was found, or why nothing could be, for `in_own_process`."""
    print(json.dumps({SKIPPED: str(found)} if isinstance(found, Skipped) else found))
