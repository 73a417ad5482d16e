"""What is said when a device's memory does not suffice, and how much was held at most."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM
from convlstm.backends import get_backend
from tests.cuda_on_host import COMPILER, NO_COMPILER
from tests.cupy_stand_in import pool, stand_in_for_cupy


@pytest.fixture
def cuda_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, on a device of which these tests decide how large it is."""
    if COMPILER is None:
        pytest.skip(NO_COMPILER)
    with stand_in_for_cupy(devices=1):
        monkeypatch.setattr(pool, "total", 2**40)
        yield importlib.import_module("convlstm.backends.cuda_memory")


def leave(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this many bytes be free on the device from now on."""
    monkeypatch.setattr(pool, "total", pool.used + size)


def test_an_array_that_does_not_fit(cuda_memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = get_backend("cupy")
    leave(3 * 2**20, monkeypatch)
    held = backend.zeros((2**20,), "uint8")
    asks: list[Callable[[], Any]] = [
        lambda: backend.zeros((5 * 2**20,), "uint8"),
        lambda: backend.asarray(np.zeros(5 * 2**20, "uint8")),
    ]
    for ask in asks:
        with pytest.raises(cuda_memory.NotEnoughDeviceMemory) as caught:
            ask()
        assert caught.value.asked == 5 * 2**20
        assert re.fullmatch(
            r"0\.00488 GiB more were asked for on CUDA device 0, which has 0\.00\d+ GiB, 0\.00\d+ GiB of them in "
            r"arrays and 0\.00195 GiB free; keep fewer arrays there, or take fewer samples at once",
            str(caught.value),
        )
    assert held.size == 2**20
    assert issubclass(cuda_memory.NotEnoughDeviceMemory, MemoryError)


def said(cuda_memory: Any, monkeypatch: pytest.MonkeyPatch, *, samples: int, free: int, each: int) -> str:
    """Return what is said where each sample takes `each` bytes one after another and `free` are there."""
    backend = get_backend("cupy")
    leave(free, monkeypatch)

    def work(part: slice) -> list[Any]:
        held = []
        for _ in range(part.start, part.stop):
            held.append(backend.zeros((each,), "uint8"))
        return held

    with pytest.raises(cuda_memory.NotEnoughDeviceMemory) as caught:
        backend.map_samples(work, samples, 1)
    return str(caught.value).split("; ")[1]


def test_how_many_samples_would_fit(cuda_memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of eight takes 1 MiB and 3 MiB are free: the fourth fails.  Of the 4 MiB that were seen 3/4 are there."""
    line = said(cuda_memory, monkeypatch, samples=8, free=3 * 2**20, each=2**20)
    assert line == "at most 6 of these 8 samples fit at once, more with recompute= or smaller maps"


def test_not_even_one_sample_fits(cuda_memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    line = said(cuda_memory, monkeypatch, samples=1, free=2**20, each=2**21)
    assert line == "not even one sample fits, more with recompute= or smaller maps"


def test_never_are_as_many_said_to_fit_as_did_not(cuda_memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory in pieces: enough in all, and no piece of that size."""

    def work(part: slice) -> None:
        raise importlib.import_module("cupy").cuda.memory.OutOfMemoryError(2**20, 0)

    leave(2**30, monkeypatch)
    with pytest.raises(cuda_memory.NotEnoughDeviceMemory, match="at most 3 of these 4 samples fit at once"):
        get_backend("cupy").map_samples(work, 4, 1)


def test_a_layer_that_does_not_fit(cuda_memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ConvLSTM(1, 4, 3, backend="cupy")
    x = layer.backend.asarray(np.zeros((4, 6, 1, 16, 16), "float32"))
    leave(200_000, monkeypatch)
    with pytest.raises(cuda_memory.NotEnoughDeviceMemory, match=r"; at most [1-3] of these 4 samples fit at once"):
        layer.forward(x)
    monkeypatch.setattr(pool, "total", 2**40)
    assert layer.forward(x)[0].shape == (4, 6, 4, 16, 16)  # nothing is broken by it


def test_other_errors_pass(cuda_memory: Any) -> None:
    def work(part: slice) -> None:
        raise ValueError("of its own")

    with pytest.raises(ValueError, match=r"^of its own$"):
        get_backend("cupy").map_samples(work, 1, 1)


# How much was held ----------------------------------------------------------------------------------------------


def test_peak_memory(cuda_memory: Any) -> None:
    backend = get_backend("cupy")
    before = backend.zeros((1024,), "uint8")
    start = pool.used
    with cuda_memory.PeakMemory() as peak:
        assert peak.bytes == start  # what is there from before counts
        first = backend.zeros((2048,), "uint8")
        assert peak.bytes == start + 2048
        del first
        second = backend.zeros((1024,), "uint8")
        assert peak.bytes == start + 2048  # not both
        third = backend.zeros((1025,), "uint8")  # takes 1536: memory comes in pieces of 512
        assert peak.bytes == start + 2560
    backend.zeros((8192,), "uint8")
    assert peak.bytes == start + 2560
    del before, second, third


def test_what_failed_to_come_does_not_count(cuda_memory: Any) -> None:
    with cuda_memory.PeakMemory() as peak:
        before = peak.bytes
        peak.malloc_postprocess(device_id=0, size=10, mem_size=512, mem_ptr=0, pmem_id=0)  # as CuPy calls it then
        assert peak.bytes == before


def test_peak_memory_on_any_device(cupy: Any) -> None:
    import convlstm.backends.cuda_memory as cuda_memory

    backend = get_backend("cupy")
    with cuda_memory.PeakMemory() as peak:
        start = peak.bytes
        array = backend.zeros((2**20,), "uint8")
        del array
    assert peak.bytes == start + 2**20
