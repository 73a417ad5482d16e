"""One training step beside PyTorch and Chainer autograd: the same weights, the same frames, the same loss.

    python -m benchmarks.train_step [--shape shi --shape wide …] [--rounds 7] [--json FILE]

A step is next-frame prediction by one ConvLSTM layer and a 1×1 read-out: forward over T frames, mean squared error,
gradients to all parameters, SGD.  PyTorch concatenates x and h, calls one nn.Conv2d and differentiates automatically,
as most ConvLSTMs in PyTorch do; the Chainer peer does the same with F.convolution_2d.  Before anything is timed, the
peers' losses and gradients are compared with ours.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measure import Contender, environment, interleaved, summary
from convlstm import NextFrame
from convlstm.backends import Array
from convlstm.optimizers import SGD
from convlstm.randomness import generator


class Shape(NamedTuple):
    T: int
    N: int
    Cin: int
    C: int
    H: int
    W: int
    K: int


SHAPES = {
    "shi": Shape(T=10, N=8, Cin=16, C=128, H=16, W=16, K=5),
    "wide": Shape(T=10, N=4, Cin=1, C=64, H=64, W=64, K=3),
    "small": Shape(T=5, N=4, Cin=1, C=16, H=32, W=32, K=3),
    "deep": Shape(T=10, N=8, Cin=64, C=64, H=32, W=32, K=3),
}
LEARNING_RATE = 1e-3
Step = tuple[Contender, Callable[[], tuple[float, dict[str, Array]]]]  # the step; its loss and gradients, to compare


def ours(model: NextFrame, frames: Array) -> Step:
    optimizer = SGD(LEARNING_RATE)
    frames = model.backend.asarray(frames)

    def gradients() -> tuple[float, dict[str, Array]]:
        return model.loss_and_gradients(frames)

    def step() -> None:
        _, found = gradients()
        optimizer.step(model.parameters, found)
        model.backend.synchronise()

    return step, gradients


def pytorch(shape: Shape, parameters: dict[str, Array], frames: Array) -> Step:
    import torch
    from torch.nn.functional import mse_loss

    x = torch.from_numpy(frames)
    gates = torch.nn.Conv2d(shape.Cin + shape.C, 4 * shape.C, shape.K, padding=shape.K // 2)
    readout = torch.nn.Conv2d(shape.C, shape.Cin, 1)
    weights = {
        gates.weight: np.concatenate([parameters["layers.0.W_x"], parameters["layers.0.W_h"]], axis=1),
        gates.bias: parameters["layers.0.b"],
        readout.weight: parameters["readout.W"],
        readout.bias: parameters["readout.b"],
    }
    with torch.no_grad():
        for held, value in weights.items():
            held.copy_(torch.from_numpy(value))
    optimizer = torch.optim.SGD(list(weights), lr=LEARNING_RATE)

    def loss() -> Any:
        h = c = torch.zeros(shape.N, shape.C, shape.H, shape.W)
        predicted = []
        for t in range(shape.T):
            i, f, g, o = gates(torch.cat([x[:, t], h], dim=1)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            predicted.append(readout(h))
        return mse_loss(torch.stack(predicted, dim=1), x[:, 1:])

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    def gradients() -> tuple[float, dict[str, Array]]:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        found = [held.grad.numpy().copy() for held in weights]
        return value.item(), _split(shape, *found)

    return step, gradients


def chainer_autograd(shape: Shape, parameters: dict[str, Array], frames: Array) -> Step:
    from convlstm.backends.chainer_import import import_chainer

    chainer = import_chainer()
    F = chainer.functions
    W = np.concatenate([parameters["layers.0.W_x"], parameters["layers.0.W_h"]], axis=1)
    held = [
        chainer.Parameter(a.copy())
        for a in (W, parameters["layers.0.b"], parameters["readout.W"], parameters["readout.b"])
    ]

    def loss() -> Any:
        W, b, W_y, b_y = held
        h = c = np.zeros((shape.N, shape.C, shape.H, shape.W), frames.dtype)
        total = 0
        for t in range(shape.T):
            z = F.convolution_2d(F.concat((frames[:, t], h), axis=1), W, b, pad=shape.K // 2)
            i, f, g, o = F.split_axis(z, 4, axis=1)
            c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
            h = F.sigmoid(o) * F.tanh(c)
            total += F.mean_squared_error(F.convolution_2d(h, W_y, b_y), np.ascontiguousarray(frames[:, t + 1]))
        return total / shape.T

    def backward() -> float:
        for parameter in held:
            parameter.cleargrad()
        value = loss()
        value.backward()
        return float(value.array)

    def step() -> None:
        backward()
        for parameter in held:
            parameter.array -= LEARNING_RATE * parameter.grad

    def gradients() -> tuple[float, dict[str, Array]]:
        value = backward()
        return value, _split(shape, *(parameter.grad for parameter in held))

    return step, gradients


def _split(shape: Shape, W: Array, b: Array, W_y: Array, b_y: Array) -> dict[str, Array]:
    """Return a peer's gradients under our names; its one kernel holds W_x and W_h."""
    return {
        "layers.0.W_x": W[:, : shape.Cin],
        "layers.0.W_h": W[:, shape.Cin :],
        "layers.0.b": b,
        "readout.W": W_y,
        "readout.b": b_y,
    }


def compare(shape: Shape, backend: str, rounds: int) -> dict[str, Any]:
    """Return each contender's times on one shape, their ratios to ours, and how far its gradients were from ours."""
    frames = generator(0, "benchmark/frames").random((shape.N, shape.T + 1, shape.Cin, shape.H, shape.W), np.float32)
    model = NextFrame(shape.Cin, (shape.C,), shape.K, backend=backend)
    parameters = {name: model.backend.to_numpy(value) for name, value in model.parameters.items()}
    steps: dict[str, Step] = {"convlstm": ours(model, frames)}
    skipped: dict[str, str] = {}
    for name, make in (("pytorch", pytorch), ("chainer autograd", chainer_autograd)):
        try:
            steps[name] = make(shape, parameters, frames)
        except ImportError as error:
            skipped[name] = f"{error}; README says how to install it"
    loss, gradients = steps["convlstm"][1]()
    reference = {name: model.backend.to_numpy(value) for name, value in gradients.items()}
    differences = {
        name: largest_difference(reference, loss, *step[1]()) for name, step in steps.items() if name != "convlstm"
    }
    seconds = interleaved({name: step for name, (step, _) in steps.items()}, rounds)
    times = {name: summary(values) for name, values in seconds.items()}
    return {
        "shape": shape._asdict(),
        "times": times,
        "speed_relative_to": {name: times[name]["median_ms"] / times["convlstm"]["median_ms"] for name in differences},
        "largest_relative_gradient_difference": differences,
        "skipped": skipped,
        "seconds": seconds,
    }


def largest_difference(reference: dict[str, Array], loss: float, peer_loss: float, peer: dict[str, Array]) -> float:
    """Return the largest ‖ours - peer's‖ / ‖peer's‖ over the parameters, in L2.

    Raises:
        RuntimeError: the peer computes something else.
    """
    distances = [float(np.linalg.norm(reference[name] - g) / np.linalg.norm(g)) for name, g in peer.items()]
    if max(distances) > 1e-3 or abs(loss - peer_loss) > 1e-4 * abs(peer_loss):
        raise RuntimeError(
            f"the peer computes something else: losses {loss}, {peer_loss}; gradients differ by {distances}"
        )
    return max(distances)


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    peers = sorted({name for result in results.values() for name in result["speed_relative_to"]}, reverse=True)
    lines = [
        "| shape | convlstm, ms | " + " | ".join(f"{name}, ms" for name in peers) + " | "
        + " | ".join(f"speed ÷ {name}'s" for name in peers) + " |",
        "|---" * (2 + 2 * len(peers)) + "|",
    ]  # fmt: skip
    for shape, result in results.items():
        times = [_span(result["times"][name]) for name in ("convlstm", *peers)]
        ratios = [f"{result['speed_relative_to'][name]:.2f}" for name in peers]
        lines.append(f"| {shape} | " + " | ".join(times + ratios) + " |")
    return "\n".join(lines)


def _span(times: dict[str, float]) -> str:
    digits = 0 if times["median_ms"] >= 100 else 1
    median, low, high = (f"{times[key]:.{digits}f}" for key in ("median_ms", "lower_quartile_ms", "upper_quartile_ms"))
    return f"{median} ({low}–{high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", action="append", choices=SHAPES, help="a shape to time; may be repeated; default all"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender (default 7)")
    parser.add_argument(
        "--backend", default="numpy", help='"numpy" or "cupy"; the peers stay on the CPU (default numpy)'
    )
    parser.add_argument("--json", type=Path, help="write all figures and the environment here")
    arguments = parser.parse_args()
    record = environment(("convlstm", "numpy", "chainer", "torch", "threadpoolctl"))
    results = {}
    for name in arguments.shape or SHAPES:
        results[name] = compare(SHAPES[name], arguments.backend, arguments.rounds)
        print(table({name: results[name]}), flush=True)
    print("\nmedian (quartiles); a ratio above 1 means that convlstm is faster\n\n" + table(results))
    for peer, reason in {k: v for result in results.values() for k, v in result["skipped"].items()}.items():
        print(f"skipped {peer}: {reason}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"environment": record, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
