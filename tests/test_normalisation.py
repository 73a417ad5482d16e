"""Layer normalisation: the formula by itself, and within the step against central differences in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, cell, normalisation
from convlstm.backends import Array
from convlstm.normalisation import EPSILON, Normalised, normalise_backward, normalise_forward
from convlstm.parameters import KINDS, Kind
from tests.layer_problems import Problem, assert_proved
from tests.numerical import directional_error, freeze, numeric_gradients, read_only


def random(*shape: int, seed: int = 0) -> Array:
    array = np.random.default_rng(seed).standard_normal(shape)
    freeze(array)
    return array


# By itself --------------------------------------------------------------------------------------------------------


def test_each_sample_by_the_formula() -> None:
    z = 3 * random(3, 8, 2, 5) + 7
    found = normalise_forward(z)
    for n in range(3):
        sample = z[n].ravel()
        mean = sum(sample) / sample.size
        variance = sum((sample - mean) ** 2) / sample.size
        np.testing.assert_allclose(found.z[n].ravel(), (sample - mean) / (variance + EPSILON) ** 0.5, rtol=1e-11)
        np.testing.assert_allclose(found.scale[n], 1 / (variance + EPSILON) ** 0.5, rtol=1e-12)
    assert found.z.shape == z.shape
    assert found.scale.shape == (3, 1, 1, 1)


def test_epsilon_counts_where_a_map_hardly_varies() -> None:
    """Variance 10⁻⁵ = ε: ẑ has half the variance that it would have without."""
    assert EPSILON == 1e-5
    z = np.array([1.0, -1.0, 1.0, -1.0]).reshape(1, 4, 1, 1) * EPSILON**0.5
    np.testing.assert_allclose(np.abs(normalise_forward(z).z), 0.5**0.5, rtol=1e-12)
    np.testing.assert_array_equal(normalise_forward(np.full((1, 4, 2, 2), 5.0)).z, 0.0)


@pytest.mark.parametrize("size", [1.0, 3e-3], ids=["", "near ε"])
@pytest.mark.parametrize("N", [1, 3])
def test_every_element_of_the_gradient(N: int, size: float) -> None:
    z, u = size * random(N, 8, 2, 3), random(N, 8, 2, 3, seed=1)
    numeric = numeric_gradients(lambda a: float((normalise_forward(a["z"]).z * u).sum()), {"z": z}, step=1e-5 * size)
    kept = normalise_forward(z)
    freeze(kept)
    right = numeric["z"]
    np.testing.assert_allclose(normalise_backward(u, kept), right, rtol=1e-6, atol=1e-8 * np.abs(right).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_stays(dtype: str) -> None:
    z, dz = random(2, 8, 3, 3).astype(dtype), random(2, 8, 3, 3, seed=1).astype(dtype)
    kept = normalise_forward(z)
    assert {kept.z.dtype, kept.scale.dtype, normalise_backward(dz, kept).dtype} == {np.dtype(dtype)}


def test_float32_keeps_its_digits_on_a_large_map() -> None:
    """Means are added up in float64: of float32 sums of these 2²¹ numbers, ẑ was off by 5·10⁻⁵."""
    z = (random(1, 512, 512, 8) + 1000).astype("float32").transpose(0, 3, 1, 2)
    np.testing.assert_allclose(normalise_forward(z).z, normalise_forward(z.astype("float64")).z, atol=2e-5)


# Within the step --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", ["channel", "pixel"])
@pytest.mark.parametrize("peephole", KINDS)
@pytest.mark.parametrize("bias", KINDS)
def test_a_random_direction_of_every_variant(bias: Kind, peephole: Kind, gain: Kind) -> None:
    for N, T in ((1, 1), (3, 1), (1, 2), (3, 2), (1, 3), (3, 3)):
        problem = Problem(
            N, T, (3, 4), in_channels=2, hidden_channels=2, kernel_size=2,
            bias=bias, peephole=peephole, layer_norm=gain, spatial_shape=(3, 4), state=N == 1,
        )  # fmt: skip
        gradients = problem.gradients()
        assert directional_error(problem.loss, problem.arrays, gradients) < 1e-6
        assert np.abs(gradients["gain"]).max() > 0


@pytest.mark.parametrize("gain", ["channel", "pixel"])
def test_every_element(gain: Kind) -> None:
    assert_proved(
        Problem(
            2,
            2,
            (2, 3),
            in_channels=1,
            hidden_channels=1,
            kernel_size=2,
            bias="pixel",
            peephole="pixel",
            layer_norm=gain,
            spatial_shape=(2, 3),
        )
    )


def test_on_a_strided_layer() -> None:
    problem = Problem(
        2, 3, (7, 6), in_channels=2, hidden_channels=3, stride=2, peephole="channel",
        layer_norm="pixel", spatial_shape=(4, 3),
    )  # fmt: skip
    assert directional_error(problem.loss, problem.arrays, problem.gradients()) < 1e-7


@pytest.mark.parametrize("lost", ["mean(δẑ)", "ẑ∘mean(δẑ∘ẑ)", "ε", "γ"])
def test_planted_faults_are_seen(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop one of the two means, take ε for nothing, or leave γ out on the way back."""

    def mean(maps: Array) -> Array:
        result: Array = maps.mean(axis=(1, 2, 3), keepdims=True)
        return result

    def broken(dz: Array, normalised: Normalised) -> Array:
        z, scale = normalised
        if lost == "ε":
            scale = 1 / np.sqrt(1 / scale**2 - EPSILON)
            z = z / normalised.scale * scale
        if lost == "γ":
            dz = dz / gain[:, None, None]
        first = 0 if lost == "mean(δẑ)" else mean(dz)
        second = 0 if lost == "ẑ∘mean(δẑ∘ẑ)" else z * mean(dz * z)
        result: Array = (dz - first - second) * scale
        return result

    problem = Problem(2, 3, (4, 5), in_channels=2, hidden_channels=3, layer_norm="channel")
    if lost == "ε":  # which counts for little unless maps hardly vary
        for name in ("x", "W_x", "W_h"):
            problem.arrays[name] = 0.1 * problem.arrays[name]
    gain = problem.arrays["gain"]
    assert directional_error(problem.loss, problem.arrays, problem.gradients()) < 1e-6
    monkeypatch.setattr(cell, "normalise_backward", broken)
    assert directional_error(problem.loss, problem.arrays, problem.gradients()) > 1e-5


def test_the_size_of_the_kernels_does_not_count() -> None:
    """N(s·z) = N(z) up to ε, whatever s > 0: the point of normalising."""
    problem = Problem(2, 3, (4, 5), in_channels=2, hidden_channels=3, layer_norm="channel")
    larger = {name: 1000 * array if name[0] == "W" else array for name, array in problem.arrays.items()}
    np.testing.assert_allclose(problem.forward(larger)[0], problem.forward(problem.arrays)[0], atol=1e-5)
    plain = Problem(2, 3, (4, 5), in_channels=2, hidden_channels=3)
    larger = {name: 1000 * array if name[0] == "W" else array for name, array in plain.arrays.items()}
    assert np.abs(plain.forward(larger)[0] - plain.forward(plain.arrays)[0]).max() > 0.1


def test_each_step_of_each_sample_is_normalised_by_itself() -> None:
    """A sample of large numbers, or a large frame, changes nothing of the others."""
    problem = Problem(2, 2, (4, 5), in_channels=2, hidden_channels=3, layer_norm="channel", state=False)
    h, _, _ = problem.forward(problem.arrays)
    loud = np.array(problem.arrays["x"])
    loud[1], loud[0, 1] = 100 * loud[1], 100 * loud[0, 1]
    louder, _, _ = problem.forward({**problem.arrays, "x": loud})
    np.testing.assert_array_equal(louder[0, 0], h[0, 0])
    assert np.abs(louder[0, 1] - h[0, 1]).max() > 0.01


def test_bias_and_peepholes_are_added_afterwards() -> None:
    """By hand, one step from zeros: h = o∘tanh(i∘g) with γ∘N(W_x ∗ x) + b."""
    problem = Problem(2, 1, (4, 5), in_channels=2, hidden_channels=3, kernel_size=1, layer_norm="pixel", bias="pixel",
                      peephole="pixel", spatial_shape=(4, 5), state=False)  # fmt: skip
    a = problem.arrays
    z = np.einsum("dc,nchw->ndhw", a["W_x"][:, :, 0, 0], a["x"][:, 0])
    centred = z - z.mean(axis=(1, 2, 3), keepdims=True)
    z = a["gain"] * centred / np.sqrt(z.var(axis=(1, 2, 3), keepdims=True) + EPSILON) + a["b"]
    i, _, g, o = np.split(z, 4, axis=1)
    c = np.tanh(g) / (1 + np.exp(-i))
    h = np.tanh(c) / (1 + np.exp(-(o + a["p_o"] * c)))
    np.testing.assert_allclose(problem.forward(a)[0][:, 0], h, rtol=1e-11, atol=1e-13)


def test_a_map_of_zeros_has_finite_gradients() -> None:
    """Neither input nor state: z = 0 everywhere, its variance too."""
    layer = ConvLSTM(None, 2, layer_norm="channel", dtype="float64", backend="numpy")
    h, _, cache = layer.forward(np.zeros((1, 2, 0, 4, 5)))
    _, dstate, gradients = layer.backward(cache, np.ones_like(h))
    assert all(np.isfinite(array).all() for array in (h, *dstate, *gradients.values()))


def test_float32_layer_stays_float32_and_near_float64() -> None:
    settings: dict[str, Any] = {
        "in_channels": 2, "hidden_channels": 3, "layer_norm": "pixel", "spatial_shape": (6, 7)
    }  # fmt: skip
    single, double = (Problem(2, 3, (6, 7), dtype=dtype, **settings) for dtype in ("float32", "float64"))
    found, right = single.results(), double.results()
    for name, array in right.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-3, err_msg=name)


def test_gains_are_one_at_first_and_of_the_kind_asked_for() -> None:
    shapes: dict[Kind, tuple[int, ...]] = {"channel": (8,), "pixel": (8, 4, 5)}
    for kind, shape in shapes.items():
        gain = ConvLSTM(1, 2, layer_norm=kind, spatial_shape=(4, 5), backend="numpy").parameters["gain"]
        np.testing.assert_array_equal(gain, np.ones(shape, "float32"), strict=True)
    assert "gain" not in ConvLSTM(1, 2, backend="numpy").parameters


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer_norm": True}, 'layer_norm must be None, "channel" or "pixel"; got True'),
        ({"layer_norm": "pixel"}, r'layer_norm="pixel" needs spatial_shape=\(H, W\)'),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ConvLSTM(1, 2, backend="numpy", **options)


def test_gains_per_pixel_belong_to_one_size() -> None:
    layer = ConvLSTM(1, 2, layer_norm="pixel", spatial_shape=(4, 5), backend="numpy")
    with pytest.raises(ValueError, match=r"hidden maps of 5×5, but .* spatial_shape=\(4, 5\)"):
        layer.forward(np.zeros((1, 1, 1, 5, 5), "float32"))


def test_nothing_given_is_changed() -> None:
    arrays = read_only({"z": random(2, 4, 3, 3), "dz": random(2, 4, 3, 3, seed=1)})
    kept = normalisation.normalise_forward(arrays["z"])
    freeze(kept)
    np.testing.assert_array_equal(normalise_backward(arrays["dz"], kept), normalise_backward(arrays["dz"], kept))
