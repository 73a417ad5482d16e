"""Files that appear whole or not at all: written under another name, brought down to the disk, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, or leave what stood there as it was; on return its new content outlives a power cut.

    Raises:
        OSError: it cannot be written, or, where the file is new already, not be brought down to the disk.
    """
    with naming(path):
        with unused_name_beside(path) as new:
            write_new(new, data)
            os.replace(new, path)
        bring_down_folder(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError name this file: a full disk names none, and a refused new file bears a name that nobody knows."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def unused_name_beside(path: Path) -> Iterator[Path]:
    """Yield an unused name in the same folder; whatever still bears it at the end is deleted."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield new
    finally:
        if new.is_dir():
            for file in new.iterdir():
                file.unlink()
            new.rmdir()
        else:
            new.unlink(missing_ok=True)


def write_new(file: Path, data: bytes) -> None:
    """Write a new file down to the disk, so that a rename after it never shows an empty file after a power cut."""
    with file.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def bring_down_folder(folder: Path) -> None:
    """Bring a folder's names down to the disk: a rename is on it only then."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def was_left_half_written(path: Path, names: tuple[str, ...]) -> bool:
    """Say whether this is what a killed process left of a file of one of these names, ``.NAME.….tmp``."""
    return path.name.endswith(".tmp") and any(path.name.startswith(f".{name}.") for name in names)
