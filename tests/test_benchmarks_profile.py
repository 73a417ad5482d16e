"""The parts of a step are its whole, and a part that is slow is that part. Time is a counter here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import profile
from convlstm.backends.numpy_backend import NumpyBackend
from tests.benchmark_problems import ONCE, TINY

PARTS = [*dict.fromkeys(profile.PARTS.values()), profile.REST, profile.TOTAL]


class Ticking:
    """A clock that goes on by 1 whenever it is read, and by more when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize("backend", ONCE.backends)
def test_the_parts_are_the_whole(backend: str) -> None:
    found = profile.breakdown(TINY, backend, 2, Ticking())
    assert list(found) == PARTS
    for number in range(2):
        *parts, whole = (values[number] for values in found.values())
        assert sum(parts) == whole
        assert min(parts) > 0
    assert found["gates forward"] == found["gates backward"] == [TINY.N * TINY.T] * 2  # one tick within each call


METHODS = {
    "convolve": "convolution forward",
    "gradient_input": "gradient to h and x",
    "gates_forward": "gates forward",
    "gates_backward": "gates backward",
    "synchronise": None,
}


@pytest.mark.parametrize("method", [name for name, part in METHODS.items() if part])
def test_a_slow_part_is_named(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Ticking()
    before = profile.breakdown(TINY, "numpy", 1, clock)
    right: Callable[..., Any] = getattr(NumpyBackend, method)

    def slow(*given: Any) -> Any:
        clock.now += 1000
        return right(*given)

    monkeypatch.setattr(NumpyBackend, method, staticmethod(slow))
    after = profile.breakdown(TINY, "numpy", 1, clock)
    slower = {part for part in PARTS[:-1] if after[part][0] > before[part][0] + 999}
    assert slower == {METHODS[method]}


def test_a_slow_sum_of_weight_gradients_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is computed by what the backend returned to sum it with."""
    clock = Ticking()
    right = NumpyBackend.kernel_gradient

    def slow(*given: Any) -> Any:
        made = right(*given)
        total = made.total

        def slowly() -> Any:
            clock.now += 1000
            return total()

        monkeypatch.setattr(made, "total", slowly, raising=False)
        return made

    before = profile.breakdown(TINY, "numpy", 1, clock)
    monkeypatch.setattr(NumpyBackend, "kernel_gradient", slow)
    after = profile.breakdown(TINY, "numpy", 1, clock)
    slower = {part for part in PARTS[:-1] if after[part][0] > before[part][0] + 999}
    assert slower == {"gradient to kernels"}


def test_backends_have_one_worker_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLSTM_THREADS", "5")
    with profile.one_worker():
        assert os.environ["CONVLSTM_THREADS"] == "1"
    assert os.environ["CONVLSTM_THREADS"] == "5"
    monkeypatch.delenv("CONVLSTM_THREADS")
    with profile.one_worker():
        assert os.environ["CONVLSTM_THREADS"] == "1"
    assert "CONVLSTM_THREADS" not in os.environ


def test_it_runs_is_a_table_and_is_drawn(tmp_path: Path) -> None:
    rows = profile.measure(ONCE._replace(backends=(*ONCE.backends, "numpy:nonsense")))
    assert list(rows) == ["tiny, numpy", "tiny, numpy:winograd", "tiny, numpy:nonsense"]
    assert rows["tiny, numpy:nonsense"]["skipped"]["numpy:nonsense"].startswith("backend must be")
    lines = profile.table(rows).splitlines()
    assert lines[0] == "| part | tiny, numpy | tiny, numpy:winograd |"
    assert len(lines) == 2 + len(PARTS) + 2
    profile.plot(rows, tmp_path)
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")
