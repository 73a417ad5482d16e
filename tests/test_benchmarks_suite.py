"""The command: which benchmarks run, what it writes, and errors of one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import suite
from benchmarks.measure import Rows, row
from benchmarks.options import Options
from benchmarks.results import read_results, write_results
from tests.benchmark_problems import TINY, without_waiting


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Options]]:
    """Benchmarks that only say what they were asked for."""
    seen: list[tuple[str, Options]] = []

    def benchmark(name: str) -> suite.Benchmark:
        def measure(options: Options) -> Rows:
            seen.append((name, options))
            return {"a row": row({"it": [1.0]}, skipped={"peer": "not installed"})}

        return suite.Benchmark(measure, lambda rows: f"table of {name}", lambda rows, to: (to / name).touch())

    monkeypatch.setattr(suite, "BENCHMARKS", {name: benchmark(name) for name in suite.BENCHMARKS})
    return seen


def run(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Return the exit code."""
    patch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as ended:
        suite.main()
    return int(ended.value.code or 0)


def test_all_run_unless_some_are_named(asked: list[tuple[str, Options]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch) == 0
    assert [name for name, _ in asked] == [
        "train_step", "inference", "backends", "convolution", "determinism", "scaling", "threads", "profile",
    ]  # fmt: skip
    assert asked[0][1] == Options()
    asked.clear()
    arguments = ("threads", "scaling", "--rounds", "3", "--shape", "deep", "--shape", "shi", "--backend", "numpy")
    assert run(monkeypatch, *arguments) == 0
    assert [name for name, _ in asked] == ["threads", "scaling"]
    shapes, rounds, backends = asked[0][1]
    assert (list(shapes), rounds, backends) == (["deep", "shi"], 3, ("numpy",))


def test_it_writes_prints_and_draws(
    asked: list[tuple[str, Options]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plots = tmp_path / "plots"
    assert run(monkeypatch, "threads", "profile", "--json", str(tmp_path / "r.json"), "--plots", str(plots)) == 0
    environment, benchmarks = read_results(tmp_path / "r.json")
    assert "cores" in environment
    assert list(benchmarks) == ["threads", "profile"]
    assert sorted(file.name for file in plots.iterdir()) == ["profile", "threads"]
    printed = capsys.readouterr().out
    assert "table of threads" in printed
    assert printed.count("skipped peer: not installed") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "benchmarks: unknown benchmark 'nonsense'; known are train_step, "),
        (["--shape", "nonsense"], "benchmarks: unknown shape 'nonsense'; known are shi, wide, small, deep"),
        (["--backend", "nonsense"], "benchmarks: backend must be "),
        (["--json", "nowhere/r.json"], "benchmarks: --json: cannot write nowhere/r.json: there is no directory"),
        (["compare", "nowhere.json", "nowhere.json"], "benchmarks: cannot read nowhere.json"),
        (["readme", "nowhere.json"], "benchmarks: cannot read nowhere.json"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], said: str, asked: list[tuple[str, Options]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(monkeypatch, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert asked == []


def test_two_files_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        rows = {"shi": row({"it": [seconds + 0.01 * n for n in range(6)], "new": [1.0]})}
        write_results(tmp_path / f"{name}.json", {"cores": len(name) + (name == "b")}, {"train_step": rows})
    assert run(monkeypatch, "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")) == 0
    printed = capsys.readouterr().out
    assert "slower |" in printed
    assert "the environments differ: cores is 1 in" in printed
    assert "a change can be told from 5 rounds on" in printed


def test_one_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is faked but the shape; the others of the benchmarks have tests that do the same."""
    without_waiting(monkeypatch)
    monkeypatch.setattr(suite, "SHAPES", {"tiny": TINY})
    file = tmp_path / "r.json"
    assert run(monkeypatch, "train_step", "inference", "profile", "--rounds", "1", "--json", str(file)) == 0
    assert list(read_results(file)[1]) == ["train_step", "inference", "profile"]
    assert "skipped PyTorch" in capsys.readouterr().out


def test_train_step_is_a_command_of_its_own(asked: list[tuple[str, Options]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_step", "--rounds", "2"])
    with pytest.raises(SystemExit):
        suite.main(["train_step"])
    assert [(name, options.rounds) for name, options in asked] == [("train_step", 2)]
