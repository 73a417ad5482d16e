"""The encoder–forecaster of Shi et al. 2015: one stack reads what is shown, another unrolls what follows.

    (h^l_t, c^l_t) = encoder layer l (h^{l-1}_t)         t = 1 … T, h⁰_t = frame t, from zero states
    forecaster layer l starts from (h^l_T, c^l_T) of encoder layer l
    (h^l_k, c^l_k) = forecaster layer l (h^{l-1}_k)      k = 1 … K; the first layer has no input
    z_k = W ∗ [h¹_k, h²_k, …] + b,   y_k = z_k or σ(z_k) all hidden maps, one 1×1 convolution

Only the K frames to come are predicted, and none is fed back, so K can be chosen freely at every call.

A residual model predicts how each of them differs from the last frame that was read:

    y_k = z_k = frame T + W ∗ [h¹_k, h²_k, …] + b

Backward, what reaches the forecaster's first states goes on to the encoder's last ones.  Frame T is data: it needs no
gradient, so a residual model's backward is the same.

Source: Shi et al., "Convolutional LSTM network: a machine learning approach for precipitation nowcasting", NIPS 2015,
section 3.2 and figure 3; layers stand in the same order in both stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from convlstm.backends import Array
from convlstm.backends.geometry import as_count
from convlstm.cell import Cell
from convlstm.dropout import NOTHING, Draws, Drop
from convlstm.frame_model import Built, FrameModel, Goal
from convlstm.layer import ConvLSTM
from convlstm.layer_gradients import LayerGradients
from convlstm.losses import LossName
from convlstm.masks import Mask
from convlstm.recurrence import Carried, StateGradient, Unrolled
from convlstm.stack import Maps, stack_backward, stack_forward

States = Sequence[Carried | None]


class Given(NamedTuple):
    """What one of the two stacks is given for some time steps."""

    cells: list[Cell]
    drops: list[Drop]
    xs: Maps
    states: States


class Chunk(NamedTuple):
    """Some time steps of a stack as the backward needs them."""

    given: Given
    hs: list[Maps]  # of each layer
    layers: list[Unrolled]


class EncoderForecaster(FrameModel):
    """Predicts the frames that follow a sequence; equations above, arguments and attributes in `FrameModel`.

    The layers are called ``"encoder.0"``, …, ``"forecaster.0"``, …
    """

    def _build(self, layer: Built, folded: int, hidden_channels: Sequence[int]) -> tuple[list[ConvLSTM], int]:
        def stack(name: str, channels: int | None) -> list[ConvLSTM]:
            below: tuple[int | None, ...] = (channels, *hidden_channels)
            return [layer(below[k], C, f"{name}.{k}.") for k, C in enumerate(hidden_channels)]

        return stack("encoder", folded) + stack("forecaster", None), sum(hidden_channels)

    def _reading(self) -> int:
        return len(self.layers) // 2

    def loss_and_gradients(
        self, frames: Array, context: int | None = None, loss: LossName = "mse",
        *, valid: Mask | None = None, recompute: int | None = None, draws: Draws | None = None,
    ) -> tuple[float, dict[str, Array]]:  # fmt: skip
        """Return the mean loss of the frames after the context and its gradient to every parameter.

        Args:
            frames: (N, T, channels, H, W) with T ≥ 2.
            context: how many frames the encoder reads; the others are predicted; default T-1.
            loss: "mse", "mae" or, on logits with targets in 0 … 1, "bce".
            valid: of the frames' shape, a NumPy array of bool; where it is False an element of a frame to predict,
                which must still be a number, counts neither in the loss nor in what it is divided by.  The context is
                read whole, whatever it says there.  None where all count.
            recompute: keep the state of every `recompute`-th step only and compute the rest again in the backward pass,
                to the same bits; None keeps all.
            draws: where dropout masks are drawn; None drops nothing.

        Raises:
            TypeError, ValueError: an argument is not as above; the message names it.
        """
        shown, T, half = self._context(frames, context, loss), frames.shape[1], self._reading()
        every = T if recompute is None else as_count("recompute", recompute)
        scale = self._scale(frames, shown, valid)

        def work(cells: list[Cell], part: slice) -> tuple[Array, dict[str, Array]]:
            goal, drops = self._goal(frames, part, valid, loss, scale), self._drops(draws, part, frames)
            of_layers, readout = self._zero_gradients()
            given, zeros = [goal.frame(t) for t in range(shown)], [None] * half
            encoder = Given(cells[:half], drops[:half], given, zeros)
            encoded, states = _forward(encoder, every, keep_last=recompute is None)
            forecaster = Given(cells[half:], drops[half:], [_no_input(given[0])] * (T - shown), states)
            forecast, _ = _forward(forecaster, every, keep_last=True)  # the backward needs it first

            losses, dstates = self._forecaster_backward(forecast, T, goal, given[-1], of_layers[half:], readout)
            _encoder_backward(encoded, dstates, of_layers[:half])
            return scale * sum(losses[1:], losses[0]), self._by_name(of_layers, readout)

        return self._summed(frames, work, self._target_range(frames, shown, valid, loss))

    def _forecaster_backward(
        self, kept: list[Chunk | Given], end: int, goal: Goal, x: Array,
        of_layers: list[LayerGradients], readout: dict[str, Array],
    ) -> tuple[list[Array], Sequence[StateGradient]]:  # fmt: skip
        """Return (the losses, not scaled, the gradients to the first states); add to the parameters' gradients.

        Args:
            kept: chunks of the forecaster, each taken off when its backward is done, so that it is freed.
            end: the time after the last of them.
            goal: what they are held against.
            x: the last frame that was read.
            of_layers: the layers' gradients so far.
            readout: the read-out's gradients so far, added to in place.
        """
        losses: list[Array] = []
        dstates: Sequence[StateGradient] = [(None, None)] * len(of_layers)
        while kept:
            chunk = _whole(kept.pop())
            begin = end - len(chunk.given.xs)
            dhs = []
            for t in reversed(range(begin, end)):  # so that sums do not depend on the chunks
                h = _concatenated([hs[t - begin] for hs in chunk.hs])
                z = self._readout(h, x)
                losses.append(self._loss(z, t, goal))
                dhs.append(_split(self._readout_gradient(h, self._loss_gradient(z, t, goal), readout), chunk.hs))
            outside = [list(of_layer) for of_layer in zip(*reversed(dhs), strict=True)]
            _, dstates = stack_backward(chunk.layers, outside, dstates, of_layers, to_x=False, to_state=True)
            end = begin
            del chunk  # before the next one is computed again
        return losses, dstates

    def _forecast_part(
        self, cells: list[Cell], frame: Callable[[int], Array], T: int, horizon: int, states: list[Carried | None]
    ) -> tuple[list[Carried | None], list[Array]]:
        half, encoded, zs = self._reading(), states, []
        drops = [NOTHING] * half
        for t in range(T):  # one by one: nothing of a step is kept
            _, encoded, _ = stack_forward(cells[:half], [frame(t)], encoded, drops)
        ahead, last = encoded, frame(T - 1)
        for _ in range(horizon):
            hs, ahead, _ = stack_forward(cells[half:], [_no_input(last)], ahead, drops)
            zs.append(self._readout(_concatenated([of_layer[0] for of_layer in hs]), last))
        return encoded, zs


def _encoder_backward(
    kept: list[Chunk | Given], dstates: Sequence[StateGradient], of_layers: list[LayerGradients]
) -> None:
    """Add to the encoder's gradients, from those to its last states; `kept` as in `_forecaster_backward`."""
    while kept:
        chunk, nothing = _whole(kept.pop()), [None] * len(of_layers)
        _, dstates = stack_backward(chunk.layers, nothing, dstates, of_layers, to_x=False, to_state=len(kept) > 0)
        del chunk


def _forward(given: Given, every: int, *, keep_last: bool) -> tuple[list[Chunk | Given], States]:
    """Run a stack through its steps in chunks.

    Returns:
        kept: of each chunk what it was given, of the last one perhaps all; in order of time.
        states: after the last step.
    """
    cells, drops, xs, states = given
    kept: list[Chunk | Given] = []
    for begin in range(0, len(xs), every):
        part = Given(cells, drops, xs[begin : begin + every], states)
        chunk, states = _chunk(part)
        kept.append(chunk if keep_last and begin + every >= len(xs) else part)
        del chunk  # before the next one is computed
    return kept, states


def _whole(kept: Chunk | Given) -> Chunk:
    """Return a chunk, computed again where only what it was given was kept: the same bits."""
    return kept if isinstance(kept, Chunk) else _chunk(kept)[0]


def _chunk(given: Given) -> tuple[Chunk, States]:
    hs, after, layers = stack_forward(given.cells, given.xs, given.states, given.drops)
    return Chunk(given, hs, layers), after


def _no_input(frame: Array) -> Array:
    """Return a map like a frame's without any channel, (N, 0, H, W)."""
    return frame[:, :0]


def _concatenated(maps: Sequence[Array]) -> Array:
    """[(N, C₁, H, W), (N, C₂, H, W), …] → (N, C₁ + C₂ + …, H, W)."""
    return np.concatenate(maps, axis=1) if len(maps) > 1 else maps[0]


def _split(dh: Array, like: Sequence[Maps]) -> list[Array]:
    """(N, C₁ + C₂ + …, H, W) → [(N, C₁, H, W), (N, C₂, H, W), …], the backward of `_concatenated`."""
    ends = np.cumsum([hs[0].shape[1] for hs in like])
    return [dh[:, end - hs[0].shape[1] : end] for end, hs in zip(ends, like, strict=True)]
