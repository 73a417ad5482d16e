"""No text makes the audit fail: the standard library's own files, and pieces of them put together anyhow."""

from __future__ import annotations

import random
import sysconfig
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convlstm.determinism.audit import RULES, Report, audit, audit_text

LIBRARY = Path(sysconfig.get_path("stdlib"))
EVERY_RULE = frozenset(RULES)


@cache
def library_files() -> list[Path]:
    return sorted(LIBRARY.glob("*.py"))


@cache
def statements() -> list[str]:
    """Return top-level statements of some library files, and a few that concern the audit."""
    own = [
        "import numpy as np", "x = np.empty(n)", "x += 1", "x[i] = x[i - 1]", "for i in range(n): x[i] = 1",
        "for x in {x for x in x}: y.append(x)", "def f(x=np.empty(3), *a, **k): return x", "x = [np.empty(3)] * 3",
        "x[0][...] = x['a'].b.c(x, out=x)", "while x: break", "with x as x[0]: pass", "del x, x[0], x.y",
        "x = y = x, *x = np.empty(3), *x", "try: x = np.empty(3)\nfinally: x += 1", "lambda x=x: x", "x: set[str]",
        "match x:\n    case {'a': np.empty, **x}: x += 1", "class x(x): x = x", "global x", "x: int", "(x := x)",
        "async def f():\n    async for x in x: yield x", "f'{x!r:{x}}'", "f = f(f)", "np = np.np", "x = x.x = x",
        "for x.y in x: continue\nelse: x", "x @= x", "import x.y.z as x", "from . import *", "from ... import x",
    ]  # fmt: skip
    chosen = random.Random(0).sample(library_files(), 12)
    return own * 4 + [
        part for file in chosen for part in file.read_text(encoding="utf-8").split("\n\n") if len(part) < 2000
    ]


@pytest.mark.parametrize("file", random.Random(1).sample(library_files(), 40), ids=lambda file: file.name)
def test_library_files_are_audited_without_a_fault(file: Path) -> None:
    report = audit([str(file)], EVERY_RULE)
    assert report.files == 1
    assert report.problems == []


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_mixture_of_statements_makes_it_fail(data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.sampled_from(statements()), max_size=8))
    report = Report()
    audit_text(report, "x.py", "\n".join(parts).encode("utf-8", "replace"), EVERY_RULE)
    assert all(f.place.line >= 1 and f.place.column >= 1 for f in report.findings)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    for name in ("x.py", "x.ipynb"):
        report = Report()
        audit_text(report, name, data, EVERY_RULE)
        assert all(f.place.line >= 1 and f.place.column >= 1 for f in report.findings)
