"""The rules: what each finds, why it makes results wander, what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from convlstm.determinism.audit.rule import Rule
from convlstm.determinism.audit.rules_memory import MEMORY
from convlstm.determinism.audit.rules_order import ORDER, WAIVERS
from convlstm.determinism.audit.rules_seeds import SEEDS

RULES: dict[str, Rule] = {rule.name: rule for rule in (*MEMORY, *SEEDS, *ORDER, *WAIVERS)}
WAIVER_RULES = frozenset(rule.name for rule in WAIVERS)  # these cannot be waived


def nearest(name: str) -> str:
    """Return the rule whose name is most like this one."""
    (found, *_) = difflib.get_close_matches(name, list(RULES), n=1, cutoff=0.0)
    return found


def choose(select: Sequence[str], ignore: Sequence[str]) -> frozenset[str]:
    """Return the rules asked for: those that are on by default, or those selected, without those ignored."""
    for name in (*select, *ignore):
        if name not in RULES:
            raise ValueError(f"there is no rule {name!r}; did you mean {nearest(name)}?")
    chosen = frozenset(select) if select else frozenset(n for n, rule in RULES.items() if rule.default)
    return chosen - frozenset(ignore)


def explain(name: str) -> str:
    """Return all that is to be said about a rule."""
    if name not in RULES:
        raise ValueError(f"there is no rule {name!r}; did you mean {nearest(name)}?")
    rule = RULES[name]
    parts = [f"{rule.name} ({rule.severity}{'' if rule.default else ', only with --select'})", rule.what, rule.why]
    parts += ["Found:", _indented(rule.bad), f"Instead: {rule.instead}", _indented(rule.good)]
    if name not in WAIVER_RULES:
        parts.append(f"To keep a line as it is: # convlstm: allow {rule.name}: why this one is right")
    return "\n\n".join(parts)


def listing() -> str:
    """Return one line for each rule."""
    width = max(map(len, RULES))
    return "\n".join(
        f"{rule.name:{width}}  {rule.severity:7}  {rule.what}{'' if rule.default else ' (only with --select)'}"
        for rule in RULES.values()
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip("\n").split("\n"))
