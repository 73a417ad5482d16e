"""Chainer as it comes: x and h concatenated, one F.convolution_2d, and its automatic differentiation."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.contest import Entrant, Found
from benchmarks.ours import LEARNING_RATE
from benchmarks.peers.one_kernel import joined, split
from benchmarks.shapes import Shape
from convlstm.backends import Array
from convlstm.backends.chainer_import import import_chainer


def _states(F: Any, shape: Shape, W: Any, b: Any, frames: Array) -> list[Any]:
    """Return h_1 … h_T."""
    h: Any = np.zeros((shape.N, shape.C, shape.H, shape.W), frames.dtype)
    c, hs = h, []
    for t in range(shape.T):
        z = F.convolution_2d(F.concat((frames[:, t], h), axis=1), W, b, pad=shape.K // 2)
        i, f, g, o = F.split_axis(z, 4, axis=1)
        c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
        h = F.sigmoid(o) * F.tanh(c)
        hs.append(h)
    return hs


def training(shape: Shape, parameters: dict[str, Array], frames: Array) -> Entrant:
    """Return a training step."""
    chainer = import_chainer()
    F = chainer.functions
    held = [chainer.Parameter(array.copy()) for array in joined(parameters)]
    targets = [np.ascontiguousarray(frames[:, t + 1]) for t in range(shape.T)]

    def backward() -> float:
        W, b, W_y, b_y = held
        for parameter in held:
            parameter.cleargrad()
        predicted = (F.convolution_2d(h, W_y, b_y) for h in _states(F, shape, W, b, frames))
        loss = sum(F.mean_squared_error(y, target) for y, target in zip(predicted, targets, strict=True)) / shape.T
        loss.backward()
        return float(loss.array)

    def step() -> None:
        backward()
        for parameter in held:
            parameter.array -= LEARNING_RATE * parameter.grad

    def result() -> Found:
        return {"loss": np.asarray(backward()), **split(shape, *(parameter.grad for parameter in held))}

    return Entrant(step, result)


def forecast(shape: Shape, parameters: dict[str, Array], frames: Array) -> Entrant:
    """Return a forecast of the frame after the first T."""
    chainer = import_chainer()
    F = chainer.functions
    W, b, W_y, b_y = joined(parameters)

    def predicted() -> Array:
        with chainer.no_backprop_mode(), chainer.using_config("train", False):
            y: Array = F.convolution_2d(_states(F, shape, W, b, frames)[-1], W_y, b_y).array
        return y

    return Entrant(predicted, lambda: {"frame": predicted()})
