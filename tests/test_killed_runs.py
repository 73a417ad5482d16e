"""Runs that are killed or find the disk full, at random and at every moment: resumed, they end with the same bits."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from convlstm import training
from convlstm.config import Config
from convlstm.parameter_files import load_parameters
from convlstm.run_directory import RunDirectoryError
from convlstm.training import Resumption, train
from tests.killed_runs import KilledRuns, content
from tests.moments import TINIER, Moments, struck

KILLS = 20
ENDLESS = 10**9


@pytest.fixture(scope="module")
def runs() -> Iterator[KilledRuns]:
    made = KilledRuns()
    yield made
    made.close()


@pytest.fixture(scope="module")
def uninterrupted(runs: KilledRuns, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert runs.run(directory)["code"] == 0
    files = content(directory)
    assert {"ledger.jsonl", "weights.safetensors", "scores.json", "checkpoints/step-00000004.json"} <= files.keys()
    assert files["ledger.jsonl"].count(b"\n") == 4
    return files


def test_sigkill_at_random_moments(runs: KilledRuns, uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    """Until so many have struck; each run is resumed until it ends by itself, often killed again before."""
    whole = runs.run(tmp_path / "timed")["seconds"]
    after, kills, number = random.Random(0), 0, 0
    while kills < KILLS:
        directory, number, ended = tmp_path / str(number), number + 1, None
        while ended != 0:
            ended = runs.run(directory, after=after.uniform(0, whole))["code"]
            assert ended in (0, -9)
            kills += ended == -9
        assert content(directory) == uninterrupted
    assert kills >= KILLS


def test_sigkill_at_every_moment(runs: KilledRuns, uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    """Before, in the middle of and after every file that is written, renamed, deleted or brought down to the disk."""
    for moment in range(ENDLESS):
        directory = tmp_path / str(moment)
        if runs.run(directory, at=moment)["code"] == 0:
            break
        ended = runs.run(directory)
        assert (ended["code"], ended["error"]) == (0, "")
        assert content(directory) == uninterrupted, f"killed at moment {moment}"
    assert moment > 60  # or the moments are no longer where training writes


@pytest.mark.parametrize("limit", [0, 200, 600, 3000, 5000, 17000])
def test_a_disk_that_is_really_full(
    limit: int, runs: KilledRuns, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """To a process that may write no longer file, the system says so in the middle of it."""
    directory = tmp_path / "run"
    ended = runs.run(directory, limit=limit)
    assert (ended["code"], "File too large" in ended["error"]) == (3, True)
    assert ended["error"].startswith(f"cannot write to {directory}")
    assert runs.run(directory)["code"] == 0
    assert content(directory) == uninterrupted


# The disk says no -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    monkeypatch.setattr(training, "draw_forecast", lambda config, model, path, source: None)


def trained(directory: Path, config: Config, moments: Moments) -> None:
    """Train, going on with the run that is there."""
    directory.mkdir(exist_ok=True)
    resumption = Resumption(say=lambda text: None) if (directory / "ledger.jsonl").exists() else None
    with struck(moments):
        train(config, directory, backend="numpy", report=lambda done, loss: None, resumption=resumption)


def refuse(number: int) -> None:
    raise OSError(number, os.strerror(number))


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize(
    ("number", "onwards", "every"),
    [(errno.ENOSPC, False, 1), (errno.EACCES, True, 4)],
    ids=["full for a moment", "unwritable from then on"],
)
def test_a_disk_that_says_no_at_every_moment(number: int, onwards: bool, every: int, tmp_path: Path) -> None:
    """What was whole stays whole, and the run resumed ends with the bits of one that met nothing."""
    sound = tmp_path / "sound"
    passed = Moments(-1, lambda: None)
    trained(sound, TINIER, passed)
    assert passed.passed > 60
    for moment in range(0, passed.passed, every):
        directory = tmp_path / str(moment)
        with pytest.raises(RunDirectoryError, match=os.strerror(number)):
            trained(directory, TINIER, Moments(moment, lambda: refuse(number), onwards=onwards))
        lines = (directory / "ledger.jsonl").read_bytes() if (directory / "ledger.jsonl").exists() else b""
        assert (sound / "ledger.jsonl").read_bytes().startswith(lines)
        assert lines.endswith(b"\n") or not lines
        for file in directory.rglob("[!.]*.safetensors"):
            assert load_parameters(file)
        trained(directory, TINIER, Moments(-1, lambda: None))
        assert content(directory) == content(sound), f"refused at moment {moment}"
