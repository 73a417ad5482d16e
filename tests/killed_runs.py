"""A process that trains in children of its own and kills them: `python -m tests.killed_runs`.

Starting Python and importing everything takes longer than a hundred tiny runs, so each run is a fork of a process that
has done so.  It computes on one thread and has no other: a fork of several threads is a copy of one of them.

Reads a line of JSON for each run: "directory"; to kill at the moment "at" (see moments.py), or "after" so many
seconds; or to forbid files longer than "limit" bytes.  Answers with a line: "signal" that ended it, or exit "code": 0
finished, 3 with one line of `RunDirectoryError` in "error".
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class KilledRuns:
    """The other end: asks for runs and waits for them."""

    def __init__(self) -> None:
        """Start the process."""
        one_thread = {"CONVLSTM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killed_runs"], cwd=ROOT, env={**os.environ, **one_thread},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip

    def run(self, directory: Path, **how: float) -> dict[str, Any]:
        """Train in a directory, going on with the run that it holds if it does; return how it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"directory": str(directory), **how}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def content(directory: Path) -> dict[str, bytes]:
    """Return all that a run left, file by file."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _train(order: dict[str, Any]) -> None:
    from convlstm import training
    from convlstm.training import Resumption, train
    from tests.moments import TINIER, Moments, struck

    vars(training)["draw_forecast"] = lambda config, model, path, source: None  # a picture takes longer than a run
    directory = Path(order["directory"])
    directory.mkdir(exist_ok=True)
    if "limit" in order:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], order["limit"]))  # Python ignores SIGXFSZ
    resumption = Resumption(say=lambda text: None) if (directory / "ledger.jsonl").exists() else None
    moments = Moments(order.get("at", -1), lambda: os.kill(os.getpid(), signal.SIGKILL))
    with struck(moments):
        train(TINIER, directory, backend="numpy", report=lambda done, loss: None, resumption=resumption)


def _child(order: dict[str, Any], answer: int) -> None:
    from convlstm.run_directory import RunDirectoryError

    code = 1
    try:
        _train(order)
        code = 0
    except RunDirectoryError as error:
        os.write(answer, str(error).encode())
        code = 3
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    """Let a child train as ordered, and return how it ended."""
    read, write = os.pipe()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _child(order, write)
    os.close(write)
    if "after" in order:
        time.sleep(order["after"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - start
    with os.fdopen(read, "rb") as told:
        error = told.read().decode()
    code = os.waitstatus_to_exitcode(status)
    return {"signal": max(-code, 0), "code": code, "error": error, "seconds": seconds}


def main() -> None:
    """Answer until there are no more orders."""
    from convlstm.determinism import forbid_uninitialised

    # What is looked up once in a process, as who may ask for memory, is looked up here; it takes half of a run's time.
    with forbid_uninitialised(), tempfile.TemporaryDirectory() as folder:
        _train({"directory": os.path.join(folder, "run")})
        for line in sys.stdin:
            print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
