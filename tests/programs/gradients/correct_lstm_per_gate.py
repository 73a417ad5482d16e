"""Correct: LSTM with one set of arrays per gate, a sequence of word indices, softmax cross-entropy summed over it."""

import numpy as np

VOCAB, HIDDEN = 5, 4

rng = np.random.default_rng(51)
WORDS = rng.integers(VOCAB, size=9)  # the net reads a word and predicts the next one


def init():
    params = {"V": rng.uniform(-0.8, 0.8, (VOCAB, HIDDEN))}
    for k in ("i", "f", "o", "g"):
        params["W" + k] = rng.uniform(-0.7, 0.7, (HIDDEN, HIDDEN))
        params["U" + k] = rng.uniform(-0.8, 0.8, (HIDDEN, VOCAB))
        params["b" + k] = rng.uniform(-0.3, 0.3, HIDDEN)
    return params


PARAMS = init()


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def forward(p, words):
    h, c = [np.zeros(HIDDEN)], [np.zeros(HIDDEN)]  # h[t + 1] comes after step t
    i, f, o, g, probs = [], [], [], [], []
    for t, w in enumerate(words):
        i.append(sigmoid(p["Wi"] @ h[t] + p["Ui"][:, w] + p["bi"]))
        f.append(sigmoid(p["Wf"] @ h[t] + p["Uf"][:, w] + p["bf"]))
        o.append(sigmoid(p["Wo"] @ h[t] + p["Uo"][:, w] + p["bo"]))
        g.append(np.tanh(p["Wg"] @ h[t] + p["Ug"][:, w] + p["bg"]))
        c.append(f[t] * c[t] + i[t] * g[t])
        h.append(o[t] * np.tanh(c[t + 1]))
        e = np.exp(p["V"] @ h[t + 1])
        probs.append(e / e.sum())
    return h, c, i, f, o, g, probs


def backward(p, words, answers):
    h, c, i, f, o, g, probs = forward(p, words)
    grads = {k: np.zeros_like(v) for k, v in p.items()}
    dh_next, dc_next = np.zeros(HIDDEN), np.zeros(HIDDEN)
    for t in reversed(range(len(words))):
        dlogits = probs[t].copy()
        dlogits[answers[t]] -= 1
        grads["V"] += np.outer(dlogits, h[t + 1])
        dh = p["V"].T @ dlogits + dh_next
        tanh_c = np.tanh(c[t + 1])
        dc = dc_next + dh * o[t] * (1 - tanh_c**2)
        dz = {
            "i": dc * g[t] * i[t] * (1 - i[t]),
            "f": dc * c[t] * f[t] * (1 - f[t]),
            "o": dh * tanh_c * o[t] * (1 - o[t]),
            "g": dc * i[t] * (1 - g[t] ** 2),
        }
        dh_next = np.zeros(HIDDEN)
        for k in dz:
            grads["W" + k] += np.outer(dz[k], h[t])
            grads["U" + k][:, words[t]] += dz[k]
            grads["b" + k] += dz[k]
            dh_next += p["W" + k].T @ dz[k]
        dc_next = dc * f[t]
    return grads


def problem(T):
    words, answers = WORDS[:T], WORDS[1 : T + 1]
    parameters = {k: v.copy() for k, v in PARAMS.items()}

    def loss(p):
        probs = forward(p, words)[-1]
        return -sum(np.log(probs[t][answers[t]]) for t in range(T))

    return loss, parameters, backward(parameters, words, answers)
