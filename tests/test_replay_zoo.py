"""`tests/programs/determinism/`: each fault is recognised, its lines are named, nothing innocent is accused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from convlstm.determinism.replay import Verdict, replay
from convlstm.determinism.replay.conditions import AXES, SIMD_LEVELS, Axis

PROGRAMS = Path(__file__).parent / "programs" / "determinism"
GUILTY = "# <- read before it is written"
MEMORY: tuple[Axis, ...] = ("memory",)
NOTHING: tuple[Axis, ...] = ("nothing",)

# For each program what is changed while it is examined, and what of that changes its result.
ZOO: Mapping[str, tuple[tuple[Axis, ...], tuple[Axis, ...]]] = {
    "clock": (NOTHING, NOTHING),
    "filled_before_use": (("memory", "alignment"), ()),
    "ndarray_of_shape": (MEMORY, MEMORY),
    "race_of_threads": (("nothing", "hash"), NOTHING),
    "set_order": (AXES, ("hash",)),
    "simd_level": (("simd",), ("simd",)),
    "stable": (AXES, ()),
    "threads_of_a_product": (("threads",), ("threads",)),
    "threads_of_a_sum": (("threads",), ("threads",)),
    "unseeded_generator": (("nothing", "memory"), NOTHING),
    "unwritten_border": (MEMORY, MEMORY),
    "uses_helper": (MEMORY, MEMORY),
    "wandering_loss": (MEMORY, MEMORY),
}
LINES_ELSEWHERE = {"uses_helper": PROGRAMS / "helper_module" / "buffers.py"}
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Future[Verdict]]:
    """What the replay of each program showed; "mended" is wandering_loss with its four arrays zeroed."""
    wandering = PROGRAMS / "wandering_loss.py"
    mended = tmp_path_factory.mktemp("mended") / "mended.py"
    mended.write_text(wandering.read_text(encoding="utf-8").replace("cp.empty(", "cp.zeros("), encoding="utf-8")
    pool = ThreadPoolExecutor(2)

    def examine(script: Path, axes: tuple[Axis, ...]) -> Future[Verdict]:
        return pool.submit(
            replay, str(script), axes=axes, cupy_as_numpy="cupy" in script.read_text(encoding="utf-8"), tell=_be_quiet
        )

    runs = {"wandering_loss": examine(wandering, MEMORY), "mended": examine(mended, MEMORY)}  # the longest first
    runs |= {name: examine(PROGRAMS / f"{name}.py", axes) for name, (axes, _) in ZOO.items() if name not in runs}
    pool.shutdown(wait=False)
    return runs


def _be_quiet(text: str) -> None:
    """Nobody watches."""


def _guilty_lines(path: Path) -> list[tuple[str, int, str]]:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    return [(str(path), number, line.strip()) for number, line in lines if GUILTY in line]


def test_every_program_has_its_expectation() -> None:
    assert {path.stem for path in PROGRAMS.glob("*.py")} == set(ZOO)
    for name, (_, changed) in ZOO.items():
        says = (PROGRAMS / f"{name}.py").read_text(encoding="utf-8").startswith('"""Stable: ')
        assert says == (not changed), f"{name} says whether it is stable in its first line"


@pytest.mark.parametrize("name", ZOO)
def test_the_fault_is_recognised(name: str, verdicts: Mapping[str, Future[Verdict]]) -> None:
    if name == "threads_of_a_product" and CORES < 2:
        pytest.skip("OpenBLAS takes one thread where there is one core")
    if name == "simd_level" and not SIMD_LEVELS:
        pytest.skip("this processor has no levels to choose from")
    verdict = verdicts[name].result()
    guilty = _guilty_lines(LINES_ELSEWHERE.get(name, PROGRAMS / f"{name}.py"))
    assert tuple(verdict.changed) == ZOO[name][1], str(verdict)
    assert [(c.file, c.line, c.text) for c in verdict.culprits] == guilty
    assert verdict.stable == (not ZOO[name][1])
    assert not verdict.elsewhere


def test_the_wandering_loss_has_four_culprits(verdicts: Mapping[str, Future[Verdict]]) -> None:
    culprits = verdicts["wandering_loss"].result().culprits
    assert [culprit.text.split(" = ")[0] for culprit in culprits] == ["d_in", "d_forget", "d_candidate", "d_out"]
    assert all("cp.empty(" in culprit.text for culprit in culprits)


def test_the_wandering_loss_mended_is_stable(verdicts: Mapping[str, Future[Verdict]]) -> None:
    verdict = verdicts["mended"].result()
    assert verdict.stable, str(verdict)
    assert verdict.numbers == 6


def test_a_clock_is_said_to_be_one(verdicts: Mapping[str, Future[Verdict]]) -> None:
    difference = verdicts["clock"].result().changed["nothing"].difference
    assert difference.hint == "it looks like a clock"
    assert "line 2 of the output" in difference.where
