"""A character model: an LSTM reads a text letter by letter, learns to say which comes next, and then writes.

    uv run python examples/character_model.py                 # English: the help texts that come with Python
    uv run python examples/character_model.py --text FILE     # any text in UTF-8
    uv run python examples/character_model.py --check         # every gradient against numerical ones

An LSTM is a ConvLSTM whose kernels are 1×1: such a kernel sees no neighbours, so its convolution is a product of
matrices, and every pixel of a map is an LSTM of its own.  One sequence is a 1×1 map at each step.  N sequences lie side
by side as the pixels of one 1×N map, because a time step is then a few products of matrices, and not N times as many of
a matrix with a vector: with N = 32 more than ten times as many characters a second.

With x_t the index of a character, written as a one-hot vector where it is multiplied, and from h₀ = c₀ = 0,

    i = σ(U_i x_t + W_i h₋)    f = σ(U_f x_t + W_f h₋)    o = σ(U_o x_t + W_o h₋)    g = tanh(U_g x_t + W_g h₋)
    c = f∘c₋ + i∘g             h = o∘tanh(c)              (convlstm.ConvLSTM: forward and backward)
    z_t = V h_t                                           the read-out, below, as is the loss
    L   = Σ_t log Σ_v exp z_t[v] - z_t[y_t]               cross-entropy of softmax(z_t) with the next character y_t
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from convlstm import ConvLSTM, check_gradients
from convlstm.backends import Array, BackendUnavailable
from convlstm.backends.contract import check_array
from convlstm.backends.geometry import as_count
from convlstm.clipping import clip_global_norm
from convlstm.optimizers import Adam
from convlstm.parameters import uniform
from convlstm.randomness import generator
from convlstm.recurrence import State
from convlstm.schedules import linear

GATES = ("i", "f", "g", "o")  # as they stand in W_x and W_h
VOCABULARY = 1024  # the most characters a model knows; a text's rarer ones are left out
STREAMS, PIECE = 32, 32  # N and T of a training step
LEARNING_RATE, MAX_NORM = 2e-2, 5.0


# The model ------------------------------------------------------------------------------------------------------------


class CharacterModel:
    """Predicts each next character of N sequences; equations above.

    Attributes:
        parameters: ``"W_x"`` (4C, D, 1, 1) and ``"W_h"`` (4C, C, 1, 1) as in `ConvLSTM`, and ``"V"`` (D, C), with D
            characters and C hidden units; `by_gate` gives them the names of the equations.  Arrays of the same shape
            and dtype may be assigned.
        backend: the backend that owns them.
    """

    def __init__(
        self, vocabulary: int, hidden: int, *, seed: int = 0, dtype: npt.DTypeLike = "float32", backend: str = "auto"
    ) -> None:
        """Make a model of D = `vocabulary` characters and C = `hidden` units; all else as `ConvLSTM`.

        Raises:
            ValueError, BackendUnavailable: as `ConvLSTM`.
        """
        self._layer = ConvLSTM(vocabulary, hidden, kernel_size=1, bias=None, dtype=dtype, backend=backend, seed=seed)
        self.vocabulary, self.hidden = self._layer.in_channels, self._layer.hidden_channels
        self.dtype, self.backend = self._layer.dtype, self._layer.backend
        V = uniform((vocabulary, hidden), 1 / hidden**0.5, self.dtype, seed, "V")
        self.parameters: dict[str, Array] = {**self._layer.parameters, "V": self.backend.asarray(V)}

    def loss_and_gradients(
        self, x: Array, y: Array, state: State | None = None
    ) -> tuple[float, dict[str, Array], State]:
        """Return the loss, summed over the T characters and averaged over the N sequences, its gradient, and the state.

        Args:
            x: (N, T), indices of the characters to read.
            y: (N, T), the characters to predict, each the one after that in x.
            state: (h₀, c₀), each (1, C, 1, N), as the piece before returned it; None for zeros.  It is a constant here:
                gradients end where the piece begins.

        Raises:
            TypeError, ValueError: an argument or a parameter is not as above; the message names it.
        """
        self._check_indices("x", x)
        self._check_indices("y", y)
        if x.shape != y.shape:
            raise ValueError(f"x and y must have the same shape; got {x.shape} and {y.shape}")
        h, state, cache = self._use_parameters().forward(self._as_map(self._one_hot(x)), state)  # (1, T, C, 1, N)

        def read_out_both_ways(_: slice) -> tuple[float, Array, Array]:
            return read_out(self.parameters["V"], h[0, :, :, 0], self._one_hot(y))

        [(loss, dV, dh)] = self.backend.map_samples(read_out_both_ways, 1, y.size)  # one thread: the same bits always
        _, _, gradients = self._layer.backward(cache, self._as_map(dh))
        return loss, {**gradients, "V": dV}, state

    def step(self, x: int, state: State | None = None) -> tuple[Array, State]:
        """Read one character; return z (D,), the logits of the next one, and the state."""
        x_t = np.array([[x]])
        self._check_indices("x", x_t)
        h, state, _ = self._use_parameters().forward(self._as_map(self._one_hot(x_t)), state)  # (1, 1, C, 1, 1)
        [z] = self.backend.map_samples(lambda _: self.parameters["V"] @ h[0, 0, :, 0, 0], 1, self.vocabulary)
        return z, state

    def _use_parameters(self) -> ConvLSTM:
        """Return the layer with its share of the parameters as they are now."""
        check_array(self.backend, "V", self.parameters["V"], self.dtype, (self.vocabulary, self.hidden))
        self._layer.parameters = {name: array for name, array in self.parameters.items() if name != "V"}
        return self._layer

    def _one_hot(self, x: Array) -> Array:
        """(N, T) indices to (T, D, N) ones and zeros."""
        return self.backend.asarray(np.eye(self.vocabulary, dtype=self.dtype)[x.T].transpose(0, 2, 1))

    @staticmethod
    def _as_map(a: Array) -> Array:
        """(T, channels, N) to (1, T, channels, 1, N): the N sequences as the pixels of one map."""
        return a[np.newaxis, :, :, np.newaxis, :]

    def _check_indices(self, name: str, x: Array) -> None:
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "iu":
            raise TypeError(f"{name} must be a NumPy array of integers; got {getattr(x, 'dtype', type(x).__name__)}")
        if x.ndim != 2 or x.size == 0:
            raise ValueError(f"{name} must have shape (N, T) and hold something; got {x.shape}")
        if x.min() < 0 or x.max() >= self.vocabulary:
            raise ValueError(f"{name} must lie in 0 … {self.vocabulary - 1}; got {x.min()} … {x.max()}")


def read_out(V: Array, h: Array, y: Array) -> tuple[float, Array, Array]:
    """Return (L, dV, dh): the read-out and its loss forward, then backward.

    Args:
        V: (D, C).
        h: (T, C, N).
        y: (T, D, N), one-hot.
    """
    N = h.shape[2]
    z = V @ h  # (T, D, N), z_t = V h_t
    z = z - z.max(axis=1, keepdims=True)  # softmax stays the same, and exp cannot overflow
    exp_z = np.exp(z)  # (T, D, N)
    sum_exp = exp_z.sum(axis=1, keepdims=True)  # (T, 1, N)
    loss = (np.log(sum_exp[:, 0]) - (z * y).sum(axis=1)).sum(dtype="float64") / N  # L = Σ_t log Σ_v exp z[v] - z[y]

    dz = (exp_z / sum_exp - y) / N  # (T, D, N), from L: softmax - one-hot, of the mean over N
    dV = np.tensordot(dz, h, ((0, 2), (0, 2)))  # (D, C), from z_t = V h_t: Σ dz_t h_tᵀ
    dh = V.T @ dz  # (T, C, N), from z_t = V h_t: Vᵀ dz_t
    return float(loss), dV, dh


def by_gate(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return a model's parameters, or their gradients, as matrices under the names of the equations.

    V (D, C); W_i, W_f, W_g, W_o (C, C), from the hidden state to each gate; U_i, U_f, U_g, U_o (C, D), from the
    characters.  They are parts of the given arrays, not copies.
    """
    named = {"V": arrays["V"]}
    for letter, stacked in (("W", arrays["W_h"]), ("U", arrays["W_x"])):
        for gate, matrix in zip(GATES, np.split(stacked[:, :, 0, 0], 4), strict=True):
            named[f"{letter}_{gate}"] = matrix
    return named


def gradients_by_gate(gradients: Mapping[str, Array]) -> dict[str, Array]:
    """Return dV, dW_i, dW_f, dW_g, dW_o, dU_i, dU_f, dU_g, dU_o; shapes as in `by_gate`."""
    return {f"d{name}": gradient for name, gradient in by_gate(gradients).items()}


def from_gates(named: Mapping[str, Array]) -> dict[str, Array]:
    """Return V, W_x and W_h from what `by_gate` returns."""
    W_h, W_x = (np.concatenate([named[f"{letter}_{gate}"] for gate in GATES]) for letter in "WU")  # (4C, C), (4C, D)
    return {"V": named["V"], "W_x": W_x[:, :, np.newaxis, np.newaxis], "W_h": W_h[:, :, np.newaxis, np.newaxis]}


# Training and writing -------------------------------------------------------------------------------------------------


def pieces(codes: Array) -> Iterator[tuple[Array, Array, bool]]:
    """Yield (x, y, whether the text begins anew) for ever: the text as N streams, cut into pieces of T characters.

    x and y are (N, T).  What does not fill a piece at the end of the streams is not read.

    Raises:
        ValueError: the text is shorter than one piece and the character after it.
    """
    N = min(STREAMS, len(codes) // (PIECE + 1))
    if N == 0:
        raise ValueError(f"the text must hold at least {PIECE + 1} characters; got {len(codes)}")
    streams = codes[: len(codes) // N * N].reshape(N, -1)
    while True:
        for start in range(0, streams.shape[1] - PIECE, PIECE):
            window = streams[:, start : start + PIECE + 1]
            yield window[:, :-1], window[:, 1:], start == 0


def train(model: CharacterModel, codes: Array, steps: int) -> Iterator[float]:
    """Train by truncated backpropagation through time; yield each step's loss per character, in nats.

    The state goes on from piece to piece, the gradient does not.
    """
    optimizer, state = Adam(LEARNING_RATE), None
    for step, (x, y, anew) in zip(range(steps), pieces(codes), strict=False):
        loss, gradients, state = model.loss_and_gradients(x, y, None if anew else state)
        optimizer.learning_rate = LEARNING_RATE * linear(step, steps)
        optimizer.step(model.parameters, clip_global_norm(gradients, MAX_NORM))
        yield loss / PIECE


def write(model: CharacterModel, first: int, length: int, *, temperature: float = 1.0, seed: int = 0) -> Iterator[int]:
    """Yield `length` characters: `first`, then each drawn from softmax(z / temperature) and read by the model.

    The largest of z + temperature · Gumbel noise is such a draw (Gumbel 1954), and at temperature 0 the likeliest.
    """
    character, state = first, None
    for position in range(length):
        yield character
        z, state = model.step(character, state)
        noise = generator(seed, "writing", step=position).gumbel(size=model.vocabulary)
        character = int(np.argmax(model.backend.to_numpy(z) + temperature * noise))


def read_text(path: Path | None) -> str:
    """Return a file's text; without one the help texts that come with Python.

    Raises:
        OSError, ValueError: the file cannot be read, or is not UTF-8; the message names it.
    """
    if path is None:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None


def encode(text: str) -> tuple[list[str], Array, int]:
    """Return the most frequent characters, the text as indices of them, and how many characters it had besides."""
    characters = sorted(character for character, _ in Counter(text).most_common(VOCABULARY))
    code = {character: index for index, character in enumerate(characters)}
    codes = np.array([code[character] for character in text if character in code], np.int64)
    return characters, codes, len(text) - len(codes)


# The command ----------------------------------------------------------------------------------------------------------

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main() -> None:
    """Run the command line; an error that a user can mend is one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (ValueError, ImportError, BackendUnavailable, OSError, MemoryError) as error:
        print(f"character_model: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


@app.command()
def run(
    text: Annotated[Path | None, typer.Option(help="Text in UTF-8; default: Python's own help texts.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 2000,
    hidden: Annotated[int, typer.Option(help="Hidden units.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the writing.")] = 0,
    length: Annotated[int, typer.Option(help="Characters to write.")] = 500,
    temperature: Annotated[float, typer.Option(help="0 writes what is likeliest, 1 as varied as the text.")] = 0.7,
    backend: Annotated[str, typer.Option(help='"auto", "numpy", "cupy" or "cupy:1".')] = "auto",
    check: Annotated[bool, typer.Option("--check", help="Check a small model's gradients instead.")] = False,
) -> None:
    """Train an LSTM on the characters of a text, then let it write."""
    if check:
        raise typer.Exit(check_model(seed, backend))
    for option, value in (("--steps", steps), ("--hidden", hidden), ("--length", length)):
        as_count(option, value)
    if not 0 <= temperature <= 100:
        raise ValueError(f"--temperature must lie in 0 … 100; got {temperature}")
    characters, codes, left_out = encode(read_text(text))
    next(pieces(codes))  # a text that is too short is named before anything is printed
    model = CharacterModel(len(characters), hidden, seed=seed, backend=backend)

    rare = f"; {left_out} rare ones left out" if left_out else ""
    print(f"{len(codes)} characters, {len(characters)} different{rare}")
    share = np.bincount(codes) / len(codes)
    print(f"loss per character if only their frequencies were known: {(share * np.log(1 / share)).sum():.3f} nats")
    since: list[float] = []
    for step, loss in enumerate(train(model, codes, steps), start=1):
        since.append(loss)
        if step == 1 or step % max(1, steps // 10) == 0 or step == steps:
            print(f"step {step}/{steps}  loss per character {sum(since) / len(since):.3f} nats", flush=True)
            since.clear()
    print()
    for index in write(model, int(codes[0]), length, temperature=temperature, seed=seed):
        print(characters[index], end="", flush=True)
    print()


def check_model(seed: int, backend: str) -> int:
    """Check every gradient of a small model in float64, print the table, return the exit code: 0 if all are right."""
    model = CharacterModel(vocabulary=5, hidden=4, seed=seed, dtype="float64", backend=backend)
    x, y = generator(seed, "check").integers(model.vocabulary, size=(2, 3, 5))  # each (N, T) = (3, 5)

    def loss(parameters: Mapping[str, Array]) -> float:
        model.parameters = from_gates(parameters)
        return model.loss_and_gradients(x, y)[0]

    _, gradients, _ = model.loss_and_gradients(x, y)
    report = check_gradients(loss, by_gate(model.parameters), by_gate(gradients))
    print(report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    main()
