"""The whole suite runs as training does, where no memory can be asked for that nobody has written; shared fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from convlstm.determinism import forbid_uninitialised


@pytest.fixture(autouse=True, scope="module")
def no_uninitialised_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forbid it, except in files that say `UNINITIALISED = "why"`."""
    if hasattr(request.module, "UNINITIALISED"):
        yield
        return
    with forbid_uninitialised():
        yield


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sample after sample, so that a fault can be aimed by counting calls."""
    from tests.cupy_stand_in import forget_backends

    monkeypatch.setenv("CONVLSTM_THREADS", "1")
    forget_backends()
    yield
    forget_backends()


@pytest.fixture(params=["stand-in", pytest.param("device", marks=pytest.mark.gpu)])
def cupy(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module `cupy`: the stand-in with two devices, or CuPy."""
    from convlstm.backends import available_backends, unavailable_backends
    from tests.cuda_on_host import COMPILER, NO_COMPILER
    from tests.cupy_stand_in import stand_in_for_cupy

    if request.param == "stand-in":
        if COMPILER is None:
            pytest.skip(NO_COMPILER)
        with stand_in_for_cupy(devices=2) as module:
            yield module
    else:
        if "cupy" not in available_backends():
            pytest.skip(unavailable_backends()["cupy"])
        yield pytest.importorskip("cupy")
