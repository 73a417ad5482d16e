"""Numerical derivatives of one loss at one point, each with an estimate of its error.

Along a direction v, with f(s) = loss(θ + s v),

    D(s) = (f(s) - f(-s)) / 2s                = f′ + s²/6 f‴ + O(s⁴)         central difference
    R(s) = (4 D(s/2) - D(s)) / 3              = f′ + O(s⁴)                    Richardson's extrapolation
    error ≈ |R(s) - D(s/2)| + 4 ε_f / s                                      what is left of s², and rounding

where ε_f is the noise of the loss itself.  It is measured, not assumed, so that a loss in float32 is recognised: the
k-th difference of f over tiny equal steps holds nothing but noise, ε_f² = (k!)²/(2k)! · mean of its squares.  As
rounding falls with s and the rest of the expansion grows with s⁴, the step is (ε_f / variation of f)^(1/5); where one
step cannot tell, others are tried and that with the smallest error counts.

Where f has kinks near the point, as nets of many ReLUs have, |R(s) - D(s/2)| may be small by chance.  So before a
derivative is believed that is not the expected one, it is taken again at the smallest step at which rounding lets it be
told from that, s = 40 ε_f / |difference|: kinks further away than s no longer count.  There f(s) - 2 f(0) + f(-s) shows
a kink at the point itself: beside it, the derivatives to either side differ as much at s as at 8 s.

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
SINGLE = float(np.finfo(np.float32).eps)
HALF = float(np.finfo(np.float16).eps)


class LossFault(Exception):
    """The loss is such that no derivative can be taken of it; the message says why."""


class Derivative(NamedTuple):
    """A directional derivative."""

    value: float
    error: float  # estimated; infinite where the loss is not finite beside the point, or not smooth near it
    kink: tuple[float, float] | None = None  # derivatives to either side where the loss has a kink at this very point
    moves: bool = True  # whether the loss changed at all


class Differences:
    """Evaluates a loss around one point.

    Attributes:
        point: the parameters, float64 on the host.
        value: the loss there.
        noise: ε_f, the standard deviation of the loss's rounding.
        variation: how much the loss changes per unit step, over random directions of all parameters.
        precision: of the arithmetic that the loss seems to be computed in: eps of float64, float32 or float16.
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
        self._returned = EPSILON  # precision of the numbers that the loss returns
        self._dtypes = self._choose_dtypes()
        self._base = {name: self._array(name, host) for name, host in self.point.items()}
        self.value = self._evaluate({})
        spread = self._check_repeats()
        self.variation = self._measure_variation()
        self.noise = max(min(self._measure_noise(seed) for seed in (0, 1)), spread)
        self.precision = self._classify()
        if self.precision > EPSILON:
            size = self.noise / (abs(self.value) or 1.0)
            self.remarks.append(
                f"the loss is rounded to about {size:.0e} of its value, as float32 arithmetic does: steps are larger "
                "and the check is coarser"
            )

    @property
    def relative_noise(self) -> float:
        """ε_f relative to the variation of the loss, never below float64's."""
        return max(self.noise / (self.variation or 1.0), EPSILON)

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
        plain = self._plain(f, s)
        if plain.value != 0 and met(plain):  # of 0, more steps tell whether the loss moves at all
            return plain
        best = self._derivative(f, self.step)
        for factor in (1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 4096, 1 / 65536, 4):
            if met(best) or best.error <= 0.05 * abs(expected - best.value) or not best.moves:
                break
            best = min(best, self._derivative(f, self.step * factor), key=lambda derivative: derivative.error)
        if best.moves and abs(expected - best.value) > tolerance + best.error:
            return self._confirmed(f, best, expected, tolerance)
        return best

    def moves(self, name: str) -> bool:
        """Return whether the loss reads this parameter, by moving all of it, a little and far."""
        v = np.random.default_rng(1).standard_normal(self.point[name].shape)
        with np.errstate(all="ignore"):
            far = (1 + abs(self.point[name])) * v
            return any(self._evaluate({name: self.point[name] + s * far}) != self.value for s in (1e-3, 0.1, -0.3))

    def repeats(self) -> bool:
        """Return whether the loss still gives at the point what it gave first, but for rounding."""
        return abs(self._evaluate({}) - self.value) <= 8 * EPSILON * abs(self.value)

    def _plain(self, f: Callable[[float], float], s: float) -> Derivative:
        ahead, behind = f(s), f(-s)
        if not (math.isfinite(ahead) and math.isfinite(behind)):
            return Derivative(0.0, math.inf)
        return Derivative((ahead - behind) / (2 * s), self._rounding(s, ahead, behind))

    def _derivative(self, f: Callable[[float], float], s: float) -> Derivative:
        """R(s), and its error."""
        ahead, behind, half_ahead, half_behind = values = f(s), f(-s), f(s / 2), f(-s / 2)
        if ahead == behind == half_ahead == half_behind == self.value:
            return Derivative(0.0, 4 * self.noise / s, moves=False)
        if not all(map(math.isfinite, values)):
            return Derivative(0.0, math.inf)
        D, D_half = (ahead - behind) / (2 * s), (half_ahead - half_behind) / s
        R = (4 * D_half - D) / 3
        return Derivative(R, abs(R - D_half) + self._rounding(s, ahead, behind))

    def _confirmed(
        self, f: Callable[[float], float], found: Derivative, expected: float, tolerance: float
    ) -> Derivative:
        """Return `found` if it is the same at a far smaller step, or what is seen there."""
        s = max(40 * self.noise / abs(expected - found.value), 1e-9)
        if s > self.step / 16:
            return found  # rounding leaves no smaller step
        seen = self._beside(f, s, tolerance)
        if seen.kink is not None or abs(expected - seen.value) <= tolerance + seen.error:
            return seen
        if self.precision == EPSILON and self.noise > 4 * EPSILON * abs(self.value):
            # Kinks near the point may have been taken for noise, which is then smaller than measured.
            for smaller in (max(s / factor, 1e-9) for factor in (16, 256, 4096)):
                near = self._plain(f, smaller)._replace(error=4 * EPSILON * abs(self.value) / smaller)
                if abs(expected - near.value) <= tolerance + near.error:
                    return near
        if abs(seen.value - found.value) > 0.2 * abs(expected - seen.value) + seen.error:
            return seen._replace(error=math.inf)  # kinks lie so near that no step is free of them
        return found

    def _beside(self, f: Callable[[float], float], s: float, tolerance: float) -> Derivative:
        """D(s) at a small step, and whether a kink at the point itself shows there."""
        ahead, behind, far_ahead, far_behind = values = f(s), f(-s), f(8 * s), f(-8 * s)
        if not all(map(math.isfinite, values)):
            return Derivative(0.0, math.inf)
        left, right = (self.value - behind) / s, (ahead - self.value) / s
        far_gap = abs(far_ahead - 2 * self.value + far_behind) / (8 * s)
        error = self._rounding(s, ahead, behind)
        bent = abs(right - left) > max(0.5 * far_gap, 4 * error, tolerance)
        return Derivative((left + right) / 2, error, (min(left, right), max(left, right)) if bent else None)

    def _rounding(self, s: float, ahead: float, behind: float) -> float:
        """Return what rounding does to a central difference at step s, and to any derivative at this point.

        The loss may be larger beside the point than at it; and a derivative is that of a point ε away as well as this
        one's, which is f″ ε away from it.
        """
        noise = max(self.noise, EPSILON / 4 * max(abs(ahead), abs(behind)))
        return 4 * noise / s + 10 * EPSILON * abs(ahead - 2 * self.value + behind) / s**2

    def _evaluate(self, moved: Mapping[str, Host]) -> float:
        self.evaluations += 1
        arrays = {name: self._array(name, moved[name]) if name in moved else a for name, a in self._base.items()}
        with np.errstate(all="ignore"):  # beside the point a loss may overflow; that is said, not warned of
            try:
                returned = self._loss(arrays)
            except Exception:
                if moved:  # beside the point it may leave what the loss is defined for
                    return math.nan
                raise
        dtype = getattr(returned, "dtype", np.dtype(np.float64))
        if np.dtype(dtype).kind == "f":
            self._returned = max(self._returned, float(np.finfo(dtype).eps))
        return _number(returned)

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

    def _check_repeats(self) -> float:
        """Return how far calls at the same parameters differ, by rounding alone."""
        if not math.isfinite(self.value):
            raise LossFault(
                f"the loss is {self.value} at these parameters: nothing can be compared before it is finite"
            )
        for name, array in self._base.items():
            rounded = self.point[name].astype(self._dtypes[name]).astype(np.float64)
            if not np.array_equal(to_host(array), rounded, equal_nan=True):
                raise LossFault(
                    f"the loss changes parameters[{name!r}], which it was given: it must compute, not update"
                )
        values = [self.value, *(self._evaluate({}) for _ in range(3))]
        spread = max(values) - min(values)
        if spread > 8 * EPSILON * abs(self.value) or any(map(math.isnan, values)):
            raise LossFault(
                f"the loss is not deterministic: the same parameters give {min(values)!r} and {max(values)!r} "
                "(dropout, a generator, state kept between calls, uninitialised memory?)"
            )
        return spread

    def _direction(self, seed: int) -> dict[str, Host]:
        """Return random signs, as long as one entry of order 1 would be, over all parameters."""
        rng = np.random.default_rng(seed)
        count = max(1, sum(host.size for host in self.point.values()))
        return {name: rng.choice([-1.0, 1.0], size=host.shape) / math.sqrt(count) for name, host in self.point.items()}

    def _measure_variation(self) -> float:
        found = 0.0
        for seed in (2, 3):
            v = self._direction(seed)
            for s in (1e-3, -1e-3):
                value = self._evaluate({name: self.point[name] + s * v[name] for name in v})
                if math.isfinite(value):
                    found = max(found, abs(value - self.value) / abs(s))
        return found

    def _measure_noise(self, seed: int) -> float:
        """Return ε_f from differences of orders 3 … 6 over nine points beside the parameters, not across them.

        Where most neighbouring values are the same, the loss is rounded to coarser numbers than the spacing shows.  If
        they are at every spacing, nothing but the loss's own digits can tell: are they no more than float32 has?
        """
        least = EPSILON * abs(self.value) / 4
        rng = np.random.default_rng(seed)
        signs = {name: rng.choice([-1.0, 1.0], size=host.shape) for name, host in self.point.items()}
        sizes = {name: _sizes(host) for name, host in self.point.items()}
        for spacing in (1e-6, 3e-5, 1e-3):
            with np.errstate(all="ignore"):
                values = np.array(
                    [
                        self._evaluate({n: self.point[n] + k * spacing * sizes[n] * signs[n] for n in signs})
                        for k in range(1, 10)
                    ]
                )
            if not np.isfinite(values).all():
                return least
            if 2 * np.count_nonzero(np.diff(values)) > len(values):
                break
        else:
            with np.errstate(over="ignore"):
                digits = SINGLE if float(np.float32(self.value)) == self.value else EPSILON
            return max(least, max(self._returned, digits) / 4 * abs(self.value))
        estimates = []
        for k in range(3, 7):
            scale = math.factorial(k) ** 2 / math.factorial(2 * k)
            estimates.append(math.sqrt(scale * float(np.mean(np.diff(values, k) ** 2))))
        return max(min(estimates), least, self._returned / 8 * abs(self.value))

    def _classify(self) -> float:
        """Return the precision that the loss seems to be computed in."""
        size = max(abs(self.value), self.variation)
        if self._returned > SINGLE or self.noise > 1e-5 * size > 0:
            return HALF
        return SINGLE if self._returned > EPSILON or self.noise > 1e-10 * size > 0 else EPSILON


def _sizes(host: Host) -> Host:
    """Return the size of each entry of a parameter; of those that are zero, what is usual for the others, or 1."""
    size = abs(host)
    usual = size[(size > 0) & np.isfinite(size)]
    return np.where(size > 0, size, np.median(usual) if usual.size else 1.0)


def _number(value: object) -> float:
    """Return what a loss gave as a float.

    Raises:
        TypeError: it is no single real number.
    """
    shape = getattr(value, "shape", ())
    kind = getattr(getattr(value, "dtype", None), "kind", "f" if isinstance(value, (int, float)) else "")
    if isinstance(value, bool) or kind not in ("f", "i", "u") or not isinstance(shape, tuple) or math.prod(shape) != 1:
        given = f"an array of shape {shape}" if shape else f"{type(value).__name__} {str(value)[:40]!r}"
        raise TypeError(f"loss must return one number; got {given}")
    return float(value.item() if hasattr(value, "item") else value)  # type: ignore[arg-type]
