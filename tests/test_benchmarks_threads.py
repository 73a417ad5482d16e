"""The bits of a step are those of every number of threads, and where they are not, that is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import threads, threads_point
from benchmarks.measure import Skipped
from benchmarks.shapes import Shape
from convlstm import NextFrame
from convlstm.backends import Array
from tests.benchmark_problems import ONCE, TINY


def test_a_process_of_three_threads_comes_to_the_bits_of_this_one() -> None:
    found = threads.point("numpy", TINY, 3, 2)
    assert len(found["seconds"]) == 2
    assert found["digest"] == threads_point.point("numpy", TINY, 0)["digest"]
    assert found["digest"] != threads_point.point("numpy", TINY._replace(C=4), 0)["digest"]


@pytest.mark.parametrize("name", ["layers.0.W_h", "readout.b"])
def test_the_digest_is_of_every_bit_of_the_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, before = NextFrame.loss_and_gradients, threads_point.point("numpy", TINY, 0)

    def nearly(model: NextFrame, frames: Array) -> tuple[float, dict[str, Array]]:
        loss, gradients = right(model, frames)
        return loss, {**gradients, name: np.nextafter(gradients[name], np.float32(1))}

    monkeypatch.setattr(NextFrame, "loss_and_gradients", nearly)
    assert threads_point.point("numpy", TINY, 0)["digest"] != before["digest"]


def faked(backend: str, shape: Shape, count: int, rounds: int) -> dict[str, Any]:
    return {"digest": "a" * 64, "seconds": [1.0 / count] * rounds}


def test_all_cores_and_at_least_four_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, counted in ((2, 4), (6, 6)):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        rows = threads.measure(ONCE, point=faked)
        assert list(rows) == ["tiny, numpy", "tiny, numpy:winograd"]
        assert len(rows["tiny, numpy"]["seconds"]) == counted


def test_other_bits_on_other_threads_are_an_error() -> None:
    def wandering(backend: str, shape: Shape, count: int, rounds: int) -> dict[str, Any]:
        return {"digest": ("b" if count == 3 else "a") * 64, "seconds": [1.0]}

    with pytest.raises(
        RuntimeError, match=r"^tiny, numpy: the bits .* depend on .* threads: 1: a+, 2: a+, 3: b+, 4: a"
    ):
        threads.measure(ONCE, range(1, 5), wandering)


def test_the_speed_up_is_in_the_table_and_drawn(tmp_path: Path) -> None:
    rows = threads.measure(ONCE._replace(backends=("numpy",)), (1, 2), faked)
    assert threads.table(rows).splitlines()[2] == ("| tiny, numpy | 1000 (1000–1000) | 500 (500–500) **2.00** |")
    threads.plot(rows, tmp_path)
    assert (tmp_path / "threads.png").read_bytes().startswith(b"\x89PNG")


def test_a_backend_that_is_not_there_is_skipped() -> None:
    def absent(backend: str, shape: Shape, count: int, rounds: int) -> dict[str, Any]:
        raise Skipped("backend must be something else")

    rows = threads.measure(ONCE._replace(backends=("other",)), (1, 2), absent)
    assert rows["tiny, other"]["skipped"] == {"other": "backend must be something else"}
    assert rows["tiny, other"]["seconds"] == {}
