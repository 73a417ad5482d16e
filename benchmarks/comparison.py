"""Two result files: which contender became faster or slower, and what is noise.

With seconds a_1 … a_n of one file and b_1 … b_m of the other, the interval is that of Hodges and Lehmann for a factor
between two samples of the same form: all n·m quotients b/a in rising order, without as many at each end as the rank
sum of Mann and Whitney leaves out by chance in one case of a hundred.  It asks nothing of how times are distributed but
that the rounds do not depend on each other: a machine that was slower for a whole hour is not seen as noise.

Source: Hollander, Wolfe, Chicken, "Nonparametric statistical methods", 3rd ed. (2014), section 4.3.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import read_results
from benchmarks.tables import ABSENT, markdown

CHANCE = 0.01  # that a row without a change is called faster or slower
UNIMPORTANT = ("load_before",)  # of the environment: it is never twice the same

Place = tuple[str, str, str]  # benchmark, row, contender
FASTER, SLOWER, NOISE, TOO_FEW = "faster", "slower", "noise", "too few rounds"


class Compared(NamedTuple):
    """One contender of one row in both files."""

    benchmark: str
    row: str
    contender: str
    medians: tuple[float, float]  # seconds
    interval: tuple[float, float] | None  # of the second's time divided by the first's; None where there is none

    @property
    def ratio(self) -> float:
        """The second median divided by the first."""
        return self.medians[1] / self.medians[0]

    @property
    def verdict(self) -> str:
        """What the second file is beside the first: faster, slower, noise; or there are too few rounds to tell."""
        if self.interval is None:
            return TOO_FEW
        low, high = self.interval
        return FASTER if high < 1 else SLOWER if low > 1 else NOISE


def interval(a: Sequence[float], b: Sequence[float], chance: float = CHANCE) -> tuple[float, float] | None:
    """Return the interval of the factor from a to b; None where no quotient can be left out at this chance."""
    quotients = sorted(later / before for before in a for later in b)
    counts = rank_sums(len(a), len(b))
    most, left_out, so_far = chance / 2 * sum(counts), 0, 0
    for count in counts:
        so_far += count
        if so_far > most:
            break
        left_out += 1
    return (quotients[left_out - 1], quotients[-left_out]) if left_out else None


@functools.cache
def rank_sums(n: int, m: int) -> tuple[int, ...]:
    """Return how many of the orders of n and m numbers have 0, 1, … n·m pairs the wrong way round."""
    if n == 0 or m == 0:
        return (1,)
    with_last, without = rank_sums(n - 1, m), rank_sums(n, m - 1)
    counts = [0] * (n * m + 1)
    for pairs, count in enumerate(with_last):
        counts[pairs + m] += count
    for pairs, count in enumerate(without):
        counts[pairs] += count
    return tuple(counts)


def compare(one: Path, other: Path) -> tuple[list[Compared], list[str]]:
    """Return what both files hold, and what is to be said of them: environments that differ, rows of one alone.

    Raises:
        ResultsError: see `read_results`.
    """
    (environment, before), (later_environment, after) = read_results(one), read_results(other)
    said = [
        f"the environments differ: {name} is {then} in {one}, {now} in {other}"
        for name, then, now in differing(environment, later_environment)
    ]
    a, b = dict(_seconds(before)), dict(_seconds(after))
    said += [f"only in {one}: {name}" for name in _missing(a, b)]
    said += [f"only in {other}: {name}" for name in _missing(b, a)]
    both = [
        Compared(*place, (statistics.median(a[place]), statistics.median(b[place])), interval(a[place], b[place]))
        for place in a
        if place in b
    ]
    return both, said


def _missing(here: Iterable[Place], there: Iterable[Place]) -> list[str]:
    """Return what is missing there: a benchmark, a row or a contender, the largest of them that is."""
    known = {place[:length] for place in there for length in (1, 2, 3)}
    missing = (next((place[:n] for n in (1, 2, 3) if place[:n] not in known), ()) for place in here)
    return list(dict.fromkeys(", ".join(name) for name in missing if name))


def _seconds(benchmarks: Mapping[str, Any]) -> Iterator[tuple[Place, list[float]]]:
    for benchmark, rows in benchmarks.items():
        for label, row in rows.items():
            for contender, seconds in row["seconds"].items():
                if seconds and all(value > 0 for value in seconds):  # a part that a step never enters has no time
                    yield (benchmark, label, contender), seconds


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """Yield what differs in two environments: its name and both values."""
    a, b = dict(_flat(one)), dict(_flat(other))
    for name in dict.fromkeys((*a, *b)):
        if name not in UNIMPORTANT and a.get(name, ABSENT) != b.get(name, ABSENT):
            yield name, a.get(name, ABSENT), b.get(name, ABSENT)


def _flat(environment: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, object]]:
    for name, value in environment.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{name} ")
        else:
            yield within + name, value


def table(found: Sequence[Compared]) -> str:
    """Return a line for each contender of each row."""
    lines = []
    for it in found:
        before, after = (f"{1e3 * value:.4g}" for value in it.medians)
        between = ABSENT if it.interval is None else "{:.3f}–{:.3f}".format(*it.interval)
        lines.append([it.benchmark, it.row, it.contender, before, after, f"{it.ratio:.3f}", between, it.verdict])
    sure = f"{100 * (1 - CHANCE):.0f} % interval"
    return markdown(["benchmark", "row", "contender", "A, ms", "B, ms", "B ÷ A", sure, "B is"], lines)


def needed_rounds(chance: float = CHANCE) -> int:
    """Return the least number of rounds in both files with which a change can be told."""
    rounds = 1
    while 2 / math.comb(2 * rounds, rounds) > chance:
        rounds += 1
    return rounds
