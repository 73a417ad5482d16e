"""The result stays the same; the time that it took is printed too."""

import time

import numpy as np

begin = time.perf_counter()
norm = np.linalg.norm(np.arange(1000.0))
print(f"norm {norm:.6f}")
print(f"done, took {time.perf_counter() - begin:.7f}s")
