"""Next-frame prediction: a stack of ConvLSTM layers, a 1×1 read-out, and its own predictions fed back.

Step t reads frame t and predicts frame t+1:

    h_t = stack(x_t)                                     see stack.py, each layer with its own state
    z_t = W ∗ h_t + b,   y_t = z_t  or  σ(z_t)           read-out, see frame_model.py
    x_t = frame t  where it is shown,  else y_{t-1}

Which frames are shown is up to the caller: the first `context` ones, or, in scheduled sampling, later ones at random.
A residual model predicts the change of what the step read, true frame or prediction:

    y_t = z_t = x_t + W ∗ h_t + b

Backward, the gradient to a prediction that was fed back has two parts: from the loss at t, and through x_{t+1}, which
the layers read and, in a residual model, y_{t+1} as well:

    δy_t = ∂L/∂y_t + δx_{t+1} where it was fed back      δx_{t+1} = that of the layers (+ δz_{t+1})

The steps of a sequence are taken in windows: no gradient, δh₋, δc₋ or δx, is carried over to the one before, so that
nothing of a window is kept after its backward (truncated backpropagation).  Within a window they are taken in chunks:
what was computed is dropped after the forward of a chunk, but for the state before it, and computed again in the
backward (recomputation).  Within a chunk, steps whose frames are all known make one segment.  By default a sequence is
one window of one chunk.

Sources: Bengio, Vinyals, Jaitly, Shazeer, "Scheduled sampling for sequence prediction with recurrent neural networks",
NIPS 2015; Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network
trajectories", Neural Computation 2 (1990); Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost",
arXiv:1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convlstm.arguments import as_number
from convlstm.backends import Array
from convlstm.backends.geometry import as_count
from convlstm.cell import Cell
from convlstm.dropout import NOTHING, Draws, Drop
from convlstm.frame_model import Built, FrameModel, Goal
from convlstm.layer import ConvLSTM
from convlstm.layer_gradients import LayerGradients
from convlstm.losses import LossName
from convlstm.masks import Mask, at_step, check_mask
from convlstm.recurrence import Carried, StateGradient, Unrolled
from convlstm.stack import stack_backward, stack_forward


class Task(NamedTuple):
    """What the steps of some samples compute with."""

    cells: list[Cell]
    drops: list[Drop]
    frame: Callable[[int], Array]  # t to the true frame, (n, D, H, W)
    shown: npt.NDArray[np.bool_]  # (n, steps), whether step t reads the true frame

    def segments(self, steps: range) -> Iterator[range]:
        """Yield runs of steps that read only true frames, and single steps that read predictions."""
        known: npt.NDArray[np.bool_] = np.asarray(self.shown.all(axis=0))
        start = steps.start
        for t in steps:
            if not known[t] or t + 1 == steps.stop or not known[t + 1]:
                yield range(start, t + 1)
                start = t + 1


class Sums(NamedTuple):
    """What a loss and its gradients are summed in, over the steps of some samples."""

    goal: Goal
    values: list[Array]  # of each step, not scaled
    of_layers: list[LayerGradients]
    readout: dict[str, Array]


class Before(NamedTuple):
    """What a step reads of the one before it."""

    states: Sequence[Carried | None]  # of each layer; None for zeros
    z: Array | None  # its logits; None at the first step


class After(NamedTuple):
    """What the backward of a step takes from the one after it."""

    dstates: Sequence[StateGradient]  # to each layer's state
    dfed: Array | None  # to the prediction that it was fed; None where it was fed none


class Segment(NamedTuple):
    """Some steps as the backward needs them."""

    steps: range
    layers: list[Unrolled]
    hs: Sequence[Array]  # the last layer's
    zs: list[Array]  # the logits


class NextFrame(FrameModel):
    """Predicts each next frame of a sequence; equations above, arguments and attributes in `FrameModel`.

    The layers are called ``"layers.0"``, ``"layers.1"``, …
    """

    def _build(self, layer: Built, folded: int, hidden_channels: Sequence[int]) -> tuple[list[ConvLSTM], int]:
        below = (folded, *hidden_channels)
        layers = [layer(below[k], C, f"layers.{k}.") for k, C in enumerate(hidden_channels)]
        return layers, hidden_channels[-1]

    def _reading(self) -> int:
        return len(self.layers)

    def loss_and_gradients(
        self, frames: Array, context: int | None = None, loss: LossName = "mse",
        *, valid: Mask | None = None, shown: Mask | None = None, truncate: int | None = None,
        recompute: int | None = None, draws: Draws | None = None,
    ) -> tuple[float, dict[str, Array]]:  # fmt: skip
        """Return the mean loss of the T-1 predicted frames and its gradient to every parameter.

        Args:
            frames: (N, T, channels, H, W) with T ≥ 2.
            context: how many frames the model is shown before it reads its own predictions; default T-1, all of them.
            loss: "mse", "mae" or, on logits with targets in 0 … 1, "bce".
            valid: of the frames' shape, a NumPy array of bool; where it is False an element of a frame to predict,
                which must still be a number, counts neither in the loss nor in what it is divided by.  What a step
                reads is not its business: a frame that is shown is shown whole.  None where all count.
            shown: (N, T-1), a NumPy array that is True where sample n is shown frame t, in place of `context`; the
                first frame is always shown.  See `sampled_frames`.
            truncate: carry no gradient over every `truncate`-th step; the memory that is needed does then not grow with
                T.  None carries it through the whole sequence.
            recompute: keep the state of every `recompute`-th step only and compute the rest again in the backward pass,
                to the same bits; None keeps all.
            draws: where dropout masks are drawn; None drops nothing.

        Raises:
            TypeError, ValueError: an argument is not as above; the message names it.
        """
        known, (N, T) = self._context(frames, context, loss), frames.shape[:2]
        if shown is None:
            shown = np.tile(np.arange(T - 1) < known, (N, 1))
        elif context is not None:
            raise ValueError(
                "give context or shown, not both: shown says for each frame what context says for the first"
            )
        check_mask(shown, (N, T - 1), "shown")
        if not shown[:, 0].all():
            raise ValueError("shown must be True for the first frame of every sample: there is no prediction before it")
        window = T - 1 if truncate is None else as_count("truncate", truncate)
        chunk = window if recompute is None else as_count("recompute", recompute)
        scale = self._scale(frames, 1, valid)

        def work(cells: list[Cell], part: slice) -> tuple[Array, dict[str, Array]]:
            task = Task(cells, self._drops(draws, part, frames), self._reader(frames, part), shown[part])
            sums = Sums(self._goal(frames, part, valid, loss, scale), [], *self._zero_gradients())
            before = Before([None] * len(cells), None)
            for steps in _cut(range(T - 1), window):
                before = self._window(task, steps, chunk, before, sums)
            return scale * sum(sums.values[1:], sums.values[0]), self._by_name(sums.of_layers, sums.readout)

        return self._summed(frames, work, self._target_range(frames, 1, valid, loss))

    def _window(self, task: Task, steps: range, chunk: int, before: Before, sums: Sums) -> Before:
        """Take some steps forward and backward; add to the sums; return what the step after them reads."""
        kept: list[tuple[range, Before, list[Segment]]] = []
        for part in _cut(steps, chunk):
            segments, after = self._forward(task, part, before)
            for segment in segments:
                predicted = zip(segment.steps, segment.zs, strict=True)
                sums.values.extend(self._loss(z, t + 1, sums.goal) for t, z in predicted)
            last = part.stop == steps.stop  # which the backward needs first
            kept.append((part, before, segments if last else []))
            before = after
            del segments, segment  # before those of the next chunk are computed
        back = After([(None, None)] * len(task.cells), None)
        while kept:
            part, start, segments = kept.pop()
            segments = segments or self._forward(task, part, start)[0]
            while segments:  # so that each is freed when its backward is done
                back = self._backward(task, segments.pop(), back, sums, first=steps.start)
        return before

    def _forward(self, task: Task, steps: range, before: Before) -> tuple[list[Segment], Before]:
        """Return the segments of some steps, and what the step after them reads."""
        (states, z), segments = before, []
        for segment in task.segments(steps):
            xs = self._inputs(task, segment, z)
            hs, states, kept = stack_forward(task.cells, xs, states, task.drops)
            zs = [self._readout(h, x) for h, x in zip(hs[-1], xs, strict=True)]
            segments.append(Segment(segment, kept, hs[-1], zs))
            z = zs[-1]
        return segments, Before(states, z)

    def _inputs(self, task: Task, segment: range, z: Array | None) -> list[Array]:
        """x_t = frame t where it is shown, else y_{t-1}, for the steps of a segment; z are the logits before it."""
        there = at_step(task.shown[:, segment.start], self.backend)
        if there is True:
            return [task.frame(t) for t in segment]
        if z is None:
            raise ValueError("the first frame of a sequence must be shown")
        y = self._frame(z)
        return [y if there is False else np.where(there, task.frame(segment.start), y)]

    def _backward(self, task: Task, segment: Segment, after: After, sums: Sums, *, first: int) -> After:
        """Return what the step before the segment takes from it, None if it begins at `first`; add to the gradients."""
        to_before = segment.steps.start > first
        dzs = [self._loss_gradient(z, t + 1, sums.goal) for t, z in zip(segment.steps, segment.zs, strict=True)]
        if after.dfed is not None:
            dzs[-1] = dzs[-1] + self._frame_gradient(after.dfed, segment.zs[-1])
        backwards = zip(reversed(segment.hs), reversed(dzs), strict=True)  # so that sums do not depend on the segments
        dhs = [self._readout_gradient(h, dz, sums.readout) for h, dz in backwards][::-1]
        there = at_step(task.shown[:, segment.steps.start], self.backend)
        outside: list[Sequence[Array | None] | None] = [*[None] * (len(task.cells) - 1), dhs]
        dxs, dstates = stack_backward(
            segment.layers, outside, after.dstates, sums.of_layers,
            to_x=to_before and there is not True, to_state=to_before,
        )  # fmt: skip
        dfed = dxs[0]
        if dfed is not None and self.residual:
            dfed = dfed + dzs[0]  # y_t = x_t + …
        if dfed is not None and there is not False:  # where the true frame was read
            dfed = np.where(there, 0, dfed)
        return After(dstates, dfed)

    def _forecast_part(
        self, cells: list[Cell], frame: Callable[[int], Array], T: int, horizon: int, states: list[Carried | None]
    ) -> tuple[list[Carried | None], list[Array]]:
        shown = (np.arange(T + horizon - 1) < T)[None]
        task = Task(cells, [NOTHING] * len(cells), frame, shown)
        before, zs = Before(states, None), []
        after_given: Sequence[Carried | None] = states
        for t in range(T + horizon - 1):  # one by one: nothing of a step is kept
            _, before = self._forward(task, range(t, t + 1), before)
            if t == T - 1:
                after_given = before.states
            if t >= T - 1 and before.z is not None:
                zs.append(before.z)
        return list(after_given), zs


def sampled_frames(
    N: int, T: int, context: int, probability: float, draw: Callable[[int], npt.NDArray[np.float64]]
) -> npt.NDArray[np.bool_]:
    """Return which frames are shown in scheduled sampling, (N, T-1).

    The first `context` frames are; each later one with this probability.

    Args:
        N: samples.
        T: frames of a sequence.
        context: frames that are always shown.
        probability: 0 … 1.
        draw: from a sample's index in the batch to T-1 numbers uniform in [0, 1).

    Raises:
        ValueError: an argument is not as above.
    """
    probability = as_number("probability", probability, "lie in 0 … 1", lambda p: 0 <= p <= 1)
    if as_count("context", context) > T - 1:
        raise ValueError(f"context must lie in 1 … T-1 = {T - 1}; got {context}")
    shown: npt.NDArray[np.bool_] = np.stack([draw(n) < probability for n in range(N)])
    check_mask(shown, (N, T - 1), "what is drawn")
    shown[:, :context] = True
    return shown


def _cut(steps: range, length: int) -> Iterator[range]:
    """Yield ranges of this length, the last one perhaps shorter, that make up `steps`."""
    for start in range(steps.start, steps.stop, length):
        yield range(start, min(start + length, steps.stop))
