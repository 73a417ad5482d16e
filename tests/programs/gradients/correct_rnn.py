"""Correct: character-level tanh RNN, column vectors, softmax cross-entropy at every step."""

import numpy as np

hidden_size, vocab_size = 5, 4

rng = np.random.default_rng(61)
text = rng.integers(vocab_size, size=9)  # characters; each one predicts the next
weights = {
    "Wxh": rng.normal(0, 0.7, (hidden_size, vocab_size)),
    "Whh": rng.normal(0, 0.4, (hidden_size, hidden_size)),
    "Why": rng.normal(0, 0.7, (vocab_size, hidden_size)),
    "bh": rng.normal(0, 0.3, (hidden_size, 1)),
    "by": rng.normal(0, 0.3, (vocab_size, 1)),
}


def one_hot(k):
    x = np.zeros((vocab_size, 1))
    x[k] = 1
    return x


def forward(w, inputs, targets):
    xs, hs, ps = {}, {-1: np.zeros((hidden_size, 1))}, {}
    loss = 0
    for t in range(len(inputs)):
        xs[t] = one_hot(inputs[t])
        hs[t] = np.tanh(w["Wxh"] @ xs[t] + w["Whh"] @ hs[t - 1] + w["bh"])
        y = w["Why"] @ hs[t] + w["by"]
        ps[t] = np.exp(y) / np.sum(np.exp(y))
        loss = loss - np.log(ps[t][targets[t], 0])
    return loss, (xs, hs, ps)


def backward(w, cache, targets):
    xs, hs, ps = cache
    dWxh, dWhh, dWhy = (np.zeros_like(w[k]) for k in ("Wxh", "Whh", "Why"))
    dbh, dby = np.zeros_like(w["bh"]), np.zeros_like(w["by"])
    dhnext = np.zeros((hidden_size, 1))
    for t in reversed(range(len(xs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWhy += dy @ hs[t].T
        dby += dy
        dh = w["Why"].T @ dy + dhnext
        dhraw = (1 - hs[t] ** 2) * dh
        dbh += dhraw
        dWxh += dhraw @ xs[t].T
        dWhh += dhraw @ hs[t - 1].T
        dhnext = w["Whh"].T @ dhraw
    return {"Wxh": dWxh, "Whh": dWhh, "Why": dWhy, "bh": dbh, "by": dby}


def problem(T):
    inputs, targets = text[:T], text[1 : T + 1]
    parameters = {k: v.copy() for k, v in weights.items()}
    _, cache = forward(parameters, inputs, targets)
    return (lambda w: forward(w, inputs, targets)[0]), parameters, backward(parameters, cache, targets)
