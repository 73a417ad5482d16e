"""Runs a script again and again, one thing changed at a time, and says what its results depend on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlstm.determinism.memory import Site
from convlstm.determinism.replay.compare import Difference, Place, Record, differences, first_difference, read_record
from convlstm.determinism.replay.conditions import AXES, PATTERNS, Axis, Change, Condition, changes
from convlstm.determinism.replay.culprits import find_culprits

Tell = Callable[[str], None]
TOO_LONG = 124  # the exit code of a run that was ended, as of the command timeout


class CannotRun(RuntimeError):
    """The script does not run to its end even with nothing changed; the message says why."""


@dataclass(frozen=True)
class Changed:
    """A change that changed the result."""

    change: Change
    difference: Difference


@dataclass(frozen=True)
class Culprit:
    """A line whose new memory decides the result."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Verdict:
    """What the replay of a script showed.

    Attributes:
        changed: for each axis that changes the result, the first change on it that did, in the order of `AXES`.
        culprits: lines that ask for memory nobody writes before it is read; empty unless memory changes the result.
        elsewhere: memory changes the result, but that of no array: a library's own.
        numbers: how many lines with numbers and observed values were compared.
        runs: how many times the script was run.
        tried: the axes that were changed.
    """

    changed: dict[Axis, Changed]
    culprits: tuple[Culprit, ...]
    elsewhere: bool
    numbers: int
    runs: int
    tried: tuple[Axis, ...] = AXES

    @property
    def stable(self) -> bool:
        """Whether no change changed anything."""
        return not self.changed

    def as_json(self) -> dict[str, Any]:
        """Return what `convlstm replay --json` writes."""
        first = next(iter(self.changed.values()), None)
        difference = None
        if first is not None:
            d = first.difference
            difference = {
                "axis": first.change.axis, "change": first.change.what, "where": d.where, "plain": d.plain,
                "changed": d.changed, "plain_hex": d.plain_hex, "changed_hex": d.changed_hex, "ulp": d.ulp,
                "hint": d.hint,
            }  # fmt: skip
        return {
            "stable": self.stable,
            "axes": {axis: axis in self.changed if axis in self.tried else None for axis in AXES},
            "first_difference": difference,
            "culprits": [{"file": c.file, "line": c.line, "text": c.text} for c in self.culprits],
        }

    def __str__(self) -> str:
        lines = []
        for axis in AXES:
            found = self.changed.get(axis)
            verdict = "same" if axis in self.tried else "not tried"
            if found is not None:
                verdict = f"CHANGED with {found.change.what}: {found.difference}"
            lines.append(f"{axis:9}  {verdict}")
        if self.culprits:
            lines.append("the lines whose memory is read before it is written:")
            lines += [f"{_near(c.file)}:{c.line}: {c.text}" for c in self.culprits]
        elif self.elsewhere:
            lines.append("no line's array is the cause: the memory is a library's own")
        if self.numbers == 0:
            lines.append("nothing to compare: the script prints no numbers and observes none")
        lines.append(f"{'stable' if self.stable else 'not stable'}: {self.runs} runs, {self.numbers} results compared")
        return "\n".join(lines)


def replay(
    script: str,
    arguments: Sequence[str] = (),
    *,
    timeout: float = 600.0,
    cupy_as_numpy: bool = False,
    axes: Iterable[Axis] = AXES,
    tell: Tell = print,
) -> Verdict:
    """Run a script under every change of `conditions.changes` and compare all numbers that it prints or observes.

    The first run that differs on an axis is run once more: what differs between the two varies by itself, and is not
    the work of the change.

    Args:
        script: path of a Python file; it is run as `python SCRIPT ARGUMENTS`, unchanged, in child processes.
        arguments: for the script.
        timeout: seconds that one run may take.
        cupy_as_numpy: let the script's CuPy be NumPy.
        axes: which changes to make.
        tell: told what is being done.

    Raises:
        CannotRun: see there.
        ValueError: there is no such file, or `timeout` is no time.
    """
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout must be a number of seconds > 0; got {timeout}")
    if not Path(script).is_file():
        raise ValueError(
            f"{script} is {'a directory' if Path(script).is_dir() else 'not there'}; replay takes a script"
        )
    session = _Session(os.path.abspath(script), list(arguments), timeout, cupy_as_numpy, tell)
    normal = Condition()
    plain = session.plain(normal)
    changed: dict[Axis, Changed] = {}
    varies: set[Place] = set()
    patterns: list[Condition] = []  # of memory, that change the result
    for change in changes(normal):
        if change.axis not in axes or (change.axis in changed and change.axis not in ("nothing", "memory")):
            continue
        tell(f"{change.axis}: {change.what}")
        record = session.run(change.condition)
        difference = first_difference(plain, record, varies)
        if difference is not None and change.axis != "nothing" and change.axis not in changed:
            tell(f"{change.axis}: {change.what}, again")
            again = session.run(change.condition)
            by_itself = first_difference(record, again, varies)
            if by_itself is not None:
                changed.setdefault("nothing", Changed(Change("nothing", "run 2 of the same", normal), by_itself))
                varies |= {place for place, _ in differences(record, again)}
                difference = first_difference(plain, record, varies)
        if difference is not None and change.axis != "nothing":
            difference = dataclasses.replace(difference, hint="")  # what comes again is no clock
        if difference is not None:
            changed.setdefault(change.axis, Changed(change, difference))
            if change.axis == "nothing":
                varies |= {place for place, _ in differences(plain, record)}
            elif change.axis == "memory":
                patterns.append(change.condition)
    culprits = session.culprits(plain, patterns, varies)
    ordered = {axis: changed[axis] for axis in AXES if axis in changed}
    lines = tuple(Culprit(file, line, _source(file, line)) for file, line in culprits)
    numbers = len(plain.observed) + sum(1 for line in plain.lines if any(map(str.isdigit, line)))
    tried = tuple(axis for axis in AXES if axis in axes)
    return Verdict(ordered, lines, "memory" in changed and not culprits, numbers, session.runs, tried)


class _Session:
    """One script and how it is run."""

    def __init__(self, script: str, arguments: list[str], timeout: float, cupy_as_numpy: bool, tell: Tell) -> None:
        self._script, self._arguments, self._timeout = script, arguments, timeout
        self._cupy_as_numpy, self._tell = cupy_as_numpy, tell
        self._allowed = timeout  # seconds for the next run
        self.runs = 0

    def plain(self, condition: Condition) -> Record:
        """Run it with nothing changed.

        Raises:
            CannotRun: it fails, needs input, or takes too long.
        """
        self._tell("the plain run")
        before = time.monotonic()
        record = self.run(condition)
        # A run that takes so much longer than this one is caught in a loop that the change has made endless.
        self._allowed = min(self._timeout, 10 + 20 * (time.monotonic() - before))
        if record.code == 0:
            return record
        error = record.error or f"exit code {record.code}"
        advice = ""
        if "EOF when reading a line" in error:
            raise CannotRun(f"{self._script} needs input, which a replay cannot give: {error}")
        if record.code == TOO_LONG:
            advice = "; --timeout allows more"
        elif "No module named 'cupy'" in error or "CUDA" in error:
            advice = "; --cupy-as-numpy examines it without a GPU"
        raise CannotRun(f"{self._script} fails with nothing changed: {error}{advice}")

    def run(self, condition: Condition) -> Record:
        """Run it under a condition."""
        self.runs += 1
        with tempfile.TemporaryDirectory(prefix="convlstm-replay-") as name:
            folder = Path(name)
            job = {
                "script": self._script, "arguments": self._arguments, "folder": name,
                "byte": PATTERNS[condition.pattern], "offset": condition.offset,
                "sites": None if condition.sites is None else sorted(condition.sites),
                "cupy_as_numpy": self._cupy_as_numpy,
            }  # fmt: skip
            (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
            environment = {**os.environ, **condition.environment(), "PYTHONIOENCODING": "utf-8"}
            code = _child(folder, environment, self._allowed)
            if code != TOO_LONG and (folder / "outcome.json").is_file():
                return read_record(folder)
            lines = (folder / "stdout.txt").read_text(encoding="utf-8", errors="replace").splitlines()
            said = (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            why = f"the process ended with code {code}" + (f": {said[-1]}" if said else "")
            if code == TOO_LONG:
                why = f"it did not end within {self._allowed:.3g} s"
            return Record(tuple(lines), (), why, code or 1, {})

    def culprits(self, plain: Record, patterns: Iterable[Condition], varies: Iterable[Place]) -> list[Site]:
        """Return the lines whose memory alone changes the result, with any of these patterns in it."""
        found: set[Site] = set()
        for condition in patterns:

            def changes_it(sites: frozenset[Site], pattern: str = condition.pattern) -> bool:
                self._tell(f"memory: which of {len(sites)} lines")
                return first_difference(plain, self.run(Condition(pattern=pattern, sites=sites)), varies) is not None

            found |= set(find_culprits([site for site in plain.sites if site[0] and site not in found], changes_it))
        return sorted(found)


def _child(folder: Path, environment: dict[str, str], seconds: float) -> int:
    """Run the child process; return its exit code, or `TOO_LONG` when it was ended, with all that it started."""
    command = [sys.executable, str(Path(__file__).with_name("child.py")), str(folder / "job.json")]
    with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
        )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return TOO_LONG
    finally:
        if process.poll() is None:  # also when somebody interrupts
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _near(file: str) -> str:
    """Return a path as it is reached from here, if it lies below."""
    near = os.path.relpath(file)
    return file if near.startswith(os.pardir) else near


def _source(file: str, line: int) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace").splitlines()[line - 1].strip()
    except (OSError, IndexError):
        return ""
