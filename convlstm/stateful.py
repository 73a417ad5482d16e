"""`Stateful`: a layer or a stack that is fed one frame at a time and keeps its state in between.

h_t, state = layer(x_t, state)                       the same bits as one call with the whole sequence
"""

from __future__ import annotations

from typing import Any

from convlstm.backends import Array
from convlstm.layer import ConvLSTM
from convlstm.layer_stack import ConvLSTMStack


class Stateful:
    """Steps through a sequence whose frames come one after the other, without end if need be.

    Attributes:
        layer: what computes.
        state: after the last step, as `layer.forward` returns it; None before the first.  It may be assigned.
    """

    def __init__(self, layer: ConvLSTM | ConvLSTMStack) -> None:
        """Begin a sequence from zeros.

        Raises:
            ValueError: the stack reads in both directions, and so needs the end of a sequence to begin with.
        """
        if isinstance(layer, ConvLSTMStack) and layer.bidirectional:
            raise ValueError("a stack in both directions needs whole sequences; make it with bidirectional=False")
        self.layer = layer
        self.state: Any = None

    def step(self, x: Array) -> Array:
        """Return the hidden maps (N, C, H, W) after one more frame, (N, Cin, Hx, Wx).

        Raises:
            TypeError, ValueError: as `ConvLSTM.forward`; x has another shape than the frames before.
        """
        if getattr(x, "ndim", 4) != 4:
            raise ValueError(f"x must have shape (N, Cin, H, W), one frame of each sequence; got {x.shape}")
        h, self.state, _ = self.layer.forward(x[:, None], self.state)
        return h if h.ndim == 4 else h[:, 0]

    def reset(self) -> None:
        """Begin another sequence, from zeros."""
        self.state = None
