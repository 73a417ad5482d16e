"""Stable: much memory is asked for without being cleared, and all of it is written before it is read."""

import numpy as np

x = np.linspace(0, 1, 1000)
y = np.empty(1000)
np.multiply(x, x, out=y)
copy = np.empty_like(y)
copy[:] = y
steps = np.ndarray((4, 1000))
for k in range(4):
    steps[k] = x**k
counted = np.empty(7, dtype=np.int64)
counted.fill(3)
matrix = np.empty((20, 30), dtype=np.float32)
for i in range(20):
    for j in range(30):
        matrix[i, j] = i - j / 7
product = np.empty((20, 20), dtype=np.float32)
np.matmul(matrix, matrix.T, out=product)
joined = np.concatenate([np.empty(0), copy])  # nothing in it to read
print(y.sum(), copy.mean(), steps.sum(axis=1), counted.sum(), np.linalg.norm(product), joined.max())
