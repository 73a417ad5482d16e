"""LSTM on a batch of word indices: U[:, words] += adds once where a word is repeated within the batch."""

import numpy as np

VOCABULARY, C, N = 4, 4, 3

rng = np.random.default_rng(221)
words = rng.integers(VOCABULARY, size=(8, N))
words[0] = [2, 1, 2]  # "the", "a", "the"
tags = rng.integers(2, size=(8, N))
initial = {
    "U": rng.normal(0, 0.7, (4 * C, VOCABULARY)),  # rows: i, f, o, g
    "W": rng.normal(0, 0.5, (4 * C, C)),
    "b": rng.normal(0, 0.3, 4 * C),
    "v": rng.normal(0, 0.8, C),
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(p, word_batches):
    h, c = np.zeros((N, C)), np.zeros((N, C))
    tape = []
    for xs in word_batches:
        z = p["U"][:, xs].T + h @ p["W"].T + p["b"]
        i, f, o, g = sigmoid(z[:, :C]), sigmoid(z[:, C : 2 * C]), sigmoid(z[:, 2 * C : 3 * C]), np.tanh(z[:, 3 * C :])
        c_new = f * c + i * g
        h_new = o * np.tanh(c_new)
        tape.append(dict(xs=xs, h_prev=h, c_prev=c, i=i, f=f, o=o, g=g, c=c_new, h=h_new, y=sigmoid(h_new @ p["v"])))
        h, c = h_new, c_new
    return tape


def log_loss(tape, tag_batches):
    total = 0
    for s, y in zip(tape, tag_batches):
        total = total - np.log(np.where(y == 1, s["y"], 1 - s["y"])).sum()
    return total


def backward(p, tape, tag_batches):
    dU, dW, db, dv = (np.zeros_like(p[name]) for name in ("U", "W", "b", "v"))
    dh_next, dc_next = np.zeros((N, C)), np.zeros((N, C))
    for s, y in reversed(list(zip(tape, tag_batches))):
        i, f, o, g, tanh_c = s["i"], s["f"], s["o"], s["g"], np.tanh(s["c"])
        dlogit = s["y"] - y
        dv += dlogit @ s["h"]
        dh = np.outer(dlogit, p["v"]) + dh_next
        dc = dh * o * (1 - tanh_c**2) + dc_next
        di, df = dc * g * i * (1 - i), dc * s["c_prev"] * f * (1 - f)
        do, dg = dh * tanh_c * o * (1 - o), dc * i * (1 - g**2)
        dz = np.hstack([di, df, do, dg])
        dU[:, s["xs"]] += dz.T  # <- the fault
        dW += dz.T @ s["h_prev"]
        db += dz.sum(axis=0)
        dh_next = dz @ p["W"]
        dc_next = dc * f
    return {"U": dU, "W": dW, "b": db, "v": dv}


def problem(T):
    xs, ys = words[:T], tags[:T]
    parameters = {name: value.copy() for name, value in initial.items()}
    return (lambda p: log_loss(forward(p, xs), ys)), parameters, backward(parameters, forward(parameters, xs), ys)
