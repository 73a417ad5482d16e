"""README says nothing that has not been run: its Python runs, its settings load, its commands do what they say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from convlstm.config import Config, load_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for page in PAGES for name, text in BLOCK.findall(page.read_text("utf-8")) if name == language]


def run(command: list[str], directory: Path, code: int = 0) -> str:
    finished = subprocess.run(
        command, cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == code, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code: str, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(code, encoding="utf-8")
    printed = run([sys.executable, "-W", "error", "block.py"], tmp_path)
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


def commands() -> list[list[str]]:
    """Return every convlstm command of the shell blocks once, as its arguments."""
    lines = [part for text in blocks("sh") for line in text.splitlines() for part in line.split("&&")]
    found = [re.search(r"(?:^|uv run )\s*convlstm (.*)$", line.strip()) for line in lines]
    given = [shlex.split(command) for command in dict.fromkeys(match[1] for match in found if match)]
    verified = [arguments[1] for arguments in given if arguments[0] == "verify"]  # whose test trains first
    return [arguments for arguments in given if arguments[0] != "train" or arguments[-1] not in verified]


def test_there_are_commands() -> None:
    assert ["train", "digits"] in commands()


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_commands_run(arguments: list[str], tmp_path: Path) -> None:
    """A training run is cut to one step: the whole of it is not a test's work."""
    if "--script" in arguments:  # a script of ours that is at fault, in a place within the repository
        assert run([sys.executable, "-m", "convlstm", *arguments], ROOT, code=1) in shown()
        return
    if arguments[0] == "replay":  # one axis of six, for time; every line it names is on the page
        named = run(
            [sys.executable, "-m", "convlstm", *arguments[:1], "--axis", "memory", *arguments[1:]], ROOT, code=1
        )
        lines = [line for line in named.splitlines() if ".py:" in line]
        assert lines
        assert any(all(line in text for line in lines) for text in shown())
        return
    if arguments == ["gradcheck"]:  # half a minute; tests/test_self_check.py has a part of it
        return
    short = ["--steps", "1", "--set", "data.test_sequences=3", "--set", "data.validation_sequences=1"]
    if arguments[0] == "verify":  # what the command before it on the line has made
        run([sys.executable, "-m", "convlstm", "train", "digits", *short, "--out", arguments[1]], tmp_path)
    run([sys.executable, "-m", "convlstm", *arguments, *(short if arguments[0] == "train" else [])], tmp_path)
    if arguments == ["train", "digits"]:
        assert (tmp_path / "runs" / "digits-1" / "forecast.png").stat().st_size > 1000


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
