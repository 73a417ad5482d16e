"""Numerical derivatives of one loss at one point, each with an estimate of its error.

Along a direction v, with f(s) = loss(θ + s v),

    D(s) = (f(s) - f(-s)) / 2s                = f′ + s²/6 f‴ + O(s⁴)         central difference
    R(s) = (4 D(s/2) - D(s)) / 3              = f′ + O(s⁴)                    Richardson's extrapolation
    error ≈ |R(s) - D(s/2)| + 4 ε_f / s                                      what is left of s², and rounding

where ε_f is the noise of the loss itself.  It is measured, not assumed, so that a loss in float32 is recognised: the
k-th difference of f over tiny equal steps holds nothing but noise, ε_f² = (k!)²/(2k)! · mean of its squares.  As
rounding falls with s and the rest of the expansion grows with s⁴, the step is ε^(1/5); where one step cannot tell,
others are tried and that with the smallest error counts.

A kink at the point itself shows in S(s) = f(s) - 2 f(0) + f(-s): it falls with s² where f is smooth, with s at a kink.

Sources: Richardson, Phil. Trans. A 210 (1911); Moré and Wild, "Estimating computational noise", SIAM J. Sci. Comput.
33 (2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from convlstm.gradcheck.arrays import Array, Host, like, to_host

Loss = Callable[[dict[str, Array]], float]
EPSILON = float(np.finfo(np.float64).eps)


class LossFault(Exception):
    """The loss is such that no derivative can be taken of it; the message says why."""


class Derivative(NamedTuple):
    """A directional derivative."""

    value: float
    error: float  # estimated; infinite where the loss is not finite beside the point
    kink: tuple[float, float] | None = None  # derivatives to either side where the loss has a kink at this very point
    moves: bool = True  # whether the loss changed at all


class Differences:
    """Evaluates a loss around one point.

    Attributes:
        point: the parameters, float64 on the host.
        value: the loss there.
        noise: ε_f, the standard deviation of the loss's rounding.
        remarks: what a reader should know about the loss.
        evaluations: how often the loss was called.
    """

    def __init__(self, loss: Loss, parameters: Mapping[str, Array]) -> None:
        """Call the loss a few times to learn what it is like.

        Raises:
            LossFault: it is not finite, differs between two calls, or changes what it is given.
            TypeError: it is no function, or returns no number.
        """
        if not callable(loss):
            raise TypeError(f"loss must be a function of the parameters; got {type(loss).__name__}")
        self._loss = loss
        self._models = dict(parameters)
        self.point = {name: to_host(array) for name, array in parameters.items()}
        self.remarks: list[str] = []
        self.evaluations = 0
        self._dtypes = self._choose_dtypes()
        self._base = {name: self._array(name, host) for name, host in self.point.items()}
        self.value = self._evaluate({})
        self._check_repeats()
        self.noise = min(self._measure_noise(seed) for seed in (0, 1))
        if self.relative_noise > 1e-11:
            self.remarks.append(
                f"the loss is rounded to about {self.relative_noise:.0e} of its value, as float32 arithmetic does: "
                "steps are larger and the check is coarser"
            )

    @property
    def relative_noise(self) -> float:
        """ε_f relative to the loss, never below float64's."""
        return max(self.noise / max(abs(self.value), 1e-300), EPSILON)

    @property
    def step(self) -> float:
        """The first step tried, for a parameter of order 1."""
        return float(np.clip(self.relative_noise**0.2, 3e-4, 0.05))

    def entry(self, name: str, flat: int, expected: float, tolerance: float) -> Derivative:
        """Return the derivative to one entry of one parameter; see `along`."""
        unit = max(1.0, abs(float(self.point[name].flat[flat])))
        direction = np.zeros(self.point[name].size)
        direction[flat] = unit
        found = self.along(name, direction.reshape(self.point[name].shape), expected * unit, tolerance * unit)
        kink = None if found.kink is None else (found.kink[0] / unit, found.kink[1] / unit)
        return found._replace(value=found.value / unit, error=found.error / unit, kink=kink)

    def along(self, name: str, direction: Host, expected: float, tolerance: float) -> Derivative:
        """Return the derivative along a direction in one parameter, as surely as is needed to tell it from `expected`.

        A plain central difference comes first: one that meets the expected number needs no estimate of how far it may
        be off, since it would hardly err towards just that.  Then one step, and others while that cannot tell.
        """

        def f(s: float) -> float:
            return self._evaluate({name: self.point[name] + s * direction})

        def met(found: Derivative) -> bool:
            return abs(expected - found.value) <= tolerance + found.error and found.error <= max(tolerance, floor)

        floor = 40 * self.noise / self.step  # an error that no step betters much
        s = float(np.clip(self.relative_noise ** (1 / 3), 1e-5, 1e-2))
        plain = Derivative((f(s) - f(-s)) / (2 * s), 4 * self.noise / s)
        if plain.value != 0 and met(plain):  # of 0, more steps tell whether the loss moves at all
            return plain
        best = self._derivative(f, self.step)
        for factor in (1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 4096, 4):
            if met(best) or best.error <= 0.05 * abs(expected - best.value) or not best.moves:
                break
            best = min(best, self._derivative(f, self.step * factor), key=lambda derivative: derivative.error)
        return best

    def moves(self, name: str) -> bool:
        """Return whether the loss reads this parameter, by moving all of it, far."""
        v = np.random.default_rng(1).standard_normal(self.point[name].shape)
        return any(
            self._evaluate({name: self.point[name] + s * (1 + abs(self.point[name])) * v}) != self.value
            for s in (0.1, -0.3)
        )

    def _derivative(self, f: Callable[[float], float], s: float) -> Derivative:
        ahead, behind, half_ahead, half_behind = f(s), f(-s), f(s / 2), f(-s / 2)
        if ahead == behind == half_ahead == half_behind == self.value:
            return Derivative(0.0, 4 * self.noise / s, moves=False)
        if not all(map(math.isfinite, (ahead, behind, half_ahead, half_behind))):
            return Derivative(0.0, math.inf)
        D, D_half = (ahead - behind) / (2 * s), (half_ahead - half_behind) / s
        R = (4 * D_half - D) / 3
        bend, half_bend = ahead - 2 * self.value + behind, half_ahead - 2 * self.value + half_behind
        bent = abs(half_bend) > max(0.35 * abs(bend), 100 * self.noise)
        return Derivative(R, abs(R - D_half) + 4 * self.noise / s, self._kink(f, s, bend) if bent else None)

    def _kink(self, f: Callable[[float], float], s: float, bend: float) -> tuple[float, float] | None:
        """Return the derivatives to either side if S falls with s and not with s²: by 1/16, not 1/256."""
        s = s / 16
        ahead, behind = f(s), f(-s)
        if abs(ahead - 2 * self.value + behind) <= max(abs(bend) / 32, 20 * self.noise):
            return None
        slopes = ((self.value - behind) / s, (ahead - self.value) / s)
        return min(slopes), max(slopes)

    def _evaluate(self, moved: Mapping[str, Host]) -> float:
        self.evaluations += 1
        arrays = {name: self._array(name, moved[name]) if name in moved else a for name, a in self._base.items()}
        with np.errstate(all="ignore"):  # beside the point a loss may overflow; that is said, not warned of
            return _number(self._loss(arrays))

    def _array(self, name: str, host: Host) -> Array:
        return like(self._models[name], host, self._dtypes[name])

    def _choose_dtypes(self) -> dict[str, np.dtype[np.floating]]:
        """Return float64 for every parameter, unless the loss refuses that and takes what the parameters are."""
        given = {name: np.dtype(array.dtype) for name, array in self._models.items()}
        doubles: dict[str, np.dtype[np.floating]] = {name: np.dtype(np.float64) for name in given}
        if given == doubles:
            return doubles
        self._dtypes = doubles
        try:
            self._loss({name: self._array(name, host) for name, host in self.point.items()})
        except (
            Exception
        ):  # whatever a program raises that was written for another dtype; a second fault is raised below
            self.remarks.append("the loss takes no float64 parameters: they are moved in float32, a coarser check")
            return given
        return doubles

    def _check_repeats(self) -> None:
        if not math.isfinite(self.value):
            raise LossFault(
                f"the loss is {self.value} at these parameters: nothing can be compared before it is finite"
            )
        for name, array in self._base.items():
            if not np.array_equal(to_host(array), self._rounded(name)):
                raise LossFault(
                    f"the loss changes parameters[{name!r}], which it was given: it must compute, not update"
                )
        values = [self.value, *(self._evaluate({}) for _ in range(3))]
        if len(set(values)) > 1:
            raise LossFault(
                f"the loss is not deterministic: the same parameters give {min(values)!r} and {max(values)!r} "
                "(dropout, a generator, state kept between calls, uninitialised memory?)"
            )

    def _rounded(self, name: str) -> Host:
        return self.point[name].astype(self._dtypes[name]).astype(np.float64)

    def _measure_noise(self, seed: int) -> float:
        """Return ε_f from differences of orders 3 … 6 over nine points beside the parameters, not across them."""
        rng = np.random.default_rng(seed)
        tiny = {name: 1e-6 * (np.sqrt(np.mean(host**2)) or 1.0) for name, host in self.point.items() if host.size}
        signs = {name: rng.choice([-1.0, 1.0], size=self.point[name].shape) for name in tiny}
        values = np.array(
            [self._evaluate({n: self.point[n] + k * tiny[n] * signs[n] for n in tiny}) for k in range(1, 10)]
        )
        if not np.isfinite(values).all():
            return EPSILON * abs(self.value)
        estimates = []
        for k in range(3, 7):
            scale = math.factorial(k) ** 2 / math.factorial(2 * k)
            estimates.append(math.sqrt(scale * float(np.mean(np.diff(values, k) ** 2))))
        return max(min(estimates), EPSILON * abs(self.value) / 4)


def _number(value: object) -> float:
    """Return what a loss gave as a float.

    Raises:
        TypeError: it is no single real number.
    """
    shape = getattr(value, "shape", ())
    if isinstance(value, (complex, str)) or value is None or math.prod(shape) != 1:
        given = f"an array of shape {shape}" if shape else repr(value)
        raise TypeError(f"loss must return one number; got {given}")
    try:
        return float(value.item() if shape else value)  # type: ignore[attr-defined, arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"loss must return one number; got {type(value).__name__}") from None
