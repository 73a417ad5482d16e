"""One point of `scaling`, in its process: python -m benchmarks.scaling_point CONTENDER SHAPE-AS-JSON ROUNDS.

Everything is imported, and a step of another, tiny model is taken, so that libraries have their threads, buffers and
code in memory; the model, its frames and their copies are made; what is free goes back to the system.  What the process
holds then is not counted.  Peak memory is the most that it holds over that during the first two steps; after them,
steps are timed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.contest import Entrant
from benchmarks.measure import Skipped, one_turn
from benchmarks.memory import forget_most, give_back_free, most_resident, resident
from benchmarks.processes import answer
from benchmarks.shapes import Shape
from benchmarks.train_step import makers

WARM_UP = Shape(T=2, N=2, Cin=1, C=2, H=8, W=8, K=3)


def made(contender: str, shape: Shape) -> Entrant:
    """Return a training step; raises Skipped where it cannot run, KeyError where nobody has that name."""
    backend = contender.removeprefix("convlstm (").removesuffix(")")
    return makers(shape, (backend,) if contender.startswith("convlstm (") else ())[contender]()


def point(contender: str, shape: Shape, rounds: int) -> dict[str, Any]:
    """Return the peak memory of a step in bytes, and its seconds, one figure for each round.

    Raises:
        Skipped: the contender cannot run here.
    """
    side = max(shape.K, WARM_UP.H)  # a kernel must not be larger than the map
    made(contender, WARM_UP._replace(K=shape.K, H=side, W=side)).step()
    entrant = made(contender, shape)
    give_back_free()
    forget_most()
    before = resident()
    entrant.step()
    entrant.step()
    peak = most_resident() - before
    return {"peak_bytes": peak, "seconds": [one_turn(entrant.step) for _ in range(rounds)]}


def main() -> None:
    """Measure the point that the arguments name."""
    contender, shape, rounds = sys.argv[1:]
    try:
        answer(point(contender, Shape(**json.loads(shape)), int(rounds)))
    except Skipped as reason:
        answer(reason)


if __name__ == "__main__":
    main()
