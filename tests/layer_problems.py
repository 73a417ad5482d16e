"""A layer or a stack with random operands and a loss that reads all it returns, for tests of gradients and bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convlstm import ConvLSTM, ConvLSTMStack
from convlstm.backends import Array
from convlstm.backends.contract import Result
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.layer_stack import StackCache
from tests.numerical import freeze, numeric_gradients, read_only


class Problem:
    """A layer, random operands, and the loss ⟨u, (h, h_T, c_T)⟩ whose gradient `backward` is asked for.

    `call` is what `ConvLSTM.forward` is given besides x and the state: mask, draws, recompute.  Without `state` the
    layer starts from None.
    """

    def __init__(
        self, N: int, T: int, size: tuple[int, int], *, seed: int = 0, threads: int = 1, state: bool = True,
        call: Mapping[str, Any] | None = None, **layer: Any,
    ) -> None:  # fmt: skip
        self.layer = ConvLSTM(**{"dtype": "float64", "backend": "numpy", **layer})
        self.layer.backend = NumpyBackend(threads)  # one is quickest on maps this small
        self.call = dict(call or {})
        rng = np.random.default_rng(seed)

        def random(shape: tuple[int, ...]) -> Array:
            return rng.standard_normal(shape).astype(self.layer.dtype)

        # Larger than the initial values, so that every gate leaves its linear range.
        self.arrays = {name: random(array.shape) / 2 for name, array in self.layer.parameters.items()}
        self.arrays["x"] = random((N, T, self.layer.in_channels, *size))
        hidden = (N, self.layer.hidden_channels, *self.layer.cell(*size).over_x.output_shape(*size))
        if state:
            self.arrays["h0"], self.arrays["c0"] = random(hidden), random(hidden)
        self.u_h = random((N, T, *hidden[1:]))
        self.u_state = (random(hidden), random(hidden))
        freeze((self.u_h, self.u_state))

    def forward(self, arrays: Mapping[str, Array]) -> tuple[Array, tuple[Array, Array], Any]:
        self.layer.parameters = {name: arrays[name] for name in self.layer.parameters}
        state = (arrays["h0"], arrays["c0"]) if "h0" in arrays else None
        return self.layer.forward(arrays["x"], state, **self.call)

    def loss(self, arrays: Mapping[str, Array]) -> float:
        h, (h_T, c_T), _ = self.forward(arrays)
        return float((h * self.u_h).sum() + (h_T * self.u_state[0]).sum() + (c_T * self.u_state[1]).sum())

    def gradients(self) -> dict[str, Array]:
        found = self.results()
        return {name: found["d" + name] for name in self.arrays}

    def results(self) -> dict[str, Array]:
        """Return all that forward gives, and under "d" and its name the gradient to each operand."""
        h, (h_T, c_T), cache = self.forward(read_only(self.arrays))
        freeze(cache)
        dx, (dh0, dc0), gradients = self.layer.backward(cache, self.u_h, self.u_state)
        named = {"d" + name: gradient for name, gradient in gradients.items()}
        return {"h": h, "h_T": h_T, "c_T": c_T, "dx": dx, "dh0": dh0, "dc0": dc0, **named}

    def of(self, part: slice) -> Problem:
        """Return the problem of some of the samples."""
        some = object.__new__(Problem)
        some.layer, some.call, some.arrays = self.layer, dict(self.call), dict(self.arrays)
        some.arrays.update({name: self.arrays[name][part] for name in ("x", "h0", "c0") if name in self.arrays})
        if "mask" in self.call:
            some.call["mask"] = self.call["mask"][part]
        if self.call.get("draws") is not None:
            draws = self.call["draws"]
            some.call["draws"] = draws._replace(first=draws.first + part.start)
        some.u_h, some.u_state = self.u_h[part], (self.u_state[0][part], self.u_state[1][part])
        return some


def small_layer(**options: Any) -> ConvLSTM:
    """Return the simplest layer, but for what is asked for."""
    return ConvLSTM(**{"in_channels": 1, "hidden_channels": 2, "backend": "numpy", **options})


class StackProblem:
    """A stack, random operands, and the loss ⟨u, (output, states)⟩."""

    def __init__(
        self, N: int = 2, T: int = 3, hidden: tuple[int, ...] = (3, 2), size: tuple[int, int] = (4, 5), *,
        states: bool = True, threads: int = 1, call: Mapping[str, Any] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        chosen = {"dtype": "float64", "backend": "numpy", "peephole": "channel", **options}
        self.stack = ConvLSTMStack(2, hidden, **chosen)
        backend = NumpyBackend(threads)  # one thread is quickest on maps this small
        self.stack.backend = backend
        for layer in self.stack.layers:
            layer.backend = backend
        self.call = dict(call or {})
        rng = np.random.default_rng(0)

        def random(shape: tuple[int, ...]) -> Array:
            return rng.standard_normal(shape).astype(self.stack.dtype)

        self.arrays = {name: random(array.shape) / 2 for name, array in self.stack.parameters.items()}
        self.arrays["x"] = random((N, T, 2, *size))
        output, after, _ = self.forward(self.arrays)
        if states:
            for k, (h, c) in enumerate(after):
                self.arrays[f"h{k}"], self.arrays[f"c{k}"] = random(h.shape), random(c.shape)
        self.u = random(output.shape)
        self.u_states = [(random(h.shape), random(c.shape)) for h, c in after]
        freeze((self.u, self.u_states))

    def forward(self, arrays: Mapping[str, Array]) -> tuple[Array, Any, StackCache]:
        self.stack.parameters = {name: arrays[name] for name in self.stack.parameters}
        layers = range(len(self.stack.layers))
        states = [(arrays[f"h{k}"], arrays[f"c{k}"]) for k in layers] if "h0" in arrays else None
        return self.stack.forward(arrays["x"], states, **self.call)

    def loss(self, arrays: Mapping[str, Array]) -> float:
        output, states, _ = self.forward(arrays)
        pairs = zip(itertools.chain(*states), itertools.chain(*self.u_states), strict=True)
        return float((output * self.u).sum() + sum((found * u).sum() for found, u in pairs))

    def results(self) -> dict[str, Array]:
        """Return all that forward gives, and under "d" and its name the gradient to each operand."""
        output, states, cache = self.forward(read_only(self.arrays))
        freeze(cache)
        dx, dstates, gradients = self.stack.backward(cache, self.u, self.u_states)
        found = {"output": output, "dx": dx, **{"d" + name: gradient for name, gradient in gradients.items()}}
        for k, ((h, c), (dh, dc)) in enumerate(zip(states, dstates, strict=True)):
            found |= {f"h{k}": h, f"c{k}": c, f"dh{k}": dh, f"dc{k}": dc}
        return found

    def gradients(self) -> dict[str, Array]:
        found = self.results()
        return {name: found["d" + name] for name in self.arrays}


class WholeBatch(NumpyBackend):
    """NumPy that computes a batch at once, as CuPy does."""

    def map_samples(self, work: Callable[[slice], Result], samples: int, column_elements: int) -> list[Result]:
        return super().map_samples(lambda part: work(slice(0, samples)), 1, column_elements)


def assert_proved(problem: Problem) -> None:
    """Hold every element of every gradient against its central difference."""
    gradients = problem.gradients()
    numeric = numeric_gradients(problem.loss, problem.arrays)
    assert gradients.keys() == numeric.keys()
    for name, right in numeric.items():
        assert gradients[name].shape == right.shape, name
        np.testing.assert_allclose(gradients[name], right, rtol=1e-7, atol=1e-8, err_msg=name)


def assert_same_bits(found: Mapping[str, Array], right: Mapping[str, Array]) -> None:
    """Compare values, not bytes: zeros may differ in sign, NaN equals NaN."""
    assert found.keys() == right.keys()
    for name, array in right.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)
