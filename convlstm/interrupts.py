"""Ctrl-C and SIGTERM: the first is only noted, so that a step is never left half done; a second one ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[Callable[[], signal.Signals | None]]:
    """Yield what says which signal has asked to end; None so far.  After the first, both do what they did before.

    Off the main thread, where Python allows no handlers, both do what they did before from the start, as does a signal
    that is ignored (Ctrl-C in a background job of a shell without job control) or whose handler is not Python's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    seen: list[signal.Signals] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [number for number in SIGNALS if before[number] not in (signal.SIG_IGN, None)]

    def note(number: int, frame: object) -> None:
        seen.append(signal.Signals(number))
        give_back()

    def give_back() -> None:
        for number in ours:
            signal.signal(number, before[number])

    for number in ours:
        signal.signal(number, note)
    try:
        yield lambda: seen[0] if seen else None
    finally:
        give_back()
