"""Random numbers whose seed is missing, or differs from run to run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from convlstm.determinism.audit.findings import Raw
from convlstm.determinism.audit.names import Names
from convlstm.determinism.audit.scopes import FUNCTIONS, Module
from convlstm.determinism.audit.words import words

ARRAYS = ("numpy", "cupy")
MAKERS = frozenset(
    {f"{m}.random.{g}" for m in ARRAYS for g in ("default_rng", "RandomState", "SeedSequence")}
    | {f"numpy.random.{g}" for g in ("PCG64", "PCG64DXSM", "Philox", "MT19937", "SFC64")}
    | {f"cupy.random.{g}" for g in ("XORWOW", "MRG32k3a", "Philox4x3210")}
    | {"random.Random"}
)
SEEDERS = frozenset(
    {f"{m}.random.seed" for m in ARRAYS} | {"random.seed", "torch.manual_seed", "torch.cuda.manual_seed_all"}
)
DRAWN = {
    "numpy": words(
        "rand randn randint random_integers random_sample random ranf sample bytes choice shuffle permutation beta "
        "binomial chisquare dirichlet exponential f gamma geometric gumbel hypergeometric laplace logistic "
        "lognormal logseries multinomial multivariate_normal negative_binomial noncentral_chisquare noncentral_f "
        "normal pareto poisson power rayleigh standard_cauchy standard_exponential standard_gamma standard_normal "
        "standard_t triangular uniform vonmises wald weibull zipf"
    ),
    "random": words(
        "random randint randrange uniform choice choices shuffle sample gauss normalvariate lognormvariate "
        "expovariate vonmisesvariate gammavariate betavariate paretovariate weibullvariate triangular getrandbits "
        "randbytes binomialvariate"
    ),
    "torch": words("rand randn randint randperm normal bernoulli multinomial poisson rand_like randn_like"),
}
DRAWN["cupy"] = DRAWN["numpy"]
# What differs from run to run.
WANDERING = re.compile(
    r"^(time\.(time|time_ns|perf_counter|perf_counter_ns|monotonic|monotonic_ns|process_time|process_time_ns|clock)"
    r"|datetime\.(datetime\.)?(now|utcnow|today)|datetime\.date\.today"
    r"|os\.(getpid|urandom|getppid|getrandom)|secrets\.\w+|uuid\.uuid[14]|builtins\.(id|hash)"
    r"|random\.SystemRandom(\.\w+)?|threading\.get_ident|_thread\.get_ident)$"
)
PLAIN = frozenset({"builtins.int", "builtins.abs", "builtins.round"})
SAID = re.compile(r"(^|_)(seed|seeds|rng_seed|random_state)$|_seed$", re.IGNORECASE)


def generators(module: Module, names: Names) -> Iterator[Raw]:
    """Yield generators without a seed, draws from unseeded global state, and seeds that differ from run to run."""
    seeded = _seeded(module, names)
    for call in module.calls:
        resolved = names.resolve(call.func)
        if resolved & (MAKERS | SEEDERS):
            yield from _making(call, sorted(resolved & (MAKERS | SEEDERS))[0], names)
            continue
        yield from _seed_arguments(call, names)
        for name in sorted(resolved):
            if name == "random.SystemRandom":
                yield Raw(call, "unseeded-generator", f"{name} draws from the operating system; no seed repeats it")
                continue
            library, _, drawn = name.rpartition(".")
            library = library.removesuffix(".random") if library != "random" else library
            prefixed = name == f"{library}.{drawn}" if library in ("random", "torch") else True
            if library not in DRAWN or drawn not in DRAWN[library] or not prefixed:
                continue
            if library != "torch" and library != "random" and not name.startswith(f"{library}.random."):
                continue
            if any(k.arg == "generator" for k in call.keywords) or _is_seeded(call, library, seeded, module):
                continue
            yield Raw(
                call,
                "unseeded-global-random",
                f"{name} draws from a state that nothing in this file seeds; pass a generator made with a seed",
            )
            break
    yield from _assigned_seeds(module, names)


def _making(call: ast.Call, name: str, names: Names) -> Iterator[Raw]:
    """Look at the seed of a generator, or of a global state."""
    seed = call.args[0] if call.args else next((k.value for k in call.keywords if _is_seed(k.arg)), None)
    if any(k.arg is None for k in call.keywords) or isinstance(seed, ast.Starred):
        return
    if seed is None or (isinstance(seed, ast.Constant) and seed.value is None):
        yield Raw(call, "unseeded-generator", f"{name} without a seed gives other numbers in every run")
        return
    source = wandering(seed, names)
    if source:
        yield Raw(call, "seed-not-fixed", f"{name} is seeded from {source}, which differs from run to run")


def _is_seed(keyword: str | None) -> bool:
    return keyword in ("seed", "entropy", "x", "a", "random_state", "key")


def _seed_arguments(call: ast.Call, names: Names) -> Iterator[Raw]:
    """Look at `seed=` and `random_state=` of anything."""
    for keyword in call.keywords:
        if keyword.arg is not None and SAID.search(keyword.arg):
            source = wandering(keyword.value, names)
            if source:
                yield Raw(call, "seed-not-fixed", f"{keyword.arg}= comes from {source}, which differs from run to run")


def _assigned_seeds(module: Module, names: Names) -> Iterator[Raw]:
    """Look at what is kept in a variable that is called a seed, unless a call that uses it has been named."""
    for node in module.parent_of:
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            name = (
                target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""
            )
            if SAID.search(name) and isinstance(target, ast.Attribute):
                source = wandering(node.value, names)
                if source:
                    yield Raw(node, "seed-not-fixed", f"{name} comes from {source}, which differs from run to run")


def wandering(node: ast.expr, names: Names, depth: int = 3) -> str:
    """Return what in an expression differs from run to run, as it is written; "" if nothing is seen to."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            for name in names.resolve(inner.func):
                if WANDERING.match(name) and not (name == "builtins.hash" and _is_number(inner)):
                    return f"{name.removeprefix('builtins.')}()"
        elif isinstance(inner, ast.Name) and depth:
            only = names.only_value(inner)
            if (
                only is not None
                and only.unpacked is None
                and isinstance(only.node, (ast.Call, ast.BinOp, ast.Subscript))
            ):
                found = wandering(only.node, names, depth - 1)
                if found and _is_plain(only.node, names):
                    return found
    return ""


def _is_plain(node: ast.expr, names: Names) -> bool:
    """Tell arithmetic and conversions from calls of functions that may do anything with a clock."""
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
    return all(
        names.resolve(c.func) & PLAIN
        or any(WANDERING.match(n) for n in names.resolve(c.func))
        or (isinstance(c.func, ast.Attribute) and c.func.attr in ("from_bytes", "timestamp"))
        for c in calls
    )


def _is_number(call: ast.Call) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, (int, float))


# Global state ---------------------------------------------------------------------------------------------------------


def _seeded(module: Module, names: Names) -> dict[str, list[ast.Call]]:
    """Return the calls that seed each library's global state; any helper called "seed…" seeds all of them."""
    found: dict[str, list[ast.Call]] = {library: [] for library in DRAWN}
    for call in module.calls:
        resolved = names.resolve(call.func)
        written = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        for library in DRAWN:
            own = "random" if library == "random" else f"{library}.random"
            if any(n in (f"{own}.seed", f"{own}.set_state", f"{own}.setstate", "torch.manual_seed") for n in resolved):
                if library != "torch" and "torch.manual_seed" in resolved:
                    continue
                found[library].append(call)
        if not resolved & (MAKERS | SEEDERS) and "seed" in written.lower() and "random.seed" not in resolved:
            for calls in found.values():
                calls.append(call)
    return found


def _is_seeded(call: ast.Call, library: str, seeded: dict[str, list[ast.Call]], module: Module) -> bool:
    """Tell whether a draw is seeded: in a function by any seeding in the file, at the top by an earlier one."""
    if module.enclosing(call, (*FUNCTIONS, ast.Lambda)) is not None:
        return bool(seeded[library])
    return any(seed.lineno <= call.lineno for seed in seeded[library])
