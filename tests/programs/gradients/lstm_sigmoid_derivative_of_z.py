"""LSTM with one matrix per gate over [h, x]: the input gate's sigmoid derivative is taken of z instead of the sigmoid."""

import numpy as np

n_h, n_x, n_y = 4, 3, 2

rng = np.random.default_rng(141)
X = [rng.normal(size=n_x) for _ in range(8)]
Y = [rng.normal(size=n_y) for _ in range(8)]

theta = {}
for gate in "ifog":
    theta["W" + gate] = rng.normal(size=(n_h, n_h + n_x)) * 0.5
    theta["b" + gate] = rng.normal(size=n_h) * 0.3
theta["Wy"] = rng.normal(size=(n_y, n_h)) * 0.7
theta["by"] = np.zeros(n_y)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def dsigmoid(s):
    return s * (1 - s)


def dtanh(a):
    return 1 - a**2


def step(P, x, h_prev, c_prev):
    m = {"hx": np.concatenate([h_prev, x]), "c_prev": c_prev}
    m["zi"] = P["Wi"] @ m["hx"] + P["bi"]
    m["i"] = sigmoid(m["zi"])
    m["f"] = sigmoid(P["Wf"] @ m["hx"] + P["bf"])
    m["o"] = sigmoid(P["Wo"] @ m["hx"] + P["bo"])
    m["g"] = np.tanh(P["Wg"] @ m["hx"] + P["bg"])
    m["c"] = m["f"] * c_prev + m["i"] * m["g"]
    m["tanh_c"] = np.tanh(m["c"])
    m["h"] = m["o"] * m["tanh_c"]
    m["y"] = P["Wy"] @ m["h"] + P["by"]
    return m


def forward(P, T):
    h, c, tape = np.zeros(n_h), np.zeros(n_h), []
    for t in range(T):
        tape.append(step(P, X[t], h, c))
        h, c = tape[-1]["h"], tape[-1]["c"]
    return tape


def total_loss(P, T):
    return sum(0.5 * np.sum((m["y"] - Y[t]) ** 2) for t, m in enumerate(forward(P, T)))


def backward(P, T):
    grads = {name: np.zeros_like(P[name]) for name in P}
    tape = forward(P, T)
    dh_next, dc_next = np.zeros(n_h), np.zeros(n_h)
    for t in reversed(range(T)):
        m = tape[t]
        dy = m["y"] - Y[t]
        grads["Wy"] += np.outer(dy, m["h"])
        grads["by"] += dy
        dh = P["Wy"].T @ dy + dh_next
        dc = dh * m["o"] * dtanh(m["tanh_c"]) + dc_next
        delta = {
            "o": dh * m["tanh_c"] * dsigmoid(m["o"]),
            "i": dc * m["g"] * dsigmoid(m["zi"]),  # <- the fault
            "f": dc * m["c_prev"] * dsigmoid(m["f"]),
            "g": dc * m["i"] * dtanh(m["g"]),
        }
        dhx = np.zeros(n_h + n_x)
        for gate, d in delta.items():
            grads["W" + gate] += np.outer(d, m["hx"])
            grads["b" + gate] += d
            dhx += P["W" + gate].T @ d
        dh_next = dhx[:n_h]
        dc_next = dc * m["f"]
    return grads


def problem(T):
    parameters = {name: value.copy() for name, value in theta.items()}
    return (lambda P: total_loss(P, T)), parameters, backward(parameters, T)
