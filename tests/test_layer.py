"""Proof of the backpropagation through time: every variant of `ConvLSTM` against central differences in float64."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm import ConvLSTM, Draws
from convlstm.backends import Array
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.parameters import Kind
from tests.layer_problems import Problem, assert_proved, assert_same_bits, small_layer
from tests.numerical import directional_error

KINDS: tuple[Kind, ...] = (None, "channel", "pixel")
VARIANTS = [(bias, peephole) for bias in KINDS for peephole in KINDS]


@pytest.mark.parametrize(("T", "N"), [(1, 1), (2, 1), (5, 1), (2, 3)])
@pytest.mark.parametrize(("bias", "peephole"), VARIANTS)
def test_every_element_of_every_gradient(bias: Kind, peephole: Kind, T: int, N: int) -> None:
    assert_proved(
        Problem(
            N,
            T,
            (3, 2),
            in_channels=1,
            hidden_channels=2,
            kernel_size=2,
            bias=bias,
            peephole=peephole,
            spatial_shape=(3, 2),
        )
    )


GEOMETRIES: dict[str, dict[str, Any]] = {
    "1x1": {"kernel_size": 1},
    "even": {"kernel_size": 4},
    "2x3": {"kernel_size": (2, 3)},
    "other recurrent kernel": {"kernel_size": 3, "recurrent_kernel_size": 1},
    "stride 2": {"kernel_size": 3, "recurrent_kernel_size": 2, "stride": 2},
    "valid": {"kernel_size": 3, "recurrent_kernel_size": 2, "padding": "valid"},
    "dilation 2": {"kernel_size": 2, "dilation": 2},
    "explicit padding": {"kernel_size": 3, "padding": ((0, 1), (2, 0))},
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_every_element_on_every_geometry(geometry: dict[str, Any]) -> None:
    assert_proved(Problem(2, 3, (4, 5), in_channels=2, hidden_channels=1, peephole="channel", **geometry))


@pytest.mark.parametrize(("bias", "peephole"), VARIANTS)
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_a_random_direction_on_every_geometry(geometry: dict[str, Any], bias: Kind, peephole: Kind) -> None:
    bare = ConvLSTM(2, 3, backend="numpy", **geometry)
    hidden = bare.cell(7, 6).over_x.output_shape(7, 6)  # what is per pixel is so on the hidden map
    kinds: dict[str, Any] = {"bias": bias, "peephole": peephole, "spatial_shape": hidden}
    for N, T in ((1, 1), (3, 2), (1, 5)):
        problem = Problem(N, T, (7, 6), in_channels=2, hidden_channels=3, **kinds, **geometry)
        assert directional_error(problem.loss, problem.arrays, problem.gradients()) < 1e-7


@pytest.mark.parametrize(("bias", "peephole"), VARIANTS)
def test_a_random_direction_on_larger_shapes(bias: Kind, peephole: Kind) -> None:
    problem = Problem(
        3,
        5,
        (9, 11),
        in_channels=3,
        hidden_channels=8,
        kernel_size=5,
        bias=bias,
        peephole=peephole,
        spatial_shape=(9, 11),
    )
    assert directional_error(problem.loss, problem.arrays, problem.gradients()) < 1e-8


@settings(deadline=None, max_examples=25)
@given(
    N=st.integers(1, 3), T=st.integers(1, 4), Cin=st.integers(1, 3), C=st.integers(1, 4), H=st.integers(3, 7),
    W=st.integers(3, 7), K=st.integers(1, 3), bias=st.sampled_from(KINDS), peephole=st.sampled_from(KINDS),
)  # fmt: skip
def test_a_random_direction_on_any_shape(
    N: int, T: int, Cin: int, C: int, H: int, W: int, K: int, bias: Kind, peephole: Kind
) -> None:
    problem = Problem(
        N,
        T,
        (H, W),
        in_channels=Cin,
        hidden_channels=C,
        kernel_size=K,
        bias=bias,
        peephole=peephole,
        spatial_shape=(H, W),
    )
    assert directional_error(problem.loss, problem.arrays, problem.gradients()) < 1e-6


@pytest.mark.parametrize("fault", ["h", "c", "gates", "kernel"])
def test_planted_faults_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above must be able to fail: break the carry of h or c, swap two gates, forget to rotate the kernel."""
    from convlstm import cell, recurrence
    from convlstm.backends.convolution import convolve

    problem = Problem(2, 3, (4, 5), in_channels=2, hidden_channels=3, kernel_size=3)

    def broken_step(*arguments: Any, **options: Any) -> Any:
        dx, dh, dc = cell.step_backward(*arguments, **options)
        return dx, dh if dh is None or fault != "h" else 0 * dh, 0 * dc if fault == "c" else dc

    def swapped(self: NumpyBackend, *arguments: Any) -> tuple[Array, Array]:
        from convlstm.backends.gates import gates_backward

        dz, dc = gates_backward(*arguments)
        C = dc.shape[1]
        return np.concatenate([dz[:, C : 2 * C], dz[:, :C], dz[:, 2 * C :]], axis=1), dc

    def unrotated(dz: Array, W: Array, geometry: Any, height: int, width: int) -> Array:
        return convolve(dz, W.transpose(1, 0, 2, 3), geometry)

    if fault in "hc":
        monkeypatch.setattr(recurrence, "step_backward", broken_step)
    elif fault == "gates":
        monkeypatch.setattr(NumpyBackend, "gates_backward", swapped)
    else:
        monkeypatch.setattr(NumpyBackend, "gradient_input", staticmethod(unrotated))
    _, _, cache = problem.forward(problem.arrays)
    dx, (dh0, dc0), gradients = problem.layer.backward(cache, problem.u_h, problem.u_state)
    assert directional_error(problem.loss, problem.arrays, {**gradients, "x": dx, "h0": dh0, "c0": dc0}) > 1e-3


def written_out(arrays: Mapping[str, Array], K: int) -> tuple[Array, Array, Array]:
    """Return (h, h_T, c_T) by the formulas of Keras's ConvLSTM2D with PyTorch's Conv2d on [x, h], in plain NumPy.

    Keras adds two convolutions, PyTorch users concatenate: both are one sum over the kernel's taps.
    """
    x, h, c = arrays["x"], arrays["h0"], arrays["c0"]
    W = np.concatenate([arrays["W_x"], arrays["W_h"]], axis=1)
    before = (K - 1) // 2
    hs = []
    for t in range(x.shape[1]):
        both = np.concatenate([x[:, t], h], axis=1)
        H, width = both.shape[2:]
        padded = np.pad(both, ((0, 0), (0, 0), (before, K - 1 - before), (before, K - 1 - before)))
        z = np.zeros((len(x), W.shape[0], H, width)) + arrays["b"][:, None, None]
        for j in range(K):
            for i in range(K):
                z += np.einsum("dc,ncyx->ndyx", W[:, :, j, i], padded[:, :, j : j + H, i : i + width])
        z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
        c = c / (1 + np.exp(-z_f)) + np.tanh(z_g) / (1 + np.exp(-z_i))
        h = np.tanh(c) / (1 + np.exp(-z_o))
        hs.append(h)
    return np.stack(hs, axis=1), h, c


@pytest.mark.parametrize("K", [1, 2, 3, 5])
def test_forward_against_the_formulas_of_keras_and_pytorch(K: int) -> None:
    problem = Problem(2, 4, (6, 5), in_channels=2, hidden_channels=3, kernel_size=K)
    h, (h_T, c_T), _ = problem.forward(problem.arrays)
    for found, right in zip((h, h_T, c_T), written_out(problem.arrays, K), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-13)


def test_no_state_is_a_state_of_zeros() -> None:
    problem = Problem(2, 3, (4, 5), in_channels=2, hidden_channels=3, peephole="channel")
    zeros = np.zeros_like(problem.arrays["h0"])
    given_zeros = problem.forward({**problem.arrays, "h0": zeros, "c0": zeros})
    none = problem.layer.forward(problem.arrays["x"])
    results = []
    for h, state, cache in (given_zeros, none):
        dx, dstate, gradients = problem.layer.backward(cache, problem.u_h, problem.u_state)
        results.append([h, *state, dx, *dstate, *gradients.values()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_sequence_in_two_halves_is_the_whole_sequence() -> None:
    """State passed out and in again, forward and backward: the same bits forward, the same sums backward."""
    problem = Problem(2, 5, (4, 5), in_channels=2, hidden_channels=3)
    h, state, _ = problem.forward(problem.arrays)
    whole = problem.gradients()
    layer, x = problem.layer, problem.arrays["x"]
    first, middle, cache_1 = layer.forward(x[:, :2], (problem.arrays["h0"], problem.arrays["c0"]))
    second, last, cache_2 = layer.forward(x[:, 2:], middle)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), h)
    np.testing.assert_array_equal(last, state)
    dx_2, dmiddle, g_2 = layer.backward(cache_2, problem.u_h[:, 2:], problem.u_state)
    dx_1, (dh0, dc0), g_1 = layer.backward(cache_1, problem.u_h[:, :2], dmiddle)
    halves = {name: g_1[name] + g_2[name] for name in g_1}
    halves |= {"x": np.concatenate([dx_1, dx_2], axis=1), "h0": dh0, "c0": dc0}
    for name, right in whole.items():
        np.testing.assert_allclose(halves[name], right, rtol=1e-11, atol=1e-12, err_msg=name)


RICH: dict[str, Any] = {
    "in_channels": 2, "hidden_channels": 3, "dtype": "float32", "layer_norm": "channel", "dropout": 0.3,
    "recurrent_dropout": 0.3,
}  # fmt: skip
BARE: dict[str, Any] = {"in_channels": 2, "hidden_channels": 3, "dtype": "float32"}
ONE_EACH = ("h", "h_T", "c_T", "dx", "dh0", "dc0")


@settings(deadline=None, max_examples=20)
@given(
    cuts=st.sets(st.integers(1, 5)), threads=st.integers(1, 3), kind=st.sampled_from([RICH, BARE]),
    masked=st.booleans(), state=st.booleans(),
)  # fmt: skip
def test_a_sample_has_the_same_bits_however_the_batch_is_cut(
    cuts: set[int], threads: int, kind: dict[str, Any], masked: bool, state: bool
) -> None:
    mask = np.random.default_rng(0).random((6, 3)) < 0.7 if masked else None
    call = {"draws": Draws(1), **({} if mask is None else {"mask": mask})}
    whole = Problem(6, 3, (5, 4), threads=threads, state=state, call=call, **kind)
    right = whole.results()
    edges = [0, *sorted(cuts), 6]
    parts = [whole.of(slice(begin, end)).results() for begin, end in itertools.pairwise(edges)]
    assert_same_bits(
        {name: np.concatenate([part[name] for part in parts]) for name in ONE_EACH},
        {name: right[name] for name in ONE_EACH},
    )
    for name in whole.layer.parameters:
        total = sum(part["d" + name].astype("float64") for part in parts)
        np.testing.assert_allclose(right["d" + name], total, rtol=1e-4, atol=1e-4, err_msg=name)


@settings(deadline=None, max_examples=20)
@given(
    cuts=st.sets(st.integers(1, 4)), kind=st.sampled_from([RICH, BARE]), state=st.booleans(),
    recompute=st.sampled_from([None, 1, 2]),
)  # fmt: skip
def test_a_sequence_has_the_same_bits_however_it_is_cut(
    cuts: set[int], kind: dict[str, Any], state: bool, recompute: int | None
) -> None:
    """The state passed on; what is dropped is the same in every piece."""
    whole = Problem(2, 5, (5, 4), state=state, call={"draws": Draws(1)}, **kind)
    h, last, _ = whole.forward(whole.arrays)
    passed: Any = (whole.arrays["h0"], whole.arrays["c0"]) if state else None
    pieces = []
    for begin, end in itertools.pairwise([0, *sorted(cuts), 5]):
        x = whole.arrays["x"][:, begin:end]
        piece, passed, _ = whole.layer.forward(x, passed, draws=Draws(1), recompute=recompute)
        pieces.append(piece)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), h, strict=True)
    np.testing.assert_array_equal(passed, last, strict=True)


# Without input, without a bias to learn ---------------------------------------------------------------------------


@pytest.mark.parametrize("layer_norm", [None, "channel"])
@pytest.mark.parametrize(("bias", "peephole"), VARIANTS)
def test_a_layer_without_input(bias: Kind, peephole: Kind, layer_norm: Kind) -> None:
    for T, state in ((1, True), (3, True), (3, False)):
        problem = Problem(
            2, T, (3, 4), in_channels=None, hidden_channels=2, kernel_size=2, bias=bias, peephole=peephole,
            layer_norm=layer_norm, spatial_shape=(3, 4), state=state,
        )  # fmt: skip
        assert "W_x" not in problem.layer.parameters
        found = problem.results()
        assert found["dx"].shape == (2, T, 0, 3, 4)
        if state or bias is not None:  # else all is zero from first to last
            gradients = {name: found["d" + name] for name in problem.arrays}
            assert directional_error(problem.loss, problem.arrays, gradients) < 1e-6


def test_every_element_without_input() -> None:
    assert_proved(Problem(2, 3, (2, 3), in_channels=None, hidden_channels=2, kernel_size=2, peephole="channel"))


def test_without_input_and_state_every_sample_is_the_same() -> None:
    """From zeros a sequence depends on the bias alone; with none it stays zero."""
    h = Problem(3, 4, (4, 5), in_channels=None, hidden_channels=2, state=False).results()["h"]
    np.testing.assert_array_equal(h, np.broadcast_to(h[:1], h.shape))
    assert np.abs(np.diff(h, axis=1)).max() > 1e-3
    bare = Problem(1, 4, (4, 5), in_channels=None, hidden_channels=2, state=False, bias=None)
    assert not bare.results()["h"].any()


def test_a_layer_without_input_is_one_whose_input_does_not_count() -> None:
    problem = Problem(2, 3, (4, 5), in_channels=None, hidden_channels=2)
    other = Problem(2, 3, (4, 5), in_channels=1, hidden_channels=2)
    arrays = {**other.arrays, **problem.arrays, "W_x": 0 * other.arrays["W_x"], "x": other.arrays["x"]}
    np.testing.assert_array_equal(problem.forward(problem.arrays)[0], other.forward(arrays)[0])


@pytest.mark.parametrize("peephole", KINDS)
@pytest.mark.parametrize("state", [True, False])
def test_a_constant_forget_bias_is_a_bias_that_is_not_learnt(state: bool, peephole: Kind) -> None:
    settings: dict[str, Any] = {
        "in_channels": 2, "hidden_channels": 3, "peephole": peephole, "spatial_shape": (4, 5), "state": state
    }  # fmt: skip
    constant = Problem(2, 3, (4, 5), bias=None, forget_bias=1.5, **settings)
    learnt = Problem(2, 3, (4, 5), bias="channel", **settings)
    learnt.arrays.update(constant.arrays, b=np.repeat([0, 1.5, 0, 0], 3))
    learnt.u_h, learnt.u_state = constant.u_h, constant.u_state
    right = learnt.results()
    assert right.pop("db").any()
    assert_same_bits(constant.results(), right)
    assert directional_error(constant.loss, constant.arrays, constant.gradients()) < 1e-7


def test_the_forget_bias_at_first() -> None:
    for value, right in ((None, 1.0), (0.0, 0.0), (2.5, 2.5), (-1, -1.0)):
        b = small_layer(forget_bias=value).parameters["b"]
        np.testing.assert_array_equal(b, np.repeat(np.array([0, right, 0, 0], "float32"), 2), strict=True)
    per_pixel = small_layer(forget_bias=2.5, bias="pixel", spatial_shape=(3, 3)).parameters["b"]
    assert (per_pixel[2:4] == 2.5).all()
    assert not np.delete(per_pixel, slice(2, 4), axis=0).any()
    for value in (None, 0.0):
        bare = small_layer(bias=None, forget_bias=value)
        assert bare.parameters.keys() == {"W_x", "W_h"}
        assert bare.cell(5, 5).b is None


def test_backward_twice_gives_the_same() -> None:
    """Nothing in the cache is used up."""
    problem = Problem(2, 3, (4, 5), in_channels=2, hidden_channels=3, peephole="channel")
    _, _, cache = problem.forward(problem.arrays)
    once, again = (problem.layer.backward(cache, problem.u_h, problem.u_state) for _ in range(2))
    np.testing.assert_array_equal(once[0], again[0])
    for name in once[2]:
        np.testing.assert_array_equal(once[2][name], again[2][name])


@pytest.mark.parametrize("order", ["C", "F", "channels last", "strided"])
def test_the_order_of_memory_changes_no_bit(order: str) -> None:
    """Sums run in the order that memory lies in, so everything is brought into one order first."""

    def reordered(array: Array) -> Array:
        if order == "strided":
            wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]))
            wide[..., ::2] = array
            return wide[..., ::2]
        if order == "channels last" and array.ndim >= 3:
            return np.moveaxis(np.moveaxis(array, -3, -1).copy(), -1, -3)
        return np.asarray(array, order="F" if order == "F" else "C")

    problem = Problem(
        3, 2, (12, 11), in_channels=2, hidden_channels=5, peephole="channel", layer_norm="pixel",
        spatial_shape=(12, 11), dropout=0.3, recurrent_dropout=0.3, call={"draws": Draws(0)},
    )  # fmt: skip
    right = problem.gradients()
    problem.arrays = {name: reordered(array) for name, array in problem.arrays.items()}
    _, _, cache = problem.forward(problem.arrays)
    u_state = (reordered(problem.u_state[0]), reordered(problem.u_state[1]))
    dx, (dh0, dc0), gradients = problem.layer.backward(cache, reordered(problem.u_h), u_state)
    for name, found in {**gradients, "x": dx, "h0": dh0, "c0": dc0}.items():
        np.testing.assert_array_equal(found, right[name], err_msg=name)


def test_a_layer_that_has_worked_can_be_copied_and_pickled() -> None:
    layer = small_layer()
    x = np.random.default_rng(0).random((2, 3, 1, 5, 5), "float32")
    h, _, _ = layer.forward(x)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(copied.forward(x)[0], h)


def test_numpys_integers_are_integers() -> None:
    layer = small_layer(hidden_channels=np.int64(3), kernel_size=(np.int32(3), np.int64(1)))
    assert layer.parameters["W_h"].shape == (12, 3, 3, 1)


def test_assigned_parameters_are_used() -> None:
    layer = ConvLSTM(1, 2, dtype="float64", backend="numpy")
    x = np.random.default_rng(0).standard_normal((1, 2, 1, 4, 4))
    before = layer.forward(x)[0]
    layer.parameters["W_x"] = 2 * layer.parameters["W_x"]
    assert not np.array_equal(layer.forward(x)[0], before)


def test_shapes_and_dtype_of_the_default_layer() -> None:
    layer = ConvLSTM(in_channels=3, hidden_channels=4, backend="numpy")
    assert {name: array.shape for name, array in layer.parameters.items()} == {
        "W_x": (16, 3, 3, 3),
        "W_h": (16, 4, 3, 3),
        "b": (16,),
    }
    x = np.zeros((2, 5, 3, 6, 7), "float32")
    h, (h_T, c_T), cache = layer.forward(x)
    dx, (dh0, dc0), gradients = layer.backward(cache, np.ones_like(h))
    assert h.shape == (2, 5, 4, 6, 7)
    assert h_T.shape == c_T.shape == dh0.shape == dc0.shape == (2, 4, 6, 7)
    assert dx.shape == x.shape
    assert {array.dtype for array in (h, h_T, c_T, dx, dh0, dc0, *gradients.values())} == {np.dtype("float32")}
    np.testing.assert_array_equal(h[:, -1], h_T)
