"""Interleaved timing: every contender once a round, in rotating order, so that a slow minute hits all of them alike."""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convlstm.backends import available_backends, get_backend
from convlstm.environment import machine

Contender = Callable[[], object]  # one step; returns when its work is done
Row = dict[str, Any]  # what `row` returns
Rows = dict[str, Row]  # by what they are called in a table


PAUSE_S = 0.1  # idle BLAS and OpenMP threads keep spinning for a while and would steal the next contender's core
TURN_S = 0.1  # a step shorter than this is repeated within a contender's turn
PACKAGES = ("convlstm", "numpy", "chainer", "threadpoolctl", "scipy", "torch", "keras", "cupy-cuda12x", "cupy-cuda13x")


class Skipped(Exception):
    """A contender cannot take part here; the message says why."""


def package(name: str) -> Any:
    """Import what a contender needs.

    Raises:
        Skipped: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Skipped(f"{error}; README says how to install it") from error


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
            seconds[name].append(one_turn(contenders[name]))
    return seconds


def one_turn(contender: Contender) -> float:
    """Return the seconds of one step: once to warm up, then for at least `TURN_S`."""
    contender()
    start, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - start < TURN_S:
        contender()
        steps += 1
    return (time.perf_counter() - start) / steps


def row(seconds: Mapping[str, Sequence[float]], **facts: Any) -> Row:
    """Return a row of results: each contender's seconds, one figure for each round, what they come to, and facts."""
    return {**facts, "times": {name: summary(values) for name, values in seconds.items()}, "seconds": dict(seconds)}


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [*seconds] * 3
    return {"median_ms": middle * 1e3, "lower_quartile_ms": low * 1e3, "upper_quartile_ms": high * 1e3}


def environment() -> dict[str, Any]:
    """Return what the figures depend on: machine and devices, versions of packages, and how busy it was before."""
    threads = {name: os.environ[name] for name in ("CONVLSTM_THREADS", "OMP_NUM_THREADS") if name in os.environ}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    backends = {name: get_backend(name).description for name in available_backends()}
    return {**machine(PACKAGES), "backends": backends, "threads": threads, "load_before": load}
