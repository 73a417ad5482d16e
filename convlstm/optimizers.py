"""How parameters move: each optimizer's `step` puts new arrays in place of the old ones and changes none.

The formulas are PyTorch's; docs/optimizers.md has them on one page, tests/golden/ has PyTorch's own numbers.  In all
of them w is a parameter, g its gradient, η the learning rate, t the number of the step from 1, and every moment is 0
before the first step.

What an optimizer remembers is `steps` and `moments`: arrays by moment and parameter, {"m": {"W_x": …}, "v": {…}}.  A
step puts new dictionaries there, so that whoever holds the old ones holds the state before it; a step that raises
leaves parameters, `steps` and `moments` as they were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from convlstm.arguments import as_integer, as_number, check_arrays
from convlstm.backends.contract import Array
from convlstm.backends.geometry import as_bool

Moments = dict[str, dict[str, Array]]


class Optimizer(Protocol):
    """Moves parameters against their gradients."""

    learning_rate: float
    steps: int  # taken so far
    moments: Moments

    def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
        """Replace every array of `parameters`.

        Raises:
            KeyError: a parameter has no gradient.
            TypeError: one of both is not a dictionary of float32 or float64 arrays.
            ValueError: a gradient has not the shape and the dtype of its parameter, or belongs to none; or
                `learning_rate` has become negative, infinite or NaN.
        """


class SGD:
    """w ← w - η g.

    Source: Robbins and Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22, 1951.
    """

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = _positive("learning_rate", learning_rate)
        self.steps = 0
        self.moments: Moments = {}

    def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
        """Take one step; see `Optimizer.step`."""
        rate = _checked(self, parameters, gradients)
        parameters.update({name: w - rate * gradients[name] for name, w in parameters.items()})
        self.steps += 1


class Momentum:
    """u ← μ u + g,  then w ← w - η u,  or with `nesterov` w ← w - η (g + μ u).

    η stands outside u, so that a change of the learning rate acts at once on all that u has gathered; in the paper
    it stands inside.  Source: Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in
    deep learning", ICML 2013, in the form of torch.optim.SGD.  μ = 0.9 is our default; PyTorch's is 0.
    """

    def __init__(self, learning_rate: float, momentum: float = 0.9, nesterov: bool = False) -> None:
        self.learning_rate = _positive("learning_rate", learning_rate)
        self.momentum, self.nesterov = _below_one("momentum", momentum), as_bool("nesterov", nesterov)
        self.steps = 0
        self.moments: Moments = {"u": {}}

    def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
        """Take one step; see `Optimizer.step`."""
        rate = _checked(self, parameters, gradients)
        us, moved = {}, {}
        for name, w in parameters.items():
            g = gradients[name]
            us[name] = u = self.momentum * self.moments["u"].get(name, 0) + g
            moved[name] = w - rate * (g + self.momentum * u if self.nesterov else u)
        parameters.update(moved)
        self.steps, self.moments = self.steps + 1, {"u": us}


class RMSProp:
    """v ← α v + (1-α) g²,  w ← w - η g/(√v + ε);  with a momentum μ > 0: u ← μ u + g/(√v + ε),  w ← w - η u.

    Source: Tieleman and Hinton, "Lecture 6.5 - rmsprop", Neural Networks for Machine Learning, Coursera 2012, with
    ε outside of the root as torch.optim.RMSprop has it.  The decay α = 0.9 is the lecture's and our default, PyTorch's
    is 0.99; ε = 10⁻⁸ and μ = 0 are PyTorch's.
    """

    def __init__(self, learning_rate: float, decay: float = 0.9, epsilon: float = 1e-8, momentum: float = 0.0) -> None:
        self.learning_rate = _positive("learning_rate", learning_rate)
        self.decay, self.momentum = _below_one("decay", decay), _below_one("momentum", momentum)
        self.epsilon = _positive("epsilon", epsilon)
        self.steps = 0
        self.moments: Moments = {"v": {}, "u": {}} if momentum else {"v": {}}

    def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
        """Take one step; see `Optimizer.step`."""
        rate = _checked(self, parameters, gradients)
        vs, us, moved = {}, {}, {}
        for name, w in parameters.items():
            g = gradients[name]
            vs[name] = v = self.decay * self.moments["v"].get(name, 0) + (1 - self.decay) * (g * g)
            u = g / (np.sqrt(v) + self.epsilon)
            if self.momentum:
                us[name] = u = self.momentum * self.moments["u"].get(name, 0) + u
            moved[name] = w - rate * u
        parameters.update(moved)
        self.steps, self.moments = self.steps + 1, {"v": vs, "u": us} if self.momentum else {"v": vs}


class Adam:
    """m ← β₁ m + (1-β₁) g,  v ← β₂ v + (1-β₂) g²,  w ← w - η m̂ / (√v̂ + ε) with m̂ = m/(1-β₁ᵗ), v̂ = v/(1-β₂ᵗ).

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.  The defaults are the
    paper's and PyTorch's.
    """

    def __init__(self, learning_rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.learning_rate = _positive("learning_rate", learning_rate)
        self.beta1, self.beta2 = _below_one("beta1", beta1), _below_one("beta2", beta2)
        self.epsilon = _positive("epsilon", epsilon)
        self.steps = 0
        self.moments: Moments = {"m": {}, "v": {}}

    def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
        """Take one step; see `Optimizer.step`."""
        _adam(self, _checked(self, parameters, gradients), parameters, parameters, gradients)


class AdamW:
    """w ← (1 - ηλ) w, then as Adam: the weights decay by themselves, not through g, whose size Adam divides out.

    All parameters decay, biases too.  Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR
    2019, algorithm 2, with ηλ for the paper's ηλ/α, as torch.optim.AdamW has it.  The defaults are PyTorch's.
    """

    def __init__(
        self,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        self.learning_rate = _positive("learning_rate", learning_rate)
        self.beta1, self.beta2 = _below_one("beta1", beta1), _below_one("beta2", beta2)
        self.epsilon = _positive("epsilon", epsilon)
        self.weight_decay = _not_negative("weight_decay", weight_decay)
        self.steps = 0
        self.moments: Moments = {"m": {}, "v": {}}

    def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
        """Take one step; see `Optimizer.step`."""
        rate = _checked(self, parameters, gradients)
        kept = 1 - rate * self.weight_decay
        _adam(self, rate, parameters, {name: kept * w for name, w in parameters.items()}, gradients)


def _adam(
    optimizer: Adam | AdamW,
    rate: float,
    parameters: dict[str, Array],
    start: Mapping[str, Array],
    gradients: Mapping[str, Array],
) -> None:
    """Put into `parameters` where Adam moves from `start`, and the new moments into `optimizer`."""
    beta1, beta2 = optimizer.beta1, optimizer.beta2
    m_before, v_before, steps = optimizer.moments["m"], optimizer.moments["v"], optimizer.steps + 1
    m_scale = rate / (1 - beta1**steps)
    v_scale = 1 / (1 - beta2**steps)
    ms, vs, moved = {}, {}, {}
    for name, w in start.items():
        g = gradients[name]
        ms[name] = m = beta1 * m_before.get(name, 0) + (1 - beta1) * g
        vs[name] = v = beta2 * v_before.get(name, 0) + (1 - beta2) * (g * g)
        moved[name] = w - m_scale * m / (np.sqrt(v_scale * v) + optimizer.epsilon)
    parameters.update(moved)
    optimizer.steps, optimizer.moments = steps, {"m": ms, "v": vs}


def restore(
    optimizer: Optimizer,
    steps: int,
    moments: Mapping[str, Mapping[str, Array]],
    parameters: Mapping[str, Array],
) -> None:
    """Put an optimizer where one with the same settings stood: its next step has the same bits.

    Args:
        optimizer: a new one.
        steps: the other's `steps`.
        moments: the other's `moments`, arrays of the backend of `parameters`.
        parameters: what it is to move next.

    Raises:
        TypeError: the parameters or a moment's arrays are not a dictionary of float32 or float64 arrays.
        ValueError: `steps` is not an integer ≥ 0, or the moments are not those that this optimizer keeps for these
            parameters after that many steps; the message names the moment.  The optimizer is then as it was.
    """
    steps = as_integer("steps", steps, "≥ 0", lambda steps: steps >= 0)
    check_arrays("parameters", parameters)
    if not isinstance(moments, Mapping):
        raise TypeError(f"moments must be a dictionary of dictionaries of arrays; got {type(moments).__name__}")
    if set(moments) != set(optimizer.moments):
        kept, got = (", ".join(sorted(names)) or "none" for names in (optimizer.moments, moments))
        raise ValueError(f"moments must be those of {type(optimizer).__name__} ({kept}); got {got}")
    names = list(parameters) if steps else []  # no moment has any array before the first step
    for moment, arrays in moments.items():
        check_arrays(f"moments[{moment!r}]", arrays)
        for name in sorted({*arrays} ^ {*names}):
            fault = "is missing" if name in names else f"must not be there after {steps} steps of these parameters"
            raise ValueError(f"moment {moment!r} of {name!r} {fault}")
        for name in names:
            _check_like(f"moment {moment!r} of {name!r}", arrays[name], parameters[name])
    optimizer.steps = steps
    optimizer.moments = {moment: {name: moments[moment][name] for name in names} for moment in optimizer.moments}


def _checked(optimizer: Optimizer, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> float:
    """Return the learning rate of a step, or raise as `Optimizer.step`; no element of an array is read.

    A gradient that does not fit would be broadcast or change the dtype in silence.  A rate of 0 is what a schedule may
    come down to.
    """
    check_arrays("parameters", parameters)
    check_arrays("gradients", gradients)
    for name in gradients:
        if name not in parameters:
            raise ValueError(
                f"gradient of {name!r} belongs to no parameter; there are {', '.join(parameters) or 'none'}"
            )
    for name, w in parameters.items():
        if name not in gradients:
            raise KeyError(f"parameter {name!r} has no gradient")
        _check_like(f"gradient of {name!r}", gradients[name], w)
    return _not_negative("learning_rate", optimizer.learning_rate)


def _check_like(what: str, array: Array, w: Array) -> None:
    if array.shape != w.shape or array.dtype != w.dtype:
        raise ValueError(f"{what} must have shape {w.shape} and dtype {w.dtype}; got {array.shape} and {array.dtype}")


def _positive(name: str, value: float) -> float:
    return as_number(name, value, "be > 0 and finite", lambda number: 0 < number < math.inf)


def _not_negative(name: str, value: float) -> float:
    return as_number(name, value, "be >= 0 and finite", lambda number: 0 <= number < math.inf)


def _below_one(name: str, value: float) -> float:
    return as_number(name, value, "lie in 0 … 1, without 1", lambda number: 0 <= number < 1)
