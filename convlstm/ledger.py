"""A run's ledger: one line a step, whose digest is chained over all that the step computed.

    {"step": 0, "loss": 0.69, "loss_hex": "0x1.6p-1", "digest": "…"}

digest_k = SHA-256(digest_{k-1}, loss, every gradient, every weight after the step), each array with its name,
dtype and shape.  Two runs whose last lines agree agreed in every bit of every step.  Nothing in a line depends on
time, machine or thread.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convlstm.backends.contract import Array


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


class Entry(NamedTuple):
    """One step, as a ledger's line has it."""

    loss: float
    digest: str


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


class Ledger:
    """Appends to a ledger file, a line as soon as its step is done."""

    def __init__(self, path: Path) -> None:
        """Start an empty ledger at `path`."""
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._tip = b""
        self.steps = 0

    def append(self, loss: float, gradients: Mapping[str, Array], weights: Mapping[str, Array]) -> None:
        """Write the next step's line.

        Args:
            loss: before the step.
            gradients: NumPy arrays, as they came from the backward pass.
            weights: NumPy arrays, after the step.
        """
        self._tip = chain(self._tip, loss, gradients, weights)
        line = {"step": self.steps, "loss": loss, "loss_hex": loss.hex(), "digest": self._tip.hex()}
        self._write_whole((json.dumps(line) + "\n").encode())
        self.steps += 1

    def _write_whole(self, line: bytes) -> None:
        """Write a line, or leave the file as it was and raise the OSError that says why."""
        start = self._file.tell()
        try:
            if self._file.write(line) != len(line):  # the disk was full in the middle of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        except OSError:
            self._file.truncate(start)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()
