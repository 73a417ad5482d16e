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

What is silent at T = 1, recurrent weights and the forget gate, hears at T = 2 of the last step's δ alone, to which
nothing was carried: a gate that is wrong there computes its own δ wrongly.  Of stacked layers, told by the numbers in
their names, a fault spreads to those below: the highest wrong one is looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from convlstm.gradcheck.check import Examined
from convlstm.gradcheck.measure import Measured
from convlstm.gradcheck.patterns import Finding
from convlstm.gradcheck.structure import INITIAL_STATE, Layout, Part, find_layouts, layer_of, parts

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
PEEPHOLE_INDEX = (
    "the c that a peephole's δ is multiplied by is not that of step t-1: p_i and p_f read the cell before the step"
)
C_INDEX = (
    "the c that the forget gate's δ is multiplied by is not that of step t-1: its index is off by one or wraps round "
    "at t = 0 (c[t-1] is then the last)"
)
LAST_STEP = (
    "the only step, which is also the last, adds nothing; the loop over time leaves out step t itself (range(t) where "
    "range(t + 1) belongs)"
)
ZERO_FACTOR = (
    "what it is multiplied by is zero at the first step: the state of the step before where that of this one belongs"
)
OWN_LINE = (
    "its δ is right, since another gradient from it is: not summed over the batch or the pixels, or multiplied by "
    "another input than the forward's"
)
FIRST_STEP_KEPT = (
    "they hold the first step's share alone, which the backward comes to last: = where += belongs in the sum over time"
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
    names: frozenset[str]  # the gradients that are looked at
    layer: frozenset[str]  # these and others beside them, which tell where the gates are

    def only(self, layer: frozenset[str]) -> Lengths:
        """Return what was found of some gradients alone."""
        return replace(self, names=self.names & layer, layer=layer)

    def measured(self, T: int) -> dict[str, Measured]:
        """Return what was measured at this length."""
        return {name: m for name, m in self.examined[T].measured.items() if name in self.names}

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
        beside = {name: m for name, m in self.examined[T].measured.items() if name in self.layer}
        return [part for part in parts(beside, self.layouts) if part.name in self.names]

    @property
    def layouts(self) -> dict[str, Layout]:
        """Where gates are stacked."""
        if 1 not in self.examined:
            return {}
        return find_layouts({name: m for name, m in self.examined[1].measured.items() if name in self.layer})


def explain(examined: Mapping[int, Examined], experiment: Experiment) -> tuple[dict[str, str], str]:
    """Return a one-line diagnosis for each name that is not right, and what the lengths show together."""
    longest = max(examined)
    for T, seen in examined.items():
        if "loss" in seen.report.faults and (longest == T or not seen.measured):
            line = f"at T = {T}: {seen.report.faults['loss']}"
            return {"loss": line}, line
    names = frozenset(name for seen in examined.values() for name in seen.measured)
    lengths = Lengths(examined, experiment, names, names)
    faults = _other_faults(lengths)
    if not lengths.ever:
        return faults, "; ".join(f"{name}: {line}" for name, line in faults.items())
    kept = _kept_between_calls(lengths) or _clipped_inside(lengths) or _first_step_kept(lengths)
    own = {name: line for name in lengths.ever if (line := _own_finding(lengths, name))}
    if kept:
        own = {name: line for name, line in own.items() if "clip" in line and "clip" in kept}
    rest = replace(lengths, names=names - set(own))
    cause = kept or (_cause_in_layers(rest) if rest.ever else _of_all(lengths, own))
    for name in lengths.ever:
        since = "at every length" if lengths.first(name) == min(examined) else f"from T = {lengths.first(name)} on"
        faults[name] = f"wrong {since}: {own[name]}" if name in own else cause
    return faults, cause


def _other_faults(lengths: Lengths) -> dict[str, str]:
    """Return what is at fault with no wrong number: missing, misshapen, not finite, not to be told, never read."""
    faults: dict[str, str] = {}
    longest = lengths.measured(max(lengths.examined))
    for T, seen in lengths.examined.items():
        for name, line in seen.report.faults.items():
            m = seen.measured.get(name)
            unread_here = m is not None and not m.moves and name in longest and longest[name].moves
            if name == "loss" or unread_here or (m is not None and m.differs):
                continue
            always = all(other.report.faults.get(name) == line for other in lengths.examined.values())
            faults.setdefault(name, line if always else f"at T = {T}: {line}")
    return faults


def _own_finding(lengths: Lengths, name: str) -> str:
    """Return the pattern of one gradient's errors, where it needs no other to be understood."""
    found = lengths.findings(name)
    strong = {T: finding for T, finding in found.items() if finding.kind in STRONG}
    if strong:
        return strong[max(strong)].line
    last = found[max(found)]
    same = len({finding.kind for finding in found.values()}) == 1
    return last.line if same and len(found) > 1 and last.kind in ("zero", "factor") else ""


def _of_all(lengths: Lengths, own: Mapping[str, str]) -> str:
    """Return one line for gradients that each tell their own fault: those of the first wrong length, by what it is."""
    first = min(map(lengths.first, lengths.ever))
    names: dict[str, list[str]] = {}
    for name in lengths.ever:
        if lengths.first(name) == first:
            names.setdefault(lengths.findings(name)[first].kind, []).append(name)
    return "; ".join(f"{', '.join(alike)}: {own[alike[0]]}" for alike in names.values())


def _clipped_inside(lengths: Lengths) -> str:
    """Find a norm of exactly 1, which is no chance: clipped inside the loop over time, which spoils all that follow."""
    for name in lengths.ever:
        for finding in lengths.findings(name).values():
            if "inside the time loop" in finding.line:
                return f"{name}: {finding.line}"
    return ""


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


def _first_step_kept(lengths: Lengths) -> str:
    """Find that all that is silent at T = 1 stays zero at T = 2, while something else is wrong there as well.

    The first step's share of recurrent weights and of the forget gate is zero.
    """
    if {1, 2} - set(lengths.examined) or lengths.wrong(1):
        return ""
    silent = {(part.name, part.gate) for part in lengths.parts(1) if part.silent}
    found = lengths.parts(2)
    layers = {layer_of(part.name) for part in found if part.wrong}
    heard = [part for part in found if (part.name, part.gate) in silent and not part.silent]
    heard = [part for part in heard if layer_of(part.name) in layers]
    others = any(part.wrong and part not in heard for part in found)
    kept = others and len({part.name for part in heard}) > 1 and all(part.zero for part in heard)
    return f"right up to T = 1, wrong from T = 2: {FIRST_STEP_KEPT}" if kept else ""


def _cause_in_layers(lengths: Lengths) -> str:
    """Return the likeliest cause, in the highest of the stacked layers that is wrong."""
    numbers = {name: layer_of(name) for name in lengths.layer}
    layers = {number for number in numbers.values() if number}
    wrong = [numbers[name] for name in lengths.ever if numbers[name]]
    if len(layers) < 2 or not wrong:
        return _cause(lengths)
    within = frozenset(name for name, number in numbers.items() if number == max(wrong))
    which = f"layer {'.'.join(map(str, max(wrong)))}"
    return f"{which}, the highest that is wrong: {_cause(lengths.only(within))}"


def _cause(lengths: Lengths) -> str:
    """Return what the first wrong length shows."""
    first = min(map(lengths.first, lengths.ever))
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
    states = {match[1] or match[2] for part in bad if (match := INITIAL_STATE.search(part.name))}
    if states and len(states) == len({part.name for part in bad}):
        state = "c" if states == {"c"} else "h"
        return f"wrong at T = 1 already in the gradient to the initial state alone: the carry of {state} through time"
    if all(_where_nothing_depends(at_one[part.name]) for part in bad):
        return f"wrong at T = 1 already, where the loss does not depend on it: {_another_state(lengths, bad)}"
    lines = {part.name: lengths.examined[1].findings[part.name] for part in bad}
    if {finding.kind for finding in lines.values()} == {"zero"}:
        others = [part for part in found if part.gate and not part.silent and not part.wrong]
        return f"zero at T = 1 ({', '.join(lines)}): {ZERO_FACTOR if others else LAST_STEP}"
    cell = "wrong at T = 1 already, so in the cell itself, not in the carry through time"
    gates = {part.gate for part in bad}
    which = _which_gates(found)
    by_row = [finding.line for finding in lines.values() if finding.kind == "by_row"]
    if by_row:
        return f"{cell}; {which}{by_row[0]}"
    strong = [f"{name}: {finding.line}" for name, finding in lines.items() if finding.kind not in ("", "in_one_block")]
    if strong:
        return f"{cell}; {strong[0]}"
    names = ", ".join(dict.fromkeys(part.name for part in bad))
    if _witnesses(lengths, 1, gates):
        return f"{cell}; {names}: {OWN_LINE}"
    right = sorted({part.name for part in found if not part.silent} - {part.name for part in bad})
    if not which and right:
        which = f"{names} wrong, {', '.join(right)} right: "
    return f"{cell}; {which}{DERIVATIVE}" if which else cell


def _where_nothing_depends(m: Measured) -> bool:
    """Whether this gradient is wrong only where the loss does not depend on the parameter."""
    _, n, errors = m.known()
    bad = m.wrong()
    return bool(bad.any() and (abs(n[bad]) <= 2 * errors[bad]).all())


def _another_state(lengths: Lengths, bad: list[Part]) -> str:
    """Say which state is another than the zero before the first step."""
    at_one = lengths.measured(1)
    alone = lengths.silent - set(lengths.layouts)
    if all(at_one[part.name].analytic.ndim in (1, 3) and part.name in alone for part in bad):
        return f"{', '.join(part.name for part in bad)}: {PEEPHOLE_INDEX}"
    gates = {part.gate for part in bad}
    if len(gates) == 1 and "" not in gates:
        return f"gate {gates.pop()} only, so {C_INDEX}"
    readers = [name for name in lengths.ever if lengths.first(name) > 1 and not _has_gates(lengths, name)]
    return ALIASED if readers else H_INDEX


def _has_gates(lengths: Lengths, name: str) -> bool:
    return any(part.gate for part in lengths.parts(1) if part.name == name)


def _which_gates(found: list[Part]) -> str:
    bad = {part.gate for part in found if part.wrong}
    right = {part.gate for part in found if not part.wrong and not part.silent} - bad - {""}
    return f"only gate {' and '.join(sorted(bad))}: " if right and "" not in bad else ""


def _witnesses(lengths: Lengths, T: int, gates: set[str]) -> set[str]:
    """Return gradients from the same δ as the wrong ones that are right: the same gates', read at T = 1.

    Without gates, of a plain recurrent net: those that are as long along the units' axis as a recurrent kernel is.
    """
    found, ever = lengths.parts(T), set(lengths.ever)
    right = [part for part in found if part.name not in ever | lengths.silent and not part.silent]
    if gates != {""}:
        return {part.name for part in right if part.gate in gates - {""}}
    shapes = {name: m.analytic.shape for name, m in lengths.measured(T).items()}
    units = {
        shapes[name][0] for name in lengths.silent if len(shapes[name]) >= 2 and shapes[name][0] == shapes[name][1]
    }
    sides = {0 if shapes[name][0] in units else -1 for name in ever if len(shapes[name]) >= 2}
    plain = [part.name for part in right if not part.gate and shapes[part.name]]
    return {
        name
        for name in plain
        if (shapes[name][0] in units if len(shapes[name]) == 1 else any(shapes[name][side] in units for side in sides))
    }


def _carry_is_right(lengths: Lengths) -> bool:
    """Whether other gradients from the same δ are right at every length, or recurrent weights alone are wrong."""
    longest = max(lengths.examined)
    ever = set(lengths.ever)
    if ever <= lengths.silent:
        return any(name not in ever and m.moves for name, m in lengths.measured(longest).items())
    wrong_gates = {part.gate for T in lengths.examined for part in lengths.parts(T) if part.wrong}
    return bool(_witnesses(lengths, longest, wrong_gates))


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
    return _carry_at_two(lengths, more)


def _carry_at_two(lengths: Lengths, more: str) -> str:
    """Say which carry is at fault, from what is wrong at T = 2."""
    silent_before = {(part.name, part.gate) for part in lengths.parts(1) if part.silent}
    found = lengths.parts(2)
    gated = [part for part in found if part.gate]
    bad, gates = {part.gate for part in gated if part.wrong}, {part.gate for part in gated}
    last_only = [part for part in found if (part.name, part.gate) in silent_before and part.wrong]
    own = {part.gate for part in last_only}
    if own and "" not in own and own < gates:
        return f"only gate {' and '.join(sorted(own))}, which nothing was carried to at its last step: {DERIVATIVE}"
    if not bad:
        recurrent = {m.analytic.shape for name, m in lengths.measured(2).items() if name in lengths.silent}
        plain = all(len(shape) in (2, 4) and shape[0] == shape[1] for shape in recurrent) and recurrent
        carries = "the carry of h through time, δh₋ = W_hᵀ δ, is" if plain else "a carry through time, of h or c, is"
        return f"{carries} lost or wrong{_turning(lengths)}{more}"
    if len(gates) < 4:
        return f"the carry of h through time, δh₋ = W_hᵀ δ, is lost or wrong{_turning(lengths)}{more}"
    forget_was_silent = any(part.silent and part.name not in lengths.silent for part in lengths.parts(1) if part.gate)
    output_right = "o" not in bad if "o" in gates else len(bad) <= (2 if forget_was_silent else 3)
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
    shapes = [m.analytic.shape for m in lengths.measured(2).values() if m.analytic.ndim == 4]
    if any(shape[2:] != (1, 1) and shape[:2] != (1, 1) for shape in shapes):
        if lengths.experiment("rotated", 2):
            return (
                "; it is right with kernels that equal their own rotation, so the kernel is not rotated by 180° there"
            )
        return "; in a convolution its kernel must be rotated by 180°"
    if lengths.experiment("transposed", 2):
        return "; it is right with weights that equal their own transpose, so they are not transposed there"
    return ""
