"""How the learning rate changes over a run: a factor between 0 and 1 for each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal


def constant(step: int, steps: int) -> float:
    """Return 1."""
    return 1.0


def linear(step: int, steps: int) -> float:
    """Return 1 - step/steps: the full rate at step 0, and as good as none at the last, so that the noise of single
    batches averages out."""
    return 1 - step / steps


ScheduleName = Literal["constant", "linear"]
SCHEDULES: dict[ScheduleName, Callable[[int, int], float]] = {"constant": constant, "linear": linear}
