"""`check_gradients_over_time`: the check for growing lengths, and what they show of a recurrent net's backward."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convlstm.gradcheck.arrays import Array, Host, like, to_host
from convlstm.gradcheck.check import Examined, Gradients, check_problem, check_sizes, examine
from convlstm.gradcheck.differences import Loss
from convlstm.gradcheck.lengths import explain
from convlstm.gradcheck.progress import reported
from convlstm.gradcheck.report import LengthsReport

Problem = Callable[[int], tuple[Loss, Mapping[str, Array], Gradients]]


def check_gradients_over_time(
    problem: Problem, lengths: Sequence[int] = (1, 2, 3, 5), *, sizes: Mapping[str, int] | None = None, seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> LengthsReport:  # fmt: skip
    """Check a recurrent net's gradients for each length T, and say what the lengths show together.

    What they mean is told in lengths.py.  Sequences of different lengths should begin alike and the parameters be the
    same; the state should start from zero, so that the first step can be told from the others.

    Args:
        problem: takes T, returns (loss, parameters, gradients) as `check_gradients` takes them.
        lengths: increasing, ≥ 1; with 1, 2 and 3 among them the carry of h can be told from that of c.
        sizes, seed, progress: as for `check_gradients`; T is added to the sizes.

    Returns:
        a report: ``.ok``, ``.faults`` (name to a one-line diagnosis), ``.summary``, ``str(report)`` a table.

    Raises:
        TypeError: `problem` is no function or returns something else.
        ValueError: `lengths` are not as above.
    """
    if not callable(problem):
        raise TypeError(f"problem must be a function of the length T; got {type(problem).__name__}")
    try:
        chosen = tuple(operator.index(T) for T in lengths)
    except TypeError:
        raise TypeError(f"lengths must be whole numbers ≥ 1; got {lengths!r}") from None
    if not chosen or chosen[0] < 1 or list(chosen) != sorted(set(chosen)):
        raise ValueError(f"lengths must be whole numbers ≥ 1 that increase; got {lengths!r}")
    sizes = check_sizes(sizes)
    examined: dict[int, Examined] = {}
    with reported(progress) as tell:
        for T in chosen:
            returned: Any = problem(T)  # whatever it returns
            loss, parameters, gradients = check_problem(f"problem({T})", returned)

            def say(text: str, T: int = T) -> None:
                tell(f"T = {T}, {text}")

            examined[T] = examine(loss, parameters, gradients, {**sizes, "T": T}, seed, say)
        faults, summary = explain(examined, lambda kind, T: _right_when_symmetric(problem, kind, T, seed, tell))
    remarks = examined[chosen[-1]].report.remarks  # shorter ones also say that h₀ = 0 is not read
    return LengthsReport({T: seen.report for T, seen in examined.items()}, faults, summary, remarks)


def _right_when_symmetric(
    problem: Problem, kind: str, T: int, seed: int, tell: Callable[[str], None]
) -> bool | None:  # fmt: skip
    """Return whether the gradients are right at weights that are the same "rotated" by 180° or "transposed".

    With such weights a backward that forgets to turn them makes no fault.  None where gradients are given as numbers,
    so that none can be had for other parameters.
    """
    loss, parameters, gradients = problem(T)
    if not callable(gradients):
        return None

    def right(kind: str) -> bool:
        symmetric = {
            name: like(array, symmetrised(to_host(array), kind), array.dtype) for name, array in parameters.items()
        }
        return examine(loss, symmetric, gradients, {}, seed, lambda text: tell(f"symmetric weights, {text}")).report.ok

    return right(kind) or (kind == "rotated" and right("rotated, taps first"))


def symmetrised(a: Host, kind: str) -> Host:
    """Return the mean of a and a turned: kernels (D, C, K, K) or, taps first, (K, K, C, D) rotated; blocks transposed.

    Which axes of a kernel hold its taps, its shape does not tell.
    """
    if kind.startswith("rotated"):
        if a.ndim != 4:
            return a
        return (a + (a[::-1, ::-1] if kind.endswith("taps first") else a[..., ::-1, ::-1])) / 2
    if a.ndim != 2:
        return a
    if a.shape[0] < a.shape[1]:
        return symmetrised(a.T, kind).T
    if a.shape[0] % a.shape[1]:
        return a
    blocks = a.reshape(-1, a.shape[1], a.shape[1])
    return ((blocks + blocks.swapaxes(1, 2)) / 2).reshape(a.shape)
