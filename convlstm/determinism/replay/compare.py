"""The first difference between what two runs of a script printed and observed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convlstm.determinism.ulp import ulp_distance

NUMBER = re.compile(
    r"""(?<![\w.])[-+]?(?:0[xX][0-9a-fA-F.]+(?:[pP][-+]?\d+)?|(?:nan|inf(?:inity)?)(?!\w)|
        (?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)""",  # a unit may follow: 1.5s, 3GB
    re.VERBOSE | re.IGNORECASE,
)
# What stands between a clock's number and the number before it, and what follows.
BEFORE_CLOCK = re.compile(r"(?<![a-z])(time|elapsed|took|date|duration)(?![a-z])|^:$", re.IGNORECASE)
AFTER_CLOCK = re.compile(r"\s*((m|µ|n)?s\b|sec|min(utes)?\b|it/s)|:\d\d", re.IGNORECASE)
DAY = 86400.0  # seconds
ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
Place = tuple[str, int, int]  # "line", "observed" or "end", which one, which number in it


@dataclass(frozen=True)
class Record:
    """What one run did."""

    lines: tuple[str, ...]  # what it printed
    observed: tuple[dict[str, Any], ...]
    error: str | None  # what it raised
    code: int
    sites: dict[tuple[str, int], int]  # lines that asked for memory, and how often


@dataclass(frozen=True)
class Difference:
    """Where two runs first differ, and by how much."""

    where: str
    plain: str
    changed: str
    plain_hex: str | None = None
    changed_hex: str | None = None
    ulp: int | None = None  # how many numbers of the format lie between them; None where that has no meaning
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.plain} became {self.changed}"
        if self.plain_hex is not None and self.changed_hex is not None:
            text += f" ({self.plain_hex}, {self.changed_hex}"
            text += ")" if self.ulp is None else f"; {self.ulp} ulp)"
        return f"{text}; {self.hint}" if self.hint else text


def read_record(folder: Path) -> Record:
    """Read what a child process left."""
    outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    lines = (folder / "stdout.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    observed = tuple(json.loads(line) for line in (folder / "observed.jsonl").read_text(encoding="utf-8").splitlines())
    sites = {(file, line): count for file, line, count in outcome["sites"]}
    return Record(tuple(lines), observed, outcome["error"], outcome["code"], sites)


def differences(plain: Record, other: Record) -> Iterator[tuple[Place, Difference]]:
    """Yield the differences in numbers, of observed values first, then of printed lines; and in how the runs ended."""
    yield from _observed(plain, other)
    for number, (a, b) in enumerate(zip(plain.lines, other.lines, strict=False), start=1):
        if a != b:
            yield from _in_line(number, a, b)
    if (plain.error, plain.code) != (other.error, other.code):
        before, after = (record.error or f"exit code {record.code}" for record in (plain, other))
        yield ("end", 0, 0), Difference("the end", before, after)
    shorter = min(len(plain.lines), len(other.lines))
    if any(map(NUMBER.search, (*plain.lines[shorter:], *other.lines[shorter:]))):
        counts = f"{len(plain.lines)} lines", f"{len(other.lines)} lines"
        yield ("line", shorter + 1, 0), Difference("the output", *counts)


def first_difference(plain: Record, other: Record, varies: Iterable[Place] = ()) -> Difference | None:
    """Return the first difference, but for places that vary when nothing is changed; a clock's only if it is alone."""
    ignored = set(varies)
    found = [difference for place, difference in differences(plain, other) if place not in ignored]
    return next((difference for difference in found if not difference.hint), found[0] if found else None)


def _in_line(number: int, a: str, b: str) -> Iterator[tuple[Place, Difference]]:
    found = list(NUMBER.finditer(a))
    left, right = [number.group() for number in found], NUMBER.findall(b)
    if not left and not right:
        return  # text without numbers: paths, names
    where = f"line {number} of the output, {_shortened(a)!r}"
    if len(left) != len(right):
        yield ("line", number, 0), Difference(where, f"{len(left)} numbers", f"{len(right)}: {_shortened(b)!r}")
        return
    for k, (x, y) in enumerate(zip(left, right, strict=True)):
        if x != y:
            before = a[found[k - 1].end() if k else 0 : found[k].start()]
            hint = ""
            if ADDRESS.fullmatch(x):
                hint = "it is an address of memory"
            elif BEFORE_CLOCK.search(before) or AFTER_CLOCK.match(a, found[k].end()):
                hint = "it looks like a clock"
            yield ("line", number, k), _numbers(where, x, y, hint)


def _numbers(where: str, x: str, y: str, hint: str) -> Difference:
    try:
        a, b = (float.fromhex(n) if "x" in n.lower() else float(n) for n in (x, y))
    except (ValueError, OverflowError):
        return Difference(where, x, y, hint=hint)
    if x.isdigit() and y.isdigit():  # whole numbers, of any size
        return Difference(where, x, y, hex(int(x)), hex(int(y)), None, hint)
    if abs(a - time.time()) < DAY and a < b:
        hint = hint or "it looks like the time of day"
    return Difference(where, x, y, a.hex(), b.hex(), ulp_distance(np.float64(a), np.float64(b)), hint)


def _observed(plain: Record, other: Record) -> Iterator[tuple[Place, Difference]]:
    for number, (a, b) in enumerate(zip(plain.observed, other.observed, strict=False), start=1):
        where = f"{a['name']!r}, observed as number {number} in line {a['line']}"
        kind, other_kind = (f"{record['name']} {record['dtype']} {tuple(record['shape'])}" for record in (a, b))
        if kind != other_kind:
            yield ("observed", number, 0), Difference(where, kind, other_kind)
        elif a["bytes"] != b["bytes"]:
            yield ("observed", number, 0), first_element(where, _array(a), _array(b))
    counts = len(plain.observed), len(other.observed)
    if counts[0] != counts[1]:
        difference = Difference("what was observed", f"{counts[0]} values", f"{counts[1]} values")
        yield ("observed", min(counts) + 1, 0), difference


def first_element(where: str, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Difference:
    """Return the first difference of two arrays of one dtype and shape whose bytes differ."""
    differs = np.flatnonzero((_bytes(x) != _bytes(y)).any(axis=1))
    at = tuple(int(i) for i in np.unravel_index(differs[0], x.shape))
    element = f"{where}, element {list(at)}" if at else where
    a, b = x[at], y[at]
    if x.dtype.kind != "f":
        return Difference(element, str(a), str(b))
    texts = repr(float(a)), repr(float(b)), float(a).hex(), float(b).hex()
    return Difference(element, *texts, ulp_distance(a, b))


def _bytes(x: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return the bytes of an array, one row for each element."""
    return np.frombuffer(x.tobytes(), np.uint8).reshape(x.size, x.dtype.itemsize)


def _array(record: dict[str, Any]) -> npt.NDArray[Any]:
    return np.frombuffer(bytes.fromhex(record["bytes"]), np.dtype(record["dtype"])).reshape(record["shape"])


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
