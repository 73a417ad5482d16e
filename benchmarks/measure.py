"""Interleaved timing: every contender once a round, in rotating order, so that a slow minute hits all of them alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from convlstm.environment import machine

Contender = Callable[[], object]  # one step; returns when its work is done


PAUSE_S = 0.1  # idle BLAS and OpenMP threads keep spinning for a while and would steal the next contender's core
TURN_S = 0.1  # a step shorter than this is repeated within a contender's turn


def interleaved(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Return each contender's seconds for one step, one figure for each round.

    A turn is a pause, one step that warms the caches and does not count, then steps for at least `TURN_S`.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            time.sleep(PAUSE_S)
            contenders[name]()
            start, steps = time.perf_counter(), 0
            while steps == 0 or time.perf_counter() - start < TURN_S:
                contenders[name]()
                steps += 1
            seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Return median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {"median_ms": middle * 1e3, "lower_quartile_ms": low * 1e3, "upper_quartile_ms": high * 1e3}


def environment(packages: tuple[str, ...]) -> dict[str, Any]:
    """Return what the figures depend on: the machine, the versions of `packages`, and how busy it was before."""
    return {**machine(packages), "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None}
