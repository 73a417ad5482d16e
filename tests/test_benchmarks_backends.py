"""Backends side by side compute the same, on the device's stand-in too, and a backend that does not is refused."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import backends
from convlstm.backends.numpy_backend import NumpyBackend
from tests.benchmark_problems import ONCE, without_waiting


def test_every_piece_of_work_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    rows = backends.measure(ONCE)
    assert list(rows) == [f"tiny, {work}" for work in backends.WORK]
    for row in rows.values():
        assert list(row["seconds"]) == ["convlstm (numpy)", "convlstm (numpy:winograd)"]
        assert row["largest_relative_difference"]["convlstm (numpy:winograd)"] < 1e-5
    assert backends.table(rows).count("\n") == len(rows) + 1


def test_cupy_takes_part(monkeypatch: pytest.MonkeyPatch, cupy: Any) -> None:
    without_waiting(monkeypatch)
    rows = backends.measure(ONCE._replace(backends=("numpy", "cupy")))
    assert all(row["largest_relative_difference"]["convlstm (cupy)"] < 1e-5 for row in rows.values())
    assert not any(row["skipped"] for row in rows.values())


@pytest.mark.parametrize(("name", "work"), [("forward", "forward"), ("backward", "backward")])
def test_a_backend_that_computes_something_else_is_refused(
    name: str, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_waiting(monkeypatch)
    right = getattr(NumpyBackend, f"gates_{name}")

    def wrong(*given: Any) -> Any:
        first, *others = right(*given)
        return (1.01 * first, *others)

    from convlstm.backends import get_backend

    monkeypatch.setattr(get_backend("numpy:winograd"), f"gates_{name}", wrong, raising=False)
    monkeypatch.setattr(backends, "WORK", {work: backends.WORK[work]})
    with pytest.raises(RuntimeError, match=r"convlstm \(numpy:winograd\) computes something else"):
        backends.measure(ONCE)
