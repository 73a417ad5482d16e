"""LSTM with one pair of matrices per gate over word indices: three faults, as in a question asked in public.

For each step's error an inner loop goes back in time; it starts at the step before and so leaves out the step itself,
it takes up the cell gradient of step 0 and never lets go of what it has added, and it multiplies two vectors to a
scalar where their outer product belongs.
"""

import numpy as np

HIDDEN, VOCAB = 4, 5
GATES = "ifog"  # input, forget, output, candidate

rng = np.random.default_rng(2021)
sentence = rng.integers(VOCAB, size=9)
model = {"V": rng.uniform(-0.8, 0.8, size=(VOCAB, HIDDEN))}
model.update({"W" + k: rng.uniform(-0.7, 0.7, size=(HIDDEN, HIDDEN)) for k in GATES})
model.update({"U" + k: rng.uniform(-0.8, 0.8, size=(HIDDEN, VOCAB)) for k in GATES})


def squash(a):
    return 1 / (1 + np.exp(-a))


def predict(model, tokens):
    """Activations of every step; the last row of "h" and "c" is the zero state that step 0 finds at index -1."""
    steps, kind = len(tokens), model["V"].dtype
    act = {name: np.zeros((steps + 1, HIDDEN), dtype=kind) for name in ("i", "f", "o", "g", "c", "h", "tanh_c")}
    act["p"] = np.zeros((steps, VOCAB), dtype=kind)
    for t, token in enumerate(tokens):
        for k in GATES:
            a = model["W" + k] @ act["h"][t - 1] + model["U" + k][:, token]
            act[k][t] = np.tanh(a) if k == "g" else squash(a)
        act["c"][t] = act["f"][t] * act["c"][t - 1] + act["i"][t] * act["g"][t]
        act["tanh_c"][t] = np.tanh(act["c"][t])
        act["h"][t] = act["o"][t] * act["tanh_c"][t]
        scores = np.exp(model["V"] @ act["h"][t])
        act["p"][t] = scores / scores.sum()
    return act


def cost(model, tokens, following):
    p = predict(model, tokens)["p"]
    return -np.log(p[np.arange(len(tokens)), following]).sum()


def backpropagate(model, tokens, following):
    act = predict(model, tokens)
    i, f, o, g, c, h, tanh_c = (act[name] for name in ("i", "f", "o", "g", "c", "h", "tanh_c"))
    grad = {name: np.zeros_like(array) for name, array in model.items()}
    err = act["p"].copy()
    err[np.arange(len(tokens)), following] -= 1
    via_h = np.zeros_like(c)  # what reaches tanh(c) of each step through h
    for t in range(len(tokens) - 1, -1, -1):
        grad["V"] += np.outer(err[t], h[t])
        dh = model["V"].T @ err[t]
        dc = via_h[0] * (1 - tanh_c[0] ** 2)  # <- the fault
        for s in range(t - 1, -1, -1):  # <- the fault
            via_h[s] = dh * o[s]
            dc += via_h[s] * (1 - tanh_c[s] ** 2)
            delta = {
                "i": dc * g[s] * i[s] * (1 - i[s]),
                "f": dc * c[s - 1] * f[s] * (1 - f[s]),
                "o": dh * tanh_c[s] * o[s] * (1 - o[s]),
                "g": dc * i[s] * (1 - g[s] ** 2),
            }
            for k in GATES:
                grad["W" + k] += np.dot(delta[k].T, h[s - 1])  # <- the fault
                grad["U" + k][:, tokens[s]] += delta[k]
            dh = sum(np.dot(model["W" + k].T, delta[k]) for k in GATES)
            dc += dc * f[s]  # <- the fault
    return grad


def problem(T):
    tokens, following = sentence[:T], sentence[1 : T + 1]
    parameters = {name: array.copy() for name, array in model.items()}

    def loss(parameters):
        return cost(parameters, tokens, following)

    return loss, parameters, backpropagate(parameters, tokens, following)
