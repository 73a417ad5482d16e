"""CuPy's memory in our own hands: what new device memory holds, and which line asked for it.

CuPy takes the memory of arrays from an allocator that can be exchanged.  This one takes it from CuPy's own pool, fills
all of it with a chosen byte, and notes the line of the user's code that was running; see memory.py for NumPy's.
`cupy.zeros` clears its memory after that and stays zero.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from convlstm.determinism.memory import Fill, Site, users_line


class DeviceMemory:
    """An allocator of CuPy's memory.

    Attributes:
        sites: for each line that asked for memory, how often.
    """

    def __init__(self, cupy: ModuleType, fill: Fill, sites: dict[Site, int] | None = None) -> None:
        """Fill new memory with the byte that `fill` gives for its site; count in `sites`, if given."""
        self.sites: dict[Site, int] = {} if sites is None else sites
        self._cupy: Any = cupy
        self._fill = fill
        self._pool = cupy.get_default_memory_pool()

    def install(self) -> None:
        """Take over, in all threads, for the rest of the process."""
        self._cupy.cuda.set_allocator(self._allocate)

    def _allocate(self, size: int) -> Any:
        site = users_line(sys._getframe(1))
        self.sites[site] = self.sites.get(site, 0) + 1
        memory = self._pool.malloc(size)
        if size:
            self._cupy.cuda.runtime.memset(memory.ptr, self._fill(site), size)
        return memory
