"""Records what PyTorch's own optimizers, schedules and clipping make of a small problem, for the tests.

From the repository's root, with a Python that has PyTorch:

    python -m tests.golden.record_optimizers

Numbers are hexadecimal, so that nothing is rounded: `float.fromhex`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("pytorch_optimizers.json")
STEPS = 100
EVERY = 10  # parameters are recorded after so many steps

Numbers = dict[str, Any]

# The problem: min ½ Σ A∘(W + b - U)² + ½ Σ (b - V)², W (2, 3), b (3,), with curvatures that differ by a factor of 400.
# Nothing is 0 at its end, so that relative differences mean something.
CONSTANTS = {
    "A": [[0.01, 0.1, 1.0], [4.0, 0.5, 0.03]],
    "U": [[1.5, -0.3, 0.8], [-1.2, 2.0, 0.7]],
    "V": [-0.6, 0.9, 0.4],
}
START = {"W": [[0.3, -1.0, 0.2], [2.0, -0.7, 0.1]], "b": [0.5, -0.25, 1.0]}

# Name: PyTorch's class and its settings.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "nesterov": ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    "rmsprop": ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-8}),
    "rmsprop with momentum": ("RMSprop", {"lr": 0.002, "alpha": 0.99, "eps": 1e-4, "momentum": 0.9}),
    "adam": ("Adam", {"lr": 0.05}),
    "adam with other settings": ("Adam", {"lr": 0.02, "betas": (0.8, 0.99), "eps": 1e-3}),
    "adamw": ("AdamW", {"lr": 0.05}),
    "adamw with other settings": ("AdamW", {"lr": 0.1, "betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.3}),
}

# (schedule, steps, warm-up steps): the factors of all steps are recorded.
SCHEDULES = [
    *((name, STEPS, warm_up) for name in ("constant", "linear", "step", "cosine", "one-cycle") for warm_up in (0, 13)),
    *((name, steps, 0) for name in ("linear", "cosine", "one-cycle") for steps in (1, 2, 3, 4, 10)),
    ("cosine", 5, 1),
    ("one-cycle", 12, 2),
]
STEP_EVERY, STEP_FACTOR = 7, 0.6

# Global norm 5.06, norms 5, 0.7 and 0.33.
GRADIENTS = {"W": [[3.0, -4.0], [0.01, 0.0]], "b": [0.7], "p": [0.2, -0.2, 0.15, 0.07]}
LIMITS = (0.1, 0.5, 1.0, 5.03, 10.0)


def gradients(w: Numbers, A: Any, U: Any, V: Any) -> Numbers:
    """Return the problem's gradients, by elementwise operators alone: the same bits on PyTorch and NumPy."""
    pull = A * (w["W"] + w["b"] - U)
    return {"W": pull, "b": pull[0] + pull[1] + (w["b"] - V)}


def record() -> dict[str, Any]:
    """Return all that is recorded."""
    import torch

    return {
        "torch": torch.__version__,
        "optimizers": {name: _parameters(kind, settings) for name, (kind, settings) in OPTIMIZERS.items()},
        "schedules": {key(*which): in_hex(_factors(*which)) for which in SCHEDULES},
        "clipping": {rule: {str(limit): _clipped(rule, limit) for limit in LIMITS} for rule in ("value", "norm")},
    }


def key(name: str, steps: int, warmup_steps: int) -> str:
    """Return the name of a schedule in the file."""
    return f"{name}, {steps} steps, {warmup_steps} of warm-up"


def in_hex(numbers: Iterable[float]) -> str:
    """Return numbers as one string."""
    return " ".join(float(number).hex() for number in numbers)


def _tensors(lists: Numbers) -> Numbers:
    import torch

    return {name: torch.tensor(values, dtype=torch.float64) for name, values in lists.items()}


def _parameters(kind: str, settings: Numbers) -> dict[str, dict[str, str]]:
    """Return the parameters after every tenth step, by the number of steps."""
    import torch

    w, constants = _tensors(START), _tensors(CONSTANTS)
    optimizer = getattr(torch.optim, kind)(w.values(), **settings)
    recorded = {}
    for step in range(1, STEPS + 1):
        for name, gradient in gradients(w, **constants).items():
            w[name].grad = gradient
        optimizer.step()
        if step % EVERY == 0:
            recorded[str(step)] = {name: in_hex(tensor.flatten().tolist()) for name, tensor in w.items()}
    return recorded


def _factors(name: str, steps: int, warmup_steps: int) -> list[float]:
    """Return the learning rate at each step where the base is 1."""
    import torch
    from torch.optim import lr_scheduler as of

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    after = steps - warmup_steps
    make = {
        "constant": lambda: of.ConstantLR(optimizer, factor=1.0),
        "linear": lambda: of.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=after),
        "step": lambda: of.StepLR(optimizer, step_size=STEP_EVERY, gamma=STEP_FACTOR),
        "cosine": lambda: of.CosineAnnealingLR(optimizer, T_max=after),
        "one-cycle": lambda: of.OneCycleLR(optimizer, max_lr=1.0, total_steps=after, cycle_momentum=False),
    }
    if warmup_steps:
        rise = of.LinearLR(optimizer, start_factor=1 / warmup_steps, total_iters=warmup_steps - 1)
        schedule = of.SequentialLR(optimizer, [rise, make[name]()], milestones=[warmup_steps])
    else:
        schedule = make[name]()
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return factors


def _clipped(rule: str, limit: float) -> dict[str, str]:
    """Return the gradients, clipped together: clip_grad_value_ or clip_grad_norm_."""
    import torch

    w = _tensors(GRADIENTS)
    for tensor in w.values():
        tensor.grad = tensor.clone()
    getattr(torch.nn.utils, f"clip_grad_{rule}_")(w.values(), limit)
    return {name: in_hex(tensor.grad.flatten().tolist()) for name, tensor in w.items()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
