"""Two threads add into one cell in the order in which they come, and floating-point sums depend on the order."""

import random
import threading
import time

import numpy as np

cell, peak = np.zeros(1), np.zeros(1)
lock = threading.Lock()


def add(numbers):
    for number in numbers:
        time.sleep(random.random() / 2000)  # a file is read meanwhile
        with lock:
            cell[0] += number
            peak[0] = max(peak[0], cell[0])


# Numbers of all sizes, that nearly cancel.
sizes = np.sqrt(np.arange(1, 71)) * 10.0 ** (np.arange(70) * 5 % 13)
halves = sizes, -sizes[::-1]
threads = [threading.Thread(target=add, args=(half,)) for half in halves]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("sum", cell[0], "peak", peak[0])
