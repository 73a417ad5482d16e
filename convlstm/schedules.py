"""How the learning rate changes over a run: at each step, the factor by which the base learning rate is multiplied.

Steps count from 0; a run of `steps` steps ends with step `steps` - 1.  The values are those of PyTorch's schedulers, as
formulas of the step alone, so that a run that is taken up again needs to remember nothing of its schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from convlstm.arguments import as_integer, as_number

ScheduleName = Literal["constant", "linear", "step", "cosine", "one-cycle"]

STEP_EVERY = 100
STEP_FACTOR = 0.1

# Of the one-cycle schedule, as PyTorch has them.
RISING_SHARE = 0.3
LOWEST_BEFORE = 1 / 25
LOWEST_AFTER = LOWEST_BEFORE / 1e4


def constant(step: int, steps: int) -> float:
    """Return 1."""
    return 1.0


def linear(step: int, steps: int) -> float:
    """Return 1 - step/steps: the full rate at step 0, and as good as none at the last, so that the noise of single
    batches averages out."""
    return 1 - step / steps


def stepwise(step: int, steps: int, every: int = STEP_EVERY, factor: float = STEP_FACTOR) -> float:
    """Return factor^⌊step/every⌋, as torch.optim.lr_scheduler.StepLR.

    Raises:
        ValueError: that is more than a float64 holds.
    """
    try:
        return float(factor ** (step // every))
    except OverflowError:
        raise ValueError(f"step_factor^⌊step/step_every⌋ must be < 2^1024; got {factor}^{step // every}") from None


def cosine(step: int, steps: int) -> float:
    """Return (1 + cos(π step/steps))/2, as torch.optim.lr_scheduler.CosineAnnealingLR with T_max = steps.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation 5.
    """
    return _along_cosine(1.0, 0.0, step / steps)


def one_cycle(step: int, steps: int) -> float:
    """Rise along a cosine from 1/25 to 1 at step p = 0.3 steps - 1, then fall along one to 4·10⁻⁶ at the last step.

    As torch.optim.lr_scheduler.OneCycleLR(max_lr, total_steps=steps, cycle_momentum=False).  p need not be whole.  Up
    to 3 steps it is negative and the rise is left out; a run of one step has 4·10⁻⁶ of its rate, as with PyTorch.
    Source: Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates",
    2017, arXiv:1708.07120.
    """
    peak = RISING_SHARE * steps - 1
    if step <= peak:
        return _along_cosine(LOWEST_BEFORE, 1.0, step / peak)
    return _along_cosine(1.0, LOWEST_AFTER, (step - peak) / (steps - 1 - peak))


def warm_up(step: int, warmup_steps: int) -> float:
    """Return (step + 1)/warmup_steps: the last of these steps has the whole rate.

    As torch.optim.lr_scheduler.LinearLR(start_factor=1/warmup_steps, total_iters=warmup_steps - 1).  Source: Goyal et
    al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, section 2.2.
    """
    return (step + 1) / warmup_steps


SCHEDULES: dict[ScheduleName, Callable[[int, int], float]] = {
    "constant": constant,
    "linear": linear,
    "step": stepwise,
    "cosine": cosine,
    "one-cycle": one_cycle,
}


def learning_rate_factor(
    name: ScheduleName,
    step: int,
    steps: int,
    *,
    warmup_steps: int = 0,
    step_every: int = STEP_EVERY,
    step_factor: float = STEP_FACTOR,
) -> float:
    """Return the factor of the base learning rate at a step: of the warm-up, or after it of the schedule.

    With W warm-up steps, f the schedule over the other steps - W, and b = 1/25 for "one-cycle", else 1,

        step < W:  (step + 1)/W · b        step ≥ W:  f(step - W)

    so the rate rises to where the schedule begins; "one-cycle" rises further by itself.  Three steps or fewer are too
    short for its rise: it then begins elsewhere than at b.  This is
    torch.optim.lr_scheduler.SequentialLR([LinearLR, the schedule], milestones=[W]).

    Args:
        name: the schedule.
        step: 0 … steps - 1.
        steps: of the whole run, warm-up included; ≥ 1.
        warmup_steps: 0 … steps - 1.
        step_every: "step" changes the rate after so many steps, ≥ 1.
        step_factor: by this factor, > 0.

    Raises:
        ValueError: an argument; the message names it.
    """
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}; got {name!r}")
    steps, every = _count("steps", steps), _count("step_every", step_every)
    step, warmup_steps = _index("step", step, steps), _index("warmup_steps", warmup_steps, steps)
    factor = as_number("step_factor", step_factor, "be > 0 and finite", lambda number: 0 < number < math.inf)
    if step < warmup_steps:
        return warm_up(step, warmup_steps) * (LOWEST_BEFORE if name == "one-cycle" else 1.0)
    if name == "step":
        return stepwise(step - warmup_steps, steps - warmup_steps, every, factor)
    return SCHEDULES[name](step - warmup_steps, steps - warmup_steps)


def _count(name: str, value: int) -> int:
    return as_integer(name, value, "≥ 1", lambda number: number >= 1)


def _index(name: str, value: int, steps: int) -> int:
    return as_integer(name, value, f"in 0 … steps - 1 = {steps - 1}", lambda number: 0 <= number < steps)


def _along_cosine(start: float, end: float, share: float) -> float:
    """Return `start` where `share` is 0, `end` where it is 1, and half a wave of a cosine between them."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
