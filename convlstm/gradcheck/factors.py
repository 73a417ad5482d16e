"""What a constant factor between a gradient and the right one means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations, product


def name_factor(k: float, sizes: Mapping[str, int]) -> str:
    """Return the meaning of a = k n, where `sizes` may say how many samples N, time steps T, … there are."""
    if math.isclose(k, -1, rel_tol=1e-4):
        return "wrong sign: exactly minus the right gradient"
    text = f"constant factor {k:.4g}{_as_fraction(abs(k))}" if abs(k - 1) > 1e-3 else f"constant factor 1 + {k - 1:.2g}"
    if k < 0:
        text = f"wrong sign and {text}"
    meanings = list(_size_meanings(abs(k), sizes)) or list(_usual_meanings(k))
    return f"{text}: {', or '.join(meanings[:2])}" if meanings else text


def _size_meanings(k: float, sizes: Mapping[str, int]) -> Iterator[str]:
    names = [name for name, size in sizes.items() if size > 1]
    for count, twice in product((1, 2, 3), (1.0, 2.0, 0.5)):
        for chosen in combinations(names, count):
            size, symbol = math.prod(sizes[name] for name in chosen), "·".join(chosen)
            more = {1.0: "", 2.0: ", and 2 times", 0.5: ", and half"}[twice]
            if math.isclose(k * size, twice, rel_tol=1e-4):
                yield f"1/{symbol}{more}: divided by {symbol} = {size} where the loss is a sum (a mean for a sum)"
            elif math.isclose(k, size * twice, rel_tol=1e-4):
                yield f"{symbol}{more}: not divided by {symbol} = {size} where the loss is a mean (a sum for a mean)"


def _usual_meanings(k: float) -> Iterator[str]:
    size = abs(k)
    if math.isclose(size, 2, rel_tol=1e-4):
        yield "(x²)′ = 2x where the loss has ½x²"
        yield "accumulated twice, where it should be assigned or set to zero first"
    elif math.isclose(size, 0.5, rel_tol=1e-4):
        yield "(½x²)′ = x where the loss has x²"
        yield "a mean over 2"
    elif _as_fraction(size):
        if _is_learning_rate(size):
            yield f"a learning rate: this is the update η·gradient with η = {size:.3g}, not the gradient"
        yield f"a mean over {round(1 / size)} (samples, time steps, pixels: 1/N, 1/T) where the loss is a sum"
    elif _is_learning_rate(size):
        yield f"a learning rate: this is the update η·gradient with η = {size:.3g}, not the gradient"
    elif size > 1 and math.isclose(size, round(size), rel_tol=1e-4):
        yield f"a sum over {round(size)} (samples N, time steps T, pixels) where the loss is a mean"
        yield f"accumulated {round(size)} times"


def _is_learning_rate(k: float) -> bool:
    digits, power = f"{k:.4e}".split("e")
    return int(power) <= -2 and math.isclose(float(digits), round(float(digits)), rel_tol=1e-4)


def _as_fraction(k: float) -> str:
    whole = round(1 / k) if k else 0
    return f" = 1/{whole}" if 2 <= whole <= 10**6 and math.isclose(k * whole, 1, rel_tol=1e-4) else ""
