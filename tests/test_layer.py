"""Proof of the backpropagation through time: every variant of `ConvLSTM` against central differences in float64."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm import ConvLSTM
from convlstm.backends import Array
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.parameters import Kind
from tests.layer_problems import Problem, assert_proved
from tests.numerical import directional_error

KINDS: tuple[Kind, ...] = (None, "channel", "pixel")
VARIANTS = [(bias, peephole) for bias in KINDS for peephole in KINDS]


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("T", [1, 2, 5])
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


def test_a_sample_has_the_same_bits_alone_and_in_a_batch() -> None:
    problem = Problem(4, 3, (6, 5), in_channels=2, hidden_channels=3)
    h, _, cache = problem.forward(problem.arrays)
    dx, _, _ = problem.layer.backward(cache, problem.u_h)
    for n in range(4):
        alone = {**problem.arrays, **{name: problem.arrays[name][n : n + 1] for name in ("x", "h0", "c0")}}
        h_n, _, cache_n = problem.forward(alone)
        dx_n, _, _ = problem.layer.backward(cache_n, problem.u_h[n : n + 1])
        np.testing.assert_array_equal(h_n[0], h[n])
        np.testing.assert_array_equal(dx_n[0], dx[n])


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

    problem = Problem(3, 2, (12, 11), in_channels=2, hidden_channels=5, peephole="channel")
    right = problem.gradients()
    problem.arrays = {name: reordered(array) for name, array in problem.arrays.items()}
    _, _, cache = problem.forward(problem.arrays)
    u_state = (reordered(problem.u_state[0]), reordered(problem.u_state[1]))
    dx, (dh0, dc0), gradients = problem.layer.backward(cache, reordered(problem.u_h), u_state)
    for name, found in {**gradients, "x": dx, "h0": dh0, "c0": dc0}.items():
        np.testing.assert_array_equal(found, right[name], err_msg=name)


@pytest.mark.parametrize(
    "other", [{"peephole": "channel"}, {"dtype": "float64"}, {"hidden_channels": 3}, {"bias": None}, {"kernel_size": 5}]
)
def test_another_layers_cache_is_refused(other: dict[str, Any]) -> None:
    h, _, cache = small_layer().forward(X)
    with pytest.raises(TypeError, match="cache must be what this layer's forward returned; got another layer's"):
        small_layer(**other).backward(cache, h)


def test_swapped_arguments_of_backward_are_named() -> None:
    h, _, cache = small_layer().forward(X)
    with pytest.raises(TypeError, match=r"cache must be .* got an object of type ndarray"):
        small_layer().backward(h, cache)  # type: ignore[arg-type]


def test_a_layer_that_has_worked_can_be_copied_and_pickled() -> None:
    layer = small_layer()
    h, _, _ = layer.forward(X)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(copied.forward(X)[0], h)


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


def small_layer(**options: Any) -> ConvLSTM:
    return ConvLSTM(**{"in_channels": 1, "hidden_channels": 2, "backend": "numpy", **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"in_channels": 0}, "in_channels must be an integer ≥ 1; got 0"),
        ({"hidden_channels": 2.0}, r"hidden_channels must be an integer ≥ 1; got 2\.0"),
        ({"kernel_size": 0}, "kernel_size must be an integer ≥ 1 or a pair"),
        ({"bias": True}, 'bias must be None, "channel" or "pixel"; got True'),
        ({"peephole": "full"}, "peephole must be None"),
        ({"peephole": ["pixel"]}, "peephole must be None"),
        ({"bias": "pixel"}, r'bias="pixel" needs spatial_shape=\(H, W\)'),
        ({"peephole": "pixel"}, r'peephole="pixel" needs spatial_shape=\(H, W\)'),
        ({"dtype": "float16"}, 'dtype must be "float32" or "float64"; got \'float16\''),
        ({"dtype": "no such"}, "dtype must be"),
        ({"backend": "torch"}, "backend must be"),
        ({"seed": -1}, "seed must lie in"),
        ({"stride": 0}, "stride must be"),
        ({"dtype": None}, 'dtype must be "float32" or "float64"; got None'),
        ({"bias": np.zeros(8)}, "bias must be None"),
        ({"padding": "SAME"}, "padding must be"),
        ({"padding": -1}, "padding must be"),
        ({"padding": np.array([1.5, 1])}, "padding must be"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small_layer(**options)


X = np.zeros((2, 3, 1, 5, 5), "float32")
STATE = np.zeros((2, 2, 5, 5), "float32")


@pytest.mark.parametrize(
    ("x", "state", "error", "said"),
    [
        (X[0], None, ValueError, r"x must have shape \(N, T, 1, H, W\); got \(3, 1, 5, 5\)"),
        (np.zeros((8, 64, 64), "float32"), None, ValueError, r"x must have shape \(N, T, 1, H, W\); got \(8, 64, 64\)"),
        (np.zeros((2, 3, 2, 5, 5), "float32"), None, ValueError, r"x must have shape \(N, T, 1, H, W\)"),
        (X[:0], None, ValueError, "x must not be empty"),
        (X[:, :0], None, ValueError, "x must not be empty"),
        (X.astype("float64"), None, TypeError, "x must have dtype float32; got float64"),
        (np.ma.masked_array(X), None, TypeError, "x must be an array of backend numpy; got numpy.MaskedArray"),
        (X.tolist(), None, TypeError, "x must be an array of backend numpy; got builtins.list"),
        (X, STATE, TypeError, r"state must be a pair of arrays \(h, c\)"),
        (X, (STATE,), TypeError, r"state must be a pair of arrays \(h, c\)"),
        (X, (STATE, STATE[:1]), ValueError, r"state c must have shape \(2, 2, 5, 5\)"),
        (X, (STATE.astype("float64"), STATE), TypeError, "state h must have dtype float32"),
        (X[:, :, :, :2, :], None, ValueError, "kernel 3×3 is larger than the map 2×5"),
    ],
)
def test_wrong_operands_are_named(x: Any, state: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        small_layer().forward(x, state)


def test_the_kernel_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="recurrent kernel 3×3 is larger than the hidden map 2×2"):
        small_layer(stride=2).forward(X[..., :4, :4])


def test_wrong_gradients_to_the_output_are_named() -> None:
    layer = small_layer()
    h, _, cache = layer.forward(X)
    with pytest.raises(ValueError, match=r"dh must have shape \(2, 3, 2, 5, 5\); got \(2, 2, 5, 5\)"):
        layer.backward(cache, h[:, 0])
    with pytest.raises(ValueError, match=r"dstate h must have shape \(2, 2, 5, 5\)"):
        layer.backward(cache, h, (STATE[:1], STATE))


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("W_x", np.zeros((8, 1, 3, 2), "float32"), ValueError, r"parameters\['W_x'\] must have shape \(8, 1, 3, 3\)"),
        ("b", np.zeros(8), TypeError, r"parameters\['b'\] must have dtype float32; got float64"),
        ("b", [0.0] * 8, TypeError, r"parameters\['b'\] must be an array of backend numpy"),
        ("W_y", np.zeros(8), KeyError, "missing or unknown: W_y"),
    ],
)
def test_wrong_parameters_are_named(name: str, value: Any, error: type[Exception], said: str) -> None:
    layer = small_layer()
    layer.parameters[name] = value
    with pytest.raises(error, match=said):
        layer.forward(X)


def test_parameters_per_pixel_belong_to_one_size() -> None:
    with pytest.raises(ValueError, match=r"hidden maps of 5×5, but .* spatial_shape=\(4, 5\)"):
        small_layer(bias="pixel", spatial_shape=(4, 5)).forward(X)
