"""Runs any script again with one thing changed at a time, and says what its results depend on, and which lines."""

from convlstm.determinism.replay.session import CannotRun, Verdict, replay

__all__ = ["CannotRun", "Verdict", "replay"]
