"""`convlstm train --resume` as a user meets it: how a run is named, what is said, what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from convlstm import cli, training
from convlstm.config import config_as_toml, load_config
from convlstm.not_finite import NotFinite
from tests.killed_runs import content
from tests.moments import TINIER

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def convlstm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run a command in this process, in a folder that holds tiny.toml; return exit code, both outputs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVLSTM_BACKEND", "numpy")
    monkeypatch.setattr(training, "draw_forecast", lambda config, model, path, source: path.write_bytes(b"picture"))
    Path("tiny.toml").write_text(config_as_toml(TINIER))

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convlstm", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def broken(convlstm: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/tiny-1, which ended while it was scored, and runs/tiny-2, which ended after that."""

    def fail(*arguments: object) -> None:
        raise NotFinite("ended here")

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", fail)
        assert convlstm("train", "tiny.toml")[0] == 2
    assert convlstm("train", "tiny.toml")[0] == 0
    run = Path("runs/tiny-1")
    assert not (run / "scores.json").exists()
    return run


@pytest.mark.parametrize(
    "how", [["tiny.toml"], ["runs/tiny-1"], ["tiny.toml", "--out", "runs/tiny-1"], ["runs/tiny-1", "--seed", "5"]]
)
def test_a_run_is_named_in_any_of_these_ways(how: list[str], broken: Path, convlstm: Command) -> None:
    code, out, err = convlstm("train", "--resume", *how)
    assert (code, err) == (0, f"going on from {broken / 'checkpoints' / 'step-00000004.json'}\n")
    assert out.splitlines()[0].endswith(f"run directory {broken}")
    assert out.splitlines()[-1] == f"forecasts above the truth: {broken / 'forecast.png'}"
    assert content(broken) == content(Path("runs/tiny-2"))


def test_a_finished_run_is_left_as_it_is(broken: Path, convlstm: Command) -> None:
    before = content(Path("runs"))
    code, out, err = convlstm("train", "--resume", "runs/tiny-2")
    assert (code, out, err) == (0, "the run in runs/tiny-2 is finished, all 4 steps; nothing is changed\n", "")
    assert content(Path("runs")) == before


def test_other_settings_are_one_line_and_nothing_is_changed(broken: Path, convlstm: Command) -> None:
    before = content(Path("runs"))
    for how in (["runs/tiny-1"], ["tiny.toml", "--out", "runs/tiny-1"]):
        code, out, err = convlstm("train", *how, "--resume", "--steps", "9", "--set", "training.seed=6")
        assert (code, out) == (2, "")
        both = "[training] steps is 4 there, 9 is asked for; [training] seed is 5 there, 6 is asked for"
        assert err == f"convlstm: the run in runs/tiny-1 has other settings: {both}\n"
    assert content(Path("runs")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["tiny.toml", "--out", "taken"],
            "taken holds no ledger.jsonl, so there is no run to resume; without --resume",
        ),
        (["tiny.toml"], "there is no unfinished run runs/tiny-N to resume; without --resume a new one starts"),
        (["tiny.toml", "--out", "x", "--overwrite"], "--resume goes on with the run that --overwrite would replace"),
    ],
)
def test_where_there_is_no_run_nothing_is_made(arguments: list[str], message: str, convlstm: Command) -> None:
    Path("taken").mkdir()
    code, out, err = convlstm("train", *arguments, "--resume")
    assert (code, out) == (2, "")
    assert err.startswith(f"convlstm: {message}")
    assert err.count("\n") == 1
    assert sorted(path.name for path in Path.cwd().rglob("*")) == ["taken", "tiny.toml"]


def test_what_has_changed_since_is_said(broken: Path, convlstm: Command) -> None:
    file = broken / "environment.json"
    recorded = json.loads(file.read_text())
    file.write_text(json.dumps({**recorded, "python": "2.7"}))
    code, out, _ = convlstm("train", "--resume", broken)
    assert code == 0
    assert out.splitlines()[0] == f"changed since: python: 2.7 then, {recorded['python']} now"
    assert json.loads(file.read_text())["resumed"][0]["step"] == 4


def test_a_damaged_checkpoint_is_said_on_stderr(broken: Path, convlstm: Command) -> None:
    file = broken / "checkpoints" / "step-00000004.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    size = len(file.read_bytes())
    code, _, err = convlstm("train", "--resume", broken)
    assert code == 0
    first, second = err.splitlines()
    assert first == f"{file} is damaged: it has {size} bytes, {size + 1} were written"
    assert second in (
        f"going on from {broken / 'checkpoints' / 'step-00000003.json'}",  # where it was the best
        f"{broken} holds no checkpoint to go on from; going on from step 0, to the same bits",
    )
    assert content(broken) == content(Path("runs/tiny-2"))


def test_a_backend_that_cannot_be_had_is_one_line(broken: Path, convlstm: Command) -> None:
    file = broken / "environment.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "backend": "torch"}))
    code, out, err = convlstm("train", "--resume", broken)
    assert (code, out) == (2, "")
    assert err.startswith('convlstm: backend must be "auto"')
    assert convlstm("train", "--resume", broken, "--backend", "numpy")[0] == 0


def test_a_directory_is_no_configuration_without_resume(broken: Path, convlstm: Command) -> None:
    code, _, err = convlstm("train", broken)
    assert code == 2
    right = "--resume goes on with it, runs/tiny-1/config.toml in its place begins another like it"
    assert err == f"convlstm: runs/tiny-1 is a run directory: {right}\n"


@pytest.mark.parametrize(("out", "named"), [("digits", "./digits"), ("./-x", "./-x"), ("plain", "plain")])
def test_the_command_that_is_said_to_go_on_does(
    out: str, named: str, convlstm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", interrupt)
        code, said, _ = convlstm("train", "tiny.toml", "--out", out)
    assert code == 130
    command = said.splitlines()[-1].partition("go on with: convlstm ")[2].split()
    assert command == ["train", "--resume", named.removeprefix("./") if named == "plain" else named]
    assert convlstm(*command)[0] == 0
    assert (Path(out) / "scores.json").exists()


def test_interrupted_before_anything_was_done(convlstm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_whole", interrupt)
    code, out, _ = convlstm("train", "tiny.toml")
    assert code == 130
    assert out.splitlines()[-1] == "interrupted before the first step; nothing was done yet in runs/tiny-1"


def test_a_lost_environment_is_written_anew(broken: Path, convlstm: Command) -> None:
    file = broken / "environment.json"
    file.unlink()
    code, out, _ = convlstm("train", "--resume", broken)
    assert code == 0
    said = f"cannot read {file}: No such file or directory; it is written anew"
    assert out.splitlines()[0] == f"changed since: {said}"
    sound = json.loads((Path("runs/tiny-2") / "environment.json").read_text())
    assert json.loads(file.read_text()) == {**sound, "resumed": [{"step": 4, "changed": [said]}]}


def test_lost_settings_are_asked_for(broken: Path, convlstm: Command) -> None:
    """Without them nothing could say that it is another run that is asked for."""
    (broken / "config.toml").unlink()
    before = content(broken)
    right = "convlstm: runs/tiny-1 holds a run's steps, but runs/tiny-1/config.toml is missing: put it back, or say --"
    for how in (["runs/tiny-1"], ["tiny.toml", "--out", "runs/tiny-1"], ["tiny.toml"], ["digits", "--out", broken]):
        code, _, err = convlstm("train", "--resume", *how)
        assert (code, err.startswith(right)) == (2, True)
    assert content(broken) == before
    assert convlstm("train", "tiny.toml", "--out", "runs/tiny-1", "--overwrite")[0] == 0


def test_a_relative_path_of_weights_is_saved_as_an_absolute_one(broken: Path, convlstm: Command) -> None:
    """So that the run goes on in another folder; from a checkpoint it does without the file."""
    shutil.copy(broken / "weights.safetensors", "start.safetensors")
    assert convlstm("train", "tiny.toml", "--set", "model.weights=start.safetensors", "--out", "x")[0] == 0
    assert load_config("x/config.toml").model.weights == str(Path("start.safetensors").absolute())
    assert len(json.loads(Path("x/environment.json").read_text())["weights_sha256"]) == 64
    for name in ("start.safetensors", "x/scores.json"):
        Path(name).unlink()
    again = convlstm("train", "tiny.toml", "--set", "model.weights=start.safetensors", "--out", "x", "--resume")
    assert (again[0], again[2]) == (0, "going on from x/checkpoints/step-00000004.json\n")


def test_a_killed_run_is_verified(broken: Path, convlstm: Command) -> None:
    (broken / "weights.safetensors").unlink()
    code, out, _ = convlstm("verify", broken)
    assert code == 0
    assert out.splitlines()[-1].startswith("the run is unfinished: the weights compared are those of runs/tiny-1/check")


def test_what_a_damaged_note_of_a_resumption_comes_to(broken: Path, convlstm: Command) -> None:
    file = broken / "environment.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "resumed": [{"step": 1}]}))
    code, _, err = convlstm("verify", broken)
    assert (code, err) == (2, f"convlstm: cannot read {file}: resumed holds {{'step': 1}}\n")
    assert convlstm("train", "--resume", broken)[0] == 0


def test_the_configuration_may_be_any_that_says_the_same(broken: Path, convlstm: Command) -> None:
    """A file may leave out what is the default."""
    short = replace(TINIER, training=replace(TINIER.training, steps=99))
    Path("other.toml").write_text(config_as_toml(short))
    assert convlstm("train", "other.toml", "--steps", "4", "--out", broken, "--resume")[0] == 0
