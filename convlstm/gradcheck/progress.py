"""Says on stderr how far a long check has come; nothing in the first seconds, so that a quick one stays silent."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SILENT = 3.0  # seconds


class Progress:
    """Call it with what is being done, as often as you like."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SILENT
        self._shown = False

    def __call__(self, text: str) -> None:
        """Show the text if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        terminal = sys.stderr.isatty()
        self._next = now + (0.2 if terminal else 10.0)
        self._shown = self._shown or terminal
        print(f"\r\x1b[Kgradient check: {text}" if terminal else f"gradient check: {text}", file=sys.stderr,
              end="" if terminal else "\n", flush=True)  # fmt: skip

    def close(self) -> None:
        """Take the line off the terminal."""
        if self._shown:
            print("\r\x1b[K", file=sys.stderr, end="", flush=True)


@contextmanager
def reported(progress: Callable[[str], None] | None) -> Iterator[Callable[[str], None]]:
    """Yield whom to tell: `progress`, or stderr."""
    if progress is not None:
        yield progress
        return
    shown = Progress()
    try:
        yield shown
    finally:
        shown.close()
