from __future__ import annotations

import copy
import os
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from convlstm.backends.numpy_backend import NumpyBackend


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_samples(threads: int) -> None:
    """The first samples finish last: each waits until all later ones that run beside it are done."""
    backend = NumpyBackend(threads)
    seen: list[slice] = []

    def work(part: slice) -> int:
        seen.append(part)
        return 10 * int(part.start)

    assert backend.map_samples(work, 7, 1) == [0, 10, 20, 30, 40, 50, 60]
    assert sorted(seen, key=lambda part: part.start) == [slice(n, n + 1) for n in range(7)]


def test_samples_run_on_as_many_threads_as_asked_for() -> None:
    together = threading.Barrier(3, timeout=20)  # breaks, and fails the test, unless three samples run at once
    assert sorted(NumpyBackend(3).map_samples(lambda part: together.wait(), 3, 1)) == [0, 1, 2]


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_has_one_thread_inside_and_what_it_had_outside(threads: int) -> None:
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        inside = NumpyBackend(threads).map_samples(lambda part: blas_threads(), 2, 1)
        assert inside == [{1}, {1}]
        assert blas_threads() == before


def test_blas_stays_at_one_thread_until_the_last_of_overlapping_users_leaves() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(part: slice) -> set[int]:
        entered.set()
        leave.wait(20)
        return blas_threads()

    with threadpool_limits(2, user_api="blas"):
        before, found = blas_threads(), []
        other = threading.Thread(target=lambda: found.extend(NumpyBackend(1).map_samples(slow, 1, 1)))
        other.start()
        assert entered.wait(20)
        NumpyBackend(1).map_samples(lambda part: None, 1, 1)  # enters and leaves while the other is inside
        leave.set()
        other.join(20)
        assert found == [{1}]
        assert blas_threads() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_a_sample_is_raised_and_blas_is_as_before(threads: int) -> None:
    def work(part: slice) -> None:
        if part.start == 2:
            raise RuntimeError("sample 2")

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with pytest.raises(RuntimeError, match="sample 2"):
            NumpyBackend(threads).map_samples(work, 4, 1)
        assert blas_threads() == before


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_threads_of_its_own() -> None:
    """Threads do not survive a fork: a pool that was started before it would wait for ever."""
    backend = NumpyBackend(2)
    backend.map_samples(lambda part: None, 4, 1)
    child = os.fork()
    if child == 0:
        os._exit(0 if backend.map_samples(lambda part: part.start, 4, 1) == [0, 1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_channels_last_keeps_axes_and_values() -> None:
    array = np.random.default_rng(0).random((2, 3, 4, 5))
    array.flags.writeable = False
    moved = NumpyBackend(1).channels_last(array)
    np.testing.assert_array_equal(moved, array)
    assert moved.transpose(0, 2, 3, 1).flags.c_contiguous
    assert NumpyBackend(1).channels_last(moved).ctypes.data == moved.ctypes.data  # no second copy


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_must_be_positive(threads: Any) -> None:
    with pytest.raises(ValueError, match="threads must be ≥ 1"):
        NumpyBackend(threads)


def test_the_limit_holds_although_another_thread_limited_blas_first() -> None:
    """A thread that has set a limit and lives on must not keep others from setting theirs."""
    first, leave = threading.Event(), threading.Event()

    def hold() -> None:
        NumpyBackend(1).map_samples(lambda part: None, 1, 1)
        with threadpool_limits(2, user_api="blas"):
            first.set()
            leave.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert first.wait(20)
    assert NumpyBackend(2).map_samples(lambda part: blas_threads(), 2, 1) == [{1}, {1}]
    leave.set()
    holder.join(20)


def test_a_worker_that_comes_late_leaves_blas_as_it_was() -> None:
    """A pool may start a thread after the others have done all the work; it must limit nothing then."""
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        for _ in range(60):
            NumpyBackend(8).map_samples(lambda part: None, 2, 1)
            assert blas_threads() == before


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_amid_work_has_blas_as_it_was_before_the_work() -> None:
    entered, leave = threading.Event(), threading.Event()

    def work(part: slice) -> None:
        entered.set()
        leave.wait(20)

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        busy = threading.Thread(target=lambda: NumpyBackend(1).map_samples(work, 1, 1))
        busy.start()
        assert entered.wait(20)
        child = os.fork()
        if child == 0:
            right = NumpyBackend(1).map_samples(lambda part: blas_threads(), 1, 1) == [{1}] and blas_threads() == before
            os._exit(0 if right else 1)
        leave.set()
        busy.join(20)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_backend_that_has_worked_can_be_copied_and_pickled() -> None:
    backend = NumpyBackend(3)
    backend.map_samples(lambda part: None, 3, 1)
    for copied in (copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):
        assert copied.threads == 3
        assert copied.map_samples(lambda part: part.start, 3, 1) == [0, 1, 2]
