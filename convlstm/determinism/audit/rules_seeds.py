"""The rules about random numbers, hashes and addresses."""

from __future__ import annotations

from convlstm.determinism.audit.rule import Rule

SEEDS = (
    Rule(
        "unseeded-generator",
        "error",
        "A random generator is made, or a global state seeded, without a seed.",
        "Without a seed it takes one from the operating system: no two runs draw the same numbers.",
        "give it a seed that the configuration records.",
        "import numpy as np\nrng = np.random.default_rng()",
        "import numpy as np\nrng = np.random.default_rng(0)",
    ),
    Rule(
        "unseeded-global-random",
        "warning",
        "Random numbers are drawn from a library's global state, which nothing in the file seeds.",
        "The state belongs to the whole process: its seed, and what was drawn before, depend on other code.",
        "make a generator with a seed and pass it to whoever draws.",
        "import numpy as np\nx = np.random.rand(3)",
        "import numpy as np\nx = np.random.default_rng(0).random(3)",
    ),
    Rule(
        "seed-not-fixed",
        "error",
        "A seed comes from a clock, a process number, an address, a hash or the system's entropy.",
        "It differs from run to run, and so does everything drawn; what it was is rarely recorded.",
        "use a number, or record the seed and let it be given.",
        "import random, time\nrandom.seed(time.time())",
        "import random\nrandom.seed(0)",
    ),
    Rule(
        "hash-value",
        "warning",
        "The value of hash() reaches a result.",
        "Hashes of text and bytes change with PYTHONHASHSEED, at random in every process; those of plain objects are "
        "their addresses.",
        "use hashlib or zlib.crc32.",
        "def shard(name):\n    return hash(name) % 8",
        "import zlib\ndef shard(name):\n    return zlib.crc32(name.encode()) % 8",
    ),
    Rule(
        "id-as-order",
        "warning",
        "id() is used to sort, to compare sizes or to calculate.",
        "It is an address, which differs from run to run. As a key that is looked up it is harmless, and not found.",
        "sort by something that belongs to the data.",
        "def ordered(parts):\n    return sorted(parts, key=id)",
        "def ordered(parts):\n    return sorted(parts, key=lambda part: part.name)",
    ),
)
