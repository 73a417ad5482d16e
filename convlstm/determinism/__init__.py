"""Finds what makes the same program give different numbers, forbids it, and proves that it is gone."""

from convlstm.determinism.forbid import UninitialisedAllocation, forbid_uninitialised
from convlstm.determinism.observation import observe

__all__ = ["UninitialisedAllocation", "forbid_uninitialised", "observe"]
