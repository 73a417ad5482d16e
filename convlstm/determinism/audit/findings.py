"""What an audit says: findings about code, and problems that kept code from being read."""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Place:
    """Where something stands; `cell` is set in notebooks, and `line` then counts within the cell."""

    path: str
    cell: int  # 0 outside notebooks
    line: int
    column: int  # in characters, from 1

    def __str__(self) -> str:
        """Return path:line:column, or path:cell 3:line:column."""
        cell = f"cell {self.cell}:" if self.cell else ""
        return f"{self.path}:{cell}{self.line}:{self.column}"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    place: Place
    rule: str
    message: str
    text: str  # the source line it stands on, stripped

    def __str__(self) -> str:
        """Return path:line:column: rule: message."""
        return f"{self.place}: {self.rule}: {self.message}"


@dataclass(frozen=True)
class Problem:
    """A file, cell or folder that could not be read, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        """Return path: reason, in one line."""
        return " ".join(f"{self.path}: {self.reason}".split())


@dataclass(frozen=True)
class Raw:
    """A finding before it is placed: rules name a node and know nothing of files."""

    node: ast.AST
    rule: str
    message: str
