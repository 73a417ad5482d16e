"""Contenders of one piece of work: made or skipped, compared with each other, and timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measure import Contender, Row, Skipped, interleaved, row
from convlstm.backends import Array, BackendUnavailable, get_backend

Found = Mapping[str, Array]  # what a contender computes, as NumPy arrays by name

TOLERANCE = 1e-3  # of ‖ours - theirs‖ / ‖theirs‖: float32 sums in another order come to 1e-5, another formula to 1e-1
TF32_TOLERANCE = 2e-2  # ten binary digits of every factor


class Entrant(NamedTuple):
    """What takes part."""

    step: Contender
    result: Callable[[], Found]  # what a step computes, to compare
    tolerance: float = TOLERANCE


Maker = Callable[[], Entrant]  # raises Skipped where it cannot take part


def made(makers: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what could be made, and why the others could not."""
    there, skipped = {}, {}
    for name, make in makers.items():
        try:
            there[name] = make()
        except Skipped as reason:
            skipped[name] = str(reason)
    return there, skipped


def contest(makers: Mapping[str, Maker], rounds: int, **facts: Any) -> Row:
    """Let everybody who can take part compute the same, compare what comes out with the first one's, and time them.

    Args:
        makers: by name; the first that is not skipped is the reference.
        rounds: turns of each.
        facts: of the row.

    Raises:
        RuntimeError: one computes something else.
        ValueError: nobody can take part.
    """
    entrants, skipped = made(makers)
    if not entrants:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in skipped.items()))
    reference, *others = entrants
    expected = entrants[reference].result()
    differences = {
        name: largest_difference(name, expected, entrants[name].result(), entrants[name].tolerance) for name in others
    }
    seconds = interleaved({name: entrant.step for name, entrant in entrants.items()}, rounds)
    return row(seconds, **facts, skipped=skipped, largest_relative_difference=differences)


def largest_difference(name: str, expected: Found, found: Found, tolerance: float = TOLERANCE) -> float:
    """Return the largest ‖expected - found‖ / ‖expected‖, in L2, over what was found.

    Raises:
        RuntimeError: it is larger than the tolerance: this contender computes something else.
    """
    distances = {key: relative_distance(expected[key], array) for key, array in found.items()}
    worst = max(distances, key=lambda key: distances[key])
    if not distances[worst] <= tolerance:
        raise RuntimeError(
            f"{name} computes something else: {worst} differs by {distances[worst]:.1e} of its length, "
            f"and {tolerance:.0e} is rounding"
        )
    return distances[worst]


def relative_distance(expected: Array, found: Array) -> float:
    """Return ‖expected - found‖ / ‖expected‖; infinity where the shapes are not the same."""
    if np.shape(expected) != np.shape(found):
        return float("inf")
    right = np.asarray(expected, np.float64)
    length = float(np.sqrt(np.square(right).sum()))
    return float(np.sqrt(np.square(right - found).sum())) / max(length, np.finfo(np.float64).tiny)


def usable_backend(name: str) -> Any:
    """Return one of our backends.

    Raises:
        Skipped: it is not to be had here.
    """
    try:
        return get_backend(name)
    except (ValueError, BackendUnavailable) as error:
        raise Skipped(str(error)) from error
