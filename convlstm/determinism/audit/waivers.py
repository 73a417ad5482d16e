"""`# convlstm: allow RULE: reason`, on the line of a finding or on comment lines above it."""

from __future__ import annotations

import io
import re
import tokenize
from dataclasses import dataclass

from convlstm.determinism.audit.catalogue import RULES, WAIVER_RULES, nearest

SAID = re.compile(r"#\s*convlstm:\s*allow\b[\s:]*(?P<rest>.*)$", re.DOTALL)
PARTS = re.compile(r"(?P<rules>[\w-]+(?:\s*,\s*[\w-]+)*)\s*(?::\s*(?P<reason>.*))?$", re.DOTALL)


@dataclass(frozen=True)
class Waiver:
    """One comment: the rules it allows, on which lines, and why."""

    line: int
    column: int  # from 1
    rules: tuple[str, ...]
    reason: str
    covers: frozenset[int]  # its own line, and the next line of code if it stands alone

    def fault(self) -> tuple[str, str] | None:
        """Return the rule that the waiver itself breaks, and how."""
        unknown = [rule for rule in self.rules if rule not in RULES or rule in WAIVER_RULES]
        if not self.rules:
            return "waiver-unknown-rule", "the waiver names no rule; write `# convlstm: allow RULE: reason`"
        if unknown:
            return (
                "waiver-unknown-rule",
                f"there is no rule {unknown[0]!r} to allow; did you mean {nearest(unknown[0])}?",
            )
        if not self.reason:
            return "waiver-without-reason", f"say why: `# convlstm: allow {', '.join(self.rules)}: reason`"
        return None


def waivers(source: str) -> list[Waiver]:
    """Return the waivers of a source text, in order."""
    comments: list[tuple[int, int, str, bool]] = []
    code: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                alone = not token.line[: token.start[1]].strip()
                comments.append((token.start[0], token.start[1] + 1, token.string, alone))
            elif token.type not in (
                tokenize.NL,
                tokenize.NEWLINE,
                tokenize.INDENT,
                tokenize.DEDENT,
                tokenize.ENDMARKER,
            ):
                code.update(range(token.start[0], token.end[0] + 1))
    except (tokenize.TokenError, SyntaxError):
        pass  # the parser has the last word on what is Python
    found = []
    for line, column, text, alone in comments:
        said = SAID.match(text)
        if said is None:
            continue
        parts = PARTS.match(said["rest"].strip())
        rules = tuple(r.strip() for r in parts["rules"].split(",")) if parts else ()
        reason = (parts["reason"] or "").strip() if parts else ""
        following = min((n for n in code if n > line), default=line) if alone else line
        found.append(Waiver(line, column, rules, reason, frozenset({line, following})))
    return found
