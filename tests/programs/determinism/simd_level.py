"""Exponentials differ in their last bit with the vector instructions that the processor has."""

import numpy as np

x = np.linspace(-20, 20, 100_003)
print("softplus", repr(float(np.log1p(np.exp(x)).sum())))
print("float32", repr(float(np.exp(x.astype(np.float32)).sum(dtype=np.float64))))
print("tanh", repr(float(np.tanh(x.astype(np.float32)).astype(np.float64)[::7].sum())))
