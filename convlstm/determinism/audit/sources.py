"""Which files there are to audit, and their text."""

from __future__ import annotations

import fnmatch
import io
import os
import stat
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convlstm.determinism.audit.findings import Problem

SUFFIXES = (".py", ".pyw", ".ipynb")
BUILT = frozenset({"build", "dist", "site", "_build"})  # unless they are packages
SKIPPED = frozenset({"__pycache__", "__pypackages__", "node_modules"})


@dataclass(eq=False)
class Walk:
    """Goes through files and folders in sorted order, each once; what cannot be read is in `problems`."""

    exclude: Sequence[str] = ()
    problems: list[Problem] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def files(self, paths: Sequence[str]) -> Iterator[str]:
        """Yield the files to audit."""
        for path in paths:
            try:
                kind = os.stat(path).st_mode
            except (OSError, ValueError) as error:
                self._problem(path, error)
                continue
            if stat.S_ISDIR(kind):
                yield from self._folder(path, ())
            elif stat.S_ISREG(kind):
                yield from self._file(path)
            else:
                self.problems.append(Problem(path, "is neither a file nor a folder"))

    def _file(self, path: str) -> Iterator[str]:
        if self._is_excluded(path):
            return
        try:
            found = os.stat(path)
        except OSError as error:
            self._problem(path, error)
            return
        if (found.st_dev, found.st_ino) not in self._seen:
            self._seen.add((found.st_dev, found.st_ino))
            yield path

    def _folder(self, path: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        if self._is_excluded(path):
            return
        try:
            found = os.stat(path)
            here = (found.st_dev, found.st_ino)
            if here in above:
                self.problems.append(Problem(path, f"a loop: leads back to {os.path.realpath(path)}"))
                return
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            self._problem(path, error)
            return
        if here in self._seen:
            return  # reached through a link before
        self._seen.add(here)
        for entry in entries:
            inside = os.path.join(path, entry.name) if path != "." else entry.name
            try:
                folder = entry.is_dir()
            except OSError as error:  # a link that leads to itself
                self._problem(inside, error)
                continue
            if folder:
                if not self._is_skipped(inside, entry.name):
                    yield from self._folder(inside, (*above, here))
            elif entry.name.endswith(SUFFIXES):
                yield from self._entry(inside)

    def _entry(self, path: str) -> Iterator[str]:
        """Yield a file found in a folder; pipes and sockets with such a name are none."""
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)
        except OSError as error:
            if not self._is_excluded(path):
                self._problem(path, error)
            return
        if regular:
            yield from self._file(path)

    def _is_skipped(self, path: str, name: str) -> bool:
        if name.startswith(".") or name in SKIPPED or name.endswith(".egg-info"):
            return True
        if name in BUILT and not os.path.exists(os.path.join(path, "__init__.py")):
            return True
        return os.path.exists(os.path.join(path, "pyvenv.cfg"))

    def _is_excluded(self, path: str) -> bool:
        shown = Path(path).as_posix()
        return any(
            fnmatch.fnmatch(shown, glob)
            or fnmatch.fnmatch(shown, f"*/{glob}")
            or fnmatch.fnmatch(f"{shown}/", f"{glob}/")
            for glob in (g.rstrip("/") for g in self.exclude)
        )

    def _problem(self, path: str, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.problems.append(Problem(path, f"cannot be read: {reason}"))


def decode(data: bytes) -> str:
    """Return the text of a Python file: byte-order mark or declaration decides. ValueError if it is none."""
    if b"\0" in data:
        raise ValueError("is binary, not Python: it holds null bytes")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except SyntaxError as error:
        if "missing" in error.msg:
            raise ValueError("is not text in utf-8, and declares no other encoding") from None
        raise ValueError(f"its encoding is not known: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not text in {error.encoding}: {error.reason} at byte {error.start}") from None
    except LookupError as error:
        raise ValueError(f"its encoding is not known: {error}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
