"""PyTorch: x and h concatenated, one nn.Conv2d, automatic differentiation, as most ConvLSTMs in PyTorch have it."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.contest import TF32_TOLERANCE, TOLERANCE, Entrant, Found
from benchmarks.measure import Skipped, package
from benchmarks.ours import LEARNING_RATE
from benchmarks.peers.one_kernel import joined, split
from benchmarks.shapes import Shape
from convlstm.backends import Array


class Net:
    """The model on one device; `tf32` is whether its products there may be rounded to ten binary digits."""

    def __init__(self, shape: Shape, parameters: dict[str, Array], device: str, tf32: bool) -> None:
        """Make it with these weights.

        Raises:
            Skipped: PyTorch is not installed, or finds no device.
        """
        self.torch: Any = package("torch")
        if device == "cuda" and not self.torch.cuda.is_available():
            raise Skipped("PyTorch finds no CUDA device")
        self.shape, self.device, self.tf32 = shape, device, tf32
        self.gates = self.torch.nn.Conv2d(shape.Cin + shape.C, 4 * shape.C, shape.K, padding=shape.K // 2).to(device)
        self.readout = self.torch.nn.Conv2d(shape.C, shape.Cin, 1).to(device)
        self.weights = [self.gates.weight, self.gates.bias, self.readout.weight, self.readout.bias]
        with self.torch.no_grad():
            for held, value in zip(self.weights, joined(parameters), strict=True):
                held.copy_(self.torch.from_numpy(value))

    def tensor(self, array: Array) -> Any:
        """Return an array on this device."""
        return self.torch.from_numpy(array).to(self.device)

    def set_precision(self) -> None:
        """Give PyTorch this contender's settings, which are the whole process's, for the GPU."""
        if self.device == "cuda":
            self.torch.backends.cuda.matmul.allow_tf32 = self.torch.backends.cudnn.allow_tf32 = self.tf32
            self.torch.backends.cudnn.benchmark = True  # the fastest algorithm, found in the turn that warms up

    def synchronise(self) -> None:
        """Return when the device is done."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def states(self, x: Any) -> list[Any]:
        """Return h_1 … h_T of frames (N, T, Cin, H, W)."""
        torch, shape = self.torch, self.shape
        h = c = torch.zeros(shape.N, shape.C, shape.H, shape.W, device=self.device)
        hs = []
        for t in range(shape.T):
            i, f, g, o = self.gates(torch.cat([x[:, t], h], dim=1)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            hs.append(h)
        return hs


def training(
    shape: Shape, parameters: dict[str, Array], frames: Array, device: str = "cpu", tf32: bool = False
) -> Entrant:
    """Return a training step; raises as `Net`."""
    net = Net(shape, parameters, device, tf32)
    torch, x = net.torch, net.tensor(frames)
    optimizer = torch.optim.SGD(net.weights, lr=LEARNING_RATE)

    def backward() -> Any:
        net.set_precision()
        optimizer.zero_grad()
        predicted = torch.stack([net.readout(h) for h in net.states(x)], dim=1)
        loss = torch.nn.functional.mse_loss(predicted, x[:, 1:])
        loss.backward()
        return loss

    def step() -> None:
        backward()
        optimizer.step()
        net.synchronise()

    def result() -> Found:
        loss = backward().item()
        return {"loss": np.asarray(loss), **split(shape, *(held.grad.cpu().numpy().copy() for held in net.weights))}

    return Entrant(step, result, TF32_TOLERANCE if tf32 else TOLERANCE)


def forecast(
    shape: Shape, parameters: dict[str, Array], frames: Array, device: str = "cpu", tf32: bool = False
) -> Entrant:
    """Return a forecast of the frame after the first T; raises as `Net`."""
    net = Net(shape, parameters, device, tf32)
    x = net.tensor(frames)

    def predicted() -> Any:
        net.set_precision()
        with net.torch.no_grad():
            y = net.readout(net.states(x)[-1])
        net.synchronise()
        return y

    return Entrant(predicted, lambda: {"frame": predicted().cpu().numpy()}, TF32_TOLERANCE if tf32 else TOLERANCE)
