"""The code of a Jupyter notebook as one Python module, and where each of its lines stands."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass

MAGIC = re.compile(r"^(?P<indent>\s*)(%|!|\?|.*\?\s*$)")
ASSIGNED_MAGIC = re.compile(r"^(?P<before>\s*[\w.,\s\[\]]+=\s*)[%!].*$")
# Cell magics whose cell is still Python.
PYTHON_CELLS = frozenset({"time", "timeit", "capture", "prun", "python", "python3", "memit", "mprun", "lprun"})
NOT_PYTHON = re.compile(r"^\s*%%(?P<name>\w+)")
FLAGS = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True)
class Notebook:
    """All code cells one after another; `places` gives for each line its cell and the line within."""

    source: str
    places: list[tuple[int, int]]
    faults: list[tuple[int, str]]  # cells that are not Python, and why


def read_notebook(text: str) -> Notebook:
    """Return a notebook's code. ValueError if this is no notebook."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is no notebook: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("is no notebook: it holds no cells")
    cells = document.get("cells")
    if cells is None:  # the third version of the format
        sheets = document.get("worksheets")
        cells = [cell for sheet in sheets for cell in sheet.get("cells", [])] if isinstance(sheets, list) else None
    if not isinstance(cells, list):
        raise ValueError("is no notebook: it holds no cells")
    if _language(document) not in ("python", ""):
        return Notebook("", [], [])
    lines: list[str] = []
    places: list[tuple[int, int]] = []
    faults = []
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        source = cell.get("source", cell.get("input", ""))
        written = "".join(map(str, source)) if isinstance(source, list) else str(source)
        try:
            code = _python(written.replace("\r\n", "\n").replace("\r", "\n"))
        except (SyntaxError, ValueError) as error:
            message = error.msg if isinstance(error, SyntaxError) else str(error)
            line = error.lineno if isinstance(error, SyntaxError) else 1
            faults.append((number, f"line {line}: is not Python: {message}"))
            continue
        for position, line_of_code in enumerate(code.split("\n"), 1):
            lines.append(line_of_code)
            places.append((number, position))
    return Notebook("\n".join(lines) + "\n", places, faults)


def _language(document: dict[str, object]) -> str:
    metadata = document.get("metadata")
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    language = kernel.get("language") if isinstance(kernel, dict) else None
    return language.lower() if isinstance(language, str) else ""


def _python(source: str) -> str:
    """Return a cell with its magics blanked, line for line."""
    special = NOT_PYTHON.match(source)
    if special is not None:
        if special["name"] not in PYTHON_CELLS:
            return ""
        source = "\n".join(["", *source.split("\n")[1:]])
    try:  # a line that starts with % may also be the rest of an expression
        compile(source, "cell", "exec", FLAGS, dont_inherit=True)
        return source
    except SyntaxError:
        pass
    lines: list[str] = []
    continued = False
    for line in source.split("\n"):
        magic = None if continued else MAGIC.match(line)
        assigned = None if continued else ASSIGNED_MAGIC.match(line)
        if continued and lines and lines[-1] == "":
            lines.append("")  # the rest of a magic that goes over several lines
        elif magic is not None:
            lines.append(f"{magic['indent']}pass" if not line.endswith("\\") else "")
        elif assigned is not None:
            lines.append(f"{assigned['before']}None")
        else:
            lines.append(line)
        continued = line.endswith("\\")
    blanked = "\n".join(lines)
    compile(blanked, "cell", "exec", FLAGS, dont_inherit=True)
    return blanked
