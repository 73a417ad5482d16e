"""Which lines' memory decides a result: halving sets of lines until each culprit stands alone."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Sequence

from convlstm.determinism.memory import Site

SUSPICIOUS = re.compile(r"empty|ndarray")


def find_culprits(sites: Sequence[Site], changes_it: Callable[[frozenset[Site]], bool]) -> list[Site]:
    """Return the lines whose new memory changes the result, alone or only with others', in order of file and line.

    Args:
        sites: lines that ask for memory.
        changes_it: whether the result changes when the memory of these lines, and no others, is filled.

    Lines that mention `empty` or `ndarray` are a set of their own: most programs ask for memory in many lines, of which
    few leave it unwritten, and one question clears all others.
    """
    ordered = sorted(sites)
    suspicious = [site for site in ordered if SUSPICIOUS.search(linecache.getline(*site))]
    others = [site for site in ordered if site not in suspicious]
    alone = [*_within(suspicious, changes_it), *_within(others, changes_it)]
    return sorted(alone or _within(ordered, changes_it))


def _within(
    sites: Sequence[Site], changes_it: Callable[[frozenset[Site]], bool], beside: frozenset[Site] = frozenset()
) -> list[Site]:
    """Return the culprits among these lines, while the memory of those beside them is filled too."""
    if not sites or not changes_it(beside.union(sites)):
        return []
    if len(sites) == 1:
        return list(sites)
    left, right = sites[: len(sites) // 2], sites[len(sites) // 2 :]
    found = [*_within(left, changes_it, beside), *_within(right, changes_it, beside)]
    # Neither half changes it without the other: a product of two such arrays, say.
    return found or [
        *_within(left, changes_it, beside.union(right)), *_within(right, changes_it, beside.union(left))
    ]  # fmt: skip
