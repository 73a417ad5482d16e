"""A forecast of the frame after T given ones, nothing kept for a backward: `NextFrame.forecast` beside the peers.

Peers compute under torch.no_grad, or Chainer's no_backprop_mode, and read only the last h out.  Before anything is
timed, everybody's forecast is compared with ours.
"""

from __future__ import annotations

from functools import partial

from benchmarks import train_step
from benchmarks.contest import Maker
from benchmarks.measure import Rows
from benchmarks.options import Options
from benchmarks.ours import our_forecast
from benchmarks.peers import chainer_autograd, keras_on_torch, pytorch
from benchmarks.shapes import Shape
from benchmarks.train_step import PYTORCH, Peer, table

__all__ = ["makers", "measure", "table"]

PEERS: dict[str, Peer] = {
    PYTORCH: pytorch.forecast,
    "Keras 3": keras_on_torch.forecast,
    "Chainer autograd": chainer_autograd.forecast,
    "PyTorch, CUDA": partial(pytorch.forecast, device="cuda"),
    "PyTorch, CUDA, TF32": partial(pytorch.forecast, device="cuda", tf32=True),
}


def makers(shape: Shape, backends: tuple[str, ...], peers: dict[str, Peer] = PEERS) -> dict[str, Maker]:
    """Return what makes each contender, ours first."""
    return train_step.makers(shape, backends, peers, our_forecast)


def measure(options: Options) -> Rows:
    """Return a row for each shape.

    Raises:
        RuntimeError: a peer forecasts something else.
    """
    return train_step.measure(options, makers)
