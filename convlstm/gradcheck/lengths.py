"""What the lengths at which a gradient is wrong say about the line that is at fault.

With a zero state before the first step and a loss that reads every step, in a backward that goes from t = T to 1,

    wrong at T = 1     no time is involved: the cell itself.  If only gradients are wrong which the loss does not
                       depend on at T = 1: recurrent weights, δW_h = Σ δ_t h_{t-1}, have met another h than h₀ = 0; the
                       forget gate, δf = δc_t c_{t-1}, another c than c₀ = 0.
    wrong from T = 2   the last step is right, what it carries to the one before is not.  If other gradients from the
                       same δ are right, the carry is, and the fault is in the sum over time of those that are wrong.
                       In an LSTM δo_1 = δh_1 tanh(c_1) hears of step 2 through h alone, δi_1 and δg_1 through c as
                       well: if the output gate's gradient is right, h's carry is, and c's is not.
    wrong from T = 3   one carry is right, the second is not: dropped after one step, or added to the one before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from convlstm.gradcheck.check import Examined
from convlstm.gradcheck.measure import Measured
from convlstm.gradcheck.patterns import Finding
from convlstm.gradcheck.structure import Part, find_layouts, parts

# Findings that say what is wrong with one gradient, whatever the lengths say.
STRONG = ("one_number", "clipped", "clipped_by_value", "rearranged", "decay", "exchanged")
H_INDEX = (
    "the h that δW_h is multiplied by is not that of step t-1: its index is off by one or wraps round at t = 0 (h[t-1] "
    "is then the last), or the cache was changed after it was stored"
)
ALIASED = (
    "the h that δW_h is multiplied by is not that of step t-1, and what reads h elsewhere is wrong from T = 2 on: an "
    "aliased cache; h was changed in place after it was stored, so that every stored h is the last one"
)
C_INDEX = (
    "the c that the forget gate's δ is multiplied by is not that of step t-1: its index is off by one or wraps round "
    "at t = 0 (c[t-1] is then the last)"
)
LAST_STEP = (
    "the only step, which is also the last, adds nothing; the loop over time leaves out step t itself (range(t) where "
    "range(t + 1) belongs)"
)
DERIVATIVE = (
    "the line that computes its δ: the derivative of the activation is taken at the wrong point (σ′ = s(1-s) needs s = "
    "σ(z), tanh′ = 1-t² needs t = tanh(z)) or left out, or the factor beside it is another"
)
OWN_SUM = (
    "the carry through time is right, since other gradients from the same δ are: this gradient's own sum over time is "
    "not (= where += belongs, only one step kept, or another input than the forward's)"
)
STALE = "to the bit: a stale cache, kept from an earlier call, is read in place of the last forward's"
ADDED = (
    "each length's gradients hold those of the call before as well: accumulated over calls; set the gradient arrays to "
    "zero before each backward"
)


# Whether the gradients are right at this length with recurrent weights that are "rotated" by 180° or "transposed" the
# same as they are; None where that cannot be tried.
Experiment = Callable[[str, int], bool | None]


@dataclass(frozen=True)
class Lengths:
    """What was found at each length, and which gradients differ there."""

    examined: Mapping[int, Examined]
    experiment: Experiment

    def measured(self, T: int) -> dict[str, Measured]:
        """Return what was measured at this length."""
        return self.examined[T].measured

    def wrong(self, T: int) -> list[str]:
        """Return the names of the gradients that differ at this length."""
        return [name for name, m in self.measured(T).items() if m.differs]

    @property
    def ever(self) -> list[str]:
        """The names of the gradients that differ at some length."""
        return list(dict.fromkeys(name for T in self.examined for name in self.wrong(T)))

    def first(self, name: str) -> int:
        """Return the shortest length at which this gradient differs."""
        return min(T for T in self.examined if name in self.wrong(T))

    def findings(self, name: str) -> dict[int, Finding]:
        """Return what was found at each length at which this gradient differs."""
        return {T: seen.findings[name] for T, seen in self.examined.items() if name in self.wrong(T)}

    @property
    def silent(self) -> set[str]:
        """The gradients that are zero at T = 1: recurrent weights, a forget gate of its own."""
        return {name for name, m in self.measured(1).items() if not m.moves} if 1 in self.examined else set()

    def parts(self, T: int) -> list[Part]:
        """Return the gates' parts of the gradients."""
        return parts(self.measured(T), find_layouts(self.measured(1)) if 1 in self.examined else {})


def explain(examined: Mapping[int, Examined], experiment: Experiment) -> tuple[dict[str, str], str]:
    """Return a one-line diagnosis for each name that is not right, and what the lengths show together."""
    T = max(examined)
    if "loss" in examined[T].report.faults:
        line = f"at T = {T}: {examined[T].report.faults['loss']}"
        return {"loss": line}, line
    lengths = Lengths(examined, experiment)
    faults = _other_faults(lengths)
    if not lengths.ever:
        return faults, "; ".join(f"{name}: {line}" for name, line in faults.items())
    first = min(map(lengths.first, lengths.ever))
    kept = _kept_between_calls(lengths)
    cause = kept or _common_finding(lengths, first) or _cause(lengths, first)
    for name in lengths.ever:
        own = "" if kept else _own_finding(lengths, name)
        if own:
            since = "at every length" if lengths.first(name) == min(examined) else f"from T = {lengths.first(name)} on"
        faults[name] = f"wrong {since}: {own}" if own else cause
    return faults, cause


def _other_faults(lengths: Lengths) -> dict[str, str]:
    """Return what is at fault with no wrong number: missing, misshapen, not finite, not to be told, never read."""
    faults: dict[str, str] = {}
    for T, seen in lengths.examined.items():
        for name, line in seen.report.faults.items():
            if name in seen.measured and seen.measured[name].differs:
                continue
            faults.setdefault(name, f"at T = {T}: {line}" if name in seen.measured else line)
    return faults


def _own_finding(lengths: Lengths, name: str) -> str:
    """Return the pattern of one gradient's errors, where it needs no other to be understood."""
    found = lengths.findings(name)
    strong = {T: finding for T, finding in found.items() if finding.kind in STRONG}
    if strong:
        inside = [finding.line for finding in strong.values() if "inside the time loop" in finding.line]
        return inside[-1] if inside else strong[max(strong)].line
    last = found[max(found)]
    if len({finding.kind for finding in found.values()}) == 1 and last.kind in ("zero", "factor"):
        return last.line
    return ""


def _common_finding(lengths: Lengths, first: int) -> str:
    """Return the one pattern that all gradients show which are wrong at the first wrong length.

    A norm of exactly 1 is no chance: where one gradient was clipped inside the loop over time, all are wrong after it.
    """
    findings = {name: finding for name in lengths.ever for finding in lengths.findings(name).values()}
    inside = [f"{name}: {finding.line}" for name, finding in findings.items() if "inside the time loop" in finding.line]
    if inside:
        return inside[0]
    if not all(_own_finding(lengths, name) for name in lengths.wrong(first)):
        return ""
    kinds = {lengths.findings(name)[first].kind for name in lengths.wrong(first)}
    if len(kinds) != 1 or (
        kinds & {"zero", "factor"} and not all(_own_finding(lengths, name) for name in lengths.ever)
    ):
        return ""
    names = ", ".join(lengths.wrong(first))
    return f"{names}: {_own_finding(lengths, lengths.wrong(first)[0])}"


def _kept_between_calls(lengths: Lengths) -> str:
    """Find gradients that still hold those of the call before."""
    stale, added, seen = True, True, False
    checked = list(lengths.examined)
    for before, T in itertools.pairwise(checked):
        for name in lengths.wrong(T):
            now, then = lengths.measured(T)[name], lengths.measured(before).get(name)
            if then is None or then.analytic.shape != now.analytic.shape or not then.analytic.any():
                continue
            seen = True
            stale &= np.array_equal(now.analytic, then.analytic)
            flat, n, errors = now.known()
            rest = now.analytic.flat[flat] - then.analytic.flat[flat] - n
            added &= bool((abs(rest) <= 5 * errors + 1e-4 * abs(n).max(initial=0)).all())
    if not seen or lengths.wrong(checked[0]):
        return ""
    if stale:
        return f"each length's gradients are those of T = {checked[0]} {STALE}"
    return ADDED if added else ""


def _cause(lengths: Lengths, first: int) -> str:
    """Return what the first wrong length shows."""
    if first == 1:
        return _wrong_from_the_first(lengths)
    if first == min(lengths.examined):
        return f"wrong at T = {first} already, the shortest length checked; check T = 1 to tell the cell from the carry"
    before = max(T for T in lengths.examined if first > T)
    since = f"right up to T = {before}, wrong from T = {first}"
    return f"{since}: {OWN_SUM if _carry_is_right(lengths) else _carry(lengths, first)}"


def _wrong_from_the_first(lengths: Lengths) -> str:
    """Say what a single step shows."""
    at_one = lengths.measured(1)
    found = lengths.parts(1)
    bad = [part for part in found if part.wrong]
    if all(_where_nothing_depends(at_one[part.name]) for part in bad):
        gates = {part.gate for part in bad}
        where = "wrong at T = 1 already, where the loss does not depend on it"
        if len(gates) == 1 and "" not in gates:
            return f"{where}: gate {gates.pop()} only, so {C_INDEX}"
        readers = [name for name in lengths.ever if lengths.first(name) > 1 and not _has_gates(lengths, name)]
        return f"{where}: {ALIASED if readers else H_INDEX}"
    lines = {part.name: lengths.examined[1].findings[part.name] for part in bad}
    if {finding.kind for finding in lines.values()} == {"zero"}:
        return f"zero at T = 1 ({', '.join(lines)}): {LAST_STEP}"
    cell = "wrong at T = 1 already, so in the cell itself, not in the carry through time"
    which = _which_gates(found)
    by_row = [finding.line for finding in lines.values() if finding.kind == "by_row"]
    if by_row:
        return f"{cell}; {which}{by_row[0]}"
    strong = [f"{name}: {finding.line}" for name, finding in lines.items() if finding.kind not in ("", "in_one_block")]
    if strong:
        return f"{cell}; {strong[0]}"
    right = {part.name for part in found if not part.wrong and not part.silent}
    if not which and right:
        which = f"{', '.join(lines)} wrong, {', '.join(sorted(right))} right: "
    return f"{cell}; {which}{DERIVATIVE}" if which else cell


def _where_nothing_depends(m: Measured) -> bool:
    """Whether this gradient is wrong only where the loss does not depend on the parameter."""
    _, n, errors = m.known()
    bad = m.wrong()
    return bool(bad.any() and (abs(n[bad]) <= 2 * errors[bad]).all())


def _has_gates(lengths: Lengths, name: str) -> bool:
    return any(part.gate for part in lengths.parts(1) if part.name == name)


def _which_gates(found: list[Part]) -> str:
    bad = {part.gate for part in found if part.wrong}
    right = {part.gate for part in found if not part.wrong and not part.silent} - bad - {""}
    return f"only gate {' and '.join(sorted(bad))}: " if right and "" not in bad else ""


def _carry_is_right(lengths: Lengths) -> bool:
    """Whether a gradient is right at every length that a wrong carry would have made wrong.

    Those are: of T ≥ 4, recurrent weights; of T ≥ 2, whatever has gates and is read at T = 1, of which one is enough.
    """
    ever = set(lengths.ever)
    longest = max(lengths.examined)
    right = {name for name, m in lengths.measured(longest).items() if m.moves} - ever
    gated = {part.name for part in lengths.parts(longest) if part.gate}
    recurrent_right = longest >= 4 and bool(right & lengths.silent)
    recurrent_alone = bool(right) and ever <= lengths.silent
    return recurrent_right or recurrent_alone or bool(right & gated - lengths.silent and not _named_apart(lengths))


def _named_apart(lengths: Lengths) -> bool:
    """Whether each gate has parameters of its own, so that a right one says nothing of the others."""
    return all("of" not in part.gate for part in lengths.parts(max(lengths.examined)))


def _carry(lengths: Lengths, first: int) -> str:
    """Say which carry is at fault."""
    longer = _grows(lengths)
    if first >= 3 and 2 in lengths.examined:
        if longer:
            return "by more with each step: the carry is accumulated (+=) where it should be assigned (=)"
        return (
            "the carry through time is right over one step and wrong after it: dropped, or accumulated (+=) where it "
            "should be assigned (=)"
        )
    more = "; the error grows with T: is something accumulated (+=) that should be assigned (=)?" if longer else ""
    if first != 2 or 1 not in lengths.examined:
        return f"the carry through time, of h or c{more}"
    gated = [part for part in lengths.parts(2) if part.gate]
    bad, gates = {part.gate for part in gated if part.wrong}, {part.gate for part in gated}
    if len(gates) < 4:
        return f"the carry of h through time, δh₋ = W_hᵀ δ, is lost or wrong{_turning(lengths)}{more}"
    output_right = "o" not in bad if "o" in gates else len(bad) <= 2
    if output_right:
        return (
            "the carry of c through time, δc₋ = δc∘f, is lost or wrong; h's carry is right, since the output gate's "
            f"gradient is right at T = 2 and only gates {', '.join(sorted(bad))} are wrong{more}"
        )
    return (
        "the carry of h through time, δh₋ = W_hᵀ δ, is lost or wrong, since at T = 2 the output gate's gradient is "
        f"wrong too, which hears of step 2 through h alone{_turning(lengths)}{more}"
    )


def _grows(lengths: Lengths) -> bool:
    """Whether wrong gradients get longer and longer beside the right ones."""
    ratios = []
    for T in (T for T in lengths.examined if lengths.wrong(T)):
        known = [(m.analytic.flat[m.known()[0]], m.known()[1]) for m in lengths.measured(T).values() if m.differs]
        a, n = (np.concatenate(each) for each in zip(*known, strict=True))
        ratios.append(float(a @ n) / float(n @ n) if n.any() else 0.0)
    return len(ratios) >= 2 and ratios == sorted(ratios) and ratios[-1] > 1.1


def _turning(lengths: Lengths) -> str:
    """Say what is known of how the recurrent weights are turned on the way back."""
    if any(m.analytic.ndim == 4 and max(m.analytic.shape[2:]) > 1 for m in lengths.measured(2).values()):
        if lengths.experiment("rotated", 2):
            return (
                "; it is right with kernels that equal their own rotation, so the kernel is not rotated by 180° there"
            )
        return "; in a convolution its kernel must be rotated by 180°"
    if lengths.experiment("transposed", 2):
        return "; it is right with weights that equal their own transpose, so they are not transposed there"
    return ""
