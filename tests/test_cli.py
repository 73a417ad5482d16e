"""The commands as a user meets them: processes, exit codes, what is printed where, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convlstm.checkpoint import saved_steps
from convlstm.config import PRESETS
from convlstm.parameter_files import load_parameters
from convlstm.run_directory import CHECKPOINTS, RUN_FILES

# Python's own SIGINT, which pytest's process may have inherited as ignored; and no CuPy, whatever this machine has.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules["cupy"] = None
from convlstm.cli import main
main()
"""
CONFIG = """
[data]
size = 16
context = 2
horizon = 2
test_sequences = 2
[model]
hidden_channels = [2]
kernel_size = 3
patch = 4
[training]
steps = 12
batch_size = 1
"""
COMMAND = [sys.executable, "-c", PROGRAM]


def environment(**variables: str) -> dict[str, str]:
    """This process's variables without those that the commands read; this checkout is found from anywhere."""
    unset = ("CONVLSTM_BACKEND", "CONVLSTM_THREADS", "FORCE_COLOR", "PYTHONIOENCODING")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "PYTHONWARNINGS": "error", **variables}


def convlstm(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `directory`."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=directory, env=environment(**variables),
        capture_output=True, check=False, encoding="utf-8", timeout=120,
    )  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.toml"
    file.write_text(CONFIG)
    return file


def lengthened(config: Path, steps: int) -> None:
    config.write_text(CONFIG.replace("steps = 12", f"steps = {steps}"))


# What goes well -------------------------------------------------------------------------------------------------------


def test_training_prints_plain_lines_and_leaves_a_run(config: Path, tmp_path: Path) -> None:
    """Brackets in its name are brackets, not markup."""
    out = ("--out", "[bold]/[x]")
    result = convlstm(tmp_path, "train", "tiny.toml", "--steps", "25", "--seed", "3", "--backend", "numpy", *out)
    assert (result.returncode, result.stderr) == (0, "")
    run = tmp_path / "[bold]" / "[x]"
    assert {path.name for path in run.iterdir()} == {*RUN_FILES, CHECKPOINTS}
    first, *steps, scoring, scores, picture = result.stdout.splitlines()
    assert first.startswith("backend numpy (")
    assert first.endswith("run directory [bold]/[x]")
    ledger = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    assert len(ledger) == 25
    told = [1, *range(2, 25, 2), 25]  # the first, ten or so, and the last
    assert steps == [f"step {done}/25  loss {ledger[done - 1]['loss']:.4f}" for done in told]
    scored = json.loads((run / "scores.json").read_text())
    assert scoring == f"scoring {scored['sequences']} sequences"
    overall = scored["overall"]
    mse = {name: scores["mse"] for name, scores in overall.items()}
    assert scores == f"test MSE {mse['model']:.4g}; persistence {mse['persistence']:.4g}"
    assert picture == "forecasts above the truth: [bold]/[x]/forecast.png"
    assert "steps = 25 " in (run / "config.toml").read_text()
    assert "seed = 3 " in (run / "config.toml").read_text()


def test_doctor_names_what_is_missing_and_what_mends_it(tmp_path: Path) -> None:
    result = convlstm(tmp_path, "doctor", CONVLSTM_THREADS="3")
    assert (result.returncode, result.stderr) == (0, "")
    numpy, cupy, auto = result.stdout.splitlines()
    assert numpy.startswith("numpy: ")
    assert numpy.endswith("3 worker thread(s)")
    assert cupy.startswith("cupy: not available; ")
    assert 'pip install ".[cuda13]"' in cupy
    assert auto == "auto is numpy"


def test_an_encoding_without_our_letters_is_no_reason_to_fail(tmp_path: Path) -> None:
    result = convlstm(tmp_path, "doctor", PYTHONIOENCODING="ascii:strict")
    assert result.returncode == 0, result.stderr
    assert r"NVIDIA driver \u2265" in result.stdout


def test_help_lists_the_commands_and_their_options(tmp_path: Path) -> None:
    commands, options = convlstm(tmp_path, "--help"), convlstm(tmp_path, "train", "--help")
    assert (commands.returncode, options.returncode) == (0, 0)
    assert all(name in commands.stdout for name in ("train", "doctor"))
    assert all(
        name in options.stdout for name in ("--backend", "--steps", "--seed", "--out", "--overwrite", "--resume")
    )


# What goes wrong: one line, exit code 2, nothing made -----------------------------------------------------------------


def assert_one_line(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"convlstm: {message}")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digitz"], f"'digitz' is neither a preset ({', '.join(PRESETS)}) nor a .toml file; did you mean digits?"),
        (["missing.toml"], "missing.toml: No such file or directory"),
        (["tiny.toml", "--steps", "0"], "[training] steps must be > 0; got 0"),
        (["tiny.toml", "--seed", "-1"], "[training] seed must be ≥ 0 and < 2**64; got -1"),
        (["tiny.toml", "--seed", str(2**64)], "[training] seed must be ≥ 0 and < 2**64; got 18446744073709551616"),
        (
            ["tiny.toml", "--backend", "torch"],
            'backend must be "auto", "numpy", "numpy:winograd", "cupy" or "cupy:<device number>"',
        ),
        (["tiny.toml", "--backend", "cupy"], "backend 'cupy' is not available: the package CuPy is not installed; in"),
        (["tiny.toml", "--out", "taken"], "taken exists; name another --out, or say --overwrite"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, config: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    assert_one_line(convlstm(tmp_path, "train", *arguments), message)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.txt", "taken", "tiny.toml"]


def test_a_setting_that_cannot_work_costs_no_earlier_run(config: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in RUN_FILES:
        (tmp_path / "run" / name).touch()
    config.write_text(CONFIG.replace("kernel_size = 3", "kernel_size = 5"))
    result = convlstm(tmp_path, "train", "tiny.toml", "--out", "run", "--overwrite")
    assert_one_line(result, "kernel 5×5 is larger than the map 4×4")
    assert {path.name for path in (tmp_path / "run").iterdir()} == set(RUN_FILES)


def test_training_that_diverges_is_one_line(config: Path, tmp_path: Path) -> None:
    steep = 'output = "linear"\n[training]\nloss = "mse"\noptimizer = "sgd"\nlearning_rate = 1e30\nclipping = "none"'
    config.write_text(CONFIG.replace("[training]", steep))
    result = convlstm(tmp_path, "train", "tiny.toml", "--out", "run", PYTHONWARNINGS="default")
    assert result.returncode == 2
    assert result.stderr.startswith("convlstm: loss is ")
    assert result.stderr.count("\n") == 1


def test_a_wrong_option_is_no_traceback(tmp_path: Path) -> None:
    result = convlstm(tmp_path, "train", "digits", "--step", "3")
    assert result.returncode == 2
    assert "No such option: --step" in result.stderr
    assert "Traceback" not in result.stderr


# Ctrl-C and closed pipes ----------------------------------------------------------------------------------------------


def assert_whole(run: Path, steps: int) -> None:
    """The ledger has so many whole lines, and the weights are there and finite."""
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["step"] for line in lines] == list(range(steps))
    assert all(line.endswith(b"\n") for line in lines)
    weights = load_parameters(run / "weights.safetensors")
    assert weights
    assert all(np.isfinite(w).all() for w in weights.values())
    left = {path.name for path in run.iterdir()} - {CHECKPOINTS}  # there are none yet where a reader went away early
    assert left == set(RUN_FILES) - {"scores.json", "forecast.png"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_all_that_the_run_needs_to_go_on(
    number: signal.Signals, code: int, config: Path, tmp_path: Path
) -> None:
    lengthened(config, 500)
    command = [*COMMAND, "train", "tiny.toml"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(3)]
        assert seen[2].startswith("step 50/500  loss ")
        process.send_signal(number)
        rest, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (code, "")
    *_, last = rest.splitlines()
    run = Path("runs") / "tiny-1"
    ledger = (tmp_path / run / "ledger.jsonl").read_bytes()
    steps = len(ledger.splitlines())
    told = f"interrupted after {steps} of 500 steps; weights and ledger are in {run}"
    assert last == f"{told}; go on with: convlstm train --resume {run}"
    assert 50 <= steps < 500
    assert_whole(tmp_path / run, steps)
    assert saved_steps(tmp_path / run / CHECKPOINTS)[-1] == steps
    if number == signal.SIGTERM:
        resumed = convlstm(tmp_path, *last.split("convlstm ")[1].split())
        from_there = run / CHECKPOINTS / f"step-{steps:08d}.json"
        assert (resumed.returncode, resumed.stderr) == (0, f"going on from {from_there}\n")
        assert resumed.stdout.splitlines()[-1] == f"forecasts above the truth: {run / 'forecast.png'}"
        longer = (tmp_path / run / "ledger.jsonl").read_bytes()
        assert longer.startswith(ledger)
        assert len(longer.splitlines()) == 500


def test_a_terminal_shows_a_bar_and_its_ctrl_c_saves(config: Path, tmp_path: Path) -> None:
    """On a pseudo-terminal, where the key itself is typed."""
    if sys.platform == "win32":
        pytest.skip("Windows has no pseudo-terminals")
    lengthened(config, 5000)
    ours, theirs = os.openpty()
    # The child makes it the terminal of its session: Popen's preexec_fn, and pty.fork, warn of this process's threads.
    adopt = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    command = [sys.executable, "-c", adopt + PROGRAM, "train", "tiny.toml", "--out", "run"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(TERM="xterm", COLUMNS="120"),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown, typed = b"", False
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the way Linux says that nobody is at the other end any more
            break
        if not part:  # other systems' way
            break
        shown += part
        if b"loss 0." in shown and not typed:
            typed = os.write(ours, b"\x03") == 1
    os.close(ours)
    assert process.wait(timeout=120) == 130
    text = shown.decode()
    assert "training" in text
    assert "/5000" in text
    assert "nan" not in text  # the bar before the first loss is known
    assert "step " not in text  # the plain lines of a pipe
    steps = len((tmp_path / "run" / "ledger.jsonl").read_bytes().splitlines())
    assert f"interrupted after {steps} of 5000 steps; weights and ledger are in run" in text
    assert text.endswith("\r\n")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
    assert_whole(tmp_path / "run", steps)


def test_a_reader_that_goes_away_is_no_traceback(config: Path, tmp_path: Path) -> None:
    """As in `convlstm train … | head -1`."""
    lengthened(config, 300)
    command = [*COMMAND, "train", "tiny.toml", "--out", "run"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1
    assert errors == ""
    assert_whole(tmp_path / "run", len((tmp_path / "run" / "ledger.jsonl").read_bytes().splitlines()))
