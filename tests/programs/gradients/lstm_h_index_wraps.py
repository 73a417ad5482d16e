"""LSTM with one set of arrays per gate: h[t - 1] wraps round to the last h at t = 0 in the recurrent weights' gradient."""

import numpy as np

VOCAB, HIDDEN = 5, 4

rng = np.random.default_rng(121)
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
    h, c, i, f, o, g, probs = [], [], [], [], [], [], []
    h_now, c_now = np.zeros(HIDDEN), np.zeros(HIDDEN)
    for t, w in enumerate(words):
        i.append(sigmoid(p["Wi"] @ h_now + p["Ui"][:, w] + p["bi"]))
        f.append(sigmoid(p["Wf"] @ h_now + p["Uf"][:, w] + p["bf"]))
        o.append(sigmoid(p["Wo"] @ h_now + p["Uo"][:, w] + p["bo"]))
        g.append(np.tanh(p["Wg"] @ h_now + p["Ug"][:, w] + p["bg"]))
        c_now = f[t] * c_now + i[t] * g[t]
        h_now = o[t] * np.tanh(c_now)
        c.append(c_now)
        h.append(h_now)
        e = np.exp(p["V"] @ h_now)
        probs.append(e / e.sum())
    return h, c, i, f, o, g, probs


def backward(p, words, answers):
    h, c, i, f, o, g, probs = forward(p, words)
    grads = {k: np.zeros_like(v) for k, v in p.items()}
    dh_next, dc_next = np.zeros(HIDDEN), np.zeros(HIDDEN)
    for t in reversed(range(len(words))):
        dlogits = probs[t].copy()
        dlogits[answers[t]] -= 1
        grads["V"] += np.outer(dlogits, h[t])
        dh = p["V"].T @ dlogits + dh_next
        tanh_c = np.tanh(c[t])
        c_before = c[t - 1] if t > 0 else np.zeros(HIDDEN)
        dc = dc_next + dh * o[t] * (1 - tanh_c**2)
        dz = {
            "i": dc * g[t] * i[t] * (1 - i[t]),
            "f": dc * c_before * f[t] * (1 - f[t]),
            "o": dh * tanh_c * o[t] * (1 - o[t]),
            "g": dc * i[t] * (1 - g[t] ** 2),
        }
        dh_next = np.zeros(HIDDEN)
        for k in dz:
            grads["W" + k] += np.outer(dz[k], h[t - 1])  # <- the fault
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
