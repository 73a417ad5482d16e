"""Weights in each layout, small and all different, and how a misfit is refused: for tests of foreign_weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm.foreign_weights import Weights, from_pytorch

Array = NDArray[Any]


def ndrplz(hidden: tuple[int, ...] = (2, 3), Cin: int = 1, *, bias: bool = True) -> Weights:
    """Return weights in ndrplz's layout, all different."""
    rng = np.random.default_rng(0)
    weights = {}
    for index, (below, C) in enumerate(zip((Cin, *hidden), hidden, strict=False)):
        weights[f"cell_list.{index}.conv.weight"] = rng.standard_normal((4 * C, below + C, 3, 3))
        if bias:
            weights[f"cell_list.{index}.conv.bias"] = rng.standard_normal(4 * C)
    return weights


def under_a_head() -> Weights:
    return {**ndrplz(), "head.weight": np.ones((4, 3, 1, 1)), "head.bias": np.ones(4)}


def openstl() -> Weights:
    rng = np.random.default_rng(0)
    shapes = {
        "cell_list.0.conv_x.0.weight": (8, 1, 3, 3),
        "cell_list.0.conv_h.0.weight": (8, 2, 3, 3),
        "cell_list.0.conv_o.0.weight": (2, 4, 3, 3),
        "cell_list.0.conv_last.weight": (2, 4, 1, 1),
        "cell_list.1.conv_x.0.weight": (12, 2, 3, 3),
        "cell_list.1.conv_h.0.weight": (12, 3, 3, 3),
        "cell_list.1.conv_o.0.weight": (3, 6, 3, 3),
        "cell_list.1.conv_last.weight": (3, 6, 1, 1),
        "conv_last.weight": (1, 3, 1, 1),
    }
    return {key: rng.standard_normal(shape) for key, shape in shapes.items()}


def keras() -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in ((3, 2, 1, 8), (3, 2, 2, 8), (8,))]


def layer() -> Weights:
    rng = np.random.default_rng(0)
    return {"W_x": rng.standard_normal((8, 1, 3, 3)), "W_h": rng.standard_normal((8, 2, 3, 3)), "b": np.ones(8)}


def stack() -> Weights:
    return from_pytorch(ndrplz())


class Tensor:
    """What this project uses of a tensor that lies on a device and requires a gradient."""

    def __init__(self, array: Array, at: str = "device") -> None:
        self._array, self._at = array, at
        self.dtype = f"torch.{array.dtype}"

    def detach(self) -> Tensor:
        return Tensor(self._array, self._at + ", detached")

    def cpu(self) -> Tensor:
        return Tensor(self._array, "host" + self._at.removeprefix("device"))

    def numpy(self) -> Array:
        assert self._at == "host, detached"  # elsewhere PyTorch raises
        return self._array

    def __array__(self, *arguments: Any, **keywords: Any) -> Array:
        raise TypeError("a tensor on a device does not become an array by itself")


def assert_raises_one_line(error: type[Exception], message: str, call: Any, *arguments: Any) -> None:
    with pytest.raises(error, match=message) as raised:
        call(*arguments)
    assert "\n" not in str(raised.value)
