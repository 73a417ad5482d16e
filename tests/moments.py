"""Every moment at which training touches a file, each numbered, so that a run can be ended or spoilt at any of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from convlstm import whole_files
from convlstm.config import Config, Data, Model, Training
from convlstm.ledger import Ledger

# Hundreds of these are trained: four steps, with a checkpoint after the third and the last.
TINIER = Config(
    Data(size=16, context=1, horizon=1, test_sequences=1, validation_sequences=1),
    Model(hidden_channels=(2,), kernel_size=3, patch=4),
    Training(steps=4, batch_size=1, seed=5, checkpoint_every=3, keep_checkpoints=1),
)


class Moments:
    """Counts moments, and strikes at one of them, or from one of them on."""

    def __init__(self, at: int, strike: Callable[[], None], *, onwards: bool = False) -> None:
        self.at, self.strike, self.onwards = at, strike, onwards
        self.passed = 0

    def come(self, before: Callable[[], object] = lambda: None) -> None:
        """Count a moment; where it is the one, do what comes `before` it and strike."""
        number = self.passed
        self.passed += 1
        if number == self.at or (self.onwards and number > self.at):
            before()
            self.strike()


class StruckFile:
    """A ledger's file, struck before, in the middle of and after a line."""

    def __init__(self, file: Any, moments: Moments) -> None:
        self._file, self._moments = file, moments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, line: bytes) -> int:
        self._moments.come()
        self._moments.come(before=lambda: self._file.write(line[: len(line) // 2]))
        written: int = self._file.write(line)
        return written


@contextmanager
def struck(moments: Moments) -> Iterator[None]:
    """Let every file that training writes, renames, deletes or brings down pass these moments."""
    begin, write, replace, fsync, unlink, mkdir = (
        Ledger.__init__, whole_files.write_new, os.replace, os.fsync, Path.unlink, Path.mkdir,
    )  # fmt: skip

    def struck_ledger(ledger: Ledger, *arguments: Any) -> None:
        moments.come()
        begin(ledger, *arguments)
        ledger._file = StruckFile(ledger._file, moments)  # type: ignore[assignment]

    def struck_write(file: Path, data: bytes) -> None:
        moments.come()
        moments.come(before=lambda: file.write_bytes(data[: len(data) // 2]))
        write(file, data)

    def struck_replace(source: Any, target: Any) -> None:
        moments.come()
        replace(source, target)
        moments.come()

    def struck_fsync(number: int) -> None:
        moments.come()
        fsync(number)

    def struck_unlink(path: Path, missing_ok: bool = False) -> None:
        moments.come()
        unlink(path, missing_ok)

    def struck_mkdir(path: Path, *arguments: Any, **named: Any) -> None:
        moments.come()
        mkdir(path, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "__init__", struck_ledger)
        patch.setattr(whole_files, "write_new", struck_write)
        patch.setattr(os, "replace", struck_replace)
        patch.setattr(os, "fsync", struck_fsync)
        patch.setattr(Path, "unlink", struck_unlink)
        patch.setattr(Path, "mkdir", struck_mkdir)
        yield
