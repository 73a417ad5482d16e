"""One point of `threads`, in its process: python -m benchmarks.threads_point BACKEND SHAPE-AS-JSON ROUNDS.

The number of worker threads is CONVLSTM_THREADS.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.measure import Skipped, one_turn
from benchmarks.ours import our_model, our_training
from benchmarks.processes import answer
from benchmarks.shapes import Shape, frames_of
from convlstm.ledger import chain


def point(backend: str, shape: Shape, rounds: int) -> dict[str, Any]:
    """Return a digest of loss and gradients, and the seconds of a step, one figure for each round.

    Raises:
        Skipped: the backend is not to be had here.
    """
    frames = frames_of(shape)
    loss, gradients = our_model(shape, backend).loss_and_gradients(frames)
    step = our_training(shape, frames, backend).step
    return {"digest": chain(b"", loss, gradients, {}).hex(), "seconds": [one_turn(step) for _ in range(rounds)]}


def main() -> None:
    """Measure the point that the arguments name."""
    backend, shape, rounds = sys.argv[1:]
    try:
        answer(point(backend, Shape(**json.loads(shape)), int(rounds)))
    except Skipped as reason:
        answer(reason)


if __name__ == "__main__":
    main()
