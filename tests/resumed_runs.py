"""Runs of four tiny steps that are stopped, damaged and gone on with, for the tests of resuming."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convlstm import training
from convlstm.checkpoint import saved_steps
from convlstm.config import Config
from convlstm.training import Outcome, Resumption, train
from tests.moments import TINIER
from tests.runs import changed

STOPPED = changed(TINIER, checkpoint_every=1, keep_checkpoints=3)


def trained(
    directory: Path,
    config: Config = TINIER,
    *,
    stop: int = 0,
    said: list[str] | None = None,
    changes: Any = (),
    backend: str = "numpy",
) -> Outcome:
    """Train, going on with the run that is there; end by SIGTERM after the step `stop`."""
    directory.mkdir(exist_ok=True)
    messages = [] if said is None else said
    resumption = Resumption(messages.append, changes) if (directory / "ledger.jsonl").exists() else None

    def report(done: int, loss: float) -> None:
        if done == stop:
            signal.raise_signal(signal.SIGTERM)

    return train(config, directory, backend=backend, report=report, resumption=resumption)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def assert_same_end(directory: Path, whole: Path) -> None:
    for name in ("ledger.jsonl", "weights.safetensors", "scores.json"):
        assert (directory / name).read_bytes() == (whole / name).read_bytes()


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than these runs."""
    monkeypatch.setattr(training, "draw_forecast", lambda config, model, path, source: path.write_bytes(b"picture"))


@pytest.fixture
def sigterm() -> Iterator[None]:
    """A handler that is Python's, wherever pytest itself runs."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of `TINIER`."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "draw_forecast", lambda config, model, path, source: path.write_bytes(b"picture"))
        trained(directory)
    return directory


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run of `TINIER` with checkpoints after its steps 1, 2 and 3, where it stopped."""
    directory = tmp_path / "stopped"
    assert trained(directory, STOPPED, stop=3).interrupted is signal.SIGTERM
    assert saved_steps(directory / "checkpoints") == [1, 2, 3]
    return directory
