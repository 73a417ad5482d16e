"""`Stateful`: a layer or a stack that is fed one frame at a time and keeps its state in between.

h_t, state = layer(x_t, state)                       the same bits as one call with the whole sequence
"""

from __future__ import annotations

from typing import Any

from convlstm.backends import Array
from convlstm.backends.contract import check_array
from convlstm.layer import ConvLSTM
from convlstm.layer_stack import ConvLSTMStack


class Stateful:
    """Steps through a sequence whose frames come one after the other, without end if need be.

    Attributes:
        layer: what computes.
        state: after the last step, as `layer.forward` returns it; None before the first.  One of the same shapes may be
            assigned.
    """

    def __init__(self, layer: ConvLSTM | ConvLSTMStack) -> None:
        """Begin a sequence from zeros.

        Raises:
            TypeError: it is neither a layer nor a stack.
            ValueError: the stack reads in both directions, and so needs the end of a sequence to begin with.
        """
        if not isinstance(layer, (ConvLSTM, ConvLSTMStack)):
            raise TypeError(f"layer must be a ConvLSTM or a ConvLSTMStack; got {type(layer).__name__}")
        if isinstance(layer, ConvLSTMStack) and layer.bidirectional:
            raise ValueError("a stack in both directions needs whole sequences; make it with bidirectional=False")
        self.layer = layer
        self.state: Any = None
        first = layer.layers[0] if isinstance(layer, ConvLSTMStack) else layer
        self._any_shape: tuple[int | str, ...] = ("N", first.in_channels, "H", "W")
        self._shape: tuple[int | str, ...] = self._any_shape  # from the first frame on, that frame's

    def step(self, x: Array) -> Array:
        """Return the hidden maps (N, C, H, W) after one more frame, (N, Cin, Hx, Wx).

        Raises:
            TypeError, ValueError: as `ConvLSTM.forward`; x has another shape than the frames before.
        """
        check_array(self.layer.backend, "x", x, self.layer.dtype, self._shape)
        h, self.state, _ = self.layer.forward(x[:, None], self.state)
        self._shape = x.shape
        return h if h.ndim == 4 else h[:, 0]

    def reset(self) -> None:
        """Begin another sequence, from zeros."""
        self.state, self._shape = None, self._any_shape
