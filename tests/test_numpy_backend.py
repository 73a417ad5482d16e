from __future__ import annotations

import copy
import os
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from convlstm.backends import Array, winograd
from convlstm.backends.geometry import resolve_geometry
from convlstm.backends.numpy_backend import NumpyBackend, WinogradBackend


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


@pytest.mark.parametrize("kind", [NumpyBackend, WinogradBackend])
def test_a_copy_is_of_the_same_kind_and_leaves_as_small_samples_to_the_calling_thread(kind: type[NumpyBackend]) -> None:
    backend = kind(2, 1000)
    for copied in (copy.copy(backend), copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):
        assert type(copied) is kind
        assert (copied.name, copied.threads, copied.least_column_elements) == (kind.name, 2, 1000)
        assert copied.description == backend.description


@pytest.mark.parametrize("kind", [NumpyBackend, WinogradBackend])
def test_small_samples_are_computed_by_the_calling_thread(kind: type[NumpyBackend]) -> None:
    here = threading.get_ident()
    for least, elements, alone in ((1000, 999, True), (1000, 1000, False), (0, 0, False)):
        found = kind(2, least).map_samples(lambda part: threading.get_ident(), 3, elements)
        assert (set(found) == {here}) is alone
        assert (here in found) is alone


@pytest.mark.parametrize(("threads", "samples"), [(1, 3), (3, 1)])
def test_one_thread_or_one_sample_needs_no_pool(threads: int, samples: int) -> None:
    backend = NumpyBackend(threads)
    assert set(backend.map_samples(lambda part: threading.get_ident(), samples, 1)) == {threading.get_ident()}
    assert backend._pool is None


# Winograd's -----------------------------------------------------------------------------------------------------------


def test_the_description_names_threads() -> None:
    assert WinogradBackend(3).description.endswith(", 3 worker thread(s)")


def test_a_kernel_that_suits_is_transformed_with_one_thread_for_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    W, geometry = np.zeros((8, 8, 3, 3), "float32"), resolve_geometry(8, 8, (3, 3))
    seen: list[set[int]] = []
    right = winograd.transformed

    def transformed(W: Array) -> winograd.TransformedKernel:
        seen.append(blas_threads())
        return right(W)

    monkeypatch.setattr(winograd, "transformed", transformed)
    with threadpool_limits(2, user_api="blas"):
        kernel = WinogradBackend(2).prepare(W, geometry, 8, 8)
    assert seen == [{1}]
    assert isinstance(kernel, winograd.TransformedKernel)
    assert kernel.shape == W.shape
    assert NumpyBackend(2).prepare(W, geometry, 8, 8) is W


UNSUITABLE: dict[str, tuple[int, int, dict[str, Any]]] = {
    "few channels": (7, 28, {"kernel": (3, 3)}),
    "few outputs": (8, 7, {"kernel": (3, 3)}),
    "1x1": (8, 8, {"kernel": (1, 1)}),
    "6x3": (8, 8, {"kernel": (6, 3)}),
    "stride": (8, 8, {"kernel": (3, 3), "stride": (2, 1)}),
    "dilation": (8, 8, {"kernel": (3, 3), "dilation": (1, 2)}),
    "one output": (8, 8, {"kernel": (5, 5), "padding": ((0, 0), (0, 0)), "size": (5, 5)}),
}


@pytest.mark.parametrize(("C", "D", "options"), UNSUITABLE.values(), ids=UNSUITABLE.keys())
def test_shapes_that_do_not_suit_have_the_plain_backends_gradients(C: int, D: int, options: dict[str, Any]) -> None:
    """To the bit; the convolution itself, which is not Chainer's call, to rounding."""
    given = dict(options)
    size = given.pop("size", (8, 9))
    geometry, rng = resolve_geometry(*size, **given), np.random.default_rng(0)
    x, W = (rng.standard_normal(s).astype("float32") for s in ((1, C, *size), (D, C, *geometry.kernel)))
    dz = rng.standard_normal((1, D, *geometry.output_shape(*size))).astype("float32")
    fast, plain = WinogradBackend(1), NumpyBackend(1)
    assert fast.prepare(W, geometry, *size) is W
    z = plain.convolve(x, W, geometry)
    np.testing.assert_allclose(fast.convolve(x, W, geometry), z, rtol=0, atol=1e-6 * np.abs(z).max(), strict=True)
    dx, dW = plain.gradient_input(dz, W, geometry, *size), plain.gradient_weights(x, dz, geometry)
    np.testing.assert_array_equal(fast.gradient_input(dz, W, geometry, *size), dx, strict=True)
    np.testing.assert_array_equal(fast.gradient_weights(x, dz, geometry), dW, strict=True)


def two_kernels(Cin: int, C: int, K: tuple[int, int] = (3, 3)) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((4 * C, Cin, *K)), rng.standard_normal((4 * C, C, *K))


def test_two_kernels_are_joined_where_one_suits() -> None:
    """Together 1 + 7 channels are enough; W_h keeps its part."""
    W_x, W_h = two_kernels(1, 7)
    geometry, rng = resolve_geometry(8, 9, (3, 3)), np.random.default_rng(1)
    backend = WinogradBackend(1)
    joined = backend.join(W_x, W_h, geometry, geometry, 8, 9)
    assert joined is not None
    both, alone = joined
    assert (both.shape, alone.shape) == ((28, 8, 3, 3), W_h.shape)
    x, h, dz = (rng.standard_normal((1, channels, 8, 9)) for channels in (1, 7, 28))
    plain = NumpyBackend(1)
    z = plain.convolve(x, W_x, geometry) + plain.convolve(h, W_h, geometry)
    np.testing.assert_allclose(backend.convolve(np.concatenate((x, h), axis=1), both, geometry), z, atol=1e-11)
    dx, dh = (plain.gradient_input(dz, W, geometry, 8, 9) for W in (W_x, W_h))
    np.testing.assert_allclose(backend.gradient_input(dz, both, geometry, 8, 9)[:, :1], dx, atol=1e-11)
    np.testing.assert_allclose(backend.gradient_input(dz, alone, geometry, 8, 9), dh, atol=1e-11)
    assert plain.join(W_x, W_h, geometry, geometry, 8, 9) is None


@pytest.mark.parametrize(
    ("Cin", "C", "K", "over_x"),
    [
        (1, 6, (3, 3), {}),  # seven channels
        (4, 8, (1, 1), {}),
        (4, 8, (3, 3), {"padding": "valid"}),
        (4, 8, (3, 3), {"stride": (2, 2)}),
    ],
)
def test_two_kernels_are_not_joined_where_that_does_not_suit(
    Cin: int, C: int, K: tuple[int, int], over_x: dict[str, Any]
) -> None:
    W_x, W_h = two_kernels(Cin, C, K)
    over = resolve_geometry(9, 9, K, **over_x)
    hidden = over.output_shape(9, 9)
    assert WinogradBackend(1).join(W_x, W_h, over, resolve_geometry(*hidden, K), *hidden) is None
