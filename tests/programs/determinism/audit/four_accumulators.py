"""One step of learning by hand: four bias gradients summed over time in memory that nobody has written."""

import cupy as cp

STEPS, CHANNELS, ROWS, COLUMNS = 6, 4, 8, 8


def sigmoid_slope(s):
    return s * (1 - s)


def backward(gates, cells, kernel, biases, hidden_errors, rate):
    i, f, a, o = gates
    error_c = cp.zeros([STEPS + 1, CHANNELS, ROWS, COLUMNS])
    kernel_gradient = cp.zeros_like(kernel)

    gradient_i = cp.empty([CHANNELS, ROWS, COLUMNS])
    gradient_f = cp.empty([CHANNELS, ROWS, COLUMNS])
    gradient_a = cp.empty([CHANNELS, ROWS, COLUMNS])
    gradient_o = cp.empty([CHANNELS, ROWS, COLUMNS])

    for t in range(STEPS - 1, -1, -1):
        squashed = cp.tanh(cells[t])
        error_c[t] += hidden_errors[t] * o[t] * (1 - squashed * squashed)
        error_o = hidden_errors[t] * squashed * sigmoid_slope(o[t])
        error_i = error_c[t] * a[t] * sigmoid_slope(i[t])
        error_f = error_c[t] * cells[t - 1] * sigmoid_slope(f[t])
        error_a = error_c[t] * i[t] * (1 - a[t] * a[t])
        error_c[t - 1] = error_c[t] * f[t]

        gradient_i += error_i
        gradient_f += error_f
        gradient_a += error_a
        gradient_o += error_o
        kernel_gradient += cp.tensordot(error_i, cells[t], axes=((1, 2), (1, 2))).reshape(kernel.shape)

        if cp.amax(gradient_i) > 1 or cp.amin(gradient_i) < -1:
            gradient_i = gradient_i / cp.linalg.norm(gradient_i)
        if cp.amax(gradient_o) > 1 or cp.amin(gradient_o) < -1:
            gradient_o = gradient_o / cp.linalg.norm(gradient_o)

    biases["i"] = biases["i"] - rate * gradient_i
    biases["f"] = biases["f"] - rate * gradient_f
    biases["a"] = biases["a"] - rate * gradient_a
    biases["o"] = biases["o"] - rate * gradient_o
    return kernel - rate * kernel_gradient
