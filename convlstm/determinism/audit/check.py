"""Audits one source text: parses it, asks every rule, takes out what is waived."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from convlstm.determinism.audit.catalogue import RULES, WAIVER_RULES
from convlstm.determinism.audit.devices import devices
from convlstm.determinism.audit.findings import Finding, Place, Problem, Raw
from convlstm.determinism.audit.generators import generators
from convlstm.determinism.audit.hashes import hashes
from convlstm.determinism.audit.names import Names
from convlstm.determinism.audit.notebooks import FLAGS, read_notebook
from convlstm.determinism.audit.scopes import Module, read_module
from convlstm.determinism.audit.sets import orders
from convlstm.determinism.audit.sources import Walk, decode
from convlstm.determinism.audit.uninitialised import uninitialised
from convlstm.determinism.audit.waivers import Waiver, waivers

CHECKS: tuple[Callable[[Module, Names], Iterator[Raw]], ...] = (uninitialised, generators, orders, hashes, devices)


@dataclass(eq=False)
class Report:
    """All that an audit found, and all that it could not read."""

    findings: list[Finding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: int = 0

    @property
    def exit_code(self) -> int:
        """Return 0 clean, 1 findings, 2 something could not be read."""
        return 2 if self.problems else 1 if self.findings else 0


def audit(paths: Sequence[str], rules: frozenset[str], exclude: Sequence[str] = ()) -> Report:
    """Audit files and folders by these rules. Nothing that is audited is executed or imported."""
    report = Report()
    walk = Walk(exclude, report.problems)
    for path in walk.files(paths):
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            report.problems.append(Problem(path, f"cannot be read: {error.strerror or error}"))
            continue
        audit_text(report, path, data, rules)
    return report


def audit_text(report: Report, path: str, data: bytes, rules: frozenset[str]) -> None:
    """Audit the bytes of one file and add to the report what is found."""
    report.files += 1
    try:
        text = decode(data)
        if path.endswith(".ipynb"):
            notebook = read_notebook(text)
            report.problems += [Problem(f"{path}:cell {cell}", fault) for cell, fault in notebook.faults]
            findings = _audit_source(path, notebook.source, rules, notebook.places)
        else:
            findings = _audit_source(path, text, rules, None)
    except SyntaxError as error:
        report.problems.append(Problem(path, f"line {error.lineno or 1}: is not Python: {error.msg}"))
    except (RecursionError, MemoryError):
        report.problems.append(Problem(path, "is nested too deeply to be read"))
    except ValueError as error:
        report.problems.append(Problem(path, str(error)))
    else:
        report.findings += sorted(findings, key=lambda f: (f.place, f.rule, f.message))


def _audit_source(path: str, source: str, rules: frozenset[str], places: list[tuple[int, int]] | None) -> list[Finding]:
    tree = parse(source, path)
    lines = source.split("\n")
    raws = _raws(tree, rules)
    said = waivers(source) if "convlstm:" in source else []
    used: set[tuple[int, str]] = set()
    findings = []
    for raw in raws:
        line = getattr(raw.node, "lineno", 1)
        by = [w for w in said if line in w.covers and raw.rule in w.rules and w.fault() is None]
        used |= {(w.line, raw.rule) for w in by}
        if not by:
            column = _column(lines, line, getattr(raw.node, "col_offset", 0))
            findings.append(_finding(path, line, column, raw.rule, raw.message, lines, places))
    for waiver in said:
        for rule, message in _faults(waiver, used, rules):
            findings.append(_finding(path, waiver.line, waiver.column, rule, message, lines, places))
    return findings


def parse(source: str, path: str) -> ast.Module:
    """Parse a source text, without a word about its style."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like are other tools' business
        tree = compile(source, path, "exec", FLAGS, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    return tree


def _raws(tree: ast.Module, rules: frozenset[str]) -> list[Raw]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 3_000))  # long sums nest deeply
    try:
        module = read_module(tree)
        names = Names(module)
        found: dict[tuple[int, int, str], Raw] = {}
        for check in CHECKS:
            for raw in check(module, names):
                if raw.rule in rules:
                    place = (getattr(raw.node, "lineno", 0), getattr(raw.node, "col_offset", 0), raw.rule)
                    found.setdefault(place, raw)
        return list(found.values())
    finally:
        sys.setrecursionlimit(limit)


def _faults(waiver: Waiver, used: set[tuple[int, str]], rules: frozenset[str]) -> Iterator[tuple[str, str]]:
    fault = waiver.fault()
    if fault is not None:
        if fault[0] in rules:
            yield fault
        return
    for rule in waiver.rules:
        if rule in rules and (waiver.line, rule) not in used and "waiver-unused" in rules:
            yield "waiver-unused", f"nothing here breaks {rule}; take the waiver out"


def _finding(
    path: str, line: int, column: int, rule: str, message: str, lines: list[str], places: list[tuple[int, int]] | None
) -> Finding:
    text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    cell, inside = places[line - 1] if places is not None and line <= len(places) else (0, line)
    return Finding(Place(path, cell, inside, column), rule, _in_cell(message, places), text)


def _in_cell(message: str, places: list[tuple[int, int]] | None) -> str:
    """Turn "at line 40" of the joined cells into "at cell 3, line 2"."""
    if places is None:
        return message
    words = message.split(" ")
    for position, word in enumerate(words[:-1]):
        number = words[position + 1].rstrip(";:,)")
        if word == "line" and number.isdigit() and 0 < int(number) <= len(places):
            cell, inside = places[int(number) - 1]
            words[position] = f"cell {cell}, line"
            words[position + 1] = words[position + 1].replace(number, str(inside))
    return " ".join(words)


def _column(lines: list[str], line: int, offset: int) -> int:
    """Return the column in characters: the parser counts bytes."""
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    return len(text.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "ignore")) + 1


def default_rules() -> frozenset[str]:
    """Return the rules that hold unless others are asked for."""
    return frozenset(name for name, rule in RULES.items() if rule.default) | WAIVER_RULES
