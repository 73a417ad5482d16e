"""One thread for BLAS while samples are computed: the workers are the threads, and a product's bits stay the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import threadpoolctl

_lock = threading.Lock()
_worker = threading.local()
_users = 0
_controller: threadpoolctl.ThreadpoolController | None = None
_limit: Any = None


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Give BLAS one thread while anybody is inside, and what it had before when the last one leaves.

    The limit belongs to the process, so overlapping users share it; none may lift it under another.
    """
    global _limit, _users
    with _lock:
        if _users == 0:
            _take_control()
            _limit = _controlled().limit(limits=1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _take_control()
                _limit.restore_original_limits()
                _take_control()


def limit_this_worker() -> None:
    """Give BLAS one thread in this thread: for BLAS on OpenMP, or MKL, whose limits belong to a thread.

    To be called inside `single_threaded_blas` only: a limit set after that was left would stay for ever.
    """
    if not getattr(_worker, "limited", False):
        _worker.limited = True
        _controlled().limit(limits=1, user_api="blas")


def _controlled() -> threadpoolctl.ThreadpoolController:
    global _controller
    _controller = _controller or threadpoolctl.ThreadpoolController()  # finding the libraries takes milliseconds: once
    return _controller


def _take_control() -> None:
    """Let this thread set the limit even if another has set one before.

    In threadpoolctl 3.8 the first thread to limit OpenBLAS keeps the right to; calls by others silently do nothing.
    """
    release = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)


def _after_fork() -> None:
    """In a forked child nobody is inside: the threads that were have stayed in the parent."""
    global _lock, _users
    _lock = threading.Lock()
    if _users:
        _users = 0
        _take_control()
        _limit.restore_original_limits()
        _take_control()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
