"""Resuming: after any step to the same bits, past damage, and only what is the run that was asked for."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm import resume, training
from convlstm.backends import BackendUnavailable
from convlstm.checkpoint import CheckpointError, best_step, read_checkpoint, saved_steps
from convlstm.config import Config, ConfigError
from convlstm.ledger import Ledger, LedgerError
from convlstm.recorded_run import NoRun
from convlstm.resume import find_run, is_run_directory, look_at, recorded_config
from convlstm.run_directory import RunDirectoryError
from convlstm.training import Outcome, Resumption, Trainer, environment, train
from convlstm.verify import verify
from tests.cupy_stand_in import stand_in_for_cupy
from tests.killed_runs import content
from tests.moments import TINIER
from tests.runs import changed

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")

RICH = changed(
    TINIER, hidden_channels=(2, 3), bias="pixel", peephole="pixel", batch_size=2, context=2, horizon=2, steps=3,
    checkpoint_every=2,
)  # fmt: skip
CONFIGS = {
    "tiny": TINIER,
    "rich": RICH,
    "encoder-forecaster": changed(RICH, kind="encoder-forecaster"),
    "sgd": changed(TINIER, optimizer="sgd", clipping="none", schedule="constant"),
    "momentum": changed(TINIER, optimizer="momentum", schedule="cosine", warmup_steps=2),
    "rmsprop": changed(TINIER, optimizer="rmsprop", loss="mse", clipping="tensor"),
    "adamw": changed(TINIER, optimizer="adamw", layer_norm="channel"),
    "dropout": changed(TINIER, dropout=0.3, recurrent_dropout=0.2, horizon=3, sampling_steps=4),
    "no checkpoint but the last": changed(TINIER, checkpoint_every=1000),
}


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than these runs."""
    monkeypatch.setattr(training, "draw_forecast", lambda config, model, path: path.write_bytes(b"picture"))


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """A handler that is Python's, wherever pytest itself runs."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of `TINIER`."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "draw_forecast", lambda config, model, path: path.write_bytes(b"picture"))
        trained(directory)
    return directory


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run of `TINIER` with checkpoints after its steps 1, 2 and 3, where it stopped."""
    directory = tmp_path / "stopped"
    config = changed(TINIER, checkpoint_every=1, keep_checkpoints=3)
    assert trained(directory, config, stop=3).interrupted is signal.SIGTERM
    assert saved_steps(directory / "checkpoints") == [1, 2, 3]
    return directory


STOPPED = changed(TINIER, checkpoint_every=1, keep_checkpoints=3)


def assert_same_end(directory: Path, whole: Path) -> None:
    for name in ("ledger.jsonl", "weights.safetensors", "scores.json"):
        assert (directory / name).read_bytes() == (whole / name).read_bytes()


# The same bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_after_any_step_it_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    trained(tmp_path / "whole", config)
    for stop in range(1, config.training.steps):
        directory = tmp_path / str(stop)
        assert trained(directory, config, stop=stop) == Outcome(stop, signal.SIGTERM, None)
        assert saved_steps(directory / "checkpoints")[-1] == stop
        said: list[str] = []
        assert trained(directory, config, said=said).scores is not None
        assert said == [f"going on from {directory / 'checkpoints' / f'step-{stop:08d}.json'}"]
        assert_same_end(directory, tmp_path / "whole")


def test_on_cupy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in for it, to whose memory what a checkpoint holds is brought back."""
    with stand_in_for_cupy():
        trained(tmp_path / "whole", RICH, backend="cupy")
        trained(tmp_path / "run", RICH, backend="cupy", stop=2)
        trained(tmp_path / "run", RICH, backend="cupy")
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_stopped_after_every_single_step(tmp_path: Path, whole: Path) -> None:
    for stop in (1, 2, 3):
        trained(tmp_path / "run", stop=stop)
    trained(tmp_path / "run")
    assert_same_end(tmp_path / "run", whole)


@pytest.mark.parametrize("every", [0, 1000, 1, 3])
def test_neither_checkpoints_nor_their_validation_change_a_bit(every: int, tmp_path: Path, whole: Path) -> None:
    config = changed(TINIER, checkpoint_every=every, validation_sequences=every % 10)
    trained(tmp_path / "run", config)
    assert_same_end(tmp_path / "run", whole)


def test_a_restored_trainer_computes_with_arrays_like_those_before(tmp_path: Path) -> None:
    """In C order, as every step leaves them: another order in memory could mean other sums."""
    trainer, restored = Trainer(RICH, "numpy"), Trainer(RICH, "numpy")
    trained(tmp_path / "run", RICH)
    for _ in range(RICH.training.steps):
        trainer.step(lambda *results: None)
    restored.restore(read_checkpoint(tmp_path / "run" / "checkpoints", RICH.training.steps))
    for name, w in trainer.model.parameters.items():
        assert w.strides == restored.model.parameters[name].strides
        assert w.tobytes() == restored.model.parameters[name].tobytes()
    assert restored.position == trainer.position


def test_verify_proves_a_resumed_run(stopped: Path) -> None:
    from convlstm.recorded_run import read_run

    trained(stopped, STOPPED)
    assert verify(read_run(stopped), "numpy", lambda done, loss: None).identical


# What is kept ---------------------------------------------------------------------------------------------------------


def test_checkpoints_carry_the_validation_error_and_the_best_stays(tmp_path: Path) -> None:
    config = changed(TINIER, checkpoint_every=1, keep_checkpoints=1, learning_rate=2.0, schedule="constant")
    folder = tmp_path / "run" / "checkpoints"
    scores: dict[int, float] = {}
    for stop in (1, 2, 3, 4):
        trained(tmp_path / "run", config, stop=stop)
        score = read_checkpoint(folder, stop).validation_mse
        assert score is not None
        scores[stop] = score
        best = min(scores, key=lambda step: scores[step])
        assert best_step(folder) == best
        assert saved_steps(folder) == sorted({best, stop})
    assert len(set(scores.values())) == 4


def test_without_validation_there_is_no_best(tmp_path: Path) -> None:
    trained(tmp_path / "run", changed(TINIER, validation_sequences=0))
    assert best_step(tmp_path / "run" / "checkpoints") is None
    assert saved_steps(tmp_path / "run" / "checkpoints") == [4]


def test_the_ledgers_lines_are_safe_before_what_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may take what was not brought down; old checkpoints go when the new one is safe, not before."""
    happened: list[str] = []

    def noting(name: str, function: Any) -> Any:
        def noted(*arguments: Any) -> Any:
            happened.append(name)
            return function(*arguments)

        return noted

    monkeypatch.setattr(Ledger, "bring_down", noting("ledger", Ledger.bring_down))
    for name in ("write_checkpoint", "delete_old_checkpoints"):
        monkeypatch.setattr(training, name, noting(name, getattr(training, name)))
    trained(tmp_path / "run", changed(TINIER, steps=1))
    assert happened == ["ledger", "write_checkpoint", "delete_old_checkpoints"]


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["json", "safetensors"])
def test_past_a_damaged_checkpoint_it_goes_on_from_the_one_before(end: str, stopped: Path, whole: Path) -> None:
    folder = stopped / "checkpoints"
    flip(folder / f"step-00000003.{end}")
    said: list[str] = []
    trained(stopped, STOPPED, said=said)
    assert said[0].startswith(f"{folder / f'step-00000003.{end}'} is damaged: its bits have changed")
    assert said[1:] == [f"going on from {folder / 'step-00000002.json'}"]
    assert_same_end(stopped, whole)


def test_a_damaged_checkpoint_stays_until_a_newer_one_is_safe(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(stopped / "checkpoints" / "step-00000003.json")
    before = content(stopped / "checkpoints")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "write_checkpoint", full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        trained(stopped, STOPPED)
    assert content(stopped / "checkpoints") == before


def test_where_no_checkpoint_is_sound_it_goes_on_from_the_beginning(stopped: Path, whole: Path) -> None:
    for file in (stopped / "checkpoints").glob("*.json"):
        flip(file)
    said: list[str] = []
    trained(stopped, STOPPED, said=said)
    assert [line.split(" is ")[0] for line in said[:3]] == [
        str(stopped / "checkpoints" / f"step-0000000{step}.json") for step in (3, 2, 1)
    ]
    assert said[3] == f"{stopped} holds no checkpoint to go on from; going on from step 0, to the same bits"
    assert_same_end(stopped, whole)


@pytest.mark.parametrize("more", [b'{"step": 3, "loss": 0.', b"\x00" * 50, b'{"step": 3}\n{"step": 4}\n'])
def test_what_the_ledger_has_beyond_the_checkpoint_is_cut_off(more: bytes, stopped: Path, whole: Path) -> None:
    with (stopped / "ledger.jsonl").open("ab") as end:
        end.write(more)
    trained(stopped, STOPPED)
    assert_same_end(stopped, whole)


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_ledger_that_is_not_the_checkpoints_is_an_error_that_names_both(damage: str, stopped: Path) -> None:
    ledger = stopped / "ledger.jsonl"
    if damage == "flipped":
        flip(ledger)
    else:
        ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:2]))
    before = content(stopped)
    there = 3 if damage == "flipped" else 2
    right = (
        rf"ledger\.jsonl \({there} lines\) does not begin with the 3 lines that it held; .*step-00000003\.json needs"
    )
    with pytest.raises(LedgerError, match=right):
        trained(stopped, STOPPED)
    assert content(stopped) == before


def test_a_config_that_was_edited_is_an_error_that_names_both(stopped: Path) -> None:
    with (stopped / "config.toml").open("a") as end:
        end.write("# mine\n")
    before = content(stopped)
    with pytest.raises(CheckpointError, match=r"config\.toml has changed since .*step-00000003\.json was saved"):
        trained(stopped, STOPPED)
    assert content(stopped) == before


def test_a_checkpoint_of_other_settings_is_refused(stopped: Path) -> None:
    found = read_checkpoint(stopped / "checkpoints", 3)
    with pytest.raises(CheckpointError, match=r"the checkpoint stands at .*'seed': 5.*; this run at .*'seed': 6"):
        Trainer(changed(STOPPED, seed=6), "numpy").restore(found)


def test_a_run_that_goes_on_elsewhere_is_left_alone(stopped: Path) -> None:
    before = content(stopped)
    ledger = Ledger(stopped / "ledger.jsonl", read_checkpoint(stopped / "checkpoints", 3).ledger)
    with pytest.raises(LedgerError, match=r"ledger\.jsonl is being written by another process"):
        trained(stopped, STOPPED)
    ledger.close()
    assert content(stopped) == before


# How far a run is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["scores.json", "forecast.png"])
def test_a_run_that_was_ended_while_it_was_scored_is_finished(lost: str, whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / "forecast.png").unlink()
    (run / lost).unlink(missing_ok=True)
    assert not look_at(run, TINIER, None).finished
    outcome = trained(run)
    assert outcome.scores == json.loads((whole / "scores.json").read_text())
    assert content(run) == content(whole)
    assert look_at(run, TINIER, None).finished


@pytest.mark.parametrize("there", [(), ("environment.json",)])
def test_a_run_that_was_ended_before_it_began(there: tuple[str, ...], whole: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ledger.jsonl").touch()
    (tmp_path / "run" / ".config.toml.0123.tmp").touch()
    for name in there:
        shutil.copy(whole / name, tmp_path / "run")
    with pytest.raises(NoRun, match=r"run holds no config\.toml: its run was ended before it began; name a preset"):
        recorded_config(tmp_path / "run")
    assert look_at(tmp_path / "run", TINIER, None) == resume.Unfinished("auto", [], finished=False)
    trained(tmp_path / "run")
    assert content(tmp_path / "run") == content(whole)


# Which run ------------------------------------------------------------------------------------------------------------


def test_the_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/digits-2", "runs/digits-9", "runs/digits-10", "runs/digits-11", "runs/digits-x", "runs/tiny-12"):
        Path(name).mkdir(parents=True)
        (Path(name) / "ledger.jsonl").touch()
    (Path("runs/digits-10") / "scores.json").touch()  # finished
    (Path("runs/digits-11") / "ledger.jsonl").unlink()  # not begun
    Path("digits").mkdir()
    assert find_run("digits", None) == Path("runs/digits-9")
    assert find_run("where/tiny.toml", None) == Path("runs/tiny-12")
    assert find_run("digits", Path("runs/digits-2")) == Path("runs/digits-2")
    assert find_run("runs/digits-10", None) == Path("runs/digits-10")
    assert find_run("runs/digits-2", Path("runs/../runs/digits-2")) == Path("runs/digits-2")
    assert (is_run_directory("runs/digits-2"), is_run_directory("digits"), is_run_directory("x")) == (
        True,
        False,
        False,
    )


@pytest.mark.parametrize(
    ("what", "out", "error", "message"),
    [
        ("digits", None, RunDirectoryError, "there is no unfinished run runs/digits-N to resume; without --resume a"),
        ("digits", Path("nowhere"), NoRun, "nowhere holds no ledger.jsonl, so there is no run to resume; without"),
        ("a", None, NoRun, "a holds no ledger.jsonl"),
        ("a", Path("b"), NoRun, "--resume goes on in one directory; got a and --out b"),
    ],
)
def test_there_is_no_run(
    what: str, out: Path | None, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(name).mkdir()
    with pytest.raises(error, match=f"^{message}"):
        find_run(what, out)


def test_other_settings_are_named(whole: Path) -> None:
    assert look_at(whole, recorded_config(whole), None).finished
    given = changed(TINIER, steps=9, peephole="pixel")
    right = (
        r"has other settings: \[model\] peephole is None there, 'pixel' is asked for; \[training\] steps is 4 there, 9"
    )
    with pytest.raises(ConfigError, match=right):
        look_at(whole, given, None)


# Where it goes on -----------------------------------------------------------------------------------------------------


def test_it_goes_on_on_the_backend_that_it_was_begun_on(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLSTM_BACKEND", "cupy")
    found = look_at(whole, TINIER, None)
    assert (found.backend, found.changed) == ("numpy", [])
    with pytest.raises((ValueError, BackendUnavailable), match="backend"):
        look_at(whole, TINIER, "torch")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"backend": "numpy", "packages": 1}', "[" * 100_000])
def test_an_environment_that_cannot_be_read_is_named(text: str, whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / "environment.json").write_text(text)
    with pytest.raises(NoRun, match=r"cannot read .*environment\.json: "):
        look_at(run, TINIER, None)


def test_what_has_changed_since_is_told_and_noted(stopped: Path, whole: Path) -> None:
    file = stopped / "environment.json"
    recorded = json.loads(file.read_text())
    recorded["packages"]["numpy"] = "1.0"
    file.write_text(json.dumps(recorded))
    changes = look_at(stopped, STOPPED, None).changed
    assert changes == [f"numpy: 1.0 then, {np.__version__} now"]
    trained(stopped, STOPPED, changes=changes)
    noted = json.loads(file.read_text())
    assert noted == {**recorded, "resumed": [{"step": 3, "changed": changes}]}
    assert look_at(stopped, STOPPED, None).changed == changes
    assert environment(Trainer(TINIER, "numpy").model.backend)["packages"]["numpy"] == np.__version__
    assert_same_end(stopped, whole)
