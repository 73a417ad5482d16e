"""`ConvLSTM`: one layer as users hold it. Checks at the boundary, samples handed to the backend, gradients summed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convlstm.arguments import as_number
from convlstm.backends import Array, get_backend
from convlstm.backends.contract import Peepholes, check_array
from convlstm.backends.geometry import POINTWISE, Padding, Pair, as_count, as_pair, check_padding, resolve_geometry
from convlstm.cell import Cell
from convlstm.dropout import NOTHING, Draws, Drop, check_draws, draw_mask
from convlstm.layer_gradients import LayerGradients
from convlstm.masks import check_mask, steps_of
from convlstm.parameters import KINDS, Kind, SampleSum, initial_layer, layer_shapes
from convlstm.recurrence import (
    Carried,
    Start,
    State,
    StateGradient,
    Unrolled,
    unroll_backward,
    unroll_forward,
    unrolled_again,
)


@dataclass(frozen=True)
class LayerCache:
    """What `ConvLSTM.forward` keeps for `ConvLSTM.backward`: for each range of samples its unrolled steps."""

    layer: ConvLSTM  # that made it, so that no other takes it for its own
    x_shape: tuple[int, ...]  # (N, T, Cin, Hx, Wx)
    h_shape: tuple[int, ...]  # (N, T, C, H, W)
    parts: list[tuple[slice, list[Unrolled | Start]]]  # Start where the steps are to be computed again
    column_elements: int  # see `Backend.map_samples`


class ConvLSTM:
    """A convolutional LSTM layer (Shi et al. 2015); the equations stand in cell.py.

    Attributes:
        parameters: dict of arrays, ``"W_x"`` (4C, Cin, K, K), ``"W_h"`` (4C, C, K, K), with layer norm ``"gain"`` and
            with a bias ``"b"``, each (4C,) or (4C, H, W), with peepholes ``"p_i"``, ``"p_f"``, ``"p_o"`` (C,) or
            (C, H, W).  Gates stand in the order i, f, g, o.  Arrays of the same shape and dtype may be assigned.
        backend: the backend that owns the parameters, and all arrays that go in and come out.
    """

    def __init__(
        self,
        in_channels: int | None,
        hidden_channels: int,
        kernel_size: int | Pair = 3,
        bias: Kind = "channel",
        peephole: Kind = None,
        spatial_shape: Pair | None = None,
        dtype: npt.DTypeLike = "float32",
        backend: str = "auto",
        seed: int = 0,
        *,
        recurrent_kernel_size: int | Pair | None = None,
        stride: int | Pair = 1,
        padding: Padding = "same",
        dilation: int | Pair = 1,
        layer_norm: Kind = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        forget_bias: float | None = None,
        name: str = "",
    ) -> None:
        """Make a layer with initial parameters drawn from (seed, name).

        Args:
            in_channels: Cin, channels of x; None for a layer that runs on from its state without any input: its x has
                shape (N, T, 0, H, W).
            hidden_channels: C, channels of h and c.
            kernel_size, recurrent_kernel_size: K or (height, width); the second, where given, of the kernel over h.
            bias, peephole: None, one per "channel" or one per "pixel"; the paper's peepholes are per pixel.
            spatial_shape: (H, W) of the hidden maps; needed where something is per pixel.
            dtype: "float32" or "float64".
            backend, seed: see `get_backend`; of the initial parameters.
            stride, padding, dilation: of the convolution over x, see `resolve_geometry`; over h they are 1, "same", 1.
            layer_norm: None, or a gain per "channel" or "pixel" on the normalised sum, see normalisation.py.
            dropout, recurrent_dropout: probability 0 ≤ p < 1 that an element of x, of h₋ is dropped in training.
            forget_bias: what the forget gate's bias is at first, by default 1; where bias is None, a constant that is
                added to its pre-activation, by default 0.
            name: stands before the parameters' names, in messages and in the random space: layers of a model differ.

        Raises:
            ValueError: a size, kind, dtype or seed that is none of the above.
            BackendUnavailable: see `get_backend`.
        """
        self.name = _text("name", name)
        self.in_channels = 0 if in_channels is None else as_count("in_channels", in_channels)
        self.hidden_channels = as_count("hidden_channels", hidden_channels)
        self.kernel_size = as_pair("kernel_size", kernel_size)
        recurrent = kernel_size if recurrent_kernel_size is None else recurrent_kernel_size
        self.recurrent_kernel_size = as_pair("recurrent_kernel_size", recurrent)
        self.stride, self.dilation = as_pair("stride", stride), as_pair("dilation", dilation)
        self.padding: Padding = padding
        check_padding(padding)
        if in_channels is None and (self.stride, padding, self.dilation) != ((1, 1), "same", (1, 1)):
            raise ValueError("a layer without input has no convolution over x: leave out stride, padding and dilation")
        self.bias, self.peephole = _kind("bias", bias), _kind("peephole", peephole)
        self.layer_norm = _kind("layer_norm", layer_norm)
        self.dropout = _probability("dropout", dropout)
        self.recurrent_dropout = _probability("recurrent_dropout", recurrent_dropout)
        self.spatial_shape = None if spatial_shape is None else as_pair("spatial_shape", spatial_shape)
        self.dtype = _float("dtype", dtype)
        first_bias = 1.0 if forget_bias is None else _finite("forget_bias", forget_bias, self.dtype)
        self._constant_forget_bias = 0.0 if self.bias or forget_bias is None else first_bias
        self.backend = get_backend(backend)
        self._shapes = layer_shapes(
            self.in_channels, self.hidden_channels, self.kernel_size, self.recurrent_kernel_size,
            bias=self.bias, peephole=self.peephole, spatial_shape=self.spatial_shape, layer_norm=self.layer_norm,
        )  # fmt: skip
        initial = initial_layer(self._shapes, self.dtype, seed, name, first_bias)
        self.parameters: dict[str, Array] = {key: self.backend.asarray(value) for key, value in initial.items()}

    def forward(
        self, x: Array, state: State | None = None,
        *, mask: npt.NDArray[np.bool_] | None = None, draws: Draws | None = None, recompute: int | None = None,
    ) -> tuple[Array, State, LayerCache]:  # fmt: skip
        """Run the layer over a batch of sequences.

        x, the state and the parameters are kept for `backward`, not copied: change none of them in place before it.

        Args:
            x: (N, T, Cin, Hx, Wx).
            state: (h₀, c₀), each (N, C, H, W); None for zeros.
            mask: (N, T), a NumPy array that is True where sample n has a frame t.  Where it has none, it keeps its
                state, whatever stands in x; so (h_T, c_T) are those of its last frame.
            draws: where dropout masks are drawn, in training; None drops nothing.
            recompute: keep the state of every `recompute`-th step only, and let `backward` compute the rest again, to
                the same bits; None keeps all.

        Returns:
            h: (N, T, C, H, W), every hidden state.
            state: (h_T, c_T), each (N, C, H, W).
            cache: for `backward`.

        Raises:
            TypeError: an array on another backend or of another dtype; the message names it.
            ValueError: an array of another shape, or a kernel larger than the map.
        """
        check_array(self.backend, "x", x, self.dtype, ("N", "T", self.in_channels, "H", "W"))
        N, T, _, Hx, Wx = x.shape
        every = T if recompute is None else as_count("recompute", recompute)
        check_mask(mask, (N, T))
        cell = self.cell(Hx, Wx)
        state_shape = (N, self.hidden_channels, *cell.over_x.output_shape(Hx, Wx))
        if state is not None:
            self.check_state("state", state, state_shape)
            state = (self.backend.channels_last(state[0]), self.backend.channels_last(state[1]))
        h = self.backend.zeros((N, T, *state_shape[1:]), self.dtype)
        h_last = self.backend.zeros(state_shape, self.dtype)
        c_last = self.backend.zeros(state_shape, self.dtype)

        def run(part: slice) -> tuple[slice, list[Unrolled | Start]]:
            before: Carried | None = None if state is None else (state[0][part], state[1][part])
            valid, drop = steps_of(mask, part, self.backend), self.draw(draws, part, x.shape[2:], state_shape[1:])
            kept: list[Unrolled | Start] = []
            for begin in range(0, T, every):
                chunk = range(begin, min(begin + every, T))
                start = Start(cell, [x[part, t] for t in chunk], before, drop, valid and [valid[t] for t in chunk])
                hs, before, unrolled = unroll_forward(start)
                kept.append(unrolled if chunk.stop == T else start)  # the last, `backward` needs first
                for t, h_t in zip(chunk, hs, strict=True):
                    h[part, t] = h_t
                h_last[part], c_last[part] = hs[-1], before[1]
                del unrolled  # before the next chunk's is computed
            return part, kept

        column_elements = self.column_elements(cell, Hx, Wx)
        parts = self.backend.map_samples(run, N, column_elements)
        return h, (h_last, c_last), LayerCache(self, x.shape, h.shape, parts, column_elements)

    def backward(
        self, cache: LayerCache, dh: Array | None, dstate: State | None = None
    ) -> tuple[Array, State, dict[str, Array]]:
        """Return the gradients of a loss from its gradients to what `forward` returned.

        Args:
            cache: from `forward`; it is not changed and may be used again.
            dh: (N, T, C, H, W), to h; None for zeros.
            dstate: to (h_T, c_T), each (N, C, H, W), added to what reaches them through dh; None for zeros.

        Returns:
            dx: (N, T, Cin, Hx, Wx).
            dstate: to (h₀, c₀), each (N, C, H, W).
            gradients: to each parameter, summed over the samples in the fixed tree of `SampleSum`.

        Raises:
            TypeError, ValueError: as `forward`.
        """
        if not isinstance(cache, LayerCache) or cache.layer is not self:
            given = "another layer's" if isinstance(cache, LayerCache) else f"an object of type {type(cache).__name__}"
            raise TypeError(f"cache must be what this layer's forward returned; got {given}")
        if dh is not None:
            check_array(self.backend, "dh", dh, self.dtype, cache.h_shape)
        N, _, C, H, W = cache.h_shape
        if dstate is not None:
            self.check_state("dstate", dstate, (N, C, H, W))
        dx = self.backend.zeros(cache.x_shape, self.dtype)
        dh_first = self.backend.zeros((N, C, H, W), self.dtype)
        dc_first = self.backend.zeros((N, C, H, W), self.dtype)
        total = SampleSum()

        def run(work: slice) -> None:
            for index in range(work.start, work.stop):
                part, chunks = cache.parts[index]
                gradients = self.zero_gradients()
                after: StateGradient = (None, None) if dstate is None else (dstate[0][part], dstate[1][part])
                end = cache.h_shape[1]
                for kept in reversed(chunks):
                    unrolled = unrolled_again(kept)
                    begin = end - len(unrolled.steps)
                    dhs = None if dh is None else [dh[part, t] for t in range(begin, end)]
                    dxs, after = unroll_backward(unrolled, dhs, after, gradients, to_x=True, to_state=True)
                    for t, dx_t in zip(range(begin, end), dxs, strict=True):
                        if dx_t is not None:
                            dx[part, t] = dx_t
                    end = begin
                    del unrolled
                dh_first[part], dc_first[part] = (0 if d is None else d for d in after)
                total.add(index, gradients.total())

        self.backend.map_samples(run, len(cache.parts), cache.column_elements)  # parts that forward has cut
        gradients = {name: self.backend.contiguous(gradient) for name, gradient in total.total().items()}
        return dx, (dh_first, dc_first), gradients

    def draw(self, draws: Draws | None, part: slice, x_shape: tuple[int, ...], h_shape: tuple[int, ...]) -> Drop:
        """Return the dropout masks of some samples, whose maps are x_shape (Cin, Hx, Wx) and h_shape (C, H, W)."""
        if draws is None:
            return NOTHING
        check_draws(draws)
        masks: list[Array | None] = []
        for role, p, shape in (("x", self.dropout, x_shape), ("h", self.recurrent_dropout, h_shape)):
            wanted = p > 0 and 0 not in shape  # a layer without input has nothing to drop
            purpose = f"{self.name}{role}"
            masks.append(draw_mask(self.backend, draws, part, p, purpose, shape, self.dtype) if wanted else None)
        return Drop(*masks)

    def cell(self, height: int, width: int) -> Cell:
        """Return the parameters, checked, and the geometry for input maps of this size.

        Raises:
            KeyError: a parameter is missing or has no place in this layer.
            TypeError, ValueError: a parameter is not an array of this layer's backend, dtype and shape; the kernel is
                larger than the map; or parameters per pixel are for hidden maps of another size.
        """
        self._check_parameters()
        over_x = POINTWISE  # of a layer without input: its maps are those of its state
        if self.in_channels:
            over_x = resolve_geometry(
                height, width, self.kernel_size, stride=self.stride, dilation=self.dilation, padding=self.padding
            )
        hidden = over_x.output_shape(height, width)
        if "pixel" in (self.bias, self.peephole, self.layer_norm) and hidden != self.spatial_shape:
            raise ValueError(
                f"x of {height}×{width} makes hidden maps of {hidden[0]}×{hidden[1]}, but parameters per pixel are for "
                f"spatial_shape={self.spatial_shape}"
            )
        over_h = resolve_geometry(
            *hidden, self.recurrent_kernel_size, kernel_name="recurrent kernel", map_name="hidden map"
        )
        named = {name: self._in_order(array) for name, array in self.parameters.items()}
        peepholes = Peepholes(named["p_i"], named["p_f"], named["p_o"]) if self.peephole else None
        b = named.get("b", self._constant_bias())
        W_x = self.backend.prepare(named["W_x"], over_x, height, width) if self.in_channels else None
        joined = self.backend.join(named["W_x"], named["W_h"], over_x, over_h, *hidden) if self.in_channels else None
        W_xh, W_h = joined or (None, self.backend.prepare(named["W_h"], over_h, *hidden))
        return Cell(self.backend, W_x, W_h, named.get("gain"), b, peepholes, over_x, over_h, W_xh)

    def zero_gradients(self) -> LayerGradients:
        """Return what the gradients to the parameters are summed in, 0 at first."""
        zeros = {name: self.backend.zeros(shape, self.dtype) for name, shape in self._shapes.items()}
        return LayerGradients(self.backend, zeros)

    def column_elements(self, cell: Cell, height: int, width: int) -> int:
        """Return the elements of the largest array that one sample's convolutions index: columns, or x itself."""
        H, W = cell.over_x.output_shape(height, width)
        columns = (
            int(np.prod(kernel.shape[1:])) * H * W for kernel in (cell.W_x, cell.W_h) if kernel is not None
        )  # channels × taps × outputs
        return max(*columns, self.in_channels * height * width)

    def _constant_bias(self) -> Array | None:
        """Return the bias of a layer that learns none: a constant on the forget gate, or None."""
        if not self._constant_forget_bias:
            return None
        C = self.hidden_channels
        b = np.zeros(4 * C, self.dtype)
        b[C : 2 * C] = self._constant_forget_bias
        return self.backend.asarray(b)

    def _in_order(self, parameter: Array) -> Array:
        """Return a parameter in the one order of memory that it is used in: a sum's bits may depend on it."""
        per_pixel = parameter.ndim == 3
        return self.backend.channels_last(parameter) if per_pixel else self.backend.contiguous(parameter)

    def _check_parameters(self) -> None:
        if not isinstance(self.parameters, Mapping):
            raise TypeError(f"parameters must be a dict of arrays; got {type(self.parameters).__name__}")
        if self.parameters.keys() != self._shapes.keys():
            odd = ", ".join(sorted(self.parameters.keys() ^ self._shapes.keys()))
            raise KeyError(f"parameters must be {', '.join(self._shapes)}; missing or unknown: {odd}")
        for name, shape in self._shapes.items():
            check_array(self.backend, f"parameters[{self.name + name!r}]", self.parameters[name], self.dtype, shape)

    def check_state(self, name: str, state: State, shape: tuple[int, ...]) -> None:
        """Check that a state, or a gradient to one, is a pair of arrays of this shape; raise as `forward`."""
        name = f"{name} of {self.name.rstrip('.')}" if self.name else name
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{name} must be a pair of arrays (h, c); got {type(state).__name__}")
        for part, array in zip(("h", "c"), state, strict=True):
            check_array(self.backend, f"{name} {part}", array, self.dtype, shape)


def give_parameters(layers: Iterable[ConvLSTM], parameters: Mapping[str, Array], others: Iterable[str] = ()) -> None:
    """Hand the parameters of several layers, each under its layer's name and its own, to the layers.

    Raises:
        KeyError: a parameter is missing, or belongs neither to a layer nor to `others`.
    """
    layers = list(layers)
    own = [layer.name + name for layer in layers for name in layer.parameters] + list(others)
    if parameters.keys() != set(own):
        odd = ", ".join(sorted(parameters.keys() ^ set(own)))
        raise KeyError(f"parameters must be {', '.join(own)}; missing or unknown: {odd}")
    for layer in layers:
        layer.parameters = {name: parameters[layer.name + name] for name in layer.parameters}


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text; got {value!r}")
    return value


def _kind(name: str, value: Any) -> Kind:
    for kind in KINDS:
        if value is kind or (isinstance(value, str) and value == kind):
            return kind
    raise ValueError(f'{name} must be None, "channel" or "pixel"; got {value!r}')


def _probability(name: str, value: float) -> float:
    return as_number(name, value, "be a probability p with 0 ≤ p < 1", lambda p: 0 <= p < 1)


def _finite(name: str, value: float, dtype: np.dtype[Any]) -> float:
    most = float(np.finfo(dtype).max)
    return as_number(name, value, f"be a finite number of {dtype}", lambda number: abs(number) <= most)


def _float(name: str, value: npt.DTypeLike) -> np.dtype[Any]:
    try:
        dtype = np.dtype("O" if value is None else value)  # None would mean float64 to NumPy
    except TypeError:
        dtype = np.dtype("O")
    if dtype not in (np.dtype("float32"), np.dtype("float64")):
        raise ValueError(f'{name} must be "float32" or "float64"; got {value!r}')
    return dtype
