"""A run's ledger: one line a step, whose digest is chained over all that the step computed.

    {"step": 0, "loss": 0.69, "loss_hex": "0x1.6p-1", "digest": "…"}

digest_k = SHA-256(digest_{k-1}, loss, every gradient, every weight after the step), each array with its name,
dtype and shape.  Two runs whose last lines agree agreed in every bit of every step.  Nothing in a line depends on
time, machine or thread.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convlstm.backends.contract import Array
from convlstm.whole_files import naming


class LedgerError(ValueError):
    """A ledger that cannot be read; the message names the file and the line."""


def chain(tip: bytes, loss: float, gradients: Mapping[str, Array], weights: Mapping[str, Array]) -> bytes:
    """Return the digest of a step from that of the step before, b"" before the first."""
    digest = hashlib.sha256(tip + np.float64(loss).tobytes())
    for role, named in (("gradient", gradients), ("weight", weights)):
        for name in sorted(named):
            array = named[name]
            digest.update(f"{role} {name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


class Chain:
    """The digests of steps that are taken again, one after the other from the first.

    Attributes:
        digest: of the last of them, as a ledger's line has it; "" before the first.
    """

    def __init__(self) -> None:
        self.digest = ""

    def append(self, loss: float, gradients: Mapping[str, Array], weights: Mapping[str, Array]) -> None:
        """Go on by a step; arguments as `chain`, which makes this a `Record` for `Trainer.step`."""
        self.digest = chain(bytes.fromhex(self.digest), loss, gradients, weights).hex()


class Entry(NamedTuple):
    """One step, as a ledger's line has it."""

    loss: float
    digest: str


class Position(NamedTuple):
    """Where a ledger stands: how many steps it holds, the digest of the last, and SHA-256 of all its lines."""

    steps: int
    digest: str
    sha256: str


NEWLINE = b"\n"
BEGINNING = Position(0, "", hashlib.sha256().hexdigest())


def read_ledger(path: Path) -> list[Entry]:
    """Return a ledger's steps.

    Raises:
        LedgerError: there is none, or a line is not as this file says.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"cannot read {path}: {error}") from None
    entries = []
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            if entry["step"] != number or entry["loss"].hex() != entry["loss_hex"] or len(entry["digest"]) != 64:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            fault = f"{path}, line {number + 1}: this is not the line of step {number}: {line[:60]!r}"
            raise LedgerError(fault) from None
        entries.append(Entry(entry["loss"], entry["digest"]))
    return entries


def open_locked(path: Path) -> io.FileIO:
    """Open a ledger, an empty one where there is none, so that no other process can until it is closed.

    The lock goes with the process, however it ends.

    Raises:
        LedgerError: another process has it open.
        OSError: it cannot be opened to be written.
    """
    file = io.FileIO(path, "r+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise LedgerError(f"{path} is being written by another process: the run in it goes on") from None
    except OSError:  # a file system without locks
        pass
    return file


class Ledger:
    """Appends to a ledger file, a line as soon as its step is done.

    Attributes:
        steps: how many it holds.
    """

    def __init__(self, path: Path, file: io.FileIO, position: Position = BEGINNING) -> None:
        """Continue the ledger at `path` from `position`; what it holds beyond, half a line too, is cut off.

        Args:
            path: its name, for messages.
            file: from `open_locked`; whoever opened it closes it.
            position: where to go on.

        Raises:
            LedgerError: it is not the ledger that stood there; it is left as it is.
            OSError: it cannot be read or cut off.
        """
        self._path, self._file = path, file
        with naming(path):
            lines = self._read(position)
            file.truncate(len(lines))
            file.seek(len(lines))
        self._sha256 = hashlib.sha256(lines)
        self._tip = bytes.fromhex(position.digest)
        self.steps = position.steps

    @property
    def position(self) -> Position:
        """Where it stands, for a ledger to be continued from there."""
        return Position(self.steps, self._tip.hex(), self._sha256.hexdigest())

    def append(self, loss: float, gradients: Mapping[str, Array], weights: Mapping[str, Array]) -> None:
        """Write the next step's line.

        Args:
            loss: before the step.
            gradients: NumPy arrays, as they came from the backward pass.
            weights: NumPy arrays, after the step.
        """
        tip = chain(self._tip, loss, gradients, weights)
        entry = {"step": self.steps, "loss": loss, "loss_hex": loss.hex(), "digest": tip.hex()}
        line = (json.dumps(entry) + "\n").encode()
        with naming(self._path):
            self._write_whole(line)
        self._sha256.update(line)
        self._tip = tip
        self.steps += 1

    def bring_down(self) -> None:
        """Bring all lines down to the disk, so that they outlive a power cut."""
        with naming(self._path):
            os.fsync(self._file.fileno())

    def _read(self, position: Position) -> bytes:
        """Return the lines of the steps up to `position`."""
        self._file.seek(0)
        lines = self._file.readall()
        end = sum(map(len, lines.splitlines(keepends=True)[: position.steps]))
        if hashlib.sha256(lines[:end]).hexdigest() != position.sha256:
            held = f"the {position.steps} lines that it held"
            raise LedgerError(f"{self._path} ({lines.count(NEWLINE)} lines) does not begin with {held}")
        return lines[:end]

    def _write_whole(self, line: bytes) -> None:
        """Write a line, or leave the file as it was and raise the OSError that says why."""
        start = self._file.tell()
        try:
            if self._file.write(line) != len(line):  # the disk was full in the middle of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._file.truncate(start)
            self._file.seek(start)
            raise
