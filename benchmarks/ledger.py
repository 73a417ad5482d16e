"""What the ledger costs: the digest of a step's loss, gradients and weights, beside the step itself.

    python -m benchmarks.ledger [--rounds 7] [--json FILE]

Shapes and step are those of `benchmarks.train_step`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import environment, interleaved, summary
from benchmarks.train_step import SHAPES, Shape, ours
from convlstm import NextFrame
from convlstm.ledger import chain


def cost(shape: Shape, rounds: int) -> dict[str, Any]:
    """Return the times of a step and of its digest, and the share that the digest adds to a step."""
    model = NextFrame(shape.Cin, (shape.C,), shape.K, backend="numpy")
    frames = np.random.default_rng(0).random((shape.N, shape.T + 1, shape.Cin, shape.H, shape.W), dtype=np.float32)
    step, gradients = ours(model, frames)
    loss, found = gradients()
    seconds = interleaved({"step": step, "digest": lambda: chain(b"", loss, found, model.parameters)}, rounds)
    times = {name: summary(values) for name, values in seconds.items()}
    return {"times": times, "share": times["digest"]["median_ms"] / times["step"]["median_ms"], "seconds": seconds}


def main() -> None:
    """Measure every shape, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (default 7)")
    parser.add_argument("--json", type=Path, help="write all figures and the environment here")
    arguments = parser.parse_args()
    record = environment(("convlstm", "numpy", "chainer", "threadpoolctl"))
    results = {name: cost(shape, arguments.rounds) for name, shape in SHAPES.items()}
    print("| shape | step, ms | digest, ms | share |\n|---|---|---|---|")
    for name, result in results.items():
        step, digest = (result["times"][key]["median_ms"] for key in ("step", "digest"))
        print(f"| {name} | {step:.1f} | {digest:.2f} | {100 * result['share']:.2f} % |")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"environment": record, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
