"""Resuming: after any step to the same bits, past damage, and only what is the run that was asked for."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm import resume, training
from convlstm.backends import BackendUnavailable
from convlstm.checkpoint import CheckpointError, best_step, read_checkpoint, saved_steps
from convlstm.config import ConfigError
from convlstm.ledger import Ledger, LedgerError
from convlstm.recorded_run import NoRun
from convlstm.resume import find_run, is_run_directory, look_at, recorded_config
from convlstm.run_directory import RunDirectoryError
from convlstm.run_environment import environment
from convlstm.trainer import Trainer
from convlstm.training import Outcome
from convlstm.verify import verify
from tests.cupy_stand_in import stand_in_for_cupy
from tests.killed_runs import content
from tests.moments import TINIER
from tests.resumed_runs import STOPPED, assert_same_end, flip, no_picture, sigterm, stopped, trained, whole
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


pytestmark = pytest.mark.usefixtures("no_picture", "sigterm")


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


def test_a_run_that_was_ended_while_it_was_drawn_is_found(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "runs/tiny-1")
    with pytest.raises(RunDirectoryError, match="there is no unfinished run"):
        find_run("tiny.toml", None)
    (tmp_path / "runs/tiny-1/forecast.png").unlink()
    assert find_run("tiny.toml", None) == Path("runs/tiny-1")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"mse": {"model": "x"}}', "\xff"])
def test_damaged_scores_are_made_again(text: str, whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / "forecast.png").unlink()
    (run / "scores.json").write_bytes(text.encode("latin-1"))
    trained(run)
    assert content(run) == content(whole)


def test_a_run_whose_ledger_was_emptied_is_not_called_finished(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / "ledger.jsonl").write_bytes(b"")
    assert not look_at(run, TINIER, None).finished
    with pytest.raises(LedgerError, match=r"ledger\.jsonl \(0 lines\) does not begin with the 4 lines"):
        trained(run)


@pytest.mark.parametrize("left", ["ledger.jsonl", "checkpoints"])
def test_a_run_that_lost_its_settings_is_left_as_it_is(left: str, stopped: Path) -> None:
    (stopped / "config.toml").unlink()
    if left == "ledger.jsonl":
        shutil.rmtree(stopped / "checkpoints")
    else:
        (stopped / "ledger.jsonl").write_bytes(b"")
    before = content(stopped)
    right = r"holds a run's steps, but .*config\.toml is missing: put it back, or say --overwrite to begin anew"
    for ask in (
        lambda: recorded_config(stopped), lambda: look_at(stopped, STOPPED, None), lambda: trained(stopped, STOPPED),
    ):  # fmt: skip
        with pytest.raises(RunDirectoryError, match=right):
            ask()
    assert content(stopped) == before


def test_from_a_checkpoint_the_weights_to_start_from_are_not_needed(whole: Path, tmp_path: Path) -> None:
    start = Path(shutil.copy(whole / "weights.safetensors", tmp_path / "start.safetensors"))
    config = changed(TINIER, weights=str(start), checkpoint_every=2)
    trained(tmp_path / "whole", config)
    trained(tmp_path / "run", config, stop=2)
    start.unlink()
    trained(tmp_path / "run", config)
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_without_a_checkpoint_they_must_be_the_same(whole: Path, tmp_path: Path) -> None:
    start, run = Path(shutil.copy(whole / "weights.safetensors", tmp_path / "start.safetensors")), tmp_path / "run"
    config = changed(TINIER, weights=str(start))
    trained(run, config, stop=2)
    shutil.rmtree(run / "checkpoints")
    before = content(run)
    flip(start)
    with pytest.raises(ConfigError, match=r"start\.safetensors has changed since the run started from it: its SHA-256"):
        trained(run, config)
    assert content(run) == before
    flip(start)
    assert trained(run, config).scores is not None


def test_what_cannot_be_read_sends_no_run_back(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, before = Path.read_bytes, content(stopped)

    def closed(path: Path) -> bytes:
        if path.name == "step-00000003.safetensors":
            raise OSError(5, "Input/output error", str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", closed)
        with pytest.raises(CheckpointError, match=r"step-00000003\.safetensors cannot be read: Input/output error"):
            trained(stopped, STOPPED)
    assert content(stopped) == before


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
    for name in ("ledger.jsonl", "weights.safetensors", "scores.json", "forecast.png"):
        (Path("runs/digits-10") / name).write_bytes(b"finished")
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
        ("digits", Path("nowhere"), NoRun, "there is no run directory nowhere; without --resume a run starts in it"),
        ("runs/nope", None, NoRun, "there is no run directory runs/nope$"),
        ("c", None, NoRun, "c holds no ledger.jsonl, so there is no run to resume; put it back"),
        (
            "a",
            None,
            NoRun,
            "a holds no ledger.jsonl, so there is no run to resume; without --resume a run starts in it",
        ),
        ("a", Path("b"), NoRun, "--resume goes on in one directory; got a and --out b"),
    ],
)
def test_there_is_no_run(
    what: str, out: Path | None, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        Path(name).mkdir()
    (Path("c") / "config.toml").touch()
    with pytest.raises(error, match=f"^{message}"):
        find_run(what, out)


def test_other_settings_are_named(whole: Path) -> None:
    assert look_at(whole, recorded_config(whole), None).finished
    given = changed(TINIER, steps=9, peephole="pixel")
    right = (
        r'other settings: \[model\] peephole is "none" there, "pixel" is asked for; \[training\] steps is 4 there, 9'
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


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"backend": 1}', '{"packages": 1}', '{"resumed": [1]}', "[" * 100_000]
)
def test_an_environment_that_is_lost_is_told_and_written_anew(text: str, stopped: Path, whole: Path) -> None:
    file = stopped / "environment.json"
    sound = json.loads(file.read_text())
    file.write_text(text)
    found = look_at(stopped, STOPPED, "numpy")
    assert found == resume.Unfinished("numpy", found.changed, finished=False)
    (lost,) = found.changed
    assert lost.startswith(f"cannot read {file}: ")
    assert lost.endswith("; it is written anew")
    assert look_at(stopped, STOPPED, None).backend == "auto"
    trained(stopped, STOPPED, changes=found.changed)
    assert json.loads(file.read_text()) == {**sound, "resumed": [{"step": 3, "changed": [lost]}]}
    assert_same_end(stopped, whole)


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
