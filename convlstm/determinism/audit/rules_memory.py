"""The rules about memory that is read before it is written."""

from __future__ import annotations

from convlstm.determinism.audit.rule import Rule

WHY = (
    "Such memory holds what an earlier owner left there. The first arrays of a process often lie in fresh pages of "
    "zeros, so that a program is right for some steps and wanders from then on."
)

MEMORY = (
    Rule(
        "uninitialised-accumulated",
        "error",
        "An array is allocated without being written, and then added to.",
        WHY,
        "allocate it with zeros.",
        "import numpy as np\ngradient = np.empty(3)\nfor step in range(5):\n    gradient += step",
        "import numpy as np\ngradient = np.zeros(3)\nfor step in range(5):\n    gradient += step",
    ),
    Rule(
        "uninitialised-read",
        "error",
        "An array is allocated without being written, and then read.",
        WHY,
        "write all of it first, or allocate it with zeros.",
        "import numpy as np\nx = np.empty(3)\nprint(x.sum())",
        "import numpy as np\nx = np.zeros(3)\nprint(x.sum())",
    ),
    Rule(
        "uninitialised-partly-written",
        "warning",
        "An array is written except for a part, or only on some paths, and then read.",
        WHY + " Here it is the part that was left out: a border, the elements that where= passes over, a branch.",
        "allocate it with zeros, or write the rest too.",
        "import numpy as np\ndef padded(a):\n    x = np.empty((8, 8))\n    x[1:-1, 1:-1] = a\n    return x",
        "import numpy as np\ndef padded(a):\n    x = np.zeros((8, 8))\n    x[1:-1, 1:-1] = a\n    return x",
    ),
    Rule(
        "uninitialised-escapes",
        "warning",
        "An array leaves the function, or is kept in an object, before anything was written to it.",
        WHY + " Whoever gets it cannot see that it must be written first.",
        "return zeros, or let the caller hand in the array to be written.",
        "import numpy as np\ndef buffer(n):\n    return np.empty(n)",
        "import numpy as np\ndef buffer(n):\n    return np.zeros(n)",
    ),
    Rule(
        "uninitialised-undecided",
        "note",
        "Whether all of an unwritten array is written before it is read, the source does not tell.",
        WHY + " Masks, loops of an unknown extent and functions of other files may write all of it, or not.",
        "nothing if it is right; `convlstm replay` fills such memory with patterns and shows whether results change.",
        "import numpy as np\ndef pick(a, mask):\n    x = np.empty(3)\n    x[mask] = a\n    return x",
        "import numpy as np\ndef pick(a, mask):\n    x = np.zeros(3)\n    x[mask] = a\n    return x",
        default=False,
    ),
)
