"""NumPy's memory in our own hands, in processes of their own: contents, place, whose line asked, and no harm done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from convlstm.determinism.memory import ArrayMemory

BEGIN = """
import json, sys, threading
import numpy as np
from convlstm.determinism.memory import ArrayMemory
memory = ArrayMemory(lambda site: {byte}, {offset})
memory.install()
def show(value):
    print(json.dumps(value))
"""
ROOT = str(Path(__file__).resolve().parent.parent)


def _run(tmp_path: Path, text: str, byte: str = "0x55", offset: int = 0) -> list[Any]:
    """Return what a program showed that runs with the memory in place; it must end well and write no word to stderr."""
    path = tmp_path / "program.py"
    path.write_text(BEGIN.format(byte=byte, offset=offset) + textwrap.dedent(text), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": ROOT, "MALLOC_PERTURB_": "0"}
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_offset_that_cannot_be() -> None:
    for offset in (-16, 8, 64):
        with pytest.raises(ValueError, match=f"offset must be 0, 16, 32 or 48; got {offset}"):
            ArrayMemory(lambda site: 0, offset)


@pytest.mark.parametrize("byte", [0x00, 0x3C, 0x55, 0xFF])
def test_new_memory_of_every_size_holds_the_byte(tmp_path: Path, byte: int) -> None:
    shown = _run(
        tmp_path,
        """
        for size in (1, 24, 200, 1023, 5_000, 50_000_000):
            for _ in range(3):  # NumPy keeps small blocks and hands them out again as they were
                x = np.empty(size, np.uint8)
                show([int(x.min()), int(x.max())])
                x[:] = 7
                del x
        for x in (np.empty((3, 4)), np.ndarray((3, 4), np.float32), np.empty_like(np.ones(9))):
            show([int(x.view(np.uint8).min()), int(x.view(np.uint8).max())])
        """,
        byte=str(byte),
    )
    assert shown == [[byte, byte]] * 21


def test_zeros_stay_zero_and_cost_nothing_before_they_are_written(tmp_path: Path) -> None:
    shown = _run(
        tmp_path,
        """
        show([int(np.zeros(size).any()) for size in (3, 25, 600, 10**6)])
        z = np.zeros(2 * 10**8)  # 1.6 GB
        show(float(z[12345]))
        # Not ru_maxrss, which a process inherits from the one that started it.
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
        show(int(peak.split()[1]) < 500_000)  # kB
        """,
    )
    assert shown == [[0, 0, 0, 0], 0.0, True]


def test_arrays_that_grow_keep_what_they_hold(tmp_path: Path) -> None:
    shown = _run(
        tmp_path,
        """
        x = np.arange(5.0)
        x.resize(1000, refcheck=False)
        show([x[:6].tolist(), x.sum()])
        x.resize(3, refcheck=False)
        show(x.tolist())
        show(float(np.fromiter(range(10_000), float).sum()))
        show(np.array([[1, 2], [3, 4]] * 50).sum().item())
        show(np.char.add(["ab"] * 3, "cd").tolist())
        show([str(s) for s in np.empty(2, object)])
        """,
    )
    assert shown == [[[0, 1, 2, 3, 4, 0], 10.0], [0, 1, 2], 49995000.0, 500, ["abcd"] * 3, ["None", "None"]]


@pytest.mark.parametrize("offset", [0, 16, 32, 48])
def test_where_memory_begins(tmp_path: Path, offset: int) -> None:
    shown = _run(
        tmp_path,
        """
        made = [make(n) for make in (np.empty, np.zeros, np.ones) for n in (1, 30, 300, 10**6)]
        show(sorted({x.ctypes.data % 64 for x in made}))
        """,
        offset=offset,
    )
    assert shown == [[offset]]


def test_every_thread_is_reached(tmp_path: Path) -> None:
    shown = _run(
        tmp_path,
        """
        from concurrent.futures import ThreadPoolExecutor
        from multiprocessing.pool import ThreadPool
        seen = []
        def look(*_):
            seen.append(int(np.empty(10, np.uint8)[3]))
        class Worker(threading.Thread):
            def run(self):
                look()
        for thread in (threading.Thread(target=look), Worker(), threading.Timer(0, look)):
            thread.start()
            thread.join()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(look, range(3)))
        with ThreadPool(2) as pool:
            pool.map(look, range(2))
        show(seen)
        arrays = []
        def ask():
            arrays.extend(np.empty(n % 90) for n in range(2000))
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        show(len(arrays))
        del arrays
        """,
    )
    assert shown == [[0x55] * 8, 8000]


def test_the_line_that_asked(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("import numpy as np\n\n\ndef buffer(n):\n    return np.empty(n)\n")
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "library.py").write_text("import numpy as np\n\n\ndef smooth(x):\n    return np.empty(len(x)) * 0\n")
    shown = _run(
        tmp_path,
        """
        import os
        sys.path += [os.path.dirname(__file__), os.path.dirname(__file__) + "/site-packages"]
        import helper, library
        memory.sites.clear()
        x = np.empty(3)  # own
        y = helper.buffer(4)
        z = library.smooth([1])  # library
        pair = (
            np.empty(2),  # first
            np.ones(3) + 1,  # second
        )
        lines = open(__file__).read().splitlines()
        sites = sorted(memory.sites)
        show([[os.path.basename(f), lines[n - 1].split("# ")[-1] if f == __file__ else n] for f, n in sites])
        """,
    )
    lines = [["program.py", which] for which in ("own", "library", "first", "second")]
    assert shown == [[["helper.py", 5], *lines]]


def test_only_the_chosen_lines_are_filled(tmp_path: Path) -> None:
    shown = _run(
        tmp_path,
        """
        a = np.empty(3, np.uint8)
        b = np.empty(3, np.uint8)  # line 11
        show([a.tolist(), b.tolist()])
        """,
        byte="7 if site[1] == 11 else 0",
    )
    assert shown == [[[0, 0, 0], [7, 7, 7]]]


def test_big_loops_do_not_leak(tmp_path: Path) -> None:
    shown = _run(
        tmp_path,
        """
        import resource
        def most():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for n in (30, 3000):
            np.empty(n)
        before = most()
        for _ in range(50_000):
            np.empty(300)
        for _ in range(300):
            np.empty(10**6)
        show((most() - before) // 1024 < 30)  # MB, of 2500
        """,
    )
    assert shown == [True]


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="elsewhere Python frees arrays")
def test_errors_on_their_way_are_not_lost_when_arrays_die(tmp_path: Path) -> None:
    shown = _run(
        tmp_path,
        """
        class Bad:
            def __float__(self):
                raise KeyError("bad")
        def failing():
            yield lambda: np.array([1.0, Bad()], dtype=float)
            yield lambda: np.array([Bad()] * 3, dtype=object).astype(float)
            yield lambda: np.array([[1, 2], [3]])
            yield lambda: np.fromiter((1 / (3 - n) for n in range(9)), float)
            yield lambda: np.loadtxt(["1 2", "a b"])
            yield lambda: np.linalg.inv(np.zeros((3, 3)))
            yield lambda: np.concatenate([np.ones(3), np.ones((3, 3))])
            yield lambda: np.ones(3) @ np.ones(4)
            yield lambda: np.frompyfunc(lambda a: 1 / a, 1, 1)(np.arange(3))
            yield lambda: np.empty(10**15)
            yield lambda: np.zeros(10**15)
            yield lambda: np.ones(3).reshape(2, 2)
        def caught(call):
            try:
                call()
            except Exception as error:
                return type(error).__name__
        show([caught(call) for call in failing()])
        """,
    )
    assert shown == [[
        "KeyError", "KeyError", "ValueError", "ZeroDivisionError", "ValueError", "LinAlgError", "ValueError",
        "ValueError", "ZeroDivisionError", "MemoryError", "MemoryError", "ValueError",
    ]]  # fmt: skip


def test_the_end_of_the_process_is_quiet(tmp_path: Path) -> None:
    assert _run(
        tmp_path,
        """
        import atexit
        kept = [np.empty(n) for n in range(100)]
        class Late:
            def __del__(self):
                np.empty(5)
        late = Late()
        sys.late = Late()
        np.kept = [np.empty(n) for n in range(100)]
        atexit.register(lambda: show(np.empty(3, np.uint8).tolist()))
        threading.Thread(target=lambda: kept.append(np.empty(3))).start()
        """,
    ) == [[0x55] * 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_processes(tmp_path: Path) -> None:
    shown = _run(
        tmp_path,
        """
        import os
        x = np.empty(1000)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            y = np.empty(3, np.uint8)
            del x
            os.write(write, bytes(y))
            os._exit(0)
        os.waitpid(child, 0)
        show(list(os.read(read, 3)))
        """,
    )
    assert shown == [[0x55] * 3]
