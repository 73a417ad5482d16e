"""The whole suite runs as training does: where no memory can be asked for that nobody has written."""

from __future__ import annotations

from collections.abc import Iterator

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
