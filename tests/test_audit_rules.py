# ruff: noqa: E501 - one program to a line
"""The audit's rules about seeds, orders, hashes and GPUs: what is found, and the lookalikes that are innocent."""

from __future__ import annotations

import pytest

from convlstm.determinism.audit import RULES, Report, audit_text, default_rules

HEAD = "import glob, os, random, time\nimport numpy as np\n"

GUILTY = {
    # generators without a seed
    "default_rng()": ("unseeded-generator", "r = np.random.default_rng()"),
    "default_rng(None)": ("unseeded-generator", "r = np.random.default_rng(None)"),
    "default_rng(seed=None)": ("unseeded-generator", "r = np.random.default_rng(seed=None)"),
    "RandomState()": ("unseeded-generator", "r = np.random.RandomState()"),
    "SeedSequence()": ("unseeded-generator", "r = np.random.SeedSequence()"),
    "Random()": ("unseeded-generator", "r = random.Random()"),
    "SystemRandom()": ("unseeded-generator", "r = random.SystemRandom()"),
    "seed()": ("unseeded-generator", "random.seed()"),
    "from … import": ("unseeded-generator", "from numpy.random import default_rng as d\nr = d()"),
    "cupy": ("unseeded-generator", "import cupy\nr = cupy.random.default_rng()"),
    # global state
    "np.random.rand": ("unseeded-global-random", "x = np.random.rand(3)"),
    "np.random.shuffle": ("unseeded-global-random", "def f(x):\n    np.random.shuffle(x)"),
    "random.random": ("unseeded-global-random", "x = random.random()"),
    "from random import shuffle": ("unseeded-global-random", "from random import shuffle as s\ns([1, 2])"),
    "seeded too late": ("unseeded-global-random", "x = np.random.rand(3)\nnp.random.seed(0)"),
    "the other library seeded": ("unseeded-global-random", "random.seed(0)\nx = np.random.rand(3)"),
    "cupy.random": ("unseeded-global-random", "import cupy as cp\nx = cp.random.normal(size=3)"),
    "torch.randn": ("unseeded-global-random", "import torch\nx = torch.randn(3)"),
    # seeds that differ
    "clock": ("seed-not-fixed", "random.seed(time.time())"),
    "clock by a variable": ("seed-not-fixed", "s = int(time.time())\nnp.random.seed(s)"),
    "clock from datetime": ("seed-not-fixed", "from datetime import datetime\nrandom.seed(datetime.now())"),
    "getpid": ("seed-not-fixed", "r = np.random.default_rng(os.getpid())"),
    "urandom": ("seed-not-fixed", "r = random.Random(os.urandom(4))"),
    "id": ("seed-not-fixed", "def f(x):\n    return random.Random(id(x))"),
    "hash": (
        "seed-not-fixed",
        "def f(name):\n    return np.random.default_rng(hash(name) % 9)  # convlstm: allow hash-value: a test",
    ),
    "uuid": ("seed-not-fixed", "import uuid\nr = random.Random(uuid.uuid4().int)"),
    "seed= of anything": ("seed-not-fixed", "from m import train\ntrain(seed=time.time_ns())"),
    # sets
    "for over a set": ("set-order", "for x in {'a', 'b'}:\n    print(x)"),
    "list(set)": ("set-order", "def f(a):\n    return list(set(a))"),
    "array of a set": ("set-order", "def f(a):\n    return np.array(list(set(a)))"),
    "sum of a set": ("set-order", "def f(a):\n    s = {x.y for x in a}\n    return sum(s)"),
    "accumulated": ("set-order", "def f(a):\n    t = 0.0\n    for x in set(a):\n        t += x\n    return t"),
    "list of a set variable": ("set-order", "def f(a):\n    s = set(a)\n    s.add('z')\n    return [x for x in s]"),
    "annotated": ("set-order", "def f(s: set[str]):\n    return tuple(s)"),
    "difference": ("set-order", "def f(a, b):\n    return list(set(a) - set(b))"),
    "joined": ("set-order", "def f(a):\n    return ','.join(set(a))"),
    "appended": ("set-order", "def f(a):\n    out = []\n    for x in set(a):\n        out.append(x)\n    return out"),
    "numbered": ("set-order", "def f(words):\n    return [i for i, w in enumerate(set(words))]"),
    "unpacked": ("set-order", "def f(a):\n    return [*set(a)]"),
    "self.s": (
        "set-order",
        "class A:\n    def __init__(self):\n        self.s = set()\n    def f(self):\n        return list(self.s)",
    ),
    # folders
    "listdir": ("directory-order", "for n in os.listdir('.'):\n    print(n)"),
    "listdir, kept": ("directory-order", "files = os.listdir('.')\nfirst = files[0]"),
    "glob": ("directory-order", "def f():\n    return [open(n) for n in glob.glob('*.txt')]"),
    "iterdir": ("directory-order", "from pathlib import Path\ndef f():\n    return list(Path('.').iterdir())"),
    "Path.glob": (
        "directory-order",
        "from pathlib import Path\ndef f(d: Path):\n    return [p.name for p in d.glob('*')]",
    ),
    "scandir": ("directory-order", "def f(out):\n    for e in os.scandir('.'):\n        out.append(e.name)"),
    # hashes and addresses
    "hash % n": ("hash-value", "def f(name):\n    return hash(name) % 8"),
    "sort by id": ("id-as-order", "def f(a):\n    return sorted(a, key=id)"),
    "id <": ("id-as-order", "def f(a, b):\n    return id(a) < id(b)"),
    # concurrency
    "as_completed": (
        "completion-order",
        "from concurrent.futures import as_completed\ndef f(fs):\n    t = 0.0\n    for x in as_completed(fs):\n        t += x.result()\n    return t",
    ),
    "imap_unordered": ("completion-order", "def f(pool, g, a):\n    return list(pool.imap_unordered(g, a))"),
    # devices
    "cupy.add.at": ("gpu-scatter", "import cupy as cp\ndef f(x, i, v):\n    cp.add.at(x, i, v)"),
    "scatter_add": ("gpu-scatter", "import cupyx\ndef f(x, i, v):\n    cupyx.scatter_add(x, i, v)"),
    "bincount": ("gpu-scatter", "import cupy as cp\ndef f(i, w):\n    return cp.bincount(i, weights=w)"),
    "numpy or cupy": (
        "gpu-scatter",
        "import cupy as cp\ndef f(x, i, v):\n    xp = cp.get_array_module(x)\n    xp.add.at(x, i, v)",
    ),
    "index_add_ on cuda": ("gpu-scatter", "import torch\ndef f(x, i, v):\n    x.to('cuda').index_add_(0, i, v)"),
}
INNOCENT = {
    "a seed": "r = np.random.default_rng(0)",
    "a seed by name": "def f(seed=None):\n    return np.random.default_rng(seed)",
    "seed passed on": "def f(**k):\n    return random.Random(**k)",
    "seeded before": "np.random.seed(0)\nx = np.random.rand(3)",
    "seeded in main": "def f():\n    return np.random.rand(3)\ndef main():\n    np.random.seed(0)\n    f()",
    "seeded by a helper": "from m import set_seed\nset_seed(0)\nx = np.random.rand(3)",
    "torch seeded": "import torch\ntorch.manual_seed(0)\nx = torch.randn(3)",
    "torch generator": "import torch\ndef f(g):\n    return torch.randn(3, generator=g)",
    "a generator's method": "r = np.random.default_rng(0)\nx = r.random(3)",
    "random of another module": "from m import random as r\nx = r.random()",
    "a function called random": "def random():\n    return 4\nx = random()",
    "types": "def f(r: np.random.Generator):\n    return isinstance(r, np.random.RandomState)",
    "timing": "t = time.time()\nprint(time.time() - t)",
    "a clock in a name": "name = f'run-{time.time()}'",
    "seed of text": "random.seed('a')",
    "hash of a number as seed": "random.seed(hash(3))",
    "sorted(set)": "def f(a):\n    return sorted(set(a))",
    "len, min, max": "def f(a):\n    s = set(a)\n    return len(s), min(s), max(s)",
    "membership": "def f(a, x):\n    s = set(a)\n    return x in s",
    "set to set": "def f(a):\n    out = set()\n    for x in set(a):\n        out.add(x + 1)\n    return out",
    "set comprehension of a set": "def f(a):\n    return {x + 1 for x in set(a)}",
    "numbers": "for x in {1, 2}:\n    print(x)",
    "numbers of a range": "def f(n):\n    return list(set(range(n)))",
    "numbers left of a range": "def f(n, a):\n    return list(set(range(n)) - set(a))",
    "counted": "def f(a):\n    n = 0\n    for x in set(a):\n        n += 1\n    return n",
    "by its own key": "def f(a, d, e):\n    for x in set(a):\n        d[x] += e[x]",
    "any, all": "def f(a):\n    return any(x for x in set(a)), all(x for x in set(a))",
    "sorted after": "def f(a):\n    b = list(set(a))\n    b.sort()\n    return b",
    "sorted later": "def f(a):\n    out = []\n    for x in set(a):\n        out.append(x)\n    return sorted(out)",
    "np.unique": "def f(a):\n    return np.unique(list(set(a)))",
    "set of another": "from m import set\ndef f(a):\n    return list(set(a))",
    "dict": "def f(d):\n    return list(d)",
    "dict.fromkeys": "def f(a):\n    return list(dict.fromkeys(a))",
    "one of it": "def f(a):\n    for x in set(a):\n        x.close()",
    "an error's text": "def f(a, b):\n    raise ValueError(f'missing {list(set(a) - set(b))}')",
    "a work list": "def f(a):\n    s = set(a)\n    while s:\n        x = s.pop()\n        x.close()",
    "sorted(listdir)": "for n in sorted(os.listdir('.')):\n    print(n)",
    "sorted comprehension": "def f():\n    return sorted(n for n in os.listdir('.') if n)",
    "listdir, sorted": "names = os.listdir('.')\nnames.sort()\nprint(names[0])",
    "len(listdir)": "n = len(os.listdir('.'))",
    "in listdir": "ok = 'a' in os.listdir('.')",
    "if listdir": "if os.listdir('.'):\n    pass",
    "removed": "for n in os.listdir('.'):\n    os.remove(n)",
    "set(glob)": "s = set(glob.glob('*'))",
    "glob of another thing": "from m import model\nx = [y for y in model.glob('a')]",
    "__hash__": "class A:\n    def __hash__(self):\n        return hash(self.name) % 8",
    "hashes compared": "def f(a, b):\n    return hash(a) == hash(b)",
    "hash of a number": "x = hash(3) % 2",
    "is it hashable": "def f(a):\n    hash(a)",
    "a function called hash": "def hash(x):\n    return 1\ny = hash('a') % 2",
    "id as key": "def f(a, memo):\n    memo[id(a)] = a",
    "ids equal": "def f(a, b):\n    return id(a) == id(b)",
    "as_completed by key": "from concurrent.futures import as_completed\ndef f(fs, out):\n    for x in as_completed(fs):\n"
    "        out[fs[x]] = x.result()",
    "pool.map": "def f(pool, g, a):\n    return list(pool.map(g, a))",
    "np.add.at": "def f(x, i, v):\n    np.add.at(x, i, v)",
    "scatter_max": "import cupyx\ndef f(x, i, v):\n    cupyx.scatter_max(x, i, v)",
    "bincount without weights": "import cupy as cp\ndef f(i):\n    return cp.bincount(i)",
    "index_add_ on a CPU": "import torch\ndef f(x, i, v):\n    x.index_add_(0, i, v)",
}


def rules_of(source: str, *without: str) -> list[str]:
    report = Report()
    audit_text(report, "x.py", source.encode(), default_rules() - {*without})
    assert report.problems == []
    return [f.rule for f in report.findings]


@pytest.mark.parametrize(("rule", "source"), GUILTY.values(), ids=GUILTY)
def test_what_wanders_is_found(rule: str, source: str) -> None:
    assert rules_of(HEAD + source) == [rule]


@pytest.mark.parametrize("source", INNOCENT.values(), ids=INNOCENT)
def test_innocent_code_is_not_accused(source: str) -> None:
    assert rules_of(HEAD + source) == []


@pytest.mark.parametrize("name", RULES)
def test_the_examples_of_every_rule_show_it(name: str) -> None:
    rule = RULES[name]
    report = Report()
    audit_text(report, "x.py", rule.bad.encode(), frozenset({name, *default_rules()}))
    assert name in [f.rule for f in report.findings]
    assert rules_of(rule.good) == []


def test_each_draw_is_named() -> None:
    report = Report()
    audit_text(report, "x.py", b"import numpy as np\na = np.random.rand(3)\nb = np.random.rand(3)", default_rules())
    assert [f.place.line for f in report.findings] == [2, 3]
