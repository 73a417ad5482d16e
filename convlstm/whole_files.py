"""Files that appear whole or not at all: written under another name, brought down to the disk, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, or leave what stood there as it was.

    Raises:
        OSError: it cannot be written.
    """
    with unused_name_beside(path) as new:
        write_new(new, data)
        os.replace(new, path)


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
