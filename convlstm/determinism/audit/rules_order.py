"""The rules about things that come in no fixed order, and those about waivers."""

from __future__ import annotations

from convlstm.determinism.audit.rule import Rule

ORDER = (
    Rule(
        "set-order",
        "warning",
        "The order of a set shows in a result.",
        "Sets of text, bytes or objects are ordered by hashes that differ from process to process. Sums of floats, "
        "lists and files made in that order differ too. Sets of numbers, and uses that show no order, are not found.",
        "iterate over sorted(…).",
        'names = {"b", "a"}\nfor name in names:\n    print(name)',
        'names = {"b", "a"}\nfor name in sorted(names):\n    print(name)',
    ),
    Rule(
        "directory-order",
        "warning",
        "The order in which a file system lists files shows in a result.",
        "It depends on the file system and on the history of the folder: on another machine it is another.",
        "wrap the listing in sorted(…).",
        "import os\nfor name in os.listdir('data'):\n    print(name)",
        "import os\nfor name in sorted(os.listdir('data')):\n    print(name)",
    ),
    Rule(
        "completion-order",
        "warning",
        "Results are combined in the order in which concurrent tasks finish.",
        "Which finishes first is chance; a sum of floats, or a list, differs with it.",
        "keep results by the task they belong to and combine them in the order of the tasks.",
        "from concurrent.futures import as_completed\n"
        "def total(tasks):\n    s = 0.0\n    for task in as_completed(tasks):\n"
        "        s += task.result()\n    return s",
        "def total(tasks):\n    s = 0.0\n    for task in tasks:\n        s += task.result()\n    return s",
    ),
    Rule(
        "gpu-scatter",
        "warning",
        "A GPU adds to the same elements with atomics.",
        "Additions reach an element in an order that nothing fixes, and floats added in another order sum to another.",
        "sort by index and add segments, or use one-hot matrix products; for integers it is harmless.",
        "import cupy as cp\ndef count(x, i, v):\n    cp.add.at(x, i, v)",
        "import cupy as cp\ndef count(n, i, v):\n    return cp.eye(n, dtype=v.dtype)[i].T @ v",
    ),
)

WAIVERS = (
    Rule(
        "waiver-without-reason",
        "warning",
        "A waiver gives no reason.",
        "Who reads the line later cannot tell whether the reason still holds.",
        "write one after a colon.",
        "import random\nr = random.Random()  # convlstm: allow unseeded-generator",
        "import random\nr = random.Random()  # convlstm: allow unseeded-generator: names of scratch files only",
    ),
    Rule(
        "waiver-unknown-rule",
        "warning",
        "A waiver names no rule, or one that does not exist.",
        "It waives nothing.",
        "use a name from --list-rules.",
        "import random\nr = random.Random(1)  # convlstm: allow unseeded: it is a test",
        "import random\nr = random.Random(1)",
    ),
    Rule(
        "waiver-unused",
        "warning",
        "A waiver stands where nothing is to be waived.",
        "The line it was for has changed; the next fault there would go unseen.",
        "take it out.",
        "x = 1  # convlstm: allow set-order: only names",
        "x = 1",
    ),
)
