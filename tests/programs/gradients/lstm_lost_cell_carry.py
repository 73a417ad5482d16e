"""LSTM with one matrix per gate over [h, x]: the cell gradient is not carried to the step before."""

import numpy as np

n_h, n_x, n_y = 4, 3, 2

rng = np.random.default_rng(51)
X = [rng.normal(size=n_x) for _ in range(8)]
Y = [rng.normal(size=n_y) for _ in range(8)]

start = {}
for gate in "ifog":
    start["W" + gate] = rng.normal(size=(n_h, n_h + n_x)) * 0.5
    start["b" + gate] = rng.normal(size=n_h) * 0.3
start["Wy"] = rng.normal(size=(n_y, n_h)) * 0.7
start["by"] = np.zeros(n_y)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def dsigmoid(s):
    return s * (1 - s)


def dtanh(a):
    return 1 - a**2


def step(P, x, h_prev, c_prev):
    m = {"hx": np.concatenate([h_prev, x]), "c_prev": c_prev}
    m["i"] = sigmoid(P["Wi"] @ m["hx"] + P["bi"])
    m["f"] = sigmoid(P["Wf"] @ m["hx"] + P["bf"])
    m["o"] = sigmoid(P["Wo"] @ m["hx"] + P["bo"])
    m["g"] = np.tanh(P["Wg"] @ m["hx"] + P["bg"])
    m["c"] = m["f"] * c_prev + m["i"] * m["g"]
    m["tanh_c"] = np.tanh(m["c"])
    m["h"] = m["o"] * m["tanh_c"]
    m["y"] = P["Wy"] @ m["h"] + P["by"]
    return m


def forward(P, T):
    h, c, memory = np.zeros(n_h), np.zeros(n_h), []
    for t in range(T):
        memory.append(step(P, X[t], h, c))
        h, c = memory[-1]["h"], memory[-1]["c"]
    return memory


def total_loss(P, T):
    return sum(0.5 * np.sum((m["y"] - Y[t]) ** 2) for t, m in enumerate(forward(P, T)))


def backward(P, T):
    G = {name: np.zeros_like(P[name]) for name in P}
    memory = forward(P, T)
    dh_next = np.zeros(n_h)
    for t in reversed(range(T)):
        m = memory[t]
        dy = m["y"] - Y[t]
        G["Wy"] += np.outer(dy, m["h"])
        G["by"] += dy
        dh = P["Wy"].T @ dy + dh_next
        dc = dh * m["o"] * dtanh(m["tanh_c"])  # <- the fault
        delta = {
            "o": dh * m["tanh_c"] * dsigmoid(m["o"]),
            "i": dc * m["g"] * dsigmoid(m["i"]),
            "f": dc * m["c_prev"] * dsigmoid(m["f"]),
            "g": dc * m["i"] * dtanh(m["g"]),
        }
        dhx = np.zeros(n_h + n_x)
        for gate, d in delta.items():
            G["W" + gate] += np.outer(d, m["hx"])
            G["b" + gate] += d
            dhx += P["W" + gate].T @ d
        dh_next = dhx[:n_h]
    return G


def problem(T):
    parameters = {name: value.copy() for name, value in start.items()}
    return (lambda P: total_loss(P, T)), parameters, backward(parameters, T)
