"""A layer's named weights: their shapes, their initial values, and the fixed tree in which gradients are summed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from convlstm.backends.contract import Array
from convlstm.randomness import generator

Kind = Literal["channel", "pixel"] | None
KINDS: tuple[Kind, ...] = (None, "channel", "pixel")


def layer_shapes(
    in_channels: int, hidden_channels: int, kernel: tuple[int, int], recurrent_kernel: tuple[int, int],
    *, bias: Kind, peephole: Kind, spatial_shape: tuple[int, int] | None, layer_norm: Kind = None,
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    """Return the name and shape of every parameter of a ConvLSTM layer; without input it has no W_x.

    Raises:
        ValueError: a gain, bias or peephole per pixel without `spatial_shape`.
    """
    C = hidden_channels
    shapes: dict[str, tuple[int, ...]] = {"W_x": (4 * C, in_channels, *kernel)} if in_channels else {}
    shapes["W_h"] = (4 * C, C, *recurrent_kernel)
    if layer_norm is not None:
        shapes["gain"] = (4 * C, *_per_pixel("layer_norm", layer_norm, spatial_shape))
    if bias is not None:
        shapes["b"] = (4 * C, *_per_pixel("bias", bias, spatial_shape))
    if peephole is not None:
        for name in ("p_i", "p_f", "p_o"):
            shapes[name] = (C, *_per_pixel("peephole", peephole, spatial_shape))
    return shapes


def _per_pixel(what: str, kind: Kind, spatial_shape: tuple[int, int] | None) -> tuple[int, ...]:
    if kind == "channel":
        return ()
    if spatial_shape is None:
        raise ValueError(f'{what}="pixel" needs spatial_shape=(H, W), the height and width of the hidden maps')
    return spatial_shape


def initial_layer(
    shapes: Mapping[str, tuple[int, ...]], dtype: npt.DTypeLike, seed: int, purpose: str, forget_bias: float = 1.0
) -> dict[str, Array]:
    """Return a layer's initial parameters as NumPy arrays.

    Kernels are uniform in ±1/√fan_in with fan_in = (Cin + C)·K·K, the fan of the convolution over [x, h] that they
    share (LeCun et al., "Efficient BackProp", 1998).  Biases are 0 but the forget gate's, which is 1, so that memory
    is kept at first (Jozefowicz et al., ICML 2015).  Peepholes are 0: they learn from what the cell then holds.  Gains
    are 1.
    """
    kernels = [name for name in ("W_x", "W_h") if name in shapes]
    fan_in = sum(int(np.prod(shapes[name][1:])) for name in kernels)
    parameters = {name: np.full(shape, name == "gain", dtype) for name, shape in shapes.items()}
    for name in kernels:
        parameters[name] = uniform(shapes[name], 1 / fan_in**0.5, dtype, seed, f"{purpose}{name}")
    if "b" in shapes:
        C = shapes["W_h"][1]
        parameters["b"][C : 2 * C] = forget_bias
    return parameters


def uniform(shape: tuple[int, ...], bound: float, dtype: npt.DTypeLike, seed: int, purpose: str) -> Array:
    """Return numbers uniform in ±bound, drawn in float64 and rounded to `dtype`."""
    return ((generator(seed, f"parameter/{purpose}").random(shape) * 2 - 1) * bound).astype(dtype)


class SampleSum:
    """Sums what samples contribute, in a tree that the sample index alone determines.

    Node (level, k) is the sum of samples k·2^level … (k+1)·2^level - 1, its left half plus its right half.  A node is
    formed as soon as both halves are there, whoever brings them and in whatever order; so the bits of the total depend
    neither on threads nor on how a batch was cut into micro-batches or over processes.

    The nodes that are left over when the number of samples is no power of two are added from the smallest upwards.
    """

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], dict[str, Array]] = {}
        self._added: set[int] = set()
        self._lock = threading.Lock()

    def add(self, sample: int, contribution: Mapping[str, Array]) -> None:
        """Take the contribution of one sample; its arrays are not changed.

        Raises:
            ValueError: this sample has been added before.
        """
        with self._lock:
            if sample in self._added:
                raise ValueError(f"sample {sample} was added twice")
            self._added.add(sample)
        level, k, total = 0, sample, dict(contribution)
        while True:
            with self._lock:
                sibling = self._nodes.pop((level, k ^ 1), None)
                if sibling is None:
                    self._nodes[level, k] = total
                    return
            left, right = (sibling, total) if k & 1 else (total, sibling)
            total = {name: left[name] + right[name] for name in left}
            level, k = level + 1, k >> 1

    def total(self) -> dict[str, Array]:
        """Return the sum over all samples added so far.

        Raises:
            ValueError: no sample has been added.
        """
        if not self._nodes:
            raise ValueError("no sample has been added")
        # From the highest sample index down: left-over nodes shrink towards the end of a gapless range.
        ordered = sorted(self._nodes.items(), key=lambda node: node[0][1] << node[0][0], reverse=True)
        return _sum_right_to_left(contribution for _, contribution in ordered)


def _sum_right_to_left(contributions: Iterable[dict[str, Array]]) -> dict[str, Array]:
    nodes = iter(contributions)
    total = next(nodes)
    for node in nodes:
        total = {name: node[name] + total[name] for name in node}
    return total
