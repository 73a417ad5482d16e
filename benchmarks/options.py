"""What a run of benchmarks is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.shapes import SHAPES, Shape

HOST_BACKENDS = ("numpy", "numpy:winograd")
BACKENDS = (*HOST_BACKENDS, "cupy")


class Options(NamedTuple):
    """Which shapes, how often, and on which of our backends."""

    shapes: Mapping[str, Shape] = SHAPES
    rounds: int = 7
    backends: tuple[str, ...] = BACKENDS

    @property
    def on_host(self) -> tuple[str, ...]:
        """Those of the backends that compute on worker threads."""
        return tuple(name for name in self.backends if not name.startswith("cupy"))


def ours(backend: str) -> str:
    """Return what this project is called in a table, on a backend."""
    return f"convlstm ({backend})"
