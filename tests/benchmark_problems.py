"""What the tests of benchmarks/ share: a shape that takes no time, and turns that do not wait."""

from __future__ import annotations

import pytest

from benchmarks import measure
from benchmarks.options import HOST_BACKENDS, Options
from benchmarks.shapes import Shape

TINY = Shape(T=3, N=2, Cin=2, C=3, H=5, W=6, K=3)
ONCE = Options({"tiny": TINY}, 1, HOST_BACKENDS)


def without_waiting(patch: pytest.MonkeyPatch) -> None:
    """Let a turn be one step that warms up and one that counts."""
    patch.setattr(measure, "PAUSE_S", 0)
    patch.setattr(measure, "TURN_S", 0)
