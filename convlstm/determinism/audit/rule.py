"""What a rule is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One kind of finding, and its explanation."""

    name: str
    severity: str  # "error" or "warning"; "note" for what is only suspected
    what: str  # one sentence
    why: str
    instead: str
    bad: str  # a program that breaks the rule
    good: str  # the same, mended
    default: bool = True  # False: only where it is selected
