"""One training step beside PyTorch, Keras and Chainer autograd: the same weights, the same frames, the same loss.

    python -m benchmarks.train_step [--shape shi --shape wide …] [--rounds 7] [--json FILE]

A step is next-frame prediction by one ConvLSTM layer and a 1×1 read-out: forward over T frames, mean squared error,
gradients to all parameters, SGD.  Before anything is timed, everybody's loss and gradients are compared with ours.
Where there is a GPU, this project on CuPy and PyTorch with cuDNN take part too, without TF32 and with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.contest import Entrant, Maker, contest
from benchmarks.measure import Rows
from benchmarks.options import Options, ours
from benchmarks.ours import our_training, weights_of
from benchmarks.peers import chainer_autograd, keras_on_torch, pytorch
from benchmarks.shapes import Shape, frames_of
from benchmarks.tables import contenders, markdown, span_and_speed
from convlstm.backends import Array

PYTORCH = "PyTorch"

Own = Callable[[Shape, Array, str], Entrant]  # from shape, frames and backend
Peer = Callable[[Shape, dict[str, Array], Array], Entrant]  # from shape, weights and frames
PEERS: dict[str, Peer] = {
    PYTORCH: pytorch.training,
    "Keras 3": keras_on_torch.training,
    "Chainer autograd": chainer_autograd.training,
    "PyTorch, CUDA": partial(pytorch.training, device="cuda"),
    "PyTorch, CUDA, TF32": partial(pytorch.training, device="cuda", tf32=True),
}


def makers(
    shape: Shape, backends: tuple[str, ...], peers: dict[str, Peer] = PEERS, own: Own = our_training
) -> dict[str, Maker]:
    """Return what makes each contender, ours first."""
    frames, weights = frames_of(shape), weights_of(shape)
    made: dict[str, Maker] = {ours(name): partial(own, shape, frames, name) for name in backends}
    return made | {name: partial(peer, shape, weights, frames) for name, peer in peers.items()}


def measure(options: Options, makers: Callable[[Shape, tuple[str, ...]], dict[str, Maker]] = makers) -> Rows:
    """Return a row for each shape.

    Raises:
        RuntimeError: a peer computes something else.
    """
    return {
        name: contest(makers(shape, options.backends), options.rounds, shape=shape._asdict())
        for name, shape in options.shapes.items()
    }


def table(rows: Rows) -> str:
    """Return times, and speeds divided by PyTorch's."""
    names = contenders(rows)
    lines = [[label, *(span_and_speed(row, name, PYTORCH) for name in names)] for label, row in rows.items()]
    note = f"\n\nms, median (quartiles); in bold the speed divided by that of {PYTORCH}, above 1 is faster"
    return markdown(["shape", *names], lines) + note


if __name__ == "__main__":
    from benchmarks.suite import main

    main(["train_step"])
