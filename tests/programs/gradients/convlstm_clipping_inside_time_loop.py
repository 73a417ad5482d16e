"""ConvLSTM with one kernel over [x, h]: the gradients are clipped inside the time loop of the backward pass."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

rows, cols = 5, 4
img_channels, hid_channels, k = 2, 3, 3

gen = np.random.default_rng(11)
movie = gen.random((9, img_channels, rows, cols))  # the net is shown a frame and predicts the next one
initial = {
    "main_kernel": gen.normal(0, 0.4, (4 * hid_channels, img_channels + hid_channels, k, k)),  # i, f, a, o
    "bias": gen.normal(0, 0.3, 4 * hid_channels),
    "read_out": gen.normal(0, 0.8, (img_channels, hid_channels)),
    "bias_y": gen.normal(0, 0.3, img_channels),
}


def logistic(v):
    return 1 / (1 + np.exp(-v))


def patches(maps):
    return sliding_window_view(np.pad(maps, ((0, 0), (1, 1), (1, 1))), (k, k), axis=(1, 2))


def conv2d(maps, kernel):
    """Same-size correlation of (in, rows, cols) with (out, in, k, k), as in the deep-learning libraries."""
    return np.tensordot(kernel, patches(maps), axes=((1, 2, 3), (0, 3, 4)))


def run(net, frames):
    h = np.zeros((hid_channels, rows, cols))
    c = np.zeros((hid_channels, rows, cols))
    record = []
    for x in frames:
        stack = np.concatenate([x, h])
        z = conv2d(stack, net["main_kernel"]) + net["bias"][:, None, None]
        z = z.reshape(4, hid_channels, rows, cols)
        i, f, a, o = logistic(z[0]), logistic(z[1]), np.tanh(z[2]), logistic(z[3])
        c_before, c = c, i * a + f * c
        h = o * np.tanh(c)
        y = logistic(np.tensordot(net["read_out"], h, axes=1) + net["bias_y"][:, None, None])
        record.append((stack, i, f, a, o, c_before, c, h, y))
    return record


def squared_error(net, frames, answers):
    return sum(((step[-1] - answer) ** 2).sum() for step, answer in zip(run(net, frames), answers))


def bptt(net, frames, answers):
    record = run(net, frames)
    grad = {name: np.zeros_like(value) for name, value in net.items()}
    dh = np.zeros((hid_channels, rows, cols))
    dc = np.zeros((hid_channels, rows, cols))
    for t in range(len(record) - 1, -1, -1):
        stack, i, f, a, o, c_before, c, h, y = record[t]
        dlogit = 2 * (y - answers[t]) * y * (1 - y)
        grad["read_out"] += np.tensordot(dlogit, h, axes=((1, 2), (1, 2)))
        grad["bias_y"] += dlogit.sum(axis=(1, 2))
        dh = dh + np.tensordot(net["read_out"].T, dlogit, axes=1)
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        delta = np.concatenate(
            [
                dc * a * i * (1 - i),
                dc * c_before * f * (1 - f),
                dc * i * (1 - a**2),
                dh * np.tanh(c) * o * (1 - o),
            ]
        )
        grad["main_kernel"] += np.tensordot(delta, patches(stack), axes=((1, 2), (1, 2)))
        grad["bias"] += delta.sum(axis=(1, 2))
        dstack = conv2d(delta, net["main_kernel"].transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])
        for name in grad:
            if np.abs(grad[name]).max() > 1:
                grad[name] = grad[name] / np.linalg.norm(grad[name])  # <- the fault
        dh = dstack[img_channels:]
        dc = dc * f
    return grad


def problem(T):
    frames, answers = movie[:T], movie[1 : T + 1]
    parameters = {name: value.copy() for name, value in initial.items()}
    return (lambda net: squared_error(net, frames, answers)), parameters, bptt(parameters, frames, answers)
