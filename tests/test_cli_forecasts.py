"""A run on frames as a user has it: train, evaluate, predict, report, go on, verify, and look at it in TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm.data.opening import open_series
from convlstm.data.series import DataError
from convlstm.scoring import forecasts
from convlstm.trained_run import trained_run
from convlstm.trainer import Trainer
from tests.field_runs import command, config_of, field, months, no_picture, refused, saved, tree, write_field
from tests.resumed_runs import assert_same_end, sigterm
from tests.test_cli import COMMAND, environment

for package in ("scipy", "xarray", "h5netcdf", "PIL", "skimage", "matplotlib"):
    pytest.importorskip(package, reason=f"{package} is not installed")

__all__ = ["sigterm"]
Capsys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sea.nc, tiny.toml and a run, trained by the command itself in a process of its own."""
    folder = tmp_path_factory.mktemp("whole")
    write_field(folder / "sea.nc", field())
    saved(config_of("sea.nc"), folder / "tiny.toml")
    ended = subprocess.run(
        [*COMMAND, "train", "tiny.toml", "--out", "run"], cwd=folder, env=environment(), capture_output=True,
        check=False, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert f"{folder / 'sea.nc'}: 36 frames, 1 channel, 5×7 pixels\nvalues in training 2" in ended.stdout
    assert " K; windows: train 23, validation 2, test 5\n" in ended.stdout
    assert "; persistence " in ended.stdout
    assert ", damped persistence " in ended.stdout
    assert ", climatology " in ended.stdout
    assert ended.stderr == ""
    return folder


@pytest.fixture
def here(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that, to work in; its run reads the copy of the file."""
    shutil.copytree(whole, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_run_directory_holds_what_it_was_made_of(whole: Path) -> None:
    assert sorted(os.listdir(whole / "run")) == [
        "checkpoints", "climatology.safetensors", "config.toml", "data.json", "environment.json", "forecast.png",
        "ledger.jsonl", "scores.json", "weights.safetensors",
    ]  # fmt: skip
    facts = json.loads((whole / "run" / "data.json").read_text())
    assert (facts["shape"], facts["units"], facts["windows"]["train"]) == ([1, 5, 7], "K", 23)


def test_evaluate(here: Path, capsys: Capsys) -> None:
    ended = command(capsys, "evaluate", "run", "--json", "scores.json", "--threshold", 290, "--threshold", 291.5)
    assert (ended.code, ended.err) == (0, "")
    assert "5 sequences, in K" in ended.out
    found = json.loads((here / "scores.json").read_text())
    assert found == json.loads((here / "run" / "evaluation.json").read_text())
    trained = json.loads((here / "run" / "scores.json").read_text())
    for name, scores in trained["overall"].items():
        assert found["overall"][name]["mse"] == scores["mse"]
    assert {"ssim", "psnr", "csi >= 290", "far >= 291.5"} <= set(found["overall"]["model"])


def test_evaluate_on_other_frames_leaves_the_run_as_it_is(here: Path, capsys: Capsys) -> None:
    write_field(here / "other.nc", field(12), months(12, "2010-03"))
    before = tree(here / "run")
    ended = command(capsys, "evaluate", "run", "--data", "other.nc", "--json", "scores.json")
    assert (ended.code, ended.err) == (0, "")
    assert "other.nc: 8 sequences, in K" in ended.out
    assert list(json.loads((here / "scores.json").read_text())["overall"]) == [
        "model", "persistence", "damped persistence", "climatology",
    ]  # fmt: skip
    assert tree(here / "run") == before


@pytest.mark.parametrize("ending", ["npy", "npz", "nc", "gif"])
def test_predict_to_every_kind_of_file(ending: str, here: Path, capsys: Capsys) -> None:
    ended = command(capsys, "predict", "run", "sea.nc", "-o", f"out.{ending}", "--horizon", 4)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"out.{ending}: 4 frames, 1 channel, 5×7 pixels, 2004-01-01 … 2004-04-01\n"
    if ending == "gif":
        from PIL import Image

        with Image.open("out.gif") as film:
            assert film.n_frames >= 4  # type: ignore[attr-defined]
        return
    command(capsys, "predict", "run", "sea.nc", "-o", "again.npy", "--horizon", 4)
    made = open_series(f"out.{ending}", variable="forecast" if ending == "npz" else "")
    frames = made.read(0, 4)
    assert np.array_equal(frames[:, 0], np.load("again.npy"), equal_nan=True)
    assert np.array_equal(np.isnan(frames[0, 0]), np.isnan(field()[-1]))
    if ending == "nc":
        assert (made.variable, made.units) == ("temperature", "K")
        assert np.array_equal(made.times, months(4, "2004-01"))  # type: ignore[arg-type]


def test_predict_of_the_frames_before_a_test_window_is_that_windows_forecast(here: Path, capsys: Capsys) -> None:
    write_field(here / "cut.nc", field()[:30])
    assert command(capsys, "predict", "run", "cut.nc", "-o", "out.npy").code == 0
    run = trained_run(Path("run"))
    source = run.source()
    made = forecasts(run.config, run.model(source.shape), source, "test", range(1)).by["model"][0, :, 0]
    found = np.load("out.npy")
    assert np.array_equal(found[~np.isnan(found)], made[~np.isnan(found)])


def test_what_a_reader_of_scores_should_know_is_said(
    here: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training that was cut short, frames that were trained on, no scikit-image; and digits are never cut off."""
    whole = command(capsys, "evaluate", "run").out
    for words in ("trained for", "no test of it", "without SSIM"):
        assert words not in whole
    assert "no test of it" in command(capsys, "evaluate", "run", "--data", "sea.nc").out
    ledger = Path("run/ledger.jsonl")
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:2]))
    note = "run: trained for 2 of 4 steps; go on with: convlstm train --resume run\n"
    assert note in command(capsys, "evaluate", "run").out
    assert note in command(capsys, "predict", "run", "sea.nc", "-o", "out.npy").out
    monkeypatch.setenv("COLUMNS", "40")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "skimage" else find_spec(name))
    narrow = command(capsys, "evaluate", "run").out
    assert "without SSIM and PSNR, which need scikit-image" in narrow
    mse = json.loads(Path("run/evaluation.json").read_text())["overall"]["model"]["mse"]
    assert f"{mse:.4g} " in next(line for line in narrow.splitlines() if line.startswith(" mse "))


def test_of_several_variables_the_one_that_was_learnt_is_taken(here: Path, capsys: Capsys) -> None:
    """Though its name was never given: the run's own file has one variable."""
    import xarray

    with xarray.open_dataset("sea.nc") as own:
        own.assign(other=own["temperature"] * 0 + 1).to_netcdf("two.nc", engine="h5netcdf")
    assert command(capsys, "predict", "run", "two.nc", "-o", "two.npy").code == 0
    assert command(capsys, "predict", "run", "sea.nc", "-o", "one.npy").code == 0
    assert Path("two.npy").read_bytes() == Path("one.npy").read_bytes()


def test_report(here: Path, capsys: Capsys) -> None:
    for arguments, page in (((), "run/report.html"), (("-o", "page.html"), "page.html")):
        ended = command(capsys, "report", "run", *arguments)
        *_, last = ended.out.splitlines()
        assert (ended.code, ended.err, last) == (0, "", f"{page}: open it in a browser; it needs no network")
        text = Path(page).read_text(encoding="utf-8")
        for words in ("Forecasts of sea.nc", "damped persistence", "5×7 pixels", "training that never saw"[:8]):
            assert words in text
    assert Path("page.html").read_bytes() == Path("run/report.html").read_bytes()


def end_after_three_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SIGTERM come in the third step that is taken from now on, which is then the last."""
    step, taken = Trainer.step, iter(range(10))

    def interrupted(trainer: Any, record: Any) -> float:
        if next(taken) == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(trainer, record)

    monkeypatch.setattr(Trainer, "step", interrupted)


def test_interrupted_and_gone_on_with_comes_to_the_same_bits(
    here: Path, capsys: Capsys, sigterm: None, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {"again": here, "run": whole}
    end_after_three_steps(monkeypatch)
    with no_picture():
        stopped = command(capsys, "train", "tiny.toml", "--out", "again")
        assert stopped.code == 128 + signal.SIGTERM, stopped
        assert "interrupted after 3 of 4 steps" in stopped.out
        went_on = command(capsys, "train", "--resume", "again")
    assert went_on.code == 0, went_on
    assert_same_end(here / "again", here / "run")
    for name in ("data.json", "climatology.safetensors"):
        kept = [(here / run / name).read_text("latin-1").replace(str(folder), "") for run, folder in folders.items()]
        assert kept[0] == kept[1]
    verified = command(capsys, "verify", "again")
    assert (verified.code, "identical: all 4 steps" in verified.out) == (0, True)


def test_frames_that_changed_are_no_longer_the_runs(here: Path, capsys: Capsys, whole: Path) -> None:
    """The run recorded whole/sea.nc; a copy of the folder that reads it is proved, and not when the file differs."""
    text = (here / "run" / "config.toml").read_text()
    (here / "run" / "config.toml").write_text(text.replace(str(whole), str(here)))
    assert command(capsys, "verify", "run").code == 0
    frames = field()
    frames[0, 0, 0] += 1
    write_field(here / "sea.nc", frames)
    (here / "run" / "scores.json").unlink()
    for name in ("verify", "evaluate", "report"):
        refused(capsys, here, (name, "run"), str(here / "sea.nc"), "changed since the run began")
    refused(capsys, here, ("train", "--resume", "run"), str(here / "sea.nc"), "changed since the run began")


# TensorBoard ----------------------------------------------------------------------------------------------------------


def shown(folder: Path) -> list[list[tuple[str, int, float]]]:
    """Return name, step and value of what each event file of a run holds; the first is where it takes over."""
    from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped, unused-ignore]

    files = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, found = path.read_bytes(), []
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
        files.append([("", found[1].step, 0.0)] + [
            (event.summary.value[0].tag, event.step, event.summary.value[0].simple_value) for event in found[2:]
        ])  # fmt: skip
    return files


def test_events_go_on_with_the_run(here: Path, capsys: Capsys, sigterm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    end_after_three_steps(monkeypatch)
    with no_picture():
        command(capsys, "train", "tiny.toml", "--out", "again", "--tensorboard")
        went_on = command(capsys, "train", "--resume", "again", "--tensorboard")
    assert went_on.code == 0, went_on
    first, second = shown(here / "again" / "events")
    losses = [json.loads(line)["loss"] for line in (here / "again" / "ledger.jsonl").read_text().splitlines()]
    assert first[0] == ("", 0, 0.0)
    assert second[0] == ("", 3, 0.0)
    both = first + second
    assert [(step, np.float32(value)) for name, step, value in both if name == "loss/train"] == [
        (n + 1, np.float32(loss)) for n, loss in enumerate(losses)
    ]
    assert {value for name, _, value in both if name == "learning rate"} == {np.float32(5e-3)}
    assert [step for name, step, _ in both if name == "MSE/validation"] == [2, 3, 4]


def test_no_events_unasked(here: Path) -> None:
    assert not (here / "run" / "events").exists()


def test_without_tensorboardx_nothing_is_begun(here: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorboardX", "tensorboardX.proto", "tensorboardX.proto.event_pb2"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    refused(capsys, here, ("train", "tiny.toml", "--out", "new", "--tensorboard"), "tensorboardX", "pip install")


# Reading that fails in the midst --------------------------------------------------------------------------------------


def test_a_read_that_fails_in_the_midst_names_the_file(
    here: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> Any:
        raise DataError("sea.nc: cannot be read: Input/output error")

    monkeypatch.setattr("convlstm.data.frame_source.FrameSource.batch", fail)
    refused(capsys, here, ("evaluate", "run"), "sea.nc: cannot be read")
    refused(capsys, here, ("train", "tiny.toml", "--out", "new"), "sea.nc: cannot be read")


def test_a_bad_file_as_a_process(here: Path) -> None:
    (here / "text.npy").write_text("1 2 3")
    for arguments in (("train", "frames", "--data", "text.npy"), ("evaluate", "run", "--data", "text.npy"),
                      ("predict", "run", "text.npy", "-o", "out.nc")):  # fmt: skip
        before = tree(here)
        ended = subprocess.run(
            [*COMMAND, *arguments], cwd=here, env=environment(), capture_output=True, check=False, encoding="utf-8",
            timeout=120,
        )  # fmt: skip
        assert ended.returncode == 2
        assert ended.stdout == ""
        assert ended.stderr.startswith("convlstm: ")
        assert "text.npy: is no .npy data" in ended.stderr
        assert ended.stderr.count("\n") == 1
        assert tree(here) == before
