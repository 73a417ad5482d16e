"""`convlstm audit`: what its options mean, what goes where, and its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convlstm.determinism.audit.catalogue import choose, explain, listing
from convlstm.determinism.audit.check import Report, audit, audit_text
from convlstm.determinism.audit.output import FORMATS, render

STDIN = "-"


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    paths: Sequence[str] = ()
    form: str = "text"
    select: str = ""
    ignore: str = ""
    exclude: Sequence[str] = ()
    stdin_name: str = "<stdin>"
    explain: str = ""
    list_rules: bool = False


def run(options: Options, say: Callable[[str], object], complain: Callable[[str], object]) -> int:
    """Audit and return the exit code: 0 clean, 1 findings, 2 unreadable. ValueError for bad options."""
    if options.explain:
        say(explain(options.explain))
        return 0
    if options.list_rules:
        say(listing())
        return 0
    if options.form not in FORMATS:
        raise ValueError(f"--format is one of {', '.join(FORMATS)}; got {options.form!r}")
    rules = choose(_names(options.select), _names(options.ignore))
    if not options.paths:
        raise ValueError("audit needs a file or a folder, or - for standard input")
    report = audit([p for p in options.paths if p != STDIN], rules, options.exclude)
    if STDIN in options.paths:
        audit_text(report, options.stdin_name, sys.stdin.buffer.read(), rules)
    return _tell(report, options.form, say, complain)


def _tell(report: Report, form: str, say: Callable[[str], object], complain: Callable[[str], object]) -> int:
    text = render(report, form)
    if text:
        say(text)
    for problem in report.problems:
        complain(str(problem))
    return report.exit_code


def _names(given: str) -> list[str]:
    """Return the rules in a list with commas."""
    return [name.strip() for name in given.split(",") if name.strip()]
