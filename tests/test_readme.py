"""README says nothing that has not been run: its Python runs, its settings load, its commands do what they say."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convlstm.config import Config, load_config
from convlstm.randomness import generator
from tests.test_replay_zoo import GUILTY

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


CONVLSTM = [sys.executable, "-m", "convlstm"]
# Importing matplotlib takes longer than a step.
NO_MATPLOTLIB = (
    'import sys; sys.modules["matplotlib.backends.backend_agg"] = None; from convlstm.cli import main; main()'
)
WITHOUT_PICTURE = [sys.executable, "-c", NO_MATPLOTLIB]


def blocks(language: str) -> list[str]:
    return [text for page in PAGES for name, text in BLOCK.findall(page.read_text("utf-8")) if name == language]


def run(command: list[str], directory: Path, code: int = 0) -> str:
    finished = subprocess.run(
        command, cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == code, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: to import all that a block needs takes longer than to run it."""
    (tmp_path / "block.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("block.py", run_name="__main__")
    printed = capsys.readouterr().out
    if printed in shown():
        return
    losses = [float(line.split()[1]) for line in printed.splitlines()]
    assert losses == sorted(losses, reverse=True)  # where a block trains, it learns


def shown() -> list[str]:
    """Return what the pages say that blocks and commands print."""
    return blocks("text")


@pytest.mark.parametrize("text", blocks("toml"))
def test_settings_load(text: str, tmp_path: Path) -> None:
    (tmp_path / "block.toml").write_text(text, encoding="utf-8")
    assert load_config(str(tmp_path / "block.toml")) != Config()


def sessions() -> list[list[list[str]]]:
    """Return the convlstm commands of each shell block, as their arguments; what stands in several blocks, once."""
    seen: set[str] = set()
    found = []
    for text in blocks("sh"):
        parts = [part.strip() for line in text.splitlines() for part in line.split("&&")]
        matches = [re.search(r"(?:^|uv run )\s*convlstm (.*)$", part) for part in parts]
        given = [match[1] for match in matches if match and match[1] not in seen]
        seen.update(given)
        if given:
            found.append([shlex.split(command) for command in given])
    return found


def test_there_are_commands() -> None:
    assert ["train", "digits"] in [command for session in sessions() for command in session]


def guilty_lines(script: str) -> list[str]:
    """Return the lines that its file marks; that replay names just these is what test_replay_zoo.py proves."""
    lines = enumerate((ROOT / script).read_text("utf-8").splitlines(), start=1)
    return [f"{script}:{number}: {line.strip()}" for number, line in lines if GUILTY in line]


def write_frames(file: Path) -> None:
    """Write somebody's own frames: 60 days of a field of 16×20 pixels, some of them land."""
    xarray = pytest.importorskip("xarray")
    days = np.arange("2001-01-01", "2001-03-02", dtype="datetime64[D]").astype("datetime64[ns]")
    values = generator(0, "test/readme").random((len(days), 16, 20)).astype(np.float32)
    values[:, :5, :6] = np.nan
    coordinates = {"time": days, "y": np.arange(16.0), "x": np.arange(20.0)}
    xarray.Dataset({"field": (("time", "y", "x"), values)}, coordinates).to_netcdf(file)


@pytest.mark.parametrize("session", sessions(), ids=lambda session: " && ".join(map(" ".join, session)))
def test_commands_run(session: list[list[str]], tmp_path: Path) -> None:
    """One block in one folder, one command after the other."""
    if any("my.nc" in arguments for arguments in session):
        write_frames(tmp_path / "my.nc")
    for arguments in session:
        check_command(arguments, tmp_path)


def check_command(arguments: list[str], folder: Path) -> None:
    """A training run is cut to one step: the whole of it is not a test's work."""
    if "--script" in arguments:  # a script of ours that is at fault, in a place within the repository
        assert run([*CONVLSTM, *arguments], ROOT, code=1) in shown()
    elif arguments[0] == "replay":  # of six axes the quickest; what others find is tests/test_replay_zoo.py's subject
        first = run([*CONVLSTM, *arguments[:1], "--axis", "nothing", *arguments[1:]], ROOT).splitlines()[0]
        (page,) = (text for text in shown() if "the lines whose memory is read before it is written" in text)
        assert first in page.splitlines()
        assert [line for line in page.splitlines() if ".py:" in line] == guilty_lines(arguments[-1])
    elif arguments[0] == "train":
        if arguments[1] == "sst":
            pytest.importorskip("iris_sample_data")
        short = ["--steps", "1", "--set", "data.test_sequences=3", "--set", "data.validation_sequences=1"]
        run([*(CONVLSTM if arguments == ["train", "digits"] else WITHOUT_PICTURE), *arguments, *short], folder)
    elif arguments != ["gradcheck"]:  # half a minute; tests/test_self_check.py has a part of it
        run([*CONVLSTM, *arguments], folder)
    if arguments == ["train", "digits"]:
        assert (folder / "runs" / "digits-1" / "forecast.png").stat().st_size > 1000


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
