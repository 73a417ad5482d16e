"""Which pixels a kernel touches: kernel size, stride, dilation and padding of one convolution, resolved to numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeGuard

import numpy as np

Pair = tuple[int, int]
Padding = Literal["same", "valid"] | int | Pair | tuple[Pair, Pair]


@dataclass(frozen=True)
class Geometry:
    """One convolution's geometry; every pair is (vertical, horizontal), in pixels.

    Output pixel y of an axis reads the padded input at y·stride + k·dilation for k = 0 … kernel - 1.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: tuple[Pair, Pair]  # ((top, bottom), (left, right)) zeros around the input

    @property
    def extent(self) -> Pair:
        """The kernel's height and width on the map, gaps of the dilation included."""
        return (
            (self.kernel[0] - 1) * self.dilation[0] + 1,
            (self.kernel[1] - 1) * self.dilation[1] + 1,
        )

    def output_shape(self, height: int, width: int) -> Pair:
        """Return the (height, width) of the convolution of a height × width map."""
        return (
            (height + sum(self.padding[0]) - self.extent[0]) // self.stride[0] + 1,
            (width + sum(self.padding[1]) - self.extent[1]) // self.stride[1] + 1,
        )


def as_pair(name: str, value: int | Pair, *, least: int = 1) -> Pair:
    """Return `value` as a (vertical, horizontal) pair of integers ≥ `least`; an integer stands for both.

    Raises:
        ValueError: `value` is something else; the message calls it `name`.
    """
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(map(_is_whole, pair)) or min(pair) < least:
        raise ValueError(f"{name} must be an integer ≥ {least} or a pair of them; got {value!r}")
    return (int(pair[0]), int(pair[1]))


def as_count(name: str, value: object) -> int:
    """Return `value`, an integer ≥ 1; anything else is a ValueError that calls it `name`."""
    if not _is_whole(value) or value < 1:
        raise ValueError(f"{name} must be an integer ≥ 1; got {value!r}")
    return int(value)


def as_counts(name: str, values: object) -> tuple[int, ...]:
    """Return `values`, a list or tuple of integers ≥ 1 that is not empty; anything else is a ValueError."""
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"{name} must be a list, one number for each layer; got {values!r}")
    return tuple(as_count(name, value) for value in values)


def as_bool(name: str, value: object) -> bool:
    """Return `value`, True or False; anything else is a ValueError that calls it `name`."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def _is_whole(value: object) -> TypeGuard[int]:
    """Say whether a value is an integer, NumPy's too, and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def same_padding(size: int, extent: int, stride: int) -> Pair:
    """Return the zeros (before, after) one axis that make its output ⌈size / stride⌉ long.

    The odd zero goes behind, as Keras and TensorFlow have it.  For stride 1 that is extent - 1 zeros in all.
    """
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def resolve_geometry(
    height: int, width: int, kernel: Pair, *, stride: Pair = (1, 1), dilation: Pair = (1, 1), padding: Padding = "same",
    kernel_name: str = "kernel", map_name: str = "map",
) -> Geometry:  # fmt: skip
    """Return the geometry of convolving a `height` × `width` map.

    Args:
        height: rows of the input map.
        width: columns of the input map.
        kernel: kernel height and width.
        stride: pixels between two outputs.
        dilation: pixels between two taps.
        padding: "same" (output ⌈size / stride⌉), "valid" (none), an integer, (vertical, horizontal) or
            ((top, bottom), (left, right)).
        kernel_name: what messages call the kernel.
        map_name: what messages call the map.

    Raises:
        ValueError: the kernel is larger than the map it is laid on, or `padding` is none of the above.
    """
    bare = Geometry(kernel, stride, dilation, ((0, 0), (0, 0)))
    sides = _padding_sides(padding, (height, width), bare)
    room = (height, width) if isinstance(padding, str) else (height + sum(sides[0]), width + sum(sides[1]))
    if bare.extent[0] > room[0] or bare.extent[1] > room[1]:
        padded = "" if room == (height, width) else f" padded to {room[0]}×{room[1]}"
        spread = "" if bare.extent == kernel else f" (dilated to {bare.extent[0]}×{bare.extent[1]})"
        raise ValueError(
            f"{kernel_name} {kernel[0]}×{kernel[1]}{spread} is larger than the {map_name} {height}×{width}{padded}; "
            "use a smaller kernel or a larger map"
        )
    return Geometry(kernel, stride, dilation, sides)


def check_padding(padding: Padding) -> None:
    """Check that `padding` is one of the forms that `resolve_geometry` takes; else raise its ValueError."""
    _padding_sides(padding, (1, 1), Geometry((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))))


def _padding_sides(padding: Padding, size: Pair, bare: Geometry) -> tuple[Pair, Pair]:
    if isinstance(padding, str) and padding == "same":
        vertical = same_padding(size[0], bare.extent[0], bare.stride[0])
        return vertical, same_padding(size[1], bare.extent[1], bare.stride[1])
    if isinstance(padding, str) and padding == "valid":
        return (0, 0), (0, 0)
    try:
        top_bottom, left_right = padding if isinstance(padding, (tuple, list)) else (padding, padding)
        return as_pair("padding", top_bottom, least=0), as_pair("padding", left_right, least=0)
    except (TypeError, ValueError):
        raise ValueError(
            f'padding must be "same", "valid", an integer ≥ 0, (vertical, horizontal) or '
            f"((top, bottom), (left, right)); got {padding!r}"
        ) from None


POINTWISE = resolve_geometry(1, 1, (1, 1))  # a 1×1 kernel's geometry is the same on every map
