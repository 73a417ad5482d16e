"""Recurrent nets with a fault planted in their backward, in every layout that programs have: each is told by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convlstm import check_gradients_over_time
from convlstm.backends import Array
from convlstm.gradcheck import LengthsReport
from convlstm.gradcheck.lengths import OWN_SUM
from convlstm.gradcheck.over_time import Problem

N, D, C, K, LENGTHS = 2, 3, 2, 1, (1, 2, 3)
X, Y = np.random.default_rng(7).normal(size=(2, 6, N, D))
GATES = {"i": "input", "f": "forget", "g": "cell", "o": "output"}
Indices = npt.NDArray[np.intp]


def sigmoid(z: Array) -> Array:
    s: Array = 1 / (1 + np.exp(-z))
    return s


# An LSTM whose parameters are one vector ------------------------------------------------------------------------------
#
# A layout is a name for each array of places in that vector: so one backward serves all of them.


def segments(layers: int, learned: bool, peephole: bool) -> dict[str, Indices]:
    """Return where each parameter stands: weights of x, of h, biases; peepholes and initial states; the output's."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        shapes |= {f"x{layer}": (C if layer else D, 4, C), f"h{layer}": (C, 4, C), f"b{layer}": (4, C)}
        shapes |= {f"p{layer}": (3, C)} if peephole else {}
        shapes |= {f"s{layer}": (2, C)} if learned else {}
    found, start = {}, 0
    for name, shape in {**shapes, "V": (C, K)}.items():
        size = int(np.prod(shape))
        found[name] = np.arange(start, start + size).reshape(shape)
        start += size
    return found


def pytorch(x: Indices, h: Indices, b: Indices) -> dict[str, Indices]:
    return {"weight_ih": x.reshape(-1, 4 * C).T, "weight_hh": h.reshape(C, 4 * C).T, "bias": b.ravel()}


def keras(x: Indices, h: Indices, b: Indices) -> dict[str, Indices]:
    return {"kernel": x.reshape(-1, 4 * C), "recurrent_kernel": h.reshape(C, 4 * C), "bias": b.ravel()}


def letters(x: Indices, h: Indices, b: Indices) -> dict[str, Indices]:
    return {f"{k}{gate}": a[..., n, :] for n, gate in enumerate(GATES) for k, a in (("Wx", x), ("Wh", h), ("b", b))}


def words(x: Indices, h: Indices, b: Indices) -> dict[str, Indices]:
    each = (("W", x), ("U", h), ("b", b))
    return {f"{gate}_{k}": a[..., n, :] for n, gate in enumerate(GATES.values()) for k, a in each}


def own_axis(x: Indices, h: Indices, b: Indices) -> dict[str, Indices]:
    return {"Wx": x.transpose(1, 2, 0), "Wh": h.transpose(1, 2, 0), "b": b}


def joint(x: Indices, h: Indices, b: Indices) -> dict[str, Indices]:
    return {"W": np.concatenate([x, h]).reshape(-1, 4 * C), "b": b.ravel()}


def joint_rows(x: Indices, h: Indices, b: Indices) -> dict[str, Indices]:
    return {"W": np.concatenate([x, h]).reshape(-1, 4 * C).T, "b": b.ravel()}


LAYOUTS = {layout.__name__: layout for layout in (pytorch, keras, letters, words, own_axis, joint, joint_rows)}


def forward(p: Mapping[str, Array], layers: int, T: int) -> tuple[list[list[dict[str, Array]]], list[Array]]:
    """Return what each layer's steps leave for the backward, and the hidden states of the highest."""
    caches, xs = [], list(X[:T])
    for layer in range(layers):
        h, c = (np.zeros((N, C)) + state for state in p.get(f"s{layer}", np.zeros((2, C))))
        w = p.get(f"p{layer}", np.zeros((3, C)))
        steps = []
        for x in xs:
            z = np.einsum("nd,dgc->gnc", x, p[f"x{layer}"]) + np.einsum("nd,dgc->gnc", h, p[f"h{layer}"])
            z += p[f"b{layer}"][:, None]
            i, f, g = sigmoid(z[0] + w[0] * c), sigmoid(z[1] + w[1] * c), np.tanh(z[2])
            new = f * c + i * g
            o = sigmoid(z[3] + w[2] * new)
            steps.append({"x": x, "h_": h, "c_": c, "i": i, "f": f, "g": g, "o": o, "c": new, "h": o * np.tanh(new)})
            h, c = steps[-1]["h"], new
        caches.append(steps)
        xs = [step["h"] for step in steps]
    return caches, xs


def loss_of(p: Mapping[str, Array], layers: int, T: int) -> float:
    _, hs = forward(p, layers, T)
    return float(sum(((h @ p["V"] - y[:, :K]) ** 2).sum() for h, y in zip(hs, Y, strict=False)) / 2)


def backward(p: Mapping[str, Array], layers: int, T: int, faults: set[str], wrong_layer: int) -> dict[str, Array]:
    """Return the gradients, with these faults in one layer."""
    caches, hs = forward(p, layers, T)
    found = {name: np.zeros_like(array) for name, array in p.items()}
    dhs = []
    for h, y in zip(hs, Y, strict=False):
        found["V"] += h.T @ (h @ p["V"] - y[:, :K])
        dhs.append((h @ p["V"] - y[:, :K]) @ p["V"].T)
    for layer in reversed(range(layers)):
        planted = faults if layer == wrong_layer else set()
        w = p.get(f"p{layer}", np.zeros((3, C)))
        dh_later, dc_later = np.zeros((2, N, C))
        for t in reversed(range(T)):
            step = caches[layer][t]
            x, i, f, g, o, c = (step[k] for k in ("x", "i", "f", "g", "o", "c"))
            h_ = step["h"] if "h index" in planted else step["h_"]
            c_ = step["c"] if "c index" in planted else step["c_"]
            dh = dhs[t] + ("h lost" not in planted) * dh_later
            do = dh * np.tanh(c) * o * (1 - o)
            dc = dh * o * (1 - np.tanh(c) ** 2) + ("c lost" not in planted) * dc_later + do * w[2]
            df = dc * c_ * (1 if "forget δ" in planted else f * (1 - f))
            dz = np.stack([dc * g * i * (1 - i), df, dc * i * (1 - g**2), do])
            dh_later = np.einsum("gnc,dgc->nd", dz, p[f"h{layer}"])
            dc_later = dc * (1 if "c without f" in planted else f) + dz[0] * w[0] + dz[1] * w[1]
            dhs[t] = np.einsum("gnc,dgc->nd", dz, p[f"x{layer}"])
            read = dz[[1, 0, 2, 3]] if "swapped gates" in planted else dz
            peeped = (c if "peephole index" in planted else step["c_"], step["c_"], c)
            added = {
                "x": np.einsum("nd,gnc->dgc", x, read),
                "h": np.einsum("nd,gnc->dgc", h_, read),
                "b": (0 if "zero bias" in planted else 1) * read.sum(axis=1),
                "p": np.stack([(dz[k] * c).sum(axis=0) for k, c in zip((0, 1, 3), peeped, strict=True)]),
            }
            for kind, gradient in added.items():
                if f"{kind}{layer}" in found:
                    kept = "=" in planted or ("= in one" in planted and kind == "x")
                    found[f"{kind}{layer}"] = gradient + (not kept) * found[f"{kind}{layer}"]
        if f"s{layer}" in found:
            found[f"s{layer}"] = np.stack([dh_later.sum(axis=0), dc_later.sum(axis=0)])
            found[f"s{layer}"] *= [[("h lost" not in planted)], [("c lost" not in planted)]]
    return found


def lstm(
    layout: Callable[[Indices, Indices, Indices], dict[str, Indices]], *faults: str,
    layers: int = 1, wrong_layer: int = 0, learned: bool = False, peephole: bool = False,
) -> Problem:  # fmt: skip
    places = segments(layers, learned, peephole)
    named: dict[str, Indices] = {}
    for layer in range(layers):
        end = f"_l{layer}" if layers > 1 else ""
        each = layout(places[f"x{layer}"], places[f"h{layer}"], places[f"b{layer}"])
        each |= {f"p_{gate}": places[f"p{layer}"][k] for k, gate in enumerate("ifo") if peephole}
        each |= {state: places[f"s{layer}"][k] for k, state in enumerate(("h0", "c0")) if learned}
        named |= {name + end: indices for name, indices in each.items()}
    named["V"] = places["V"]
    start = np.random.default_rng(3).normal(0, 0.7, places["V"].max() + 1)

    def unpacked(parameters: Mapping[str, Array]) -> dict[str, Array]:
        vector = np.zeros(start.size)
        for name, indices in named.items():
            vector[indices] = parameters[name]
        return {name: vector[indices] for name, indices in places.items()}

    def problem(T: int) -> tuple[Callable[[Mapping[str, Array]], float], dict[str, Array], Any]:
        parameters = {name: start[indices] for name, indices in named.items()}
        gradient = np.zeros(start.size)
        for name, found in backward(unpacked(parameters), layers, T, set(faults), wrong_layer).items():
            gradient[places[name]] = found
        return lambda p: loss_of(unpacked(p), layers, T), parameters, {n: gradient[k] for n, k in named.items()}

    return problem


def check(problem: Problem, lengths: Any = LENGTHS, **named: Any) -> LengthsReport:
    return check_gradients_over_time(problem, lengths, progress=lambda text: None, **named)


@pytest.mark.parametrize("named", [{}, {"learned": True}, {"peephole": True}, {"layers": 2}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_right_gradients_are_not_accused(layout: str, named: dict[str, Any]) -> None:
    report = check(lstm(LAYOUTS[layout], **named), (1, 2))
    assert report.ok, report
    assert report.summary == ""


# One fault, every layout ----------------------------------------------------------------------------------------------

FORGET_GATE = r"gate (f|2 of 4)"
FAULTS = {
    "h lost": "from T = 2: the carry of h through time, .* since at T = 2 the output gate's gradient is wrong too",
    "c lost": "from T = 2: the carry of c through time, .* only gates (g, i|1 of 4, 3 of 4) are wrong$",
    "c without f": "from T = 2: the carry of c through time, .* only gates (g, i|1 of 4, 3 of 4) are wrong",
    "h index": "where the loss does not depend on it: the h that δW_h is multiplied by is not that of step t-1",
    "c index": f"{FORGET_GATE} only, so the c that the forget gate's δ is multiplied by is not that of step t-1",
    "forget δ": f"from T = 2: only {FORGET_GATE}, which nothing was carried to at its last step: .* its δ",
    "=": "wrong from T = 2: they hold the first step's share alone, .* = where [+]= belongs",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fault_is_told_in_every_layout(layout: str, fault: str) -> None:
    report = check(lstm(LAYOUTS[layout], fault), (1, 2))
    assert re.search(FAULTS[fault], report.summary), report
    assert set(report.faults.values()) == {report.summary}
    assert "V" not in report.faults


@pytest.mark.parametrize("layout", ["pytorch", "keras", "letters", "words", "own_axis"])
def test_sum_over_time_of_one_gradient_alone(layout: str) -> None:
    report = check(lstm(LAYOUTS[layout], "= in one"))
    inputs = set(report.reports[2].faults)
    assert report.summary.endswith(OWN_SUM)
    assert set(report.faults) == inputs
    assert not any("h" in name.lower().replace("weight_ih", "") or name == "bias" for name in report.faults)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_swapped_gates(layout: str) -> None:
    summary = check(lstm(LAYOUTS[layout], "swapped gates"), (1, 2)).summary
    said = r"only gate 1 of 4 and 2 of 4: " if layout == "own_axis" else r"gates swapped(: blocks 1 and 2 of 4|, or n)"
    assert re.search(said, summary), summary


@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_two_faults_both_are_told(layout: str) -> None:
    report = check(lstm(LAYOUTS[layout], "zero bias", "h lost"))
    assert "from T = 2: the carry of h through time" in report.summary
    zero = {name for name, line in report.faults.items() if "zero: nothing was ever added to it" in line}
    assert zero == {name for name in report.faults if name.startswith("b") or name.endswith("_b")}
    assert all(line == report.summary for name, line in report.faults.items() if name not in zero)


@pytest.mark.parametrize("wrong_layer", [0, 1])
@pytest.mark.parametrize("fault", ["h lost", "c index"])
@pytest.mark.parametrize("layout", ["pytorch", "words"])
def test_of_stacked_layers_the_highest_wrong_one_is_named(layout: str, fault: str, wrong_layer: int) -> None:
    report = check(lstm(LAYOUTS[layout], fault, layers=2, wrong_layer=wrong_layer), (1, 2))
    assert report.summary.startswith(f"layer {wrong_layer}, the highest that is wrong: ")
    assert re.search(FAULTS[fault].split(", .*")[0], report.summary), report.summary
    assert all(int(name[-1]) <= wrong_layer for name in report.faults)


@pytest.mark.parametrize(("fault", "state"), [("h lost", "h"), ("c lost", "c")])
@pytest.mark.parametrize("layout", ["pytorch", "letters", "joint"])
def test_from_a_learned_initial_state(layout: str, fault: str, state: str) -> None:
    """No weights are silent at T = 1 then; gates of one matrix for x and h cannot be told."""
    report = check(lstm(LAYOUTS[layout], fault, learned=True), (1, 2))
    carry = "a carry through time, of h or c" if layout == "joint" else f"the carry of {state} through time"
    assert f"from T = 2: {carry}" in report.summary
    assert "zero: nothing was ever added" in report.faults[f"{state}0"]


@pytest.mark.parametrize("layout", ["pytorch", "letters", "joint"])
def test_peephole_of_the_wrong_step(layout: str) -> None:
    report = check(lstm(LAYOUTS[layout], "peephole index", peephole=True), (1, 2))
    assert list(report.faults) == ["p_i"]
    assert "p_i: the c that a peephole's δ is multiplied by is not that of step t-1" in report.summary


# Plain and convolutional nets -----------------------------------------------------------------------------------------


def convolved(x: Array, kernel: Array) -> Array:
    """x (N, C, H, W), kernel (D, C, 3, 3) or (D, C, 1, 1)."""
    taps = kernel.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (taps // 2,) * 2, (taps // 2,) * 2))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps), axis=(2, 3))
    z: Array = np.einsum("nchwkl,dckl->ndhw", seen, kernel)
    return z


def recurrent_net(taps: int, fault: str, taps_first: bool = False, dense: bool = False) -> Problem:
    """h_t = tanh(W * x_t + U * h_{t-1} + b); dense: as matrices. Its gradients are a function."""
    rng = np.random.default_rng(1)
    xs, ys = rng.normal(size=(5, 2, 1, 4, 3)), rng.normal(size=(5, 2, 2, 4, 3))
    kernels = {"W": rng.normal(size=(2, 1, taps, taps)), "U": rng.normal(size=(2, 2, taps, taps))}

    def shown(arrays: Mapping[str, Array]) -> dict[str, Array]:
        if dense:
            return {name: a.reshape(a.shape[:2]) if name in "WU" else a for name, a in arrays.items()}
        return {name: a.transpose(2, 3, 1, 0) if taps_first and name in "WU" else a for name, a in arrays.items()}

    def hidden(arrays: Mapping[str, Array]) -> dict[str, Array]:
        if dense:
            return {name: a[..., None, None] if name in "WU" else a for name, a in arrays.items()}
        return {name: a.transpose(3, 2, 0, 1) if taps_first and name in "WU" else a for name, a in arrays.items()}

    def states(p: Mapping[str, Array], T: int) -> list[Array]:
        h = [np.zeros_like(ys[0])]
        for x in xs[:T]:
            h.append(np.tanh(convolved(x, p["W"]) + convolved(h[-1], p["U"]) + p["b"][:, None, None]))
        return h

    def weights(x: Array, dz: Array) -> Array:
        """δ of a kernel, dz * x."""
        padded = np.pad(x, ((0, 0), (0, 0), (taps // 2,) * 2, (taps // 2,) * 2))
        seen = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps), axis=(2, 3))
        found: Array = np.einsum("nchwkl,ndhw->dckl", seen, dz)
        return found

    def gradients(p: Mapping[str, Array], T: int) -> dict[str, Array]:
        h, dh = states(p, T), np.zeros_like(ys[0])
        found = {name: np.zeros_like(a) for name, a in p.items()}
        for t in reversed(range(T)):
            dz = (h[t + 1] - ys[t] + dh) * (1 - h[t + 1] ** 2)
            found["W"] += weights(xs[t], dz)
            found["U"] += weights(h[t + 1] if fault == "h index" else h[t], dz)
            found["b"] += dz.sum(axis=(0, 2, 3))
            back = p["U"] if fault == "not transposed" else p["U"].swapaxes(0, 1)
            back = convolved(dz, back if fault == "not rotated" else back[..., ::-1, ::-1])
            dh = 0 * back if fault == "h lost" else dh + back if fault == "accumulated" else back
        return found

    def problem(T: int) -> tuple[Callable[[Mapping[str, Array]], float], dict[str, Array], Any]:
        def loss(p: Mapping[str, Array]) -> float:
            return float(sum(((h - y) ** 2).sum() for h, y in zip(states(hidden(p), T)[1:], ys, strict=False)) / 2)

        parameters = {
            name: np.ascontiguousarray(a) for name, a in shown({**kernels, "b": np.array([0.1, 0.2])}).items()
        }
        return loss, parameters, lambda p: shown(gradients(hidden(p), T))

    return problem


@pytest.mark.parametrize("taps_first", [False, True], ids=["OIHW", "HWIO"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("", "^$"),
        ("not rotated", "the carry of h .*; it is right with kernels that equal their own rotation"),
        ("h lost", "the carry of h .*; in a convolution its kernel must be rotated"),
    ],
)
def test_convolutional_net(fault: str, said: str, taps_first: bool) -> None:
    assert re.search(said, check(recurrent_net(3, fault, taps_first), (1, 2)).summary)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("", "^$"),
        ("not transposed", "the carry of h .*; it is right with weights that equal their own transpose"),
        ("h lost", "the carry of h through time, δh₋ = W_hᵀ δ, is lost or wrong$"),
        ("h index", "the h that δW_h is multiplied by is not that of step t-1"),
        ("accumulated", "wrong from T = 3: by more with each step: the carry is accumulated|or accumulated"),
    ],
)
def test_plain_recurrent_net(fault: str, said: str) -> None:
    summary = check(recurrent_net(1, fault, dense=True), (1, 2, 3, 4)).summary
    assert re.search(said, summary), summary


def gru(fault: str, stacked: bool) -> Problem:
    """A GRU of two units, reset before; order z, r, n where its kernels are stacked."""
    rng = np.random.default_rng(2)
    start = {"W": rng.normal(size=(3, D, C)), "U": rng.normal(size=(3, C, C)), "b": rng.normal(size=(3, C))}

    def shown(p: Mapping[str, Array]) -> dict[str, Array]:
        if stacked:
            return {name: np.concatenate(list(a), axis=-1) for name, a in p.items()}
        return {f"{name}{gate}": a[k] for name, a in p.items() for k, gate in enumerate("zrn")}

    def hidden(p: Mapping[str, Array]) -> dict[str, Array]:
        if stacked:
            return {name: np.stack(np.split(a, 3, axis=-1)) for name, a in p.items()}
        return {name: np.stack([p[f"{name}{gate}"] for gate in "zrn"]) for name in "WUb"}

    def steps(p: Mapping[str, Array], T: int) -> list[tuple[Array, ...]]:
        h: Array = np.zeros((N, C))
        found: list[tuple[Array, ...]] = []
        for x in X[:T]:
            z, r = (sigmoid(x @ p["W"][k] + h @ p["U"][k] + p["b"][k]) for k in (0, 1))
            n = np.tanh(x @ p["W"][2] + (r * h) @ p["U"][2] + p["b"][2])
            found.append((x, h, z, r, n, (1 - z) * n + z * h))
            h = found[-1][-1]
        return found

    def gradients(p: Mapping[str, Array], T: int) -> dict[str, Array]:
        found, later = {name: np.zeros_like(a) for name, a in p.items()}, np.zeros((N, C))
        for (x, h, z, r, n, new), y in reversed(list(zip(steps(p, T), Y[:T], strict=True))):
            dh = new - y[:, :C] + later
            dn, dz = dh * (1 - z) * (1 - n**2), dh * (h - n) * z * (1 - z)
            gated = dn @ p["U"][2].T
            dr = gated * h * r * (1 - r)
            for k, (d, read) in enumerate(((dz, h), (dr, h), (dn, r * h))):
                found["W"][k] += x.T @ d
                found["U"][k] += read.T @ d
                found["b"][k] += d.sum(axis=0)
            later = dz @ p["U"][0].T + dr @ p["U"][1].T + gated * r + dh * z
            later *= fault != "h lost"
        return found

    def problem(T: int) -> tuple[Callable[[Mapping[str, Array]], float], dict[str, Array], Any]:
        def loss(p: Mapping[str, Array]) -> float:
            return float(sum(((s[-1] - y[:, :C]) ** 2).sum() for s, y in zip(steps(hidden(p), T), Y, strict=False)) / 2)

        return loss, shown(start), shown(gradients(start, T))

    return problem


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(("fault", "said"), [("", "^$"), ("h lost", "from T = 2: the carry of h through time")])
def test_gru(fault: str, said: str, stacked: bool) -> None:
    summary = check(gru(fault, stacked)).summary
    assert re.search(said, summary), summary


# Lengths and arguments ------------------------------------------------------------------------------------------------


def predicting(T: int) -> tuple[Callable[[Mapping[str, Array]], float], dict[str, Array], dict[str, Array]]:
    """T values shown, T - 1 predicted: at T = 1 the loss is zero and reads nothing."""
    u = np.arange(1.0, 4.0)
    return lambda p: float(T - 1) * float(u @ np.sin(p["w"])), {"w": u / 5}, {"w": (T - 1) * u * np.cos(u / 5)}


def test_loss_that_reads_nothing_at_the_first_length_is_right_with_zero_gradients() -> None:
    report = check(predicting)
    assert report.ok, report
    assert report.faults == {}
    assert report.summary == ""


def test_loss_that_reads_nothing_at_any_length_is_never_passed_in_silence() -> None:
    assert "the loss does not read 'w'" in str(check(lambda T: predicting(1)))


def test_without_the_first_length_the_cell_cannot_be_told_from_the_carry() -> None:
    report = check(lstm(pytorch, "h lost"), (2, 3))
    assert report.summary.startswith("wrong at T = 2 already, the shortest length checked; check T = 1")
    assert check(lstm(pytorch), (2, 3)).ok


@pytest.mark.parametrize("lengths", [np.arange(1, 3), [np.int32(1), np.int64(2)], range(1, 3)], ids=str)
def test_lengths_of_any_whole_numbers(lengths: Any) -> None:
    report = check(predicting, lengths)
    assert report.ok
    assert list(report.reports) == [1, 2]
    assert all(type(T) is int for T in report.reports)


@pytest.mark.parametrize(
    ("lengths", "error"),
    [(None, TypeError), (5, TypeError), ([1.5], TypeError), ("12", TypeError), ([], ValueError), ([2, 1], ValueError),
     ([0], ValueError), ([1, 1], ValueError)],
)  # fmt: skip
def test_wrong_lengths(lengths: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=re.escape(f"; got {lengths!r}")) as raised:
        check(predicting, lengths)
    assert str(raised.value).startswith("lengths must be whole numbers ≥ 1")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (None, "problem must be a function of the length T; got NoneType"),
        (predicting(1), "problem must be a function of the length T; got tuple"),
        (lambda T: None, r"problem\(1\) must return \(loss, parameters, gradients\); got NoneType"),
        (lambda T: predicting(T)[:2], r"problem\(1\) must return \(loss, parameters, gradients\); got 2 values"),
        (lambda T: (1.0, *predicting(T)[1:]), "loss must be a function of the parameters; got float"),
    ],
)
def test_wrong_problem(problem: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        check(problem)


@pytest.mark.parametrize("sizes", [{"N": 2.5}, [("N", 2)], {1: 2}, "N"])
def test_wrong_sizes(sizes: Any) -> None:
    with pytest.raises(TypeError, match="sizes must map names to whole numbers"):
        check(predicting, sizes=sizes)


@pytest.mark.parametrize("seed", [-1, 1.0, None, True])
def test_wrong_seed(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number ≥ 0; got "):
        check(predicting, seed=seed)


def test_length_is_one_of_the_sizes() -> None:
    def problem(T: int) -> tuple[Any, ...]:
        loss, parameters, gradients = predicting(T)
        return loss, parameters, {"w": gradients["w"] / T}

    assert " divided by T = 7 " in check(problem, (4, 7)).faults["w"]
