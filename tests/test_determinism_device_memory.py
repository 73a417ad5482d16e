"""CuPy's memory, filled and told apart by lines: on a stand-in for its allocator, and on a device if there is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from convlstm.backends import available_backends, unavailable_backends
from convlstm.determinism.device_memory import DeviceMemory
from convlstm.determinism.memory import Site


class Pool:
    """CuPy's pool, and the memory it hands out: a bytearray for each block."""

    def __init__(self) -> None:
        self.blocks: list[bytearray] = []

    def malloc(self, size: int) -> Any:
        self.blocks.append(bytearray(b"\x11" * size))
        return SimpleNamespace(ptr=len(self.blocks) - 1)

    def memset(self, ptr: int, value: int, size: int) -> None:
        assert size == len(self.blocks[ptr])
        self.blocks[ptr][:] = bytes([value]) * size


def cupy_with(pool: Pool, installed: list[Any]) -> Any:
    cuda = SimpleNamespace(set_allocator=installed.append, runtime=SimpleNamespace(memset=pool.memset))
    return SimpleNamespace(get_default_memory_pool=lambda: pool, cuda=cuda)


def test_new_memory_holds_the_byte_of_its_line() -> None:
    pool, installed = Pool(), list[Any]()
    seen: list[Site] = []

    def fill(site: Site) -> int:
        seen.append(site)
        return 0xFF if len(seen) == 1 else 0

    memory = DeviceMemory(cupy_with(pool, installed), fill)
    memory.install()
    (allocate,) = installed
    blocks = [allocate(8), allocate(3), allocate(0)]
    assert pool.blocks == [bytearray(b"\xff" * 8), bytearray(3), bytearray()]
    assert [block.ptr for block in blocks] == [0, 1, 2]
    assert {file for file, _ in memory.sites} == {__file__}
    assert sum(memory.sites.values()) == 3
    assert [site[0] for site in seen] == [__file__, __file__]


@pytest.mark.gpu
def test_uninitialised_arrays_of_a_device_hold_it_and_zeros_stay_zero() -> None:
    if "cupy" not in available_backends():
        pytest.skip(unavailable_backends()["cupy"])
    cupy = pytest.importorskip("cupy")
    memory = DeviceMemory(cupy, lambda site: 0xFF)
    memory.install()
    try:
        assert cupy.isnan(cupy.ndarray((1000,), "float32")).all()
        assert not cupy.zeros(1000, "float32").any()
    finally:
        cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)
