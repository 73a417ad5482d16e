"""The character model: its gradients, the LSTM that it is, training, writing, and the command as a user meets it."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convlstm import ConvLSTM
from convlstm.backends import Array
from convlstm.clipping import clip_global_norm
from convlstm.optimizers import Adam
from examples import character_model
from examples.character_model import (
    LEARNING_RATE,
    PIECE,
    STREAMS,
    VOCABULARY,
    CharacterModel,
    by_gate,
    encode,
    from_gates,
    gradients_by_gate,
    pieces,
    read_text,
    train,
    write,
)
from tests.numerical import Arrays, freeze, numeric_gradients, read_only

SCRIPT = Path(character_model.__file__)
N, T, C, D = 2, 4, 3, 5  # sequences, characters, hidden units, vocabulary
TEXT = "the quick brown fox jumps over the lazy dog; " * 40


def make_model(dtype: str = "float64", seed: int = 0) -> CharacterModel:
    return CharacterModel(D, C, seed=seed, dtype=dtype, backend="numpy")


def indices(seed: int = 0, length: int = T) -> tuple[Array, Array]:
    """Return x and y, each (N, length)."""
    x, y = np.random.default_rng(seed).integers(D, size=(2, N, length))
    freeze((x, y))
    return x, y


def random_state(seed: int = 0) -> tuple[Array, Array]:
    h, c = np.random.default_rng(seed).standard_normal((2, 1, C, 1, N))
    freeze((h, c))
    return h, c


# Gradients ------------------------------------------------------------------------------------------------------------


def test_gradients_are_the_numeric_ones_from_a_given_state() -> None:
    model, (x, y), state = make_model(), indices(), random_state()
    parameters = read_only(model.parameters)

    def loss_and_gradients(given: Arrays) -> tuple[float, dict[str, Array]]:
        model.parameters = dict(given)
        return model.loss_and_gradients(x, y, state)[:2]

    _, gradients = loss_and_gradients(parameters)
    assert gradients.keys() == parameters.keys() == {"W_x", "W_h", "V"}
    for name, numeric in numeric_gradients(lambda given: loss_and_gradients(given)[0], parameters).items():
        assert gradients[name].dtype == np.float64
        np.testing.assert_allclose(gradients[name], numeric, rtol=1e-7, atol=1e-9, err_msg=name)


def test_gradients_by_gate_are_the_numeric_ones_from_zeros() -> None:
    model, (x, y) = make_model(), indices()
    parameters = read_only(by_gate(model.parameters))

    def loss_and_gradients(given: Arrays) -> tuple[float, dict[str, Array]]:
        model.parameters = read_only(from_gates(given))
        return model.loss_and_gradients(x, y)[:2]

    gradients = gradients_by_gate(loss_and_gradients(parameters)[1])
    for name, numeric in numeric_gradients(lambda given: loss_and_gradients(given)[0], parameters).items():
        np.testing.assert_allclose(gradients[f"d{name}"], numeric, rtol=1e-7, atol=1e-9, err_msg=name)


def test_names_by_gate() -> None:
    model = make_model()
    named = by_gate(model.parameters)
    shapes = {name: matrix.shape for name, matrix in named.items()}
    assert shapes == {"V": (D, C), **{f"W_{g}": (C, C) for g in "ifgo"}, **{f"U_{g}": (C, D) for g in "ifgo"}}
    assert list(gradients_by_gate(model.parameters)) == [f"d{name}" for name in named]
    for name, array in from_gates(named).items():
        np.testing.assert_array_equal(array, model.parameters[name], strict=True)


def test_seeds_differ() -> None:
    one, other = make_model(seed=0).parameters, make_model(seed=1).parameters
    assert all((one[name] != other[name]).all() for name in one)


# The LSTM of the equations --------------------------------------------------------------------------------------------


def plain_lstm(p: Arrays, x: Array, y: Array) -> tuple[float, dict[str, Array], Array, Array]:
    """Return (L, gradients, h_T, c_T) of one sequence, character by character as in a textbook; nothing of convlstm."""
    h, c = [np.zeros(C)], [np.zeros(C)]
    kept, total = [], 0.0
    for x_t, y_t in zip(x, y, strict=True):
        i, f, o = (1 / (1 + np.exp(-(p[f"U_{a}"][:, x_t] + p[f"W_{a}"] @ h[-1]))) for a in "ifo")
        g = np.tanh(p["U_g"][:, x_t] + p["W_g"] @ h[-1])
        c.append(f * c[-1] + i * g)
        h.append(o * np.tanh(c[-1]))
        softmax = np.exp(p["V"] @ h[-1])
        softmax /= softmax.sum()
        total -= np.log(softmax[y_t])
        kept.append((i, f, g, o, softmax))
    d = {name: np.zeros_like(array) for name, array in p.items()}
    dh_next, dc = np.zeros(C), np.zeros(C)
    for t in reversed(range(len(x))):
        i, f, g, o, dz = kept[t]
        dz = dz - np.eye(D)[y[t]]
        d["V"] += np.outer(dz, h[t + 1])
        dh = p["V"].T @ dz + dh_next
        tanh_c = np.tanh(c[t + 1])
        dc = dc + dh * o * (1 - tanh_c**2)
        before = {
            "i": dc * g * i * (1 - i), "f": dc * c[t] * f * (1 - f),
            "g": dc * i * (1 - g**2), "o": dh * tanh_c * o * (1 - o),
        }  # fmt: skip
        for gate, da in before.items():
            d[f"W_{gate}"] += np.outer(da, h[t])
            d[f"U_{gate}"][:, x[t]] += da
        dh_next = sum((p[f"W_{gate}"].T @ da for gate, da in before.items()), np.zeros(C))
        dc = dc * f
    return total, d, h[-1], c[-1]


def test_it_is_the_lstm_of_the_equations() -> None:
    model, (x, y) = make_model(), indices()
    p = by_gate(model.parameters)
    each = [plain_lstm(p, x[n], y[n]) for n in range(N)]
    loss, gradients, (h, c) = model.loss_and_gradients(x, y)
    np.testing.assert_allclose(loss, np.mean([one[0] for one in each]), rtol=1e-12)
    for name, gradient in by_gate(gradients).items():
        right = np.mean([one[1][name] for one in each], axis=0)
        np.testing.assert_allclose(gradient, right, rtol=1e-12, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(h[0, :, 0].T, [one[2] for one in each], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(c[0, :, 0].T, [one[3] for one in each], rtol=1e-12, atol=1e-12)


def test_sequences_as_pixels_are_sequences_as_samples_of_1x1_maps() -> None:
    layer = ConvLSTM(D, C, kernel_size=1, bias=None, dtype="float64", backend="numpy")
    x, dh = (np.random.default_rng(0).standard_normal((N, T, channels, 1, 1)) for channels in (D, C))
    as_pixels = [a.transpose(4, 1, 2, 3, 0) for a in (x, dh)]
    found, _, cache = layer.forward(as_pixels[0])
    right, _, right_cache = layer.forward(x)
    np.testing.assert_allclose(found.transpose(4, 1, 2, 3, 0), right, rtol=1e-12, atol=1e-12)
    right_gradients = layer.backward(right_cache, dh)[2]
    for name, gradient in layer.backward(cache, as_pixels[1])[2].items():
        np.testing.assert_allclose(gradient, right_gradients[name], rtol=1e-12, atol=1e-12, err_msg=name)


def test_two_pieces_with_the_state_carried_are_one() -> None:
    model, (x, y) = make_model(), indices(length=2 * T)
    whole, _, end = model.loss_and_gradients(x, y)
    first, _, state = model.loss_and_gradients(x[:, :T], y[:, :T])
    freeze(state)
    second, _, carried_end = model.loss_and_gradients(x[:, T:], y[:, T:], state)
    np.testing.assert_allclose(first + second, whole, rtol=1e-13)
    for part, right in zip(carried_end, end, strict=True):
        np.testing.assert_allclose(part, right, rtol=1e-13, atol=1e-15)


def test_steps_are_the_sequence() -> None:
    model, (x, y) = make_model(), indices()
    state, total = None, 0.0
    for x_t, y_t in zip(x[0], y[0], strict=True):
        z, state = model.step(int(x_t), state)
        total += np.log(np.exp(z).sum()) - z[y_t]
    np.testing.assert_allclose(total, model.loss_and_gradients(x[:1], y[:1])[0], rtol=1e-12)


def test_large_logits_do_not_overflow() -> None:
    model, (x, y) = make_model("float32"), indices()
    model.parameters["V"] = np.float32(1e5) * model.parameters["V"]
    loss, gradients, _ = model.loss_and_gradients(x, y)
    assert loss > 100
    assert all(np.isfinite(gradient).all() and gradient.dtype == np.float32 for gradient in gradients.values())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[0, D]]), "x must lie in 0 … 4; got 0 … 5"),
        (np.array([[-1, 0]]), "x must lie in 0 … 4; got -1 … 0"),
        (np.array([0, 1]), r"x must have shape \(N, T\) and hold something; got \(2,\)"),
        (np.zeros((1, 0), int), r"x must have shape \(N, T\) and hold something; got \(1, 0\)"),
        (np.zeros((1, 3), int), r"x and y must have the same shape; got \(1, 3\) and \(1, 2\)"),
        (np.array([[0.0, 1.0]]), "x must be a NumPy array of integers; got float64"),
        ([[0, 1]], "x must be a NumPy array of integers; got list"),
    ],
)
def test_indices_that_are_none_are_named(x: Array, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        make_model().loss_and_gradients(x, np.array([[0, 1]]))


def test_a_parameter_of_another_shape_is_named() -> None:
    model = make_model()
    model.parameters["V"] = model.parameters["V"].T
    with pytest.raises(ValueError, match=r"^V must have shape \(5, 3\); got \(3, 5\)$"):
        model.loss_and_gradients(*indices())


# Text, training, writing ----------------------------------------------------------------------------------------------


def test_pieces_follow_each_other_and_begin_anew() -> None:
    codes = np.arange(STREAMS * (2 * PIECE + 1) + 7)  # two pieces a stream, and a remainder
    found = pieces(codes)
    (x1, y1, first), (x2, y2, second), (x3, _, third) = (next(found) for _ in range(3))
    assert (first, second, third) == (True, False, True)
    assert x1.shape == y1.shape == (STREAMS, PIECE)
    np.testing.assert_array_equal(y1, x1 + 1)
    np.testing.assert_array_equal(np.hstack([x1, x2])[0], np.arange(2 * PIECE))
    np.testing.assert_array_equal(x2[:, 0], y1[:, -1])
    np.testing.assert_array_equal(y2, x2 + 1)
    np.testing.assert_array_equal(x3, x1)


def test_the_shortest_text() -> None:
    assert next(pieces(np.arange(PIECE + 1)))[0].shape == (1, PIECE)
    with pytest.raises(ValueError, match=f"^the text must hold at least {PIECE + 1} characters; got {PIECE}$"):
        next(pieces(np.arange(PIECE)))


def test_rare_characters_of_many_are_left_out() -> None:
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    characters, codes, left_out = encode(many + "ab" * 5)
    assert (len(characters), len(codes), left_out) == (VOCABULARY, VOCABULARY + 8, 3000 - VOCABULARY + 2)
    assert "".join(characters[code] for code in codes[-10:]) == "ab" * 5


def test_the_default_text_is_english() -> None:
    assert read_text(None).count(" the ") > 1000


def test_training_lowers_the_loss_and_writing_repeats_itself() -> None:
    characters, codes, _ = encode(TEXT)
    model = CharacterModel(len(characters), 32, backend="numpy")
    losses = list(train(model, codes, 60))
    assert losses[0] == pytest.approx(np.log(len(characters)), rel=0.05)
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    written = [list(write(model, int(codes[0]), 50, seed=seed)) for seed in (3, 3, 4)]
    assert written[0] == written[1] != written[2]
    assert len(written[0]) == 50
    assert written[0][0] == codes[0]
    assert set(written[0]) <= set(range(len(characters)))


def test_training_carries_the_state_slows_down_and_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(character_model, "MAX_NORM", 0.1)
    codes = np.random.default_rng(0).integers(D, size=2 * PIECE + 1)  # one stream of two pieces
    model, by_hand = make_model(), make_model()
    losses = list(train(model, codes, 3))
    optimizer, state = Adam(LEARNING_RATE), None
    for step, start in enumerate((0, PIECE, 0)):
        x, y = codes[np.newaxis, start : start + PIECE], codes[np.newaxis, start + 1 : start + PIECE + 1]
        loss, gradients, state = by_hand.loss_and_gradients(x, y, state if start else None)
        optimizer.learning_rate = LEARNING_RATE * (1 - step / 3)
        optimizer.step(by_hand.parameters, clip_global_norm(gradients, 0.1))
        assert losses[step] == loss / PIECE
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(array, by_hand.parameters[name])


def test_temperature() -> None:
    model = make_model()
    likeliest = list(write(model, 0, 20, temperature=0))
    assert likeliest == list(write(model, 0, 20, temperature=0, seed=1))
    state = None
    for now, after in itertools.pairwise(likeliest):
        z, state = model.step(now, state)
        assert after == z.argmax()


def test_what_is_written_follows_the_softmax() -> None:
    """With a model whose z is the same whatever it reads: f = 0, g = 1, i = o = ½, so h = ½ tanh ½."""
    z = np.arange(D)
    model = make_model()
    named = {name: np.zeros_like(matrix) for name, matrix in by_gate(model.parameters).items()}
    named["U_f"] -= 100
    named["U_g"] += 100
    named["V"][:, 0] = z / (0.5 * np.tanh(0.5))
    model.parameters = from_gates(named)
    count = 1000
    drawn = np.bincount(list(write(model, 0, count + 1, temperature=2))[1:], minlength=D) / count
    p = np.exp(z / 2) / np.exp(z / 2).sum()
    assert (abs(drawn - p) < 4 * (p * (1 - p) / count) ** 0.5).all()


# Large enough that OpenBLAS would divide a product among threads in another way, and add in another order.
WEIGHTS = """
import sys
from examples.character_model import *
model = CharacterModel(500, 128, backend="numpy")
losses = list(train(model, generator(0, "text").integers(500, size=32 * 65), 3))
sys.stdout.buffer.write(b"".join(model.parameters[name].tobytes() for name in ("W_x", "W_h", "V")))
"""


def trained_weights(**variables: str) -> bytes:
    command, environment = [sys.executable, "-c", WEIGHTS], {**os.environ, **variables}
    done = subprocess.run(command, env=environment, cwd=SCRIPT.parent.parent, capture_output=True, check=True)
    assert len(done.stdout) == 4 * (4 * 128 * (500 + 128) + 500 * 128)
    return done.stdout


def test_the_weights_are_the_same_bits_on_any_number_of_threads() -> None:
    one = trained_weights(CONVLSTM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    two = trained_weights(CONVLSTM_THREADS="2", OPENBLAS_NUM_THREADS="2", MALLOC_PERTURB_="85")
    assert hashlib.sha256(one).hexdigest() == hashlib.sha256(two).hexdigest()  # short enough to be printed


# The command ----------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(SCRIPT), "--backend", "numpy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def test_the_command_trains_and_writes(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(TEXT + "é", encoding="utf-8")
    done = run("--text", str(tmp_path / "text"), "--steps", "10", "--hidden", "8", "--length", "30", "--seed", "5")
    assert (done.returncode, done.stderr) == (0, "")
    report, written = done.stdout.split("\n\n")
    assert report.startswith("1801 characters, 29 different\nloss per character if only")
    assert report.count("\nstep ") == 10
    assert "nats" in report.splitlines()[-1]
    assert len(written) == 31
    assert set(written[:-1]) <= set(TEXT + "é")


# In this process, for speed: what main prints is what a process would print.
def errors_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line on stderr of a command that ends with exit code 2."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as ended:
        character_model.main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps must be an integer ≥ 1; got 0"),
        (["--hidden", "-1"], "--hidden must be an integer ≥ 1; got -1"),
        (["--length", "0"], "--length must be an integer ≥ 1; got 0"),
        (["--temperature", "-0.1"], "--temperature must lie in 0 … 100; got -0.1"),
        (["--temperature", "nan"], "--temperature must lie in 0 … 100; got nan"),
        (["--seed", "-1"], "seed must lie in 0 … 2**64 - 1 and be an integer; got -1"),
        (["--backend", "abacus"], "got 'abacus'"),
        (["--check", "--backend", "abacus"], "got 'abacus'"),
    ],
)
def test_a_wrong_option_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert errors_of(monkeypatch, capsys, *arguments).endswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"the text must hold at least {PIECE + 1} characters; got 0"),
        (b"short", f"the text must hold at least {PIECE + 1} characters; got 5"),
        (b"caf\xe9" * 99, "text is not UTF-8: invalid continuation byte at byte 3"),
        (None, "No such file or directory: '{path}'"),
    ],
)
def test_a_wrong_text_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    content: bytes | None, message: str,
) -> None:  # fmt: skip
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    line = errors_of(monkeypatch, capsys, "--text", str(path))
    assert line.startswith("character_model: ")
    assert line.endswith(message.format(path=path))


def test_a_directory_is_no_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "Is a directory" in errors_of(monkeypatch, capsys, "--text", str(tmp_path))


def test_an_error_ends_a_process_without_a_traceback() -> None:
    done = run("--text", "no/such\nfile")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["a" * 200, "".join(map(chr, range(0x4E00, 0x4E00 + 2000)))], ids=["one", "thousands"])
def test_odd_texts_train(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "text").write_text(text, encoding="utf-8")
    options = ["--text", str(tmp_path / "text"), "--steps", "2", "--hidden", "3", "--length", "9", "--backend", "numpy"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
    with pytest.raises(SystemExit) as ended:
        character_model.main()
    assert ended.value.code in (0, None)
    written = capsys.readouterr().out.split("\n\n")[1]
    assert len(written) == 10
    assert set(written[:-1]) <= set(text)


def test_check_is_right_and_sees_a_wrong_gradient(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert character_model.check_model(0, "numpy") == 0
    table = capsys.readouterr().out
    assert all(name in table for name in by_gate(make_model().parameters))

    read_out = character_model.read_out

    def without_the_mean(V: Array, h: Array, y: Array) -> tuple[float, Array, Array]:
        loss, dV, dh = read_out(V, h, y)
        return loss, dV * h.shape[2], dh

    monkeypatch.setattr(character_model, "read_out", without_the_mean)
    assert character_model.check_model(0, "numpy") == 1
