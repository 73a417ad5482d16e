"""The loss wanders from some training example on: four bias gradients are summed up in memory that nobody has cleared.

A ConvLSTM with biases per pixel, written for CuPy; Chainer convolves.
"""

import chainer.functions as F
import cupy as cp

frames, height, width = 4, 6, 6
image_channels, hidden = 1, 3
rate = 0.5

random = cp.random.RandomState(7)
kernel = random.normal(0, 0.3, (4 * hidden, image_channels + hidden, 3, 3))
readout = random.normal(0, 0.5, (1, hidden))
b_in, b_forget, b_candidate, b_out = (cp.zeros((hidden, height, width)) for _ in range(4))
b_image = cp.zeros((1, height * width))


def sigmoid(z):
    return 1 / (1 + cp.exp(-z))


def convolve(x, w):
    return cp.asarray(F.convolution_2d(x, w, b=None, pad=1).data)


def forward(x):
    """Return the predicted frame and, for each gate, its values at every time; index -1 is the state before the first."""
    i, f, a, o = (cp.zeros((frames, hidden, height, width)) for _ in range(4))
    c, h = (cp.zeros((frames + 1, hidden, height, width)) for _ in range(2))
    for t in range(frames):
        z = convolve(cp.concatenate((x[t], h[t - 1]))[None], kernel)[0]
        i[t] = sigmoid(z[:hidden] + b_in)
        f[t] = sigmoid(z[hidden : 2 * hidden] + b_forget)
        a[t] = cp.tanh(z[2 * hidden : 3 * hidden] + b_candidate)
        o[t] = sigmoid(z[3 * hidden :] + b_out)
        c[t] = f[t] * c[t - 1] + i[t] * a[t]
        h[t] = o[t] * cp.tanh(c[t])
    flat = h[frames - 1].reshape(hidden, -1)
    return sigmoid(readout @ flat + b_image), flat, i, f, a, o, c, h


def squared_error(prediction, y):
    return float(((prediction - y.reshape(1, -1)) ** 2).sum())


def clip(gradient):
    if cp.amax(gradient) > 1 or cp.amin(gradient) < -1:
        return gradient / cp.linalg.norm(gradient)
    return gradient


def train_on(x, y):
    """Take one step of gradient descent and return the loss before it."""
    global kernel, readout, b_in, b_forget, b_candidate, b_out, b_image
    prediction, flat, i, f, a, o, c, h = forward(x)
    d_image = 2 * (prediction - y.reshape(1, -1)) * prediction * (1 - prediction)
    d_readout = d_image @ flat.T

    d_kernel = cp.zeros(kernel.shape)
    d_h = (readout.T @ d_image).reshape(hidden, height, width)
    d_c = cp.zeros([hidden, height, width])
    d_in = cp.empty([hidden, height, width])  # <- read before it is written
    d_forget = cp.empty([hidden, height, width])  # <- read before it is written
    d_candidate = cp.empty([hidden, height, width])  # <- read before it is written
    d_out = cp.empty([hidden, height, width])  # <- read before it is written

    for t in range(frames - 1, -1, -1):
        tanh_c = cp.tanh(c[t])
        d_c = d_c + d_h * o[t] * (1 - tanh_c**2)
        dz_in = d_c * a[t] * i[t] * (1 - i[t])
        dz_forget = d_c * c[t - 1] * f[t] * (1 - f[t])
        dz_candidate = d_c * i[t] * (1 - a[t] ** 2)
        dz_out = d_h * tanh_c * o[t] * (1 - o[t])
        d_c = d_c * f[t]
        d_in += dz_in
        d_forget += dz_forget
        d_candidate += dz_candidate
        d_out += dz_out
        dz = cp.concatenate((dz_in, dz_forget, dz_candidate, dz_out))
        seen = cp.concatenate((x[t], h[t - 1]))
        d_kernel += convolve(seen[:, None], dz[:, None]).transpose(1, 0, 2, 3)
        d_seen = convolve(dz[None], kernel[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))[0]
        d_h = d_seen[image_channels:]

    kernel = kernel - rate * clip(d_kernel)
    readout = readout - rate * clip(d_readout)
    b_image = b_image - rate * clip(d_image)
    b_in = b_in - rate * clip(d_in)
    b_forget = b_forget - rate * clip(d_forget)
    b_candidate = b_candidate - rate * clip(d_candidate)
    b_out = b_out - rate * clip(d_out)
    return squared_error(prediction, y)


for example in range(6):
    film = cp.roll(random.uniform(0, 1, (1, image_channels, height, width)), example, axis=3).repeat(frames, axis=0)
    print(f"example {example}: loss {train_on(film, film[-1, 0])}")
