"""`ConvLSTMStack`: ConvLSTM layers above one another that return every output or the last, in one direction or both.

    h¹ = layer₁(x),  h² = layer₂(h¹), …                  whole sequences, each layer with its own state
    hˡ = [forward_l(hˡ⁻¹), reverse_l(hˡ⁻¹)]              in both directions: channels side by side

A reverse layer reads the sequence from its last frame to its first; its output at t is what it holds after frame t.

Source: Schuster and Paliwal, "Bidirectional recurrent neural networks", IEEE Trans. Signal Processing 45 (1997).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from convlstm.backends import Array
from convlstm.backends.contract import check_array
from convlstm.backends.geometry import Padding, Pair, as_bool, as_counts
from convlstm.dropout import Draws
from convlstm.layer import ConvLSTM, LayerCache, give_parameters
from convlstm.masks import Mask, check_mask
from convlstm.parameters import Kind
from convlstm.recurrence import State

Setting = TypeVar("Setting")


@dataclass(frozen=True)
class StackCache:
    """What `ConvLSTMStack.forward` keeps for `ConvLSTMStack.backward`."""

    stack: ConvLSTMStack  # that made it, so that no other takes it for its own
    layers: list[LayerCache]
    output_shape: tuple[int, ...]


class ConvLSTMStack:
    """Layers above one another; equations above.

    Attributes:
        parameters: dict of arrays, ``"layers.0.W_x"`` … as in `ConvLSTM`; in both directions ``"layers.0.forward.W_x"``
            and ``"layers.0.reverse.W_x"`` ….  Arrays of the same shape and dtype may be assigned.
        backend: the backend that owns them.
        layers: first to last; in both directions forward and reverse by turns.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        kernel_size: int | Pair | list[int | Pair] = 3,
        *,
        returns: Literal["every", "last"] = "every",
        bidirectional: bool = False,
        recurrent_kernel_size: int | Pair | list[int | Pair | None] | None = None,
        stride: int | Pair | list[int | Pair] = 1,
        padding: Padding | list[Padding] = "same",
        dilation: int | Pair | list[int | Pair] = 1,
        spatial_shape: Pair | list[Pair | None] | None = None,
        bias: Kind = "channel",
        peephole: Kind = None,
        layer_norm: Kind = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        forget_bias: float | None = None,
        dtype: npt.DTypeLike = "float32",
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        """Make a stack with initial parameters drawn from `seed`.

        Args:
            in_channels: channels of x.
            hidden_channels: C of each layer, first to last.
            returns: "every" hidden map of the last layer, or the "last" one of each direction.
            bidirectional: whether each layer runs in both directions; the next one reads 2C channels.
            kernel_size, recurrent_kernel_size, stride, padding, dilation, spatial_shape: as in `ConvLSTM`; a list gives
                each layer its own.
            bias, peephole, layer_norm, dropout, recurrent_dropout, forget_bias, dtype, backend, seed: as in `ConvLSTM`.

        Raises:
            ValueError, BackendUnavailable: as `ConvLSTM`; no layers; an unknown `returns`; a list of another length.
        """
        hidden_channels = as_counts("hidden_channels", hidden_channels)
        if returns not in ("every", "last"):
            raise ValueError(f'returns must be "every" or "last"; got {returns!r}')
        self.returns, self.bidirectional = returns, as_bool("bidirectional", bidirectional)
        directions, L = ("forward.", "reverse.") if bidirectional else ("",), len(hidden_channels)
        kernels: list[int | Pair] = _each("kernel_size", kernel_size, L)
        recurrent: list[int | Pair | None] = _each("recurrent_kernel_size", recurrent_kernel_size, L)
        strides: list[int | Pair] = _each("stride", stride, L)
        paddings: list[Padding] = _each("padding", padding, L)
        dilations: list[int | Pair] = _each("dilation", dilation, L)
        shapes: list[Pair | None] = _each("spatial_shape", spatial_shape, L)
        below = [in_channels, *(C * len(directions) for C in hidden_channels)]
        self.layers = [
            ConvLSTM(
                below[k], hidden_channels[k], kernels[k], bias, peephole, shapes[k], dtype, backend, seed,
                recurrent_kernel_size=recurrent[k], stride=strides[k], padding=paddings[k], dilation=dilations[k],
                layer_norm=layer_norm, dropout=dropout, recurrent_dropout=recurrent_dropout, forget_bias=forget_bias,
                name=f"layers.{k}.{direction}",
            )
            for k in range(L)
            for direction in directions
        ]  # fmt: skip
        self.backend, self.dtype = self.layers[0].backend, self.layers[0].dtype
        self.parameters: dict[str, Array] = {
            layer.name + name: array for layer in self.layers for name, array in layer.parameters.items()
        }

    def forward(
        self, x: Array, states: Sequence[State] | None = None,
        *, mask: Mask | None = None, draws: Draws | None = None, recompute: int | None = None,
    ) -> tuple[Array, tuple[State, ...], StackCache]:  # fmt: skip
        """Run the stack over a batch of sequences.

        Args:
            x: (N, T, Cin, Hx, Wx).
            states: (h, c) of each layer before the first step it takes; None for zeros.
            mask, draws, recompute: as in `ConvLSTM.forward`.

        Returns:
            output: (N, T, C, H, W), every hidden map of the last layer, or (N, C, H, W), the last one; C is twice the
                layer's in both directions.
            states: (h, c) of each layer after the last step it takes.
            cache: for `backward`.

        Raises:
            TypeError, ValueError, KeyError: as `ConvLSTM.forward`; not as many states as layers.
        """
        give_parameters(self.layers, self.parameters)
        check_array(self.backend, "x", x, self.dtype, ("N", "T", self.layers[0].in_channels, "H", "W"))
        check_mask(mask, (x.shape[0], x.shape[1]))
        before = self._each_state("states", states)
        after: list[State] = []
        caches: list[LayerCache] = []
        for level in self._levels():
            outputs = []
            for index in level:
                turn = self._turned(index)
                h, state, cache = self.layers[index].forward(
                    x[:, turn], before[index], mask=None if mask is None else mask[:, turn], draws=draws,
                    recompute=recompute,
                )  # fmt: skip
                outputs.append(h[:, turn])
                after.append(state)
                caches.append(cache)
            x = outputs[0] if len(outputs) == 1 else self._on_device(np.concatenate, outputs, 2)
        if self.returns == "last":
            x = self._on_device(np.concatenate, [after[index][0] for index in self._levels()[-1]], 1)
        return x, tuple(after), StackCache(self, caches, x.shape)

    def backward(
        self, cache: StackCache, doutput: Array | None, dstates: Sequence[State] | None = None
    ) -> tuple[Array, tuple[State, ...], dict[str, Array]]:
        """Return the gradients of a loss from its gradients to what `forward` returned.

        Args:
            cache: from `forward`; it is not changed and may be used again.
            doutput: in the shape of the output; None for zeros.
            dstates: to the states after, (dh, dc) of each layer; None for zeros.

        Returns:
            dx: (N, T, Cin, Hx, Wx).
            dstates: to the states before, of each layer.
            gradients: to each parameter.

        Raises:
            TypeError, ValueError: as `ConvLSTM.backward`.
        """
        if not isinstance(cache, StackCache) or cache.stack is not self:
            given = "another stack's" if isinstance(cache, StackCache) else f"an object of type {type(cache).__name__}"
            raise TypeError(f"cache must be what this stack's forward returned; got {given}")
        if doutput is not None:
            check_array(self.backend, "doutput", doutput, self.dtype, cache.output_shape)
        after = self._each_state("dstates", dstates)
        if self.returns == "last" and doutput is not None:
            self._add_to_last(after, doutput)
            doutput = None
        dh, before = doutput, dict[int, State]()
        gradients: dict[str, Array] = {}
        for level in reversed(self._levels()):
            dxs = []
            for position, index in enumerate(level):
                layer, turn = self.layers[index], self._turned(index)
                own = None if dh is None else _share(dh, position, layer.hidden_channels, axis=2)[:, turn]
                dx, before[index], found = layer.backward(cache.layers[index], own, after[index])
                dxs.append(dx[:, turn])
                gradients.update({layer.name + name: g for name, g in found.items()})
            dx = dh = dxs[0] if len(dxs) == 1 else self._on_device(np.add, *dxs)  # both directions read the same maps
        return dx, tuple(before[k] for k in sorted(before)), {name: gradients[name] for name in self.parameters}

    def _levels(self) -> list[list[int]]:
        """Return the indices of the layers that read the same maps, first to last."""
        width = 2 if self.bidirectional else 1
        return [list(range(k, k + width)) for k in range(0, len(self.layers), width)]

    def _turned(self, index: int) -> slice:
        """Return the slice of the time axis in the order in which a layer reads it; it is its own inverse."""
        return slice(None, None, -1) if self.bidirectional and index % 2 else slice(None)

    def _add_to_last(self, dstates: list[State | None], doutput: Array) -> None:
        """Add the gradient to the last hidden maps to those of the last layers' states."""
        for position, index in enumerate(self._levels()[-1]):
            dh = _share(doutput, position, self.layers[index].hidden_channels, axis=1)
            given = dstates[index]
            if given is None:
                dstates[index] = dh, self.backend.zeros(dh.shape, self.dtype)
            else:
                self.layers[index].check_state("dstate", given, dh.shape)  # a sum may broadcast
                dstates[index] = self._on_device(np.add, given[0], dh), given[1]

    def _on_device(self, function: Callable[..., Array], *arguments: Any) -> Array:
        """Return what a function of arrays gives, called where the arrays are, as the layers compute."""
        return self.backend.map_samples(lambda _: function(*arguments), 1, 1)[0]

    def _each_state(self, name: str, states: Sequence[State] | None) -> list[State | None]:
        if states is None:
            return [None] * len(self.layers)
        if not isinstance(states, (list, tuple)) or len(states) != len(self.layers):
            given = len(states) if isinstance(states, (list, tuple)) else type(states).__name__
            raise ValueError(
                f"{name} must be a tuple of {len(self.layers)} pairs (h, c), one for each layer; got {given}"
            )
        return list(states)


def _share(maps: Array, position: int, C: int, axis: int) -> Array:
    """Return the C channels of one direction, the backward of laying both side by side."""
    channels = slice(position * C, (position + 1) * C)
    return maps[:, :, channels] if axis == 2 else maps[:, channels]


def _each(name: str, value: Setting | list[Setting], layers: int) -> list[Setting]:
    """Return a setting of each layer: those of a list, or the same for all."""
    if not isinstance(value, list):
        return [value] * layers
    if len(value) != layers:
        raise ValueError(
            f"{name} must be one setting, or a list with one for each of the {layers} layers; got {value!r}"
        )
    return value
