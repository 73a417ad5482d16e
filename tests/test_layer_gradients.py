"""The sums of a layer's gradients: parameters step by step, kernels as the backend likes, one dictionary at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convlstm.backends import Array
from convlstm.backends.convolution import gradient_weights
from convlstm.backends.geometry import resolve_geometry
from convlstm.backends.numpy_backend import NumpyBackend, WinogradBackend
from convlstm.layer_gradients import LayerGradients
from tests.numerical import freeze

GEOMETRY = resolve_geometry(8, 9, (3, 3))
BACKENDS = [NumpyBackend(1), WinogradBackend(1)]


def zeros() -> dict[str, Array]:
    return {"W_x": np.zeros((32, 8, 3, 3)), "W_h": np.zeros((32, 8, 3, 3)), "b": np.zeros(32)}


def steps(T: int) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(0)
    made = [(rng.standard_normal((1, 8, 8, 9)), rng.standard_normal((1, 32, 8, 9))) for _ in range(T)]
    freeze(made)
    return made


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_each_kernel_and_each_parameter_is_summed_over_its_own_steps(backend: NumpyBackend) -> None:
    W = np.random.default_rng(1).standard_normal((32, 8, 3, 3))
    sums, kernel = LayerGradients(backend, zeros()), backend.prepare(W, GEOMETRY, 8, 9)
    assert (kernel is W) == (backend.name == "numpy")
    given = steps(5)
    for t, (x, dz) in enumerate(given):
        sums.add("b", dz.sum(axis=(0, 2, 3)))
        sums.add_kernel("W_x", kernel, x, dz, GEOMETRY)
        if t < 4:
            sums.add_kernel("W_h", kernel, x + 1, dz, GEOMETRY)
    total = sums.total()
    shares = [backend.gradient_weights(x, dz, GEOMETRY) for x, dz in given]
    assert list(total) == ["W_x", "W_h", "b"]
    close(total["W_x"], np.sum(shares, axis=0))
    close(total["W_h"], np.sum([backend.gradient_weights(x + 1, dz, GEOMETRY) for x, dz in given[:4]], axis=0))
    close(total["b"], np.sum([dz for _, dz in given], axis=(0, 1, 3, 4)))


def close(found: Array, right: Array) -> None:
    assert found.shape == right.shape
    np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize("first", [False, True], ids=["all steps joined", "the first without h"])
def test_two_kernels_side_by_side_are_parted_at_the_end(backend: NumpyBackend, first: bool) -> None:
    W = np.random.default_rng(1).standard_normal((32, 11, 3, 3))
    shapes = {"W_x": np.zeros((32, 3, 3, 3)), "W_h": np.zeros((32, 8, 3, 3))}
    sums, both = LayerGradients(backend, shapes), backend.prepare(W, GEOMETRY, 8, 9)
    rng = np.random.default_rng(2)
    right = np.zeros((32, 11, 3, 3))
    for t in range(4):
        xh, dz = rng.standard_normal((1, 11, 8, 9)), rng.standard_normal((1, 32, 8, 9))
        if t == 3 and first:  # backward it is the last
            sums.add_kernel("W_x", W[:, :3], xh[:, :3], dz, GEOMETRY)
            xh[:, 3:] = 0
        else:
            sums.add_kernel("W_xh", both, xh, dz, GEOMETRY)
        right += gradient_weights(xh, dz, GEOMETRY)
    total = sums.total()
    assert list(total) == ["W_x", "W_h"]
    close(total["W_x"], right[:, :3])
    close(total["W_h"], right[:, 3:])


def test_what_no_step_has_is_zero() -> None:
    """As W_h in a sequence of one step from zeros."""
    sums = LayerGradients(NumpyBackend(1), zeros())
    (x, dz), *_ = steps(1)
    sums.add_kernel("W_x", np.zeros((32, 8, 3, 3)), x, dz, GEOMETRY)
    total = sums.total()
    assert total["W_x"].any()
    np.testing.assert_array_equal(total["W_h"], np.zeros((32, 8, 3, 3)))
    np.testing.assert_array_equal(total["b"], np.zeros(32))


def test_nothing_at_all_is_all_zeros() -> None:
    total = LayerGradients(NumpyBackend(1), zeros()).total()
    assert {name: gradient.shape for name, gradient in total.items()} == {
        name: zero.shape for name, zero in zeros().items()
    }
    assert not any(gradient.any() for gradient in total.values())


def test_it_knows_what_the_layer_learns() -> None:
    """A constant forget bias is added like a bias, and is none."""
    sums = LayerGradients(NumpyBackend(1), zeros())
    assert "b" in sums
    assert "W_x" in sums
    assert "p_i" not in sums
    with pytest.raises(KeyError):
        sums.add("p_i", np.zeros(8))


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_no_sum_shares_memory_with_another_or_with_a_step(backend: NumpyBackend) -> None:
    """Where two kernels are summed from the same arrays, and in one group as in many."""
    W = np.zeros((32, 8, 3, 3))
    given = steps(2)
    share = given[0][1].sum(axis=(0, 2, 3))
    totals = []
    for _ in range(2):
        sums = LayerGradients(backend, zeros())
        sums.add("b", share)
        for x, dz in given:
            for name in ("W_x", "W_h"):
                sums.add_kernel(name, backend.prepare(W, GEOMETRY, 8, 9), x, dz, GEOMETRY)
        totals.append(sums.total())
    arrays = [array for total in totals for array in total.values()]
    for index, array in enumerate(arrays):
        others = [*arrays[:index], *arrays[index + 1 :], share, *(each for step in given for each in step)]
        assert not any(np.shares_memory(array, other) for other in others)
    for name, array in totals[0].items():
        np.testing.assert_array_equal(array, totals[1][name])


class OneStepLost:
    """A kernel's sum that forgets its first step: what a wrong beginning of a group would do."""

    def __init__(self, right: Any) -> None:
        self.right, self.added = right, 0

    def add(self, x: Array, dz: Array) -> None:
        self.added += 1
        if self.added > 1:
            self.right.add(x, dz)

    def total(self) -> Array | None:
        found: Array | None = self.right.total()
        return found


@pytest.mark.parametrize("backend", [NumpyBackend, WinogradBackend])
def test_a_planted_step_that_is_lost_is_seen(
    backend: Callable[[int], NumpyBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = backend(1)
    right = broken.kernel_gradient
    monkeypatch.setattr(broken, "kernel_gradient", lambda *arguments: OneStepLost(right(*arguments)))
    with pytest.raises(AssertionError):
        test_each_kernel_and_each_parameter_is_summed_over_its_own_steps(broken)
