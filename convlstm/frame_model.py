"""What models of frames share: patches, the 1×1 read-out, the loss, parameters by name, and the sum over samples.

    z = W ∗ h + b                                        read-out, logits; (N, D, H, W) with D = channels·P·P
    z = x + W ∗ h + b                                    the same where it predicts the change of a frame x (residual)
    y = z  or  σ(z)                                      the predicted frame, P×P pixels folded into channels

How the hidden maps h come about, and which frame x is, is the business of next_frame.py and encoder_forecaster.py.
With W = 0 and b = 0 a residual model repeats the last frame: persistence, from which it learns to differ.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from convlstm.arguments import as_number
from convlstm.backends import Array
from convlstm.backends.contract import check_array
from convlstm.backends.geometry import POINTWISE, Pair, as_bool, as_count, as_counts
from convlstm.cell import Cell, sum_to
from convlstm.dropout import Draws, Drop
from convlstm.layer import ConvLSTM, give_parameters
from convlstm.layer_gradients import LayerGradients
from convlstm.losses import LOSSES, LossName, counted, sigmoid, sigmoid_gradient
from convlstm.masks import Mask, check_mask
from convlstm.parameters import Kind, SampleSum, uniform
from convlstm.patches import fold, unfold
from convlstm.recurrence import Carried, State

Built = Callable[[int | None, int, str], ConvLSTM]  # a layer from its channels below, its hidden channels and its name


class Goal(NamedTuple):
    """What the predicted frames of some samples are held against."""

    frame: Callable[[int], Array]  # t to the true frame, (n, D, H, W)
    valid: Callable[[int], Array | None]  # t to which of its elements count; None where all do
    loss: LossName
    scale: float  # of each element's share


class FrameModel(ABC):
    """A stack of ConvLSTM layers that predicts frames; use `NextFrame` or `EncoderForecaster`.

    Attributes:
        parameters: dict of arrays: each layer's as in `ConvLSTM` with the layer's name before it, ``"readout.W"``
            (D, channels that it reads, 1, 1) and ``"readout.b"`` (D,).  Arrays of the same shape and dtype may be
            assigned.
        backend: the backend that owns them.
        layers: in the order in which a step computes them.
    """

    def __init__(
        self,
        channels: int = 1,
        hidden_channels: Sequence[int] = (16,),
        kernel_size: int | Pair = 3,
        *,
        recurrent_kernel_size: int | Pair | None = None,
        patch: int = 1,
        output: Literal["linear", "sigmoid"] = "linear",
        bias: Kind = "channel",
        peephole: Kind = None,
        layer_norm: Kind = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        forget_bias: float | None = None,
        readout_bias: bool = True,
        residual: bool = False,
        spatial_shape: Pair | None = None,
        dtype: npt.DTypeLike = "float32",
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        """Make a model with initial parameters drawn from `seed`.

        Args:
            channels: channels of a frame.
            hidden_channels: C of each layer, first to last.
            kernel_size, recurrent_kernel_size, bias, peephole, layer_norm, dropout, recurrent_dropout, forget_bias,
                spatial_shape, dtype, backend, seed: of every layer, see `ConvLSTM`.
            patch: P; P×P pixels of a frame are folded into channels of a map 1/P as high and wide.
            output: "linear" predicts z, "sigmoid" σ(z).
            readout_bias: whether the read-out has one.
            residual: whether the read-out predicts the change of the frame before, in place of the frame; it needs
                output "linear", and its initial parameters are 0, so that the first forecast is persistence.

        Raises:
            ValueError, BackendUnavailable: as `ConvLSTM`; no layers; an unknown output; residual with a sigmoid.
        """
        hidden_channels = as_counts("hidden_channels", hidden_channels)
        if output not in ("linear", "sigmoid"):
            raise ValueError(f'output must be "linear" or "sigmoid"; got {output!r}')
        self.channels = as_count("channels", channels)
        self.patch = as_count("patch", patch)
        self.output = output
        self.residual = as_bool("residual", residual)
        if self.residual and output != "linear":
            raise ValueError(f'residual=True needs output="linear", a change has either sign; got output={output!r}')
        folded = self.channels * self.patch**2

        def layer(below: int | None, C: int, name: str) -> ConvLSTM:
            return ConvLSTM(
                below, C, kernel_size, bias, peephole, spatial_shape, dtype, backend, seed,
                recurrent_kernel_size=recurrent_kernel_size, layer_norm=layer_norm, dropout=dropout,
                recurrent_dropout=recurrent_dropout, forget_bias=forget_bias, name=name,
            )  # fmt: skip

        self.layers, read = self._build(layer, folded, hidden_channels)
        self.backend, self.dtype = self.layers[0].backend, self.layers[0].dtype
        self.parameters: dict[str, Array] = {
            layer.name + name: array for layer in self.layers for name, array in layer.parameters.items()
        }
        self._readout_shapes: dict[str, tuple[int, ...]] = {"readout.W": (folded, read, 1, 1)}
        if as_bool("readout_bias", readout_bias):
            self._readout_shapes["readout.b"] = (folded,)
        for name, shape in self._readout_shapes.items():
            self.parameters[name] = self.backend.zeros(shape, self.dtype)
        if not self.residual:
            W = uniform(self._readout_shapes["readout.W"], 1 / read**0.5, self.dtype, seed, "readout.W")
            self.parameters["readout.W"] = self.backend.asarray(W)

    @abstractmethod
    def _build(self, layer: Built, folded: int, hidden_channels: Sequence[int]) -> tuple[list[ConvLSTM], int]:
        """Return the layers and the number of channels that the read-out reads."""

    def start_from_mean(self, mean: float) -> None:
        """Set the read-out's bias so that where h = 0 the model predicts `mean`, the mean of its training frames.

        Without it the first steps only learn that most pixels are dark; on digits, 120 steps then reach what took 360.
        A residual model predicts changes, whose mean is near 0 whatever the mean of the frames is: its bias becomes 0,
        so that where h = 0 it predicts persistence.

        Raises:
            ValueError: the read-out has no bias, or the output is a sigmoid and `mean` does not lie between 0 and 1.
        """
        if "readout.b" not in self._readout_shapes:
            raise ValueError("a read-out without bias cannot start from the mean; make it with readout_bias=True")
        mean = as_number("mean", mean, "be a finite number", math.isfinite)
        if self.output == "sigmoid":
            if not 0 < mean < 1:
                raise ValueError(f"mean must lie between 0 and 1 for a sigmoid output; got {mean}")
            mean = math.log(mean / (1 - mean))  # σ⁻¹
        b = np.full(self._readout_shapes["readout.b"], 0.0 if self.residual else mean, self.dtype)
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
        return self.forecast(frames, horizon)[0]

    def forecast(
        self, frames: Array, horizon: int, states: Sequence[State] | None = None
    ) -> tuple[Array, tuple[State, ...]]:
        """Return the `horizon` frames that follow, and the states from which a later call goes on.

        A call with frames 1 … t and one with frames t+1 … T and the states that the first returned forecast the same
        bits as one call with all T frames.

        Args:
            frames: (N, T, channels, H, W).
            horizon: ≥ 1.
            states: from the call before, (h, c) of each layer that reads frames; None at the beginning of a sequence.

        Returns:
            frames: (N, horizon, channels, H, W).
            states: after the last of the given frames, not of the predicted ones.

        Raises:
            TypeError, ValueError: an argument is not as above; the message names it.
        """
        horizon = as_count("horizon", horizon)
        self._check_frames(frames)
        H, W = (size // self.patch for size in frames.shape[3:])
        cells, N = self._cells(H, W), frames.shape[0]
        readers, channels_last = self.layers[: self._reading()], self.backend.channels_last
        shapes = [(N, layer.hidden_channels, H, W) for layer in readers]
        if states is not None:
            self._check_states(states, shapes)
        predicted = self.backend.zeros((N, horizon, *frames.shape[2:]), self.dtype)
        last = [(self.backend.zeros(shape, self.dtype), self.backend.zeros(shape, self.dtype)) for shape in shapes]

        def run(part: slice) -> None:
            before: list[Carried | None] = [None] * len(readers)
            if states is not None:
                before = [(channels_last(h[part]), channels_last(c[part])) for h, c in states]
            after, logits = self._forecast_part(cells, self._reader(frames, part), frames.shape[1], horizon, before)
            for k, z in enumerate(logits):
                predicted[part, k] = unfold(self._frame(z)[:, None], self.patch)[:, 0]
            for (h_last, c_last), state in zip(last, after, strict=True):
                if state is not None:
                    h_last[part], c_last[part] = state

        self.backend.map_samples(run, N, self._column_elements(cells, H, W))
        return predicted, tuple(last)

    @abstractmethod
    def _forecast_part(
        self, cells: list[Cell], frame: Callable[[int], Array], T: int, horizon: int, states: list[Carried | None]
    ) -> tuple[list[Carried | None], list[Array]]:
        """Return (the states after T frames, the logits of the `horizon` frames that follow)."""

    @abstractmethod
    def _reading(self) -> int:
        """Return how many of the layers, from the first on, read frames and hold a state between two forecasts."""

    @abstractmethod
    def loss_and_gradients(
        self, frames: Array, context: int | None = None, loss: LossName = "mse",
        *, valid: Mask | None = None, recompute: int | None = None, draws: Draws | None = None,
    ) -> tuple[float, dict[str, Array]]:  # fmt: skip
        """Return the mean loss of the predicted frames and its gradient to every parameter; see each model."""

    # Training: what both models' loss_and_gradients are made of -------------------------------------------------------

    def _context(self, frames: Array, context: int | None, loss: LossName) -> int:
        """Return how many frames are shown; check the arguments that both models have."""
        self._check_frames(frames)
        T = frames.shape[1]
        if T < 2:
            raise ValueError(f"frames must hold at least 2 time steps, the last to predict; got shape {frames.shape}")
        shown = T - 1 if context is None else as_count("context", context)
        if shown > T - 1:
            raise ValueError(f"context must lie in 1 … T-1 = {T - 1}; got {context}")
        if not isinstance(loss, str) or loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
        return shown

    def _scale(self, frames: Array, first: int, valid: Mask | None) -> float:
        """Return 1 / the number of elements that count of the frames to predict, which are `first` … T-1.

        All are counted here, at once, so that a part's share does not depend on how the batch is cut.

        Raises:
            TypeError, ValueError: `valid` is not a mask of the frames' shape, or says that none counts.
        """
        check_mask(valid, frames.shape, "valid")
        count = math.prod(frames[:, first:].shape)
        if valid is not None:
            count = int(np.count_nonzero(valid[:, first:]))
            if count == 0:
                last = frames.shape[1] - 1
                raise ValueError(f"valid is False throughout the frames to predict, {first} … {last}: there is no loss")
        return 1 / count

    def _target_range(
        self, frames: Array, first: int, valid: Mask | None, loss: LossName
    ) -> tuple[Array, Array] | None:
        """Return the least and the largest of the targets that count, where the loss needs them within 0 … 1.

        They stay on the backend: to look at them here would wait for a device in the middle of a step.
        """
        if loss != "bce":
            return None
        targets = frames[:, first:]
        if valid is not None:
            there = self.backend.asarray(np.ascontiguousarray(valid[:, first:]))
            return np.where(there, targets, np.inf).min(), np.where(there, targets, -np.inf).max()
        return targets.min(), targets.max()

    def _summed(
        self, frames: Array, work: Callable[[list[Cell], slice], tuple[Array, dict[str, Array]]],
        targets: tuple[Array, Array] | None,
    ) -> tuple[float, dict[str, Array]]:  # fmt: skip
        """Return loss and gradients, which `work` computes for some samples, summed over all of them.

        Raises:
            ValueError: `targets`, from `_target_range`, do not lie within 0 … 1.
        """
        H, W = (size // self.patch for size in frames.shape[3:])
        cells, total = self._cells(H, W), SampleSum()

        def run(part: slice) -> None:
            value, gradients = work(cells, part)
            total.add(part.start, {"loss": value, **gradients})

        self.backend.map_samples(run, frames.shape[0], self._column_elements(cells, H, W))
        found = total.total()
        loss = float(found.pop("loss"))  # the first of a step's results that is waited for
        if targets is not None:
            lowest, highest = map(float, targets)
            if not 0 <= lowest <= highest <= 1:
                raise ValueError(f"loss 'bce' needs frames within 0 … 1; they lie within {lowest:g} … {highest:g}")
        return loss, {name: self.backend.contiguous(gradient) for name, gradient in found.items()}

    def _reader(self, frames: Array, part: slice) -> Callable[[int], Array]:
        """Return what gives frame t of some samples, folded: (n, D, H/P, W/P)."""
        # In one order of memory, whatever the caller's: a sum's bits may depend on it.
        return lambda t: self.backend.contiguous(fold(frames[part, t : t + 1], self.patch)[:, 0])

    def _goal(self, frames: Array, part: slice, valid: Mask | None, loss: LossName, scale: float) -> Goal:
        """Return what some samples' predictions are held against."""

        def at(t: int) -> Array | None:
            if valid is None or valid[part, t].all():  # where all count, the same bits as without a mask
                return None
            return self.backend.asarray(np.ascontiguousarray(fold(valid[part, t : t + 1], self.patch)[:, 0]))

        return Goal(self._reader(frames, part), at, loss, scale)

    def _drops(self, draws: Draws | None, part: slice, frames: Array) -> list[Drop]:
        """Return each layer's dropout masks for some samples."""
        maps = [size // self.patch for size in frames.shape[3:]]
        return [
            layer.draw(draws, part, (layer.in_channels, *maps), (layer.hidden_channels, *maps)) for layer in self.layers
        ]

    def _zero_gradients(self) -> tuple[list[LayerGradients], dict[str, Array]]:
        """Return zeros for each layer's parameters, and for the read-out's."""
        readout = {name: self.backend.zeros(shape, self.dtype) for name, shape in self._readout_shapes.items()}
        return [layer.zero_gradients() for layer in self.layers], readout

    def _by_name(self, of_layers: Sequence[LayerGradients], readout: dict[str, Array]) -> dict[str, Array]:
        named = zip(self.layers, of_layers, strict=True)
        return {layer.name + name: g for layer, gradients in named for name, g in gradients.total().items()} | readout

    def _readout(self, h: Array, x: Array) -> Array:
        """z = W ∗ h + b, and + x where the model is residual: (N, C, H, W) and (N, D, H, W) to (N, D, H, W)."""
        z = self.backend.convolve(h, self.parameters["readout.W"], POINTWISE)
        if "readout.b" in self.parameters:
            z = z + self.parameters["readout.b"][:, None, None]
        return z + x if self.residual else z

    def _readout_gradient(self, h: Array, dz: Array, gradients: dict[str, Array]) -> Array:
        """Return dh; add to the read-out's gradients.  Where the model is residual, dx is dz as it is."""
        gradients["readout.W"] += self.backend.gradient_weights(h, dz, POINTWISE)  # z = W ∗ h + …
        if "readout.b" in gradients:
            gradients["readout.b"] += sum_to(self.parameters["readout.b"], dz)  # z = … + b
        return self.backend.gradient_input(dz, self.parameters["readout.W"], POINTWISE, *h.shape[2:])  # z = W ∗ h + …

    def _frame(self, z: Array) -> Array:
        """y = z or σ(z)."""
        return sigmoid(z) if self.output == "sigmoid" else z

    def _frame_gradient(self, dy: Array, z: Array) -> Array:
        """dz from dy."""
        return sigmoid_gradient(dy, sigmoid(z)) if self.output == "sigmoid" else dy

    def _loss(self, z: Array, t: int, goal: Goal) -> Array:
        """Return the loss of predicting frame t by z, summed over the elements that count, a float64 scalar."""
        loss = LOSSES[goal.loss]
        return loss.value(*counted(loss, z if loss.on_logits else self._frame(z), goal.frame(t), goal.valid(t)))

    def _loss_gradient(self, z: Array, t: int, goal: Goal) -> Array:
        """Return the gradient of scale · `_loss` to z: exactly 0 where an element does not count."""
        loss = LOSSES[goal.loss]
        if loss.on_logits:
            return goal.scale * loss.gradient(*counted(loss, z, goal.frame(t), goal.valid(t)))
        dy = goal.scale * loss.gradient(*counted(loss, self._frame(z), goal.frame(t), goal.valid(t)))
        return self._frame_gradient(dy, z)

    def _cells(self, H: int, W: int) -> list[Cell]:
        """Return what each layer computes with on maps of this size; check the parameters."""
        give_parameters(self.layers, self.parameters, self._readout_shapes)
        for name, shape in self._readout_shapes.items():
            check_array(self.backend, f"parameters[{name!r}]", self.parameters[name], self.dtype, shape)
        return [layer.cell(H, W) for layer in self.layers]

    def _check_frames(self, frames: Array) -> None:
        check_array(self.backend, "frames", frames, self.dtype, ("N", "T", self.channels, "H", "W"))
        H, W = frames.shape[3:]
        if H % self.patch or W % self.patch:
            raise ValueError(f"patch {self.patch} must divide the height and width of the frames; got {H}×{W}")

    def _check_states(self, states: Sequence[State], shapes: Sequence[tuple[int, ...]]) -> None:
        if not isinstance(states, (tuple, list)) or len(states) != len(shapes):
            given = len(states) if isinstance(states, (tuple, list)) else type(states).__name__
            raise ValueError(f"states must be a tuple of {len(shapes)} pairs (h, c), one for each layer; got {given}")
        for layer, state, shape in zip(self.layers, states, shapes, strict=False):
            layer.check_state("state", state, shape)

    def _column_elements(self, cells: list[Cell], H: int, W: int) -> int:
        """Return the elements of the largest column array that one sample needs."""
        return max(layer.column_elements(cell, H, W) for layer, cell in zip(self.layers, cells, strict=True))
