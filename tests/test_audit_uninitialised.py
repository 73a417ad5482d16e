# ruff: noqa: E501 - one program to a line
"""The audit's data flow: what is read before it is written, and the lookalikes that are innocent."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from convlstm.determinism.audit import Report, audit, audit_text, choose, default_rules
from convlstm.determinism.audit.regions import Region, covers

PROGRAMS = Path(__file__).parent / "programs" / "determinism" / "audit"
HEAD = "import numpy as np\nimport cupy as cp\nimport torch\n"


def found(source: str, rules: frozenset[str] | None = None) -> list[tuple[str, int]]:
    """Return (rule, line within `source`) of each finding about memory."""
    report = Report()
    chosen = rules or default_rules()
    audit_text(report, "x.py", (HEAD + source).encode(), frozenset(r for r in chosen if r.startswith("uninit")))
    assert report.problems == []
    return [(f.rule.removeprefix("uninitialised-"), f.place.line - HEAD.count("\n")) for f in report.findings]


ACCUMULATED = {
    "in place": "x = np.empty(3)\nx += 1",
    "several, made alike": "a, b = (np.empty(3) for _ in range(2))\na += 1",
    "in place, by element": "x = np.empty(3)\nx[0] += 1",
    "in a loop": "x = cp.empty([2, 3])\nfor t in range(5):\n    x += t",
    "in a loop, last to first": "def f(T, d):\n    x = cp.empty(3)\n    for t in cp.arange(T - 1, -1, -1):\n        x -= d[t]",
    "x = x + y": "x = np.empty(3)\nx = x + 1",
    "out= that is an argument": "x = np.empty(3)\nnp.add(x, 1, out=x)",
    "positional out": "x = np.empty(3)\nnp.add(x, 1, x)",
    "add.at": "def f(i, v):\n    x = np.empty(3)\n    np.add.at(x, i, v)",
    "through a view": "x = np.empty((2, 2))\ny = x.reshape(4)\ny += 1",
    "torch": "x = torch.empty(3)\nx.add_(1)",
    "torch.Tensor(n, m)": "def f(n, m):\n    x = torch.Tensor(n, m)\n    x += 1",
    "new_empty": "def f(y):\n    x = y.new_empty(3)\n    x += 1",
    "entry of a dictionary": 'd = {"w": np.empty(3), "b": np.zeros(3)}\nd["b"] += 1\nd["w"] += 1',
    "attribute, in another method": "class A:\n    def __init__(self):\n        self.w = np.empty(3)\n"
    "    def step(self, d):\n        self.w += d",
    "attribute, in the same method": "class A:\n    def f(self):\n        self.w = np.empty(3)\n        self.w += 1",
    "in a function of the file": "def add(x, v):\n    x += v\ndef f():\n    y = np.empty(3)\n    add(y, 1)",
    "given by a function of the file": "def make(n):\n    return np.empty(n)\ndef f():\n    y = make(3)\n    y += 1",
}
ALIASES = {
    "from … import … as": "from numpy import empty as e\nx = e(3)\nx += 1",
    "inside a function": "def f():\n    import numpy as q\n    x = q.empty(3)\n    x += 1",
    "cupy or numpy": "def f(gpu):\n    xp = cp if gpu else np\n    x = xp.empty(3)\n    x += 1",
    "get_array_module": "def f(y):\n    xp = cp.get_array_module(y)\n    x = xp.empty_like(y)\n    x += 1",
    "self.xp": "class A:\n    def __init__(self):\n        self.xp = np\n"
    "    def f(self):\n        x = self.xp.empty(3)\n        x += 1",
    "default of a parameter": "def f(xp=np):\n    x = xp.empty(3)\n    x += 1",
    "a name for the function": "make = np.empty\nx = make(3)\nx += 1",
    "partial": "from functools import partial\nmake = partial(np.empty, dtype='f4')\nx = make(3)\nx += 1",
    "getattr": "x = getattr(np, 'empty')(3)\nx += 1",
    "numpy.core": "from numpy.core.multiarray import empty\nx = empty(3)\nx += 1",
    "ndarray": "x = np.ndarray((2, 3))\nx += 1",
    "ndarray with dtype": "x = np.ndarray((2, 3), np.float32)\nx += 1",
    "empty_like": "def f(y):\n    x = np.empty_like(y)\n    x += y",
    "star": "from numpy import *\nx = empty(3)\nx += 1",
    "try": "try:\n    import cupy as xq\nexcept ImportError:\n    xq = None\nx = xq.empty(3)\nx += 1",
    "import_module": "import importlib\nm = importlib.import_module('numpy')\nx = m.empty(3)\nx += 1",
}
READ = {
    "printed": "x = np.empty(3)\nprint(x)",
    "summed": "x = np.empty(3)\ny = x.sum()",
    "in an expression": "def f(y):\n    return np.empty(3) + y",
    "in a function": "x = np.empty(3)\ny = np.sum(x)",
    "as an index": "def f(y):\n    x = np.empty(3, dtype=int)\n    return y[x]",
    "compared": "x = np.empty(3)\nif x[0] > 1:\n    pass",
    "formatted": "x = np.empty(3)\nprint(f'{x}')",
    "before the loop that writes": "def f(n):\n    x = np.empty(n)\n    s = x.sum()\n    for i in range(n):\n        x[i] = s",
    "written in another array": "def f(y):\n    x = np.empty(3)\n    y[:] = x * 2",
    "raw": "m = cp.cuda.alloc(8)\nx = cp.ndarray((2,), 'f4', memptr=m)\nprint(x)",
}
PARTLY = {
    "without its border": "def f(a):\n    x = np.empty((8, 8))\n    x[1:-1, 1:-1] = a\n    return x",
    "border by loops": "def f(n, m):\n    x = np.empty((n, m))\n    for i in range(1, n - 1):\n        for j in range(1, m - 1):\n"
    "            x[i, j] = i\n    return x.sum()",
    "one short": "def f(n):\n    x = np.empty(n)\n    for i in range(n - 1):\n        x[i] = i\n    return x",
    "every second": "def f(n):\n    x = np.empty(n)\n    x[::2] = 1\n    return x",
    "two columns of three": "def f(n):\n    x = np.empty((n, 3))\n    x[:, 0] = 1\n    x[:, 1] = 2\n    return x",
    "only its first": "def f(n):\n    x = np.empty(n)\n    x[0] = 1\n    return x",
    "one branch": "def f(c):\n    x = np.empty(3)\n    if c:\n        x[:] = 1\n    return x",
    "one branch of a loop": "def f(a):\n    x = np.empty(len(a))\n    for i in range(len(a)):\n        if a[i] > 0:\n"
    "            x[i] = 1\n    return x",
    "where=": "def f(a, b):\n    return np.divide(a, b, out=np.empty_like(a), where=b != 0)",
    "continue": "def f(a):\n    x = np.empty(len(a))\n    for i, v in enumerate(a):\n        if v < 0:\n            continue\n"
    "        x[i] = v\n    return x",
}
ESCAPES = {
    "kept in a global": "kept = {}\ndef f(n):\n    kept[n] = np.empty(n)",
    "kept and returned": "kept = {}\ndef f(a):\n    if a.shape not in kept:\n        kept[a.shape] = np.empty_like(a)\n    return kept[a.shape]",
    "returned": "def f(n):\n    return np.empty(n)",
    "returned by name": "def f(n):\n    x = np.empty_like(n)\n    return x",
    "in a tuple": "def f(n):\n    return 1, np.empty(n)",
    "in a dictionary": "def f(n):\n    return {'w': np.empty(n)}",
    "in a list": "def f(n):\n    bufs = [np.empty(n) for _ in range(3)]\n    return bufs",
    "kept": "class A:\n    def __init__(self, n):\n        self.x = np.empty(n)",
    "yielded": "def f(n):\n    yield np.empty(n)",
    "appended": "def f(n):\n    bufs = []\n    bufs.append(np.empty(n))\n    return bufs",
}
INNOCENT = {
    "kept and filled": "kept = {}\ndef f(n):\n    kept[n] = np.empty(n)\n    kept[n][:] = 0\n    return kept[n]",
    "entries by number": "def f(n, bufs):\n    for i in range(n):\n        bufs[i] = np.empty(3)\n        bufs[i][:] = i\n    return bufs",
    "zeros": "x = np.zeros(3)\nx += 1",
    "a function called empty": "def empty(n):\n    return [0] * n\nx = empty(3)\nx += [1]",
    "a method called empty": "class Q:\n    def empty(self):\n        return 0\nq = Q()\nx = q.empty()\nx += 1",
    "queue.empty()": "import queue\nq = queue.Queue()\nx = q.empty()\nx += 1",
    "df.empty": "def f(df):\n    x = df.empty\n    x += 1",
    "inspect.Parameter.empty": "import inspect\nx = inspect.Parameter.empty\nprint(x)",
    "np rebound": "def f(np):\n    x = np.empty(3)\n    x += 1",
    "empty of another library": "import jax.numpy as jnp\nx = jnp.empty(3)\nx += 1",
    "a class called ndarray": "class ndarray:\n    pass\nx = ndarray()\nprint(x)",
    "isinstance": "def f(x):\n    return isinstance(x, np.ndarray)",
    "ndarray on a buffer": "def f(b):\n    x = np.ndarray((2,), np.float32, b)\n    x += 1",
    "ndarray on buffer=": "def f(b):\n    x = np.ndarray((2,), buffer=b)\n    return x",
    "torch.Tensor of data": "x = torch.Tensor([1, 2])\nx += 1",
    "x[...] =": "x = np.empty(3)\nx[...] = 0\nx += 1",
    "x[:] =": "x = np.empty(3)\nx[:] = 0\nprint(x)",
    "x[:, :] =": "x = np.empty((2, 2))\nx[:, :] = 0\nx += 1",
    "x[0:n] =": "def f(n):\n    x = np.empty(n)\n    x[0:n] = 0\n    return x",
    "fill": "x = np.empty(3)\nx.fill(0)\nx += 1",
    "fill through a view": "x = np.empty((3, 2))\nx.ravel().fill(0)\nx += 1",
    "x.flat[:] =": "x = np.empty((3, 2))\nx.flat[:] = 0\nx += 1",
    "copyto": "x = np.empty(3)\nnp.copyto(x, 1)\nx += 1",
    "out=": "def f(a, b):\n    x = np.empty_like(a)\n    np.add(a, b, out=x)\n    return x",
    "out= of anything": "def f(a):\n    x = np.empty_like(a)\n    a.cumsum(axis=0, out=x)\n    return x.sum()",
    "out= of an unknown function": "from m import g\nx = np.empty(3)\ng(1, out=x)\nx += 1",
    "positional out": "def f(a, b):\n    x = np.empty_like(a)\n    np.multiply(a, b, x)\n    return x",
    "np.dot(a, b, x)": "def f(a, b):\n    x = np.empty((2, 2))\n    np.dot(a, b, x)\n    return x",
    "zero elements": "x = np.empty(0)\nx = x + 1",
    "zero rows": "def f():\n    return np.empty((0, 3))",
    "no elements on this path": "def f(a):\n    if a.size == 0:\n        return np.empty_like(a)\n    return a",
    "no elements, by name": "def f(n):\n    x = np.empty(n)\n    if n == 0:\n        return x\n    x[:] = 1\n    return x",
    "objects": "x = np.empty(3, dtype=object)\nprint(x)",
    "its shape": "x = np.empty(3)\nprint(x.shape, len(x), x.dtype)",
    "zeros_like of it": "x = np.empty(3)\ny = np.zeros_like(x)\ny += 1",
    "is None": "x = np.empty(3)\nif x is None:\n    pass",
    "never used": "x = np.empty(3)",
    "rebound": "x = np.empty(3)\nx = np.zeros(3)\nx += 1",
    "NaN": "x = np.empty(3) * np.nan\nprint(x)",
    "loop over len": "def f(a):\n    x = np.empty(len(a))\n    for i in range(len(a)):\n        x[i] = a[i]\n    return x",
    "loop over len(x)": "def f(n):\n    x = np.empty(n)\n    for i in range(len(x)):\n        x[i] = 1\n    x += 1\n    return x",
    "loop over x.shape": "def f(n):\n    x = np.empty((n, 2))\n    for i in range(x.shape[0]):\n        x[i] = 1\n    return x",
    "loop over n": "def f(n):\n    x = np.empty((n, 4))\n    for i in range(n):\n        x[i] = 1\n    return x",
    "loop backwards": "def f(n):\n    x = np.empty(n)\n    for i in range(n - 1, -1, -1):\n        x[i] = 1\n    return x",
    "loop over two": "def f(n, m):\n    x = np.empty((n, m))\n    for i in range(n):\n        for j in range(m):\n"
    "            x[i, j] = 1\n    return x",
    "two branches of a loop": "def f(n):\n    x = np.empty(n)\n    for i in range(n):\n        if i % 2:\n            x[i] = 1\n"
    "        else:\n            x[i] = 2\n    return x",
    "enumerate": "def f(a):\n    x = np.empty(len(a))\n    for i, v in enumerate(a):\n        x[i] = v\n    return x",
    "n = len(a)": "def f(a):\n    n = len(a)\n    x = np.empty((n, 2))\n    for i, v in enumerate(a):\n        x[i] = v\n    return x",
    "ndindex": "def f(a):\n    x = np.empty(a.shape)\n    for i, j in np.ndindex(*a.shape):\n        x[i, j] = 1\n    return x",
    "recurrence": "def f(n):\n    x = np.empty(n + 1)\n    x[0] = 1\n    for i in range(n):\n        x[i + 1] = 2 * x[i]\n    return x",
    "first and rest": "def f(n):\n    x = np.empty(n)\n    x[0] = 0\n    x[1:] = 1\n    return x",
    "halves": "def f(n):\n    x = np.empty(n)\n    x[::2] = 0\n    x[1::2] = 1\n    return x",
    "border and middle": "def f(a):\n    x = np.empty((8, 8))\n    x[1:-1, 1:-1] = a\n    x[0] = x[-1] = 0\n"
    "    x[:, 0] = 0\n    x[:, -1] = 0\n    return x",
    "both columns": "def f(n):\n    x = np.empty((n, 2))\n    x[:, 0] = 1\n    x[:, 1] = 2\n    return x",
    "all columns, extent unknown": "def f(a):\n    x = np.empty_like(a)\n    x[:, 0] = 1\n    x[:, 1] = 2\n    return x",
    "ellipsis": "def f(a):\n    x = np.empty((*a.shape, 4))\n    x[..., :3] = a\n    x[..., -1] = 1\n    return x",
    "mask and its complement": "def f(m):\n    x = np.empty(3)\n    x[m] = 1\n    x[~m] = 2\n    return x",
    "both branches": "def f(c):\n    x = np.empty(3)\n    if c:\n        x[:] = 1\n    else:\n        x.fill(2)\n    return x",
    "the same test again": "def f(c):\n    x = np.empty(3)\n    if c:\n        x[:] = 1\n    if c:\n        x += 1",
    "the other branch raises": "def f(c):\n    x = np.empty(3)\n    if c:\n        x[:] = 1\n    else:\n        raise ValueError\n"
    "    return x",
    "allocated on one path": "def f(out=None):\n    if out is None:\n        out = np.empty(3)\n    out[:] = 1\n    return out",
    "first time only": "def f(T):\n    x = np.empty(3)\n    for t in range(T):\n        if t == 0:\n            x[:] = 0\n"
    "        else:\n            x += t\n    return x",
    "first time only, continue": "def f(T):\n    x = np.empty(3)\n    for t in range(T):\n        if t == 0:\n            x[:] = 0\n"
    "            continue\n        x += t\n    return x",
    "inside the loop": "def f(T):\n    for t in range(T):\n        x = np.empty(3)\n        x[:] = t\n        x += 1",
    "filled by an unknown function": "from m import fill\nx = np.empty(3)\nfill(x)\nx += 1",
    "readinto": "def f(file):\n    x = np.empty(3)\n    file.readinto(x)\n    return x",
    "filled in a function of the file": "def zero(x):\n    x[:] = 0\ndef f():\n    y = np.empty(3)\n    zero(y)\n    y += 1",
    "given by a function of the file, filled": "def make(n):\n    return np.empty(n)\ndef f():\n    y = make(3)\n    y[:] = 0\n"
    "    y += 1",
    "attribute filled elsewhere": "class A:\n    def __init__(self):\n        self.w = np.empty(3)\n        self.reset()\n"
    "    def reset(self):\n        self.w[:] = 0\n    def step(self, d):\n        self.w += d",
    "list of buffers, filled": "bufs = [np.empty(3) for _ in range(2)]\nfor b in bufs:\n    b[:] = 0\nfor b in bufs:\n    b += 1",
    "the other entry": 'd = {"w": np.empty(3), "b": np.zeros(3)}\nd["b"] += 1\nd["w"][:] = 0\nd["w"] += 1',
    "records": "x = np.empty(3, dtype=[('a', int), ('b', int)])\nx['a'] = 1\nx['b'] = 2\nprint(x)",
    "the written part": "def f(n):\n    x = np.empty(n)\n    x[1:-1] = 0\n    return x[1:-1] + 1",
    "torch, filled": "x = torch.empty(3).normal_()\nx += 1",
    "zero_": "x = torch.empty(3)\nx.zero_()\nx += 1",
    "a wrapper that says so": "def empty(n):\n    return np.empty(n)",
    "assigned from where": "def f(a, m):\n    x = np.empty_like(a)\n    x = np.where(m, a, x)\n    x = np.where(~m, 0, x)\n    return x",
    "del": "x = np.empty(3)\ndel x",
    "while": "def f(n):\n    x = np.empty(n)\n    i = 0\n    while i < n:\n        x[i] = i\n        i += 1\n    return x",
    "try": "def f(g):\n    x = np.empty(3)\n    try:\n        x[:] = g()\n    except ValueError:\n        x[:] = 0\n    return x",
}


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        *(pytest.param("accumulated", s, id=f"accumulated: {n}") for n, s in {**ACCUMULATED, **ALIASES}.items()),
        *(pytest.param("read", s, id=f"read: {n}") for n, s in READ.items()),
        *(pytest.param("partly-written", s, id=f"partly: {n}") for n, s in PARTLY.items()),
        *(pytest.param("escapes", s, id=f"escapes: {n}") for n, s in ESCAPES.items()),
    ],
)
def test_what_is_read_before_it_is_written_is_found(kind: str, source: str) -> None:
    assert [rule for rule, _ in found(source)] == [kind]


@pytest.mark.parametrize("source", INNOCENT.values(), ids=INNOCENT)
def test_innocent_code_is_not_accused(source: str) -> None:
    ast.parse(source)
    assert found(source) == []


def test_the_four_accumulators_are_the_only_errors() -> None:
    file = PROGRAMS / "four_accumulators.py"
    report = audit([str(file)], default_rules())
    text = file.read_text().split("\n")
    lines = [n for n, line in enumerate(text, 1) if "cp.empty(" in line]
    assert len(lines) == 4
    assert [(f.place.line, f.rule) for f in report.findings] == [(n, "uninitialised-accumulated") for n in lines]
    for finding in report.findings:
        name = finding.text.split()[0]
        used = next(n for n, line in enumerate(text, 1) if f"{name} +=" in line)
        assert f"at line {used} " in finding.message


def test_what_cannot_be_decided_is_said_only_where_asked_for() -> None:
    source = "def f(mask):\n    x = np.empty(3)\n    x[mask] = 1\n    return x"
    assert found(source) == []
    assert found(source, choose(["uninitialised-undecided"], [])) == [("undecided", 2)]


def test_a_helper_is_named_where_what_it_returns_is_misused() -> None:
    source = "def make(n):\n    return np.empty(n)\ndef f():\n    y = make(3)\n    y += 1"
    report = Report()
    audit_text(report, "x.py", (HEAD + source).encode(), default_rules())
    (finding,) = report.findings
    assert finding.place.line == 7
    assert "make() allocated here (allocated by numpy.empty at line 5)" in finding.message
    assert "at line 8" in finding.message


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        ([Region(((0, 1, 0),)), Region(((1, None, 1),))], True),
        ([Region(((1, -1, 1),))], False),
        ([Region(((1, -1, 1),)), Region(((0, 1, 0),)), Region(((-1, 0, 0),))], True),
        ([Region(((0, 1, 0),)), Region(((1, 2, 0),))], None),  # all of two, not of three
        ([Region(((None, None, 2),)), Region(((1, None, 2),))], True),
        ([], False),
    ],
)
def test_parts_that_together_are_the_whole(parts: list[Region], answer: bool | None) -> None:
    assert covers(frozenset(parts), Region(()), [], None) is answer
