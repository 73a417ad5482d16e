"""What is timed as forbidden is forbidden, what is timed as a ledger is one, and `verify` verifies what was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import determinism
from convlstm.config import Config
from convlstm.determinism import UninitialisedAllocation
from convlstm.ledger import read_ledger
from convlstm.presets import FRAMES
from convlstm.trainer import Trainer
from tests.benchmark_problems import ONCE, without_waiting

UNINITIALISED = "a step is made to ask for uninitialised memory, to see in which trainings that is forbidden"


@pytest.fixture
def small(tmp_path: Path) -> Config:
    """A training on frames from a file, which needs nothing but NumPy."""
    np.save(tmp_path / "frames.npy", np.random.default_rng(0).random((60, 6, 5), dtype=np.float32))
    data = replace(FRAMES.data, path=str(tmp_path / "frames.npy"), context=2, horizon=1)
    training = replace(FRAMES.training, steps=3, batch_size=1, schedule="constant")
    return replace(FRAMES, data=data, model=replace(FRAMES.model, hidden_channels=(2,)), training=training)


def test_it_runs_and_trains_what_it_verifies(small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    asked: list[list[str]] = []
    rows = determinism.measure(ONCE, small, asked.append)
    assert list(rows) == ["training", "commands", "tiny, digest"]
    assert list(rows["training"]["seconds"]) == ["neither", "memory forbidden", "ledger", "both"]
    assert list(rows["tiny, digest"]["seconds"]) == ["step", "digest"]
    (train, *_, out, _, backend), verify = asked
    assert (train, backend, verify) == ("train", "numpy", ["verify", out])
    assert determinism.table(rows).count("\n") == 1 + 4 + 2 + 2


def test_memory_is_forbidden_where_it_says_so_and_ledgers_are_written(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with determinism.trainings(small, tmp_path, "numpy") as contenders:
        for name, some in contenders.items():
            some()
            file = tmp_path / f"{name}.jsonl"
            assert file.exists() == (name in (determinism.LEDGER, determinism.BOTH))
            assert not file.exists() or len(read_ledger(file)) == determinism.STEPS
        monkeypatch.setattr(Trainer, "step", lambda *_: np.empty(3))
        for name in (determinism.NEITHER, determinism.LEDGER):
            contenders[name]()
        for name in (determinism.GUARD, determinism.BOTH):
            with pytest.raises(UninitialisedAllocation):
                contenders[name]()


def test_one_steps_time_is_a_share_of_its_turns(small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(determinism, "interleaved", lambda contenders, rounds: {key: [10.0] for key in contenders})
    row = determinism.training(small, "numpy", 1)
    assert set(map(tuple, row["seconds"].values())) == {(10.0 / determinism.STEPS,)}


@pytest.mark.parametrize("fails", ["train", "verify"])
def test_a_command_that_fails_ends_the_benchmark(fails: str, small: Config) -> None:
    def run(arguments: list[str]) -> None:
        if arguments[0] == fails:
            raise RuntimeError("not identical")

    with pytest.raises(RuntimeError, match="not identical"):
        determinism.commands(small, "numpy", 1, run)


def test_a_process_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(RuntimeError, match=r"^convlstm verify nowhere ended with 2: .*nowhere"):
        determinism.run_command(["verify", "nowhere"])


def test_without_the_digits_it_is_skipped(small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> Callable[[], None]:
        raise ModuleNotFoundError("the digits need scikit-learn")

    monkeypatch.setattr(determinism, "Trainer", absent)
    assert determinism.training(small, "numpy", 1)["skipped"] == {"training": "the digits need scikit-learn"}
