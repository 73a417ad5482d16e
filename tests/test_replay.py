"""`replay`: scripts run as ever, one thing is changed at a time, and what cannot be replayed is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from convlstm.determinism.memory import Site
from convlstm.determinism.replay import CannotRun, Verdict, replay
from convlstm.determinism.replay.conditions import PATTERNS, Axis, Condition, changes
from convlstm.determinism.replay.culprits import find_culprits


def look(
    script: Path,
    text: str,
    *arguments: str,
    axes: tuple[Axis, ...] = (),
    timeout: float = 60.0,
    cupy_as_numpy: bool = False,
    said: list[str] | None = None,
) -> Verdict:
    """Write a script and replay it; with no axes it runs once."""
    script.write_text(text, encoding="utf-8")
    tell = (lambda line: None) if said is None else said.append
    return replay(str(script), arguments, axes=axes, timeout=timeout, cupy_as_numpy=cupy_as_numpy, tell=tell)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "script.py"


# What cannot be replayed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = 1\nraise ValueError('no data')\n", "fails with nothing changed: ValueError: no data, line 2"),
        ("def f():\n    1 / 0\nf()\n", "ZeroDivisionError: division by zero, line 2"),
        ("assert False\n", "AssertionError, line 1"),
        ("name = input('name? ')\n", "needs input, which a replay cannot give: EOFError"),
        ("import sys\nsys.exit(3)\n", "exit code 3"),
        ("import sys\nsys.exit('no such file')\n", "exit code 1"),
        ("x = = 1\n", "SyntaxError: invalid syntax"),
        ("import cupy_is_not_here\n", "ModuleNotFoundError: No module named 'cupy_is_not_here', line 1"),
        ("import os, sys\nprint(1)\nos._exit(0)\n", "the process ended with code 0"),
        ("import os\nos.abort()\n", "the process ended with code -6"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("def f(): f()\nf()\n", "RecursionError"),
    ],
)
def test_a_script_that_fails_is_said_to(script: Path, text: str, why: str) -> None:
    with pytest.raises(CannotRun) as caught:
        look(script, text)
    assert str(caught.value).startswith(str(script))
    assert why in str(caught.value)


def test_advice_where_cupy_is_missing(script: Path) -> None:
    try:
        import cupy  # noqa: F401
    except ImportError:
        with pytest.raises(CannotRun, match="--cupy-as-numpy examines it without a GPU"):
            look(script, "import cupy\n")
    else:
        pytest.skip("CuPy is installed")


def test_a_script_without_end_is_ended_with_all_it_started(script: Path) -> None:
    text = """
import subprocess, sys, pathlib, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(__file__).with_name("pid").write_text(str(child.pid))
time.sleep(60)
"""
    begin = time.monotonic()
    with pytest.raises(CannotRun, match=r"did not end within 1\.5 s; --timeout allows more"):
        look(script, text, timeout=1.5)
    assert time.monotonic() - begin < 10
    pid = int(script.with_name("pid").read_text())
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().split(")")[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("what the script started lives on")


def test_no_such_script(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not there; replay takes a script"):
        replay(str(tmp_path / "nothing.py"))
    with pytest.raises(ValueError, match="is a directory; replay takes a script"):
        replay(str(tmp_path))


# Scripts run as ever ------------------------------------------------------------------------------------------------


def numbers(script: Path, text: str, *arguments: str) -> int:
    return look(script, text, *arguments).numbers


def test_a_script_sees_what_it_sees_without_replay(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs under replay to its end only if it finds the same as without: it compares with what it left before."""
    text = """
import json, os, pathlib, pickle, sys, inspect
import neighbour
class Local:
    pass
def function():
    return 1
found = [
    __name__, os.path.basename(__file__), sys.argv[1:], os.getcwd(), sys.path[0], neighbour.VALUE,
    __doc__, __spec__, sys.stdin.read(), inspect.getsource(function), sys.modules["__main__"].__dict__ is globals(),
    type(pickle.loads(pickle.dumps(Local()))) is Local, "numpy" in sys.modules, "convlstm" in sys.modules,
    sorted(name for name in globals() if not name.startswith("__")), sys.stdout.encoding.lower(),
]
left = pathlib.Path(__file__).with_name("found.json")
if left.exists():
    assert json.loads(left.read_text()) == found, (json.loads(left.read_text()), found)
else:
    left.write_text(json.dumps(found))
print("naïve 1 × 2 = 2 €")
"""
    script.with_name("neighbour.py").write_text("VALUE = 5\n")
    script.write_text(text, encoding="utf-8")
    elsewhere = script.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    subprocess.run(
        [sys.executable, str(script), "a b", "--c"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert numbers(script, text, "a b", "--c") == 1


@pytest.mark.parametrize("package", [False, True])
def test_a_neighbour_of_our_name_is_the_scripts(script: Path, package: bool) -> None:
    theirs = script.parent / ("convlstm/__init__.py" if package else "convlstm.py")
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("import numpy as np\nclass Cell:\n    size = 3\n")
    assert numbers(script, "import numpy\nfrom convlstm import Cell\nprint(Cell.size)\n") == 1
    assert numbers(script, "from convlstm import Cell\nimport numpy\nimport convlstm\nprint(convlstm.Cell.size)\n") == 1


def test_a_script_may_set_the_environment_before_it_imports_numpy(script: Path) -> None:
    text = """
import os
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
import numpy as np
random = np.random.default_rng(0)
a, b = random.standard_normal((333, 777), dtype=np.float32), random.standard_normal((777, 555), dtype=np.float32)
print(float((a @ b)[332, 554]))
"""
    assert look(script, text, axes=("threads",)).stable


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("import io, sys\nprint(1)\nsys.stdout = io.StringIO()\nprint(2)\n", 1),
        ("import sys\nprint(1)\nsys.stdout.close()\n", 1),
        ("import sys\nclass Tee:\n    def write(self, t): sys.__stdout__.write(t)\nsys.stdout = Tee()\nprint(1)\n", 1),
        ("import threading as t\nprint(2)\nt.Thread(target=lambda: t.Event().wait(0.1) or print(1)).start()\n", 2),
        ("import atexit\natexit.register(print, 1)\n", 1),
        ("import sys\nprint(1)\nsys.exit()\n", 1),
        ("import multiprocessing as m\nif __name__ == '__main__':\n    m.set_start_method('fork')\n"
         "    with m.Pool(2) as pool:\n        print(pool.map(abs, [-1, 2]))\n", 1),
        ("import multiprocessing as m\ndef f(x):\n    import numpy as np\n    return np.ones(x).sum()\n"
         "if __name__ == '__main__':\n    m.set_start_method('spawn')\n    with m.Pool(1) as pool:\n"
         "        print(pool.map(f, [1, 2]))\n", 1),
        ("for k in range(100_000):\n    print(k)\n", 100_000),
        ("import numpy as np\nfrom convlstm.determinism import observe\n"
         "from convlstm.determinism.observation import observe\nobserve('x', np.ones(3))\nobserve('x', 2.0)\n", 2),
        ("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(5)'])\n", 1),
    ],
    ids=["stdout exchanged", "stdout closed", "stdout without flush", "thread", "atexit", "exit", "fork", "spawn",
         "many lines", "observe", "subprocess"],
)  # fmt: skip
def test_what_scripts_do(script: Path, text: str, count: int) -> None:
    assert numbers(script, text) == count


# What is changed, and what is said ----------------------------------------------------------------------------------


def test_changes_differ_from_the_plain_run_in_one_thing() -> None:
    plain = Condition()
    for change in changes(plain):
        fields = {name for name in vars(plain) if getattr(plain, name) != getattr(change.condition, name)}
        names = {"nothing": set(), "memory": {"pattern"}, "hash": {"hash_seed"}, "alignment": {"offset"}}
        assert fields == names.get(change.axis, {change.axis}), change


def test_zero_is_the_plain_pattern_and_nan_is_among_the_others() -> None:
    assert PATTERNS[Condition().pattern] == 0
    assert len(PATTERNS) >= 4
    assert 0xFF in PATTERNS.values()


@pytest.fixture(scope="module")
def border(tmp_path_factory: pytest.TempPathFactory) -> tuple[Verdict, Path, list[str]]:
    """A script with one line that is guilty, and what was told meanwhile."""
    said: list[str] = []
    script = tmp_path_factory.mktemp("border") / "script.py"
    text = """import numpy as np
print('start')
x = np.empty(5)
x[1:] = 1
y = np.empty(5)
y[:] = 2
print('sum', (x + y).sum())
"""
    return look(script, text, axes=("memory",), said=said), script, said


def test_a_verdict_as_json(border: tuple[Verdict, Path, list[str]]) -> None:
    verdict, script, _ = border
    said = json.loads(json.dumps(verdict.as_json()))
    assert said["stable"] is False
    axes = {"memory": True, "threads": None, "hash": None, "simd": None, "alignment": None, "nothing": None}
    assert said["axes"] == axes
    assert said["culprits"] == [{"file": str(script), "line": 3, "text": "x = np.empty(5)"}]
    first = said["first_difference"]
    assert (first["axis"], first["plain"], first["plain_hex"]) == ("memory", "14.0", float(14).hex())
    assert first["where"] == "line 2 of the output, 'sum 14.0'"
    assert float.fromhex(first["changed_hex"]) == float(first["changed"])
    assert first["ulp"] > 10**15


def test_a_verdict_as_text(border: tuple[Verdict, Path, list[str]]) -> None:
    verdict, script, _ = border
    lines = str(verdict).splitlines()
    assert lines[-2] == f"{script}:3: x = np.empty(5)"
    assert lines[-1].startswith("not stable: ")
    assert any(line.startswith("memory     CHANGED with new memory holds large numbers: line 2") for line in lines)


def test_progress_is_told(border: tuple[Verdict, Path, list[str]]) -> None:
    _, _, said = border
    assert said[0] == "the plain run"
    assert "memory: new memory holds NaN" in said
    assert any(line.startswith("memory: which of ") for line in said)


def test_nothing_to_compare_is_said(script: Path) -> None:
    verdict = look(script, "print('hello')\n")
    assert verdict.numbers == 0
    assert "nothing to compare: the script prints no numbers and observes none" in str(verdict)


def test_addresses_are_said_to_be_addresses(script: Path) -> None:
    verdict = look(script, "import os\nprint(object(), hex(id(os.urandom(99))))\n", axes=("nothing",))
    if not verdict.stable:  # the system may give every process the same addresses
        assert verdict.changed["nothing"].difference.hint == "it is an address of memory"


def test_memory_that_makes_a_script_fail_or_hang(script: Path) -> None:
    text = (
        "import numpy as np, time\nn = np.empty(1, np.int8)\ni = np.empty(1, np.int64)\nprint([1, 2][i[0] % 99])\n"
        "while n[0]: time.sleep(0.01)\n"
    )
    begin = time.monotonic()
    verdict = look(script, text, axes=("memory",), timeout=2)
    assert [culprit.line for culprit in verdict.culprits] == [2, 3]
    assert verdict.changed["memory"].difference.where == "the end"
    assert time.monotonic() - begin < 60


def test_a_rare_race_is_not_taken_for_another_fault(script: Path) -> None:
    """It differs from run to run only from the fourth run on, when memory is changed already."""
    text = """
import pathlib
import numpy as np
path = pathlib.Path(__file__).with_name("count")
count = int(path.read_text()) + 1 if path.exists() else 1
path.write_text(str(count))
print("loss", 1.0 if count < 4 else 1.0 + count)
print("steady", np.empty(10).fill(1))
"""
    verdict = look(script, text, axes=("nothing", "memory"))
    assert tuple(verdict.changed) == ("nothing",)
    assert verdict.culprits == ()


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux fills its memory when told to")
def test_memory_of_a_library_is_said_to_be_elsewhere(script: Path) -> None:
    text = """
import ctypes
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
print("sum", sum((ctypes.c_uint8 * 5000).from_address(c.malloc(5000))))
"""
    verdict = look(script, text, axes=("memory",))
    assert tuple(verdict.changed) == ("memory",)
    assert verdict.elsewhere
    assert "no line's array is the cause: the memory is a library's own" in str(verdict)


def test_places_that_a_function_leaves_out(script: Path) -> None:
    text = "import numpy as np\na = np.arange(4.0)\nb = np.divide(1, a, where=a > 0)\nprint(b.sum())\n"
    verdict = look(script, text, axes=("memory",))
    assert [(c.line, c.text) for c in verdict.culprits] == [(3, "b = np.divide(1, a, where=a > 0)")]


def test_scripts_for_cupy_run_on_numpy(script: Path) -> None:
    text = """
import cupy as cp
from cupy import cuda
with cp.cuda.Device(0):
    x = cp.arange(3.0)
y = x.get()
y[0] = 9
cp.get_default_memory_pool().free_all_blocks()
cuda.Stream.null.synchronize()
print(cp.asnumpy(x)[0], float(cp.random.RandomState(0).rand()), cp.linalg.norm(x), cp.get_array_module(x) is cp)
print({"a": 1}.get("a"))
"""
    verdict = look(script, text, cupy_as_numpy=True)
    assert verdict.numbers == 2


# Culprits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guilty", [(), (0,), (7,), (2, 3), (0, 5, 7), tuple(range(8))])
def test_each_culprit_stands_alone(guilty: Sequence[int]) -> None:
    sites: list[Site] = [("a.py", line) for line in range(8)]
    wanted = {sites[k] for k in guilty}
    asked: list[int] = []

    def changes_it(chosen: frozenset[Site]) -> bool:
        asked.append(len(chosen))
        return bool(chosen & wanted)

    assert find_culprits(sites[::-1], changes_it) == sorted(wanted)
    assert len(asked) <= 15


@pytest.mark.parametrize("guilty", [(1, 2), (0, 7), (0, 3, 6)])
def test_lines_that_change_it_only_together(guilty: Sequence[int]) -> None:
    sites: list[Site] = [("a.py", line) for line in range(8)]
    wanted = {sites[k] for k in guilty}
    assert find_culprits(sites, wanted.issubset) == sorted(wanted)


def test_lines_that_look_like_it_are_asked_first(tmp_path: Path) -> None:
    file = str(tmp_path / "x.py")
    Path(file).write_text("a = b + c\nd = np.empty(3)\ne = d * 2\n")
    asked: list[Any] = []

    def changes_it(chosen: frozenset[Site]) -> bool:
        asked.append(sorted(line for _, line in chosen))
        return (file, 2) in chosen

    assert find_culprits([(file, line) for line in (1, 2, 3)], changes_it) == [(file, 2)]
    assert asked == [[2], [1, 3]]


def test_a_script_of_this_project_that_imports_it_first(tmp_path: Path) -> None:
    script = tmp_path / "ours.py"
    script.write_text(
        "import convlstm\nimport numpy as np\n"
        "layer = convlstm.ConvLSTM(1, 2, backend='numpy')\n"
        "h, state, cache = layer.forward(np.ones((1, 2, 1, 4, 4), np.float32))\n"
        "convlstm.determinism.observe('h', h)\nprint(float(h.sum()))\n"
    )
    verdict = replay(str(script), tell=lambda text: None, axes=("memory",))
    assert verdict.stable, str(verdict)
    assert verdict.numbers == 2


def test_what_cupy_has_beside_numpy(tmp_path: Path) -> None:
    script = tmp_path / "cupys.py"
    script.write_text(
        "import cupy as cp\nimport cupyx\n"
        "@cp.fuse()\ndef twice(x):\n    return 2 * x\n"
        "x = cp.zeros(3)\ncupyx.scatter_add(x, cp.array([0, 0, 2]), 1.0)\n"
        "with cp.cuda.Device(0):\n    print(twice(x).get().sum(), cupyx.zeros_pinned(2).sum())\n"
    )
    verdict = replay(str(script), cupy_as_numpy=True, tell=lambda text: None, axes=("hash",))
    assert verdict.stable, str(verdict)
    script.write_text("import cupy as cp\ncp.RawKernel('', 'f')\n")
    with pytest.raises(CannotRun, match=r"cupy\.RawKernel has no counterpart in NumPy"):
        replay(str(script), cupy_as_numpy=True, tell=lambda text: None, axes=("hash",))
