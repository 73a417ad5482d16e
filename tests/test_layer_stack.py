"""`ConvLSTMStack` against layers put together by hand, to the bit, and its gradients against numerical ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm import ConvLSTM, ConvLSTMStack, Draws, check_gradients
from convlstm.backends import Array
from convlstm.recurrence import Start, Unrolled
from tests.layer_problems import StackProblem, assert_same_bits
from tests.numerical import directional_error

MASK = np.array([[1, 1, 0], [1, 1, 1]], bool)
BOTH_RETURNS = pytest.mark.parametrize("returns", ["every", "last"])
BOTH_DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True], ids=["one direction", "both"])


def own_parameters(stack: ConvLSTMStack, prefix: str) -> dict[str, Array]:
    return {name[len(prefix) :]: array for name, array in stack.parameters.items() if name.startswith(prefix)}


def layer_of(stack: ConvLSTMStack, prefix: str, below: int, C: int, **options: Any) -> ConvLSTM:
    """Return a public layer with one of the stack's layers' parameters."""
    layer = ConvLSTM(below, C, peephole="channel", dtype="float64", backend="numpy", **options)
    layer.parameters = own_parameters(stack, prefix)
    return layer


# Forward ----------------------------------------------------------------------------------------------------------


@BOTH_RETURNS
@pytest.mark.parametrize("mask", [None, MASK], ids=["", "mask"])
def test_one_direction_is_one_layer_after_the_other(returns: Any, mask: Any) -> None:
    problem = StackProblem(returns=returns, call={"mask": mask})
    output, states, cache = problem.forward(problem.arrays)
    a = problem.arrays
    one, two = (layer_of(problem.stack, f"layers.{k}.", *sizes) for k, sizes in enumerate([(2, 3), (3, 2)]))
    h1, state1, cache1 = one.forward(a["x"], (a["h0"], a["c0"]), mask=mask)
    h2, state2, cache2 = two.forward(h1, (a["h1"], a["c1"]), mask=mask)
    np.testing.assert_array_equal(output, h2 if returns == "every" else h2[:, -1], strict=True)
    for found, right in zip(states, (state1, state2), strict=True):
        np.testing.assert_array_equal(found, right)

    dx, dstates, gradients = problem.stack.backward(cache, problem.u, problem.u_states)
    assert list(gradients) == list(problem.stack.parameters)  # in one order: sums over them keep their bits
    dh2 = problem.u if returns == "every" else np.zeros_like(h2)
    if returns == "last":
        dh2[:, -1] = problem.u
    dh1, dstate2, gradients2 = two.backward(cache2, dh2, problem.u_states[1])
    right_dx, dstate1, gradients1 = one.backward(cache1, dh1, problem.u_states[0])
    np.testing.assert_allclose(dx, right_dx, rtol=1e-12, atol=1e-13)
    for found, right in zip(dstates, (dstate1, dstate2), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-13)
    for k, own in enumerate((gradients1, gradients2)):
        for name, gradient in own.items():
            np.testing.assert_allclose(gradients[f"layers.{k}.{name}"], gradient, rtol=1e-11, atol=1e-12)


@BOTH_RETURNS
def test_both_directions_are_two_layers_one_on_the_reversed_sequence(returns: Any) -> None:
    problem = StackProblem(returns=returns, bidirectional=True)
    output, states, _ = problem.forward(problem.arrays)
    a, x = problem.arrays, problem.arrays["x"]
    right_states = []
    for k, (below, C) in enumerate([(2, 3), (6, 2)]):
        ahead = layer_of(problem.stack, f"layers.{k}.forward.", below, C)
        back = layer_of(problem.stack, f"layers.{k}.reverse.", below, C)
        h, state, _ = ahead.forward(x, (a[f"h{2 * k}"], a[f"c{2 * k}"]))
        reverse_h, reverse_state, _ = back.forward(x[:, ::-1].copy(), (a[f"h{2 * k + 1}"], a[f"c{2 * k + 1}"]))
        right_states += [state, reverse_state]
        last = np.concatenate([h[:, -1], reverse_h[:, -1]], axis=1)
        x = np.concatenate([h, reverse_h[:, ::-1]], axis=2)
    np.testing.assert_array_equal(output, x if returns == "every" else last, strict=True)
    for found, right in zip(states, right_states, strict=True):
        np.testing.assert_array_equal(found, right)


@BOTH_RETURNS
@BOTH_DIRECTIONS
def test_each_sample_of_its_own_length_is_what_it_is_alone(returns: Any, bidirectional: bool) -> None:
    """A reverse layer begins with a sample's last frame, not with padding."""
    problem = StackProblem(returns=returns, bidirectional=bidirectional, call={"mask": MASK}, states=False)
    x = np.where(MASK[:, :, None, None, None], problem.arrays["x"], np.nan)
    output, states, _ = problem.forward({**problem.arrays, "x": x})
    for n, length in enumerate((2, 3)):
        alone, alone_states, _ = problem.stack.forward(x[n : n + 1, :length])
        np.testing.assert_array_equal(output[n] if returns == "last" else output[n, :length], alone[0])
        for (h, c), (alone_h, alone_c) in zip(states, alone_states, strict=True):
            np.testing.assert_array_equal((h[n], c[n]), (alone_h[0], alone_c[0]))


def test_dropout_of_each_layer_is_its_own() -> None:
    draws = Draws(1, step=2, first=3)
    rates: dict[str, Any] = {"dropout": 0.4, "recurrent_dropout": 0.4}
    problem = StackProblem(call={"draws": draws}, **rates, states=False)
    x = problem.arrays["x"]
    for k, (below, C) in enumerate([(2, 3), (3, 2)]):
        layer = layer_of(problem.stack, f"layers.{k}.", below, C, name=f"layers.{k}.", **rates)
        x, _, _ = layer.forward(x, draws=draws)
    np.testing.assert_array_equal(problem.forward(problem.arrays)[0], x)
    assert not np.array_equal(StackProblem(**rates, states=False).results()["output"], x)


@BOTH_DIRECTIONS
def test_a_list_gives_each_layer_its_own(bidirectional: bool) -> None:
    """Read back from the layers and from the shapes of their parameters and outputs."""
    stack = ConvLSTMStack(
        2, [3, 4], [3, (1, 2)], bidirectional=bidirectional, stride=[2, 1], padding=["same", "valid"], dilation=[1, 2],
        recurrent_kernel_size=[None, 1], spatial_shape=[(4, 3), (4, 1)], bias="pixel", backend="numpy",
    )  # fmt: skip
    D = 2 if bidirectional else 1
    output, states, _ = stack.forward(np.zeros((1, 2, 2, 8, 6), "float32"))
    assert output.shape == (1, 2, 4 * D, 4, 1)
    for index, layer in enumerate(stack.layers):
        k = index // D
        assert layer.kernel_size == [(3, 3), (1, 2)][k]
        assert layer.recurrent_kernel_size == [(3, 3), (1, 1)][k]
        assert (layer.stride, layer.dilation, layer.padding) == [((2, 2), (1, 1), "same"), ((1, 1), (2, 2), "valid")][k]
        assert layer.parameters["b"].shape == [(12, 4, 3), (16, 4, 1)][k]
        assert layer.in_channels == [2, 3 * D][k]
        assert states[index][0].shape == [(1, 3, 4, 3), (1, 4, 4, 1)][k]


def test_names_and_initial_values_are_those_of_layers_by_these_names() -> None:
    options: dict[str, Any] = {"layer_norm": "channel", "forget_bias": 0.5, "backend": "numpy", "seed": 4}
    for bidirectional, directions in ((False, [""]), (True, ["forward.", "reverse."])):
        stack = ConvLSTMStack(2, (3, 2), bidirectional=bidirectional, **options)
        right: dict[str, Array] = {}
        for k, (below, C) in enumerate([(2, 3), (3 * len(directions), 2)]):
            for direction in directions:
                name = f"layers.{k}.{direction}"
                layer = ConvLSTM(below, C, name=name, **options)
                right |= {name + own: array for own, array in layer.parameters.items()}
        assert list(stack.parameters) == list(right)
        assert_same_bits(stack.parameters, right)
        assert len({array.tobytes() for name, array in right.items() if "W_" in name}) == 4 * len(directions)


def test_options_reach_every_layer() -> None:
    stack = ConvLSTMStack(
        1, (2, 2), bias=None, peephole="channel", layer_norm="channel", dropout=0.1, recurrent_dropout=0.2,
        forget_bias=2.0, dtype="float64", backend="numpy",
    )  # fmt: skip
    for layer in stack.layers:
        assert (layer.bias, layer.peephole, layer.layer_norm) == (None, "channel", "channel")
        assert (layer.dropout, layer.recurrent_dropout, layer.dtype) == (0.1, 0.2, np.dtype("float64"))
        np.testing.assert_array_equal(layer.cell(4, 4).b, [0, 0, 2, 2, 0, 0, 0, 0])


# Gradients --------------------------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "from zeros": {"states": False},
    "mask": {"call": {"mask": MASK}},
    "layer norm": {"layer_norm": "channel"},
    "dropout": {"dropout": 0.3, "recurrent_dropout": 0.3, "call": {"draws": Draws(2)}},
    "recompute": {"call": {"recompute": 2, "mask": MASK}},
    "geometry": {
        "size": (9, 8), "kernel_size": [3, 2], "stride": [2, 1], "padding": ["same", "valid"], "dilation": [1, 2],
        "recurrent_kernel_size": [None, 2],
    },
    "per pixel": {"bias": "pixel", "peephole": "pixel", "layer_norm": "pixel", "spatial_shape": (4, 5)},
    "three layers": {"hidden": (2, 3, 1)},
    "one layer": {"hidden": (2,)},
    "constant bias": {"bias": None, "forget_bias": 1.0},
    "one frame": {"T": 1},
}  # fmt: skip


@BOTH_RETURNS
@BOTH_DIRECTIONS
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_random_direction(variant: dict[str, Any], bidirectional: bool, returns: Any) -> None:
    problem = StackProblem(bidirectional=bidirectional, returns=returns, **variant)
    gradients = problem.gradients()
    assert directional_error(problem.loss, problem.arrays, gradients) < 1e-6
    for name in problem.arrays:
        still = "W_h" in name and variant.get("T") == 1 and not problem.arrays.keys() & {"h0"}
        assert gradients[name].any() or still, f"{name} gets no gradient"


@pytest.mark.parametrize(("returns", "bidirectional"), [("every", True), ("last", True), ("last", False)])
def test_many_elements(returns: Any, bidirectional: bool) -> None:
    problem = StackProblem(
        1, 2, (1, 1), (2, 2), kernel_size=1, returns=returns, bidirectional=bidirectional, layer_norm="channel",
        dropout=0.2, recurrent_dropout=0.2, call={"draws": Draws(1), "mask": np.array([[True, True]])},
    )  # fmt: skip
    report = check_gradients(problem.loss, problem.arrays, problem.gradients())
    assert report.ok, str(report)


@settings(deadline=None, max_examples=12)
@given(
    N=st.integers(1, 3), T=st.integers(1, 3), hidden=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    H=st.integers(3, 5), W=st.integers(3, 5), K=st.integers(1, 3), bidirectional=st.booleans(), states=st.booleans(),
    returns=st.sampled_from(["every", "last"]),
)  # fmt: skip
def test_a_random_direction_on_any_shape(
    N: int, T: int, hidden: list[int], H: int, W: int, K: int, bidirectional: bool, states: bool, returns: Any
) -> None:
    problem = StackProblem(
        N, T, tuple(hidden), (H, W), kernel_size=K, bidirectional=bidirectional, states=states, returns=returns
    )
    assert directional_error(problem.loss, problem.arrays, problem.gradients()) < 1e-6


@pytest.mark.parametrize("fault", ["not turned back", "one direction lost", "shares exchanged"])
def test_planted_faults_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from convlstm import layer_stack

    problem = StackProblem(hidden=(2, 2), bidirectional=True)
    _, _, cache = problem.forward(problem.arrays)
    share = layer_stack._share
    if fault == "not turned back":
        monkeypatch.setattr(problem.stack, "_turned", lambda index: slice(None))
    elif fault == "one direction lost":
        monkeypatch.setattr(
            layer_stack, "_share", lambda maps, position, C, axis: share(maps, position, C, axis) * (position == 0)
        )
    else:
        monkeypatch.setattr(layer_stack, "_share", lambda maps, position, C, axis: share(maps, 1 - position, C, axis))
    dx, _, gradients = problem.stack.backward(cache, problem.u, problem.u_states)
    monkeypatch.undo()
    right = problem.gradients()
    assert directional_error(problem.loss, problem.arrays, {**right, **gradients, "x": dx}) > 1e-3


@BOTH_RETURNS
@BOTH_DIRECTIONS
def test_gradients_that_are_not_given_count_as_zeros(returns: Any, bidirectional: bool) -> None:
    problem = StackProblem(bidirectional=bidirectional, returns=returns)
    _, _, cache = problem.forward(problem.arrays)
    zeros = [(np.zeros_like(h), np.zeros_like(c)) for h, c in problem.u_states]
    for none, zero in (
        ((None, problem.u_states), (np.zeros_like(problem.u), problem.u_states)),
        ((problem.u, None), (problem.u, zeros)),
        ((None, None), (np.zeros_like(problem.u), zeros)),
    ):
        (dx, dstates, gradients), (right_dx, right_dstates, right) = (
            problem.stack.backward(cache, *given) for given in (none, zero)
        )
        assert_same_bits({**gradients, "x": dx}, {**right, "x": right_dx})
        for found, expected in zip(dstates, right_dstates, strict=True):
            np.testing.assert_array_equal(found, expected)


# Bits -------------------------------------------------------------------------------------------------------------


@BOTH_DIRECTIONS
@pytest.mark.parametrize("threads", [2, 3, 4])
def test_threads_change_no_bit(threads: int, bidirectional: bool) -> None:
    options: dict[str, Any] = {
        "N": 5, "bidirectional": bidirectional, "layer_norm": "channel", "dropout": 0.3, "dtype": "float32",
        "call": {"draws": Draws(1)},
    }  # fmt: skip
    assert_same_bits(StackProblem(threads=threads, **options).results(), StackProblem(**options).results())


@BOTH_RETURNS
@BOTH_DIRECTIONS
def test_recomputing_changes_no_bit(returns: Any, bidirectional: bool) -> None:
    problem = StackProblem(T=4, returns=returns, bidirectional=bidirectional)
    right = problem.results()
    for k in (1, 2, 3, 4, 9):
        problem.call = {"recompute": k}
        assert_same_bits(problem.results(), right)


def test_each_layer_keeps_only_its_last_steps_where_the_rest_is_computed_again() -> None:
    problem = StackProblem(T=4, call={"recompute": 3})
    _, _, cache = problem.forward(problem.arrays)
    for layer in cache.layers:
        for _, chunks in layer.parts:
            assert [type(kept) for kept in chunks] == [Start, Unrolled]


def test_backward_twice_gives_the_same() -> None:
    problem = StackProblem(bidirectional=True, returns="last")
    _, _, cache = problem.forward(problem.arrays)
    once, again = (problem.stack.backward(cache, problem.u, problem.u_states) for _ in range(2))
    np.testing.assert_array_equal(once[0], again[0])
    assert_same_bits(once[2], again[2])


def test_float32_stays_float32() -> None:
    problem = StackProblem(bidirectional=True, returns="last", dtype="float32")
    assert {array.dtype.name for array in problem.results().values()} == {"float32"}


# Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hidden_channels": ()}, r"hidden_channels must be a list, one number for each layer; got \(\)"),
        ({"hidden_channels": 16}, "hidden_channels must be a list, one number for each layer; got 16"),
        ({"hidden_channels": (2, 0)}, "hidden_channels must be an integer ≥ 1; got 0"),
        ({"hidden_channels": [8, None]}, "hidden_channels must be an integer ≥ 1; got None"),
        ({"hidden_channels": [8, {}]}, "hidden_channels must be an integer ≥ 1; got {}"),
        ({"bidirectional": "no"}, "bidirectional must be True or False; got 'no'"),
        ({"returns": "all"}, 'returns must be "every" or "last"; got \'all\''),
        ({"returns": ["last"]}, r"returns must be \"every\" or \"last\"; got \['last'\]"),
        ({"stride": [1]}, r"stride must be one setting, or a list with one for each of the 2 layers; got \[1\]"),
        ({"kernel_size": [3, 3, 3]}, "kernel_size must be one setting, or a list with one for each of the 2 layers"),
        ({"recurrent_kernel_size": []}, "recurrent_kernel_size must be one setting, or a list"),
        ({"padding": ["same"]}, "padding must be one setting, or a list"),
        ({"dilation": [1, 1, 1]}, "dilation must be one setting, or a list"),
        ({"spatial_shape": [(4, 4)]}, "spatial_shape must be one setting, or a list"),
        ({"in_channels": 0}, "in_channels must be an integer ≥ 1; got 0"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        ConvLSTMStack(**{"in_channels": 1, "hidden_channels": (2, 2), "backend": "numpy", **options})


X = np.zeros((2, 3, 2, 4, 5), "float32")
PAIR = (np.zeros((2, 3, 4, 5), "float32"), np.zeros((2, 3, 4, 5), "float32"))


def stack(in_channels: int = 2, hidden: tuple[int, ...] = (3, 3), **options: Any) -> ConvLSTMStack:
    return ConvLSTMStack(in_channels, hidden, **{"backend": "numpy", **options})


@pytest.mark.parametrize(
    ("x", "states", "error", "said"),
    [
        (X[0], None, ValueError, r"x must have shape \(N, T, 2, H, W\); got \(3, 2, 4, 5\)"),
        (X[:, :, :1], None, ValueError, r"x must have shape \(N, T, 2, H, W\)"),
        (X.astype("float64"), None, TypeError, "x must have dtype float32; got float64"),
        (X.tolist(), None, TypeError, "x must be an array of backend numpy; got builtins.list"),
        (X, [PAIR], ValueError, r"states must be a tuple of 2 pairs \(h, c\), one for each layer; got 1"),
        (X, PAIR[0], ValueError, r"states must be a tuple of 2 pairs \(h, c\), one for each layer; got ndarray"),
        (X, PAIR, TypeError, r"state of layers\.0 must be a pair of arrays \(h, c\)"),
        (X, [PAIR, (PAIR[0][:1], PAIR[1])], ValueError, r"state of layers\.1 h must have shape \(2, 3, 4, 5\)"),
    ],
)
def test_wrong_operands_are_named(x: Any, states: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"^{said}"):
        stack().forward(x, states)


def test_wrong_masks_are_named() -> None:
    with pytest.raises(ValueError, match=r"^mask must have shape \(2, 3\); got \(3, 2\)$"):
        stack(bidirectional=True).forward(X, mask=np.ones((3, 2), bool))
    with pytest.raises(TypeError, match=r"^mask must be a NumPy array of bool; got list$"):
        stack(bidirectional=True).forward(X, mask=[[True] * 3] * 2)  # type: ignore[arg-type]


@BOTH_RETURNS
@pytest.mark.parametrize(
    ("dstates", "error", "said"),
    [
        ([PAIR], ValueError, r"dstates must be a tuple of 2 pairs \(h, c\), one for each layer; got 1"),
        ([PAIR, PAIR[0]], TypeError, r"dstate of layers\.1 must be a pair of arrays \(h, c\); got ndarray"),
        (
            [PAIR, (PAIR[0][:1], PAIR[1])],
            ValueError,
            r"dstate of layers\.1 h must have shape \(2, 3, 4, 5\)",
        ),
        (
            [PAIR, (PAIR[0].astype("float64"), PAIR[1])],
            TypeError,
            r"dstate of layers\.1 h must have dtype float32",
        ),
        (
            [(PAIR[0], PAIR[1][:1]), PAIR],
            ValueError,
            r"dstate of layers\.0 c must have shape \(2, 3, 4, 5\)",
        ),
    ],
)
def test_wrong_gradients_to_states_are_named(returns: Any, dstates: Any, error: type[Exception], said: str) -> None:
    made = stack(returns=returns)
    output, _, cache = made.forward(X)
    with pytest.raises(error, match=f"^{said}"):
        made.backward(cache, output, dstates)


def test_wrong_gradients_to_the_output_are_named() -> None:
    every, last = stack(), stack(returns="last")
    (h, _, h_cache), (h_T, _, last_cache) = every.forward(X), last.forward(X)
    with pytest.raises(ValueError, match=r"^doutput must have shape \(2, 3, 3, 4, 5\); got \(2, 3, 4, 5\)"):
        every.backward(h_cache, h_T)
    with pytest.raises(ValueError, match=r"^doutput must have shape \(2, 3, 4, 5\); got \(2, 3, 3, 4, 5\)"):
        last.backward(last_cache, h)


@pytest.mark.parametrize(
    "other",
    [
        stack(hidden=(3,)), stack(hidden=(3, 4)), stack(returns="last"), stack(dtype="float64"), stack(bias=None),
        stack(in_channels=3, bidirectional=True, hidden=(3,)), stack(seed=1),
    ],
    ids=["fewer layers", "other channels", "the last", "float64", "no bias", "both directions", "another seed"],
)  # fmt: skip
def test_another_stacks_cache_is_refused(other: ConvLSTMStack) -> None:
    """Two directions of one level have the shapes of two levels, where Cin = C."""
    in_channels = other.layers[0].in_channels
    x = np.zeros((2, 3, in_channels, 4, 5), other.dtype)
    _, _, cache = other.forward(x)
    with pytest.raises(TypeError, match=r"^cache must be what this .* forward returned; got another "):
        stack(in_channels).backward(cache, None)


def test_swapped_arguments_of_backward_are_named() -> None:
    made = stack()
    output, _, cache = made.forward(X)
    with pytest.raises(TypeError, match=r"^cache must be what this stack's forward returned; got .* ndarray$"):
        made.backward(output, cache)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"layers.1.b": np.zeros(7, "float32")}, ValueError, r"parameters\['layers.1.b'\] must have shape \(12,\)"),
        ({"layers.2.b": np.zeros(12, "float32")}, KeyError, "missing or unknown: layers.2.b"),
    ],
)
def test_wrong_parameters_are_named(change: dict[str, Array], error: type[Exception], said: str) -> None:
    made = stack()
    made.parameters.update(change)
    with pytest.raises(error, match=said):
        made.forward(X)


def test_assigned_parameters_are_used() -> None:
    made = stack()
    x = np.random.default_rng(0).standard_normal(X.shape).astype("float32")
    before, _, _ = made.forward(x)
    made.parameters["layers.1.W_x"] = 2 * made.parameters["layers.1.W_x"]
    assert not np.array_equal(made.forward(x)[0], before)


def test_small_integers_of_numpy_do_not_overflow() -> None:
    stack = ConvLSTMStack(1, (np.uint8(200), 2), kernel_size=1, bidirectional=True, backend="numpy")  # type: ignore[arg-type]
    assert stack.parameters["layers.1.forward.W_x"].shape == (8, 400, 1, 1)
