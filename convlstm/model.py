"""Next-frame prediction: a stack of ConvLSTM layers, a 1×1 read-out, and its own predictions fed back.

Step t reads frame t and predicts frame t+1:

    h¹_t = layer₁(x_t),  h²_t = layer₂(h¹_t), …          the stack, each layer with its own state
    z_t  = W ∗ h_t + b                                   1×1 read-out, logits
    y_t  = z_t  or  σ(z_t)                               the predicted frame
    x_t  = frame t while there is one, then y_{t-1}

Backward, the gradient to a prediction that was fed back has two parts: from the loss at t, and through x_{t+1}.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from convlstm.backends import Array
from convlstm.backends.contract import check_array
from convlstm.backends.geometry import Pair, as_count, resolve_geometry
from convlstm.cell import Cell, sum_to
from convlstm.layer import ConvLSTM
from convlstm.losses import LOSSES, LossName, sigmoid, sigmoid_gradient
from convlstm.parameters import Kind, SampleSum, uniform
from convlstm.patches import fold, unfold
from convlstm.recurrence import State, Unrolled, unroll_backward, unroll_forward

POINTWISE = resolve_geometry(1, 1, (1, 1))  # a 1×1 kernel's geometry is the same on every map


@dataclass(frozen=True)
class Segment:
    """Consecutive steps whose inputs were all known before the first of them, and what they keep for the backward."""

    layers: list[Unrolled]
    hs: list[Array]  # the last layer's, (N, C, H, W) each


class NextFrame:
    """Predicts each next frame of a sequence; equations above.

    Attributes:
        parameters: dict of arrays, ``"layers.0.W_x"`` … as in `ConvLSTM`, ``"readout.W"`` (D, C, 1, 1) and
            ``"readout.b"`` (D,) with D = channels·P·P.  Arrays of the same shape and dtype may be assigned.
        backend: the backend that owns them.
        layers: the stack, first to last.
    """

    def __init__(
        self,
        channels: int = 1,
        hidden_channels: Sequence[int] = (16,),
        kernel_size: int | Pair = 3,
        *,
        patch: int = 1,
        output: Literal["linear", "sigmoid"] = "linear",
        bias: Kind = "channel",
        peephole: Kind = None,
        spatial_shape: Pair | None = None,
        dtype: npt.DTypeLike = "float32",
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        """Make a model with initial parameters drawn from `seed`.

        Args:
            channels: channels of a frame.
            hidden_channels: C of each layer, first to last.
            kernel_size, bias, peephole, spatial_shape, dtype, backend, seed: of every layer, see `ConvLSTM`.
            patch: P; P×P pixels of a frame are folded into channels of a map 1/P as high and wide.
            output: "linear" predicts z, "sigmoid" σ(z).

        Raises:
            ValueError, BackendUnavailable: as `ConvLSTM`; no layers; an unknown output.
        """
        if not isinstance(hidden_channels, (list, tuple)) or not hidden_channels:
            raise ValueError(f"hidden_channels must be a list, one number for each layer; got {hidden_channels!r}")
        if output not in ("linear", "sigmoid"):
            raise ValueError(f'output must be "linear" or "sigmoid"; got {output!r}')
        self.channels = as_count("channels", channels)
        self.patch = as_count("patch", patch)
        self.output = output
        folded = channels * patch * patch
        self.layers = [
            ConvLSTM(
                below, C, kernel_size, bias, peephole, spatial_shape, dtype, backend, seed, name=f"layers.{index}."
            )
            for index, (below, C) in enumerate(zip((folded, *hidden_channels), hidden_channels, strict=False))
        ]
        self.backend, self.dtype = self.layers[0].backend, self.layers[0].dtype
        self.parameters: dict[str, Array] = {
            layer.name + name: array for layer in self.layers for name, array in layer.parameters.items()
        }
        self._readout_shapes = {"readout.W": (folded, hidden_channels[-1], 1, 1), "readout.b": (folded,)}
        W = uniform(self._readout_shapes["readout.W"], 1 / hidden_channels[-1] ** 0.5, self.dtype, seed, "readout.W")
        self.parameters["readout.W"] = self.backend.asarray(W)
        self.parameters["readout.b"] = self.backend.zeros((folded,), self.dtype)

    def start_from_mean(self, mean: float) -> None:
        """Set the read-out's bias so that where h = 0 the model predicts `mean`, the mean of its training frames.

        Without it the first steps only learn that most pixels are dark; on digits, 120 steps then reach what took 360.

        Raises:
            ValueError: the model's output is a sigmoid and `mean` does not lie between 0 and 1.
        """
        if self.output == "sigmoid":
            if not 0 < mean < 1:
                raise ValueError(f"mean must lie between 0 and 1 for a sigmoid output; got {mean}")
            mean = math.log(mean / (1 - mean))  # σ⁻¹
        b = np.full(self._readout_shapes["readout.b"], mean, self.dtype)
        self.parameters["readout.b"] = self.backend.asarray(b)

    def predict(self, frames: Array, horizon: int) -> Array:
        """Return the `horizon` frames that follow.

        Args:
            frames: (N, T, channels, H, W).
            horizon: ≥ 1.

        Returns:
            (N, horizon, channels, H, W).

        Raises:
            TypeError, ValueError: `frames` or `horizon` is not as above; the message names it.
        """
        horizon = as_count("horizon", horizon)
        folded = self._folded(frames)
        cells = self._cells(folded)
        N, T = folded.shape[:2]
        predicted = self.backend.zeros((N, horizon, *folded.shape[2:]), self.dtype)

        def run(part: slice) -> None:
            _, logits = self._forward(cells, [folded[part, t] for t in range(T)], horizon, keep=False)
            for k, z in enumerate(logits[T - 1 :]):
                predicted[part, k] = self._frame(z)

        self.backend.map_samples(run, N, self._column_elements(cells, folded))
        return unfold(predicted, self.patch)

    def loss_and_gradients(
        self, frames: Array, context: int | None = None, loss: LossName = "mse"
    ) -> tuple[float, dict[str, Array]]:
        """Return the mean loss of the T-1 predicted frames and its gradient to every parameter.

        Args:
            frames: (N, T, channels, H, W) with T ≥ 2.
            context: how many frames the model is shown before it reads its own predictions; default T-1, all of them.
            loss: "mse", "mae" or, on logits with targets in 0 … 1, "bce".

        Raises:
            TypeError, ValueError: an argument is not as above; the message names it.
        """
        folded = self._folded(frames)
        cells = self._cells(folded)
        N, T = folded.shape[:2]
        if T < 2:
            raise ValueError(f"frames must hold at least 2 time steps, the last to predict; got shape {frames.shape}")
        shown = T - 1 if context is None else as_count("context", context)
        if shown > T - 1:
            raise ValueError(f"context must lie in 1 … T-1 = {T - 1}; got {context}")
        if not isinstance(loss, str) or loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
        scale = 1 / (N * (T - 1) * int(np.prod(folded.shape[2:])))
        total = SampleSum()

        def run(part: slice) -> None:
            maps = [folded[part, t] for t in range(T)]
            segments, logits = self._forward(cells, maps[:shown], T - shown)
            value, dlogits = self._loss(logits, maps[1:], loss, scale)
            gradients = self._backward(segments, logits, dlogits)
            total.add(part.start, {"loss": value, **gradients})

        self.backend.map_samples(run, N, self._column_elements(cells, folded))
        gradients = total.total()
        return float(gradients.pop("loss")), gradients

    def _forward(
        self, cells: list[Cell], known: list[Array], horizon: int, *, keep: bool = True
    ) -> tuple[list[Segment], list[Array]]:
        """Return the segments, where they are to be kept, and the logits of len(known) + horizon - 1 steps."""
        states: list[State | None] = [None] * len(cells)
        segments: list[Segment] = []
        logits: list[Array] = []
        for segment in range(horizon):
            hs = known if segment == 0 else [self._frame(logits[-1])]
            unrolled: list[Unrolled] = []
            for index, cell in enumerate(cells):
                hs, states[index], steps = unroll_forward(cell, hs, states[index])
                unrolled.append(steps)
            if keep:
                segments.append(Segment(unrolled, hs))
            logits += [self._readout(h) for h in hs]
        return segments, logits

    def _backward(self, segments: list[Segment], logits: list[Array], dlogits: list[Array]) -> dict[str, Array]:
        """Return the gradient to every parameter."""
        gradients = {layer.name: layer.zero_gradients() for layer in self.layers}
        readout = {name: self.backend.zeros(shape, self.dtype) for name, shape in self._readout_shapes.items()}
        dstates: list[tuple[Array | None, Array | None]] = [(None, None)] * len(self.layers)
        dfed: Array | None = None  # gradient to the frame that was fed back into the segment after this one
        end = len(logits)
        for number in reversed(range(len(segments))):
            segment, start = segments[number], end - len(segments[number].hs)
            dz = dlogits[start:end]
            if dfed is not None:
                dz[-1] = dz[-1] + self._frame_gradient(dfed, logits[end - 1])
            dhs: Sequence[Array] = [self._readout_gradient(h, d, readout) for h, d in zip(segment.hs, dz, strict=True)]
            for index in reversed(range(len(self.layers))):
                dhs, dstates[index] = unroll_backward(
                    segment.layers[index], dhs, dstates[index], gradients[self.layers[index].name],
                    to_x=index > 0 or number > 0, to_state=number > 0,
                )  # fmt: skip
            dfed, end = (dhs[0] if number > 0 else None), start
        return {layer + name: g for layer, named in gradients.items() for name, g in named.items()} | readout

    def _readout(self, h: Array) -> Array:
        """z = W ∗ h + b: (N, C, H, W) to (N, D, H, W), D = channels·P·P."""
        z = self.backend.convolve(h, self.parameters["readout.W"], POINTWISE)
        return z + self.parameters["readout.b"][:, None, None]

    def _readout_gradient(self, h: Array, dz: Array, gradients: dict[str, Array]) -> Array:
        """Return dh; add to the read-out's gradients."""
        gradients["readout.W"] += self.backend.gradient_weights(h, dz, POINTWISE)  # z = W ∗ h + …
        gradients["readout.b"] += sum_to(self.parameters["readout.b"], dz)  # z = … + b
        return self.backend.gradient_input(dz, self.parameters["readout.W"], POINTWISE, *h.shape[2:])  # z = W ∗ h + …

    def _frame(self, z: Array) -> Array:
        """y = z or σ(z)."""
        return sigmoid(z) if self.output == "sigmoid" else z

    def _frame_gradient(self, dy: Array, z: Array) -> Array:
        """dz from dy."""
        return sigmoid_gradient(dy, sigmoid(z)) if self.output == "sigmoid" else dy

    def _loss(
        self, logits: list[Array], targets: list[Array], name: LossName, scale: float
    ) -> tuple[Array, list[Array]]:
        """Return scale · Σ_t loss(step t), a float64 scalar, and its gradient to each step's logits."""
        loss = LOSSES[name]
        predicted = logits if loss.on_logits else [self._frame(z) for z in logits]
        values = [loss.value(p, y) for p, y in zip(predicted, targets, strict=True)]
        gradients = [scale * loss.gradient(p, y) for p, y in zip(predicted, targets, strict=True)]
        if not loss.on_logits:
            gradients = [self._frame_gradient(dy, z) for dy, z in zip(gradients, logits, strict=True)]
        return scale * sum(values[1:], values[0]), gradients

    def _folded(self, frames: Array) -> Array:
        check_array(self.backend, "frames", frames, self.dtype, ("N", "T", self.channels, "H", "W"))
        return fold(frames, self.patch)

    def _cells(self, folded: Array) -> list[Cell]:
        """Return what each layer computes with; check the parameters."""
        own = [layer.name + name for layer in self.layers for name in layer.parameters] + list(self._readout_shapes)
        if self.parameters.keys() != set(own):
            odd = ", ".join(sorted(self.parameters.keys() ^ set(own)))
            raise KeyError(f"parameters must be {', '.join(own)}; missing or unknown: {odd}")
        for name, shape in self._readout_shapes.items():
            check_array(self.backend, f"parameters[{name!r}]", self.parameters[name], self.dtype, shape)
        for layer in self.layers:
            layer.parameters = {name: self.parameters[layer.name + name] for name in layer.parameters}
        return [layer.cell(*folded.shape[3:]) for layer in self.layers]

    def _column_elements(self, cells: list[Cell], folded: Array) -> int:
        """Return the elements of the largest column array that one sample needs."""
        H, W = folded.shape[3:]
        return max(layer.column_elements(cell, H, W) for layer, cell in zip(self.layers, cells, strict=True))
