"""The elementwise half of a step against the paper's equations written out, and its backward against differences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from convlstm.backends import Array, gates
from convlstm.backends.contract import Gates, Peepholes
from tests.numerical import directional_error, freeze, numeric_gradients, read_only

VARIANTS = [(bias, peephole, with_h) for bias in (0, 1, 3) for peephole in (0, 1, 3) for with_h in (False, True)]


def operands(bias: int, peephole: int, with_h: bool, shape: tuple[int, ...] = (2, 3, 2, 4)) -> dict[str, Array]:
    """Return random operands; bias and peephole say how many axes they have, 0 for none."""
    rng = np.random.default_rng(1)
    N, C, H, W = shape
    arrays = {"z_x": rng.standard_normal((N, 4 * C, H, W)), "c": rng.standard_normal((N, C, H, W))}
    if with_h:
        arrays["z_h"] = rng.standard_normal((N, 4 * C, H, W))
    if bias:
        arrays["b"] = rng.standard_normal((4 * C, H, W)[:bias])
    if peephole:
        arrays |= {name: rng.standard_normal((C, H, W)[:peephole]) for name in ("p_i", "p_f", "p_o")}
    return arrays


def forward(arrays: Mapping[str, Array]) -> tuple[Array, Array, Gates]:
    peepholes = Peepholes(arrays["p_i"], arrays["p_f"], arrays["p_o"]) if "p_i" in arrays else None
    return gates.gates_forward(arrays["z_x"], arrays.get("z_h"), arrays.get("b"), arrays["c"], peepholes)


def written_out(arrays: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return (h, c) by the paper's equations, line for line."""

    def wide(parameter: Array | float) -> Array:
        return np.asarray(parameter)[:, None, None] if np.ndim(parameter) == 1 else np.asarray(parameter)

    def logistic(z: Array) -> Array:
        return 1 / (1 + np.exp(-z))

    z = arrays["z_x"] + arrays.get("z_h", 0.0) + wide(arrays.get("b", 0.0))
    z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
    p_i, p_f, p_o = (wide(arrays.get(name, 0.0)) for name in ("p_i", "p_f", "p_o"))
    i = logistic(z_i + p_i * arrays["c"])
    f = logistic(z_f + p_f * arrays["c"])
    c = f * arrays["c"] + i * np.tanh(z_g)
    o = logistic(z_o + p_o * c)
    return o * np.tanh(c), c


@pytest.mark.parametrize(("bias", "peephole", "with_h"), VARIANTS)
def test_forward_is_the_papers(bias: int, peephole: int, with_h: bool) -> None:
    arrays = read_only(operands(bias, peephole, with_h))
    h, c, _ = forward(arrays)
    h_right, c_right = written_out(arrays)
    np.testing.assert_allclose(h, h_right, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(c, c_right, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("bias", "peephole", "with_h"), VARIANTS)
def test_backward_against_central_differences(bias: int, peephole: int, with_h: bool) -> None:
    arrays = read_only(operands(bias, peephole, with_h))
    rng = np.random.default_rng(2)
    dh, dc = (rng.standard_normal(arrays["c"].shape) for _ in range(2))
    freeze((dh, dc))

    def loss(changed: Mapping[str, Array]) -> float:
        h, c, _ = forward({**arrays, **changed})
        return float((h * dh).sum() + (c * dc).sum())

    kept = forward(arrays)[2]
    freeze(kept)
    dz, dc_previous = gates.gates_backward(dh, dc, kept)
    numeric = numeric_gradients(loss, {"z_x": arrays["z_x"], "c": arrays["c"]})
    np.testing.assert_allclose(dz, numeric["z_x"], atol=1e-9)
    np.testing.assert_allclose(dc_previous, numeric["c"], atol=1e-9)


@pytest.mark.parametrize("peephole", [0, 1, 3])
def test_strips_change_no_bit(peephole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The width of a strip is a matter of cache, not of result; the last strip here is a short one."""
    arrays = operands(3, peephole, True, shape=(2, 3, 5, 7))
    whole = forward(arrays)
    dwhole = gates.gates_backward(whole[0], whole[1], whole[2])
    monkeypatch.setattr(gates, "STRIP_ELEMENTS", 3 * 4)
    strips = forward(arrays)
    dstrips = gates.gates_backward(strips[0], strips[1], strips[2])
    for one, other in zip((*whole[:2], *dwhole), (*strips[:2], *dstrips), strict=True):
        np.testing.assert_array_equal(one, other)


def test_large_pre_activations_saturate_without_overflow() -> None:
    arrays = operands(0, 0, False)
    arrays["z_x"] = arrays["z_x"] * 1e4
    h, c, kept = forward(arrays)
    dz, dc = gates.gates_backward(np.ones_like(h), np.ones_like(c), kept)
    assert all(np.isfinite(array).all() for array in (h, c, dz, dc))


def test_a_dropped_peephole_term_would_be_seen() -> None:
    """Plant the fault: a backward that forgets p_o∘dz_o differs in direction ⟨v, Jᵀu⟩ by far more than rounding."""
    arrays = operands(1, 1, True)
    dh = np.random.default_rng(3).standard_normal(arrays["c"].shape)

    def loss(changed: Mapping[str, Array]) -> float:
        return float((forward({**arrays, **changed})[0] * dh).sum())

    kept = forward(arrays)[2]
    right, _ = gates.gates_backward(dh, np.zeros_like(dh), kept)
    assert kept.peepholes is not None
    faulty = kept._replace(peepholes=kept.peepholes._replace(p_o=np.zeros(3)))
    wrong, _ = gates.gates_backward(dh, np.zeros_like(dh), faulty)
    probe = {"z_x": arrays["z_x"]}
    assert directional_error(loss, probe, {"z_x": right}) < 1e-7
    assert directional_error(loss, probe, {"z_x": wrong}) > 1e-3
