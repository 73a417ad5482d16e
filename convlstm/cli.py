"""The command line.  An error that a user can mend is one line on stderr and exit code 2."""

from __future__ import annotations

import io
import sys

from convlstm.backends import BackendUnavailable, available_backends, get_backend, unavailable_backends
from convlstm.commands import checks, forecasts, train
from convlstm.commands.app import app, console
from convlstm.determinism.forbid import UninitialisedAllocation
from convlstm.determinism.replay import CannotRun

__all__ = ["app", "checks", "console", "forecasts", "main", "train"]


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an encoding without ≥ is no reason to fail
    try:
        app()
    except (
        ValueError,
        ArithmeticError,
        ImportError,
        BackendUnavailable,
        CannotRun,
        UninitialisedAllocation,
        OSError,
        MemoryError,
    ) as error:
        print(f"convlstm: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


@app.command()
def doctor() -> None:
    """Say which backends this machine has, and what the others lack."""
    for name in available_backends():
        console.print(f"{name}: {get_backend(name).description}")
    for name, fault in unavailable_backends().items():
        console.print(f"{name}: not available; {fault}")
    console.print(f"auto is {get_backend('auto').name}")
