"""The audit as a user meets it: paths, formats, waivers, notebooks, what cannot be read, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from convlstm.determinism.audit import RULES, Report, audit, audit_text, choose, default_rules
from convlstm.determinism.audit.command import Options, run
from convlstm.determinism.audit.output import FORMATS, render

ROOT = Path(__file__).resolve().parent.parent
BAD = "import random\nr = random.Random()\n"
GOOD = "import random\nr = random.Random(0)\n"


def audited(*paths: Path | str, **options: Any) -> tuple[int, list[str], list[str]]:
    """Return exit code, what was said, what was complained of."""
    said: list[str] = []
    complaints: list[str] = []
    code = run(Options([str(p) for p in paths], **options), said.append, complaints.append)
    return code, [line for text in said for line in text.split("\n")], complaints


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        file = directory / (name.replace("__", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


# Exit codes and lines -------------------------------------------------------------------------------------------------


def test_clean_found_and_unreadable(tmp_path: Path) -> None:
    write(tmp_path, good=GOOD)
    assert audited(tmp_path) == (0, [], [])
    write(tmp_path, bad=BAD)
    code, said, complaints = audited(tmp_path)
    assert (code, complaints) == (1, [])
    assert said == [
        f"{tmp_path}/bad.py:2:5: unseeded-generator: random.Random without a seed gives other numbers in every run"
    ]
    write(tmp_path, broken="def f(:\n")
    code, said, complaints = audited(tmp_path)
    assert (code, len(said)) == (2, 1)  # the rest is still audited
    assert complaints == [f"{tmp_path}/broken.py: line 1: is not Python: invalid syntax"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"x = 1\0", "is binary"),
        (b"\x7fELF\0\0", "is binary"),
        (b"x = '\xff'\n", "is not text in utf-8"),
        (b"# coding: klingon\nx = 1\n", "its encoding is not known"),
        (b"x = (\n", "is not Python"),
        (b"  x = 1\n y = 2\n", "is not Python"),
        (b"x = " + b"(" * 5000 + b")" * 5000, ""),
        (b"x = 1" + b" + 1" * 60_000, ""),
        (b"print 'two'\n", "is not Python"),
    ],
)
def test_what_is_no_python_is_said_in_one_line(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(data)
    write(tmp_path, b=BAD)
    code, said, complaints = audited(tmp_path)
    assert len(said) == 1
    assert len(complaints) == (code == 2)
    assert code == 2 or not reason
    assert reason in " ".join(complaints)
    assert "\n" not in "".join(complaints)


def test_a_missing_path_is_said(tmp_path: Path) -> None:
    write(tmp_path, bad=BAD)
    code, said, complaints = audited(tmp_path / "nowhere", tmp_path / "bad.py")
    assert (code, len(said)) == (2, 1)
    assert complaints == [f"{tmp_path}/nowhere: cannot be read: No such file or directory"]


def test_a_loop_of_links_is_said_once_and_the_rest_audited(tmp_path: Path) -> None:
    write(tmp_path, a__bad=BAD)
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "self.py").symlink_to(tmp_path / "self.py")
    code, said, complaints = audited(tmp_path)
    assert (code, len(said)) == (2, 1)
    assert len(complaints) == 2
    assert f"a loop: leads back to {tmp_path}" in complaints[0]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    write(tmp_path, bad=BAD)
    assert audited(tmp_path)[0] == 1
    assert audited(tmp_path / "pipe.py")[0] == 2


def test_a_file_reached_twice_is_audited_once(tmp_path: Path) -> None:
    write(tmp_path, a__bad=BAD)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    code, said, _ = audited(tmp_path, tmp_path / "a" / "bad.py")
    assert (code, len(said)) == (1, 1)


def test_the_walk_is_sorted_and_skips_what_is_not_source(tmp_path: Path) -> None:
    write(tmp_path, z=BAD, a=BAD, m__x=BAD, venv__lib=BAD, build__x=BAD)
    write(tmp_path, **{".hidden__x": BAD, "node_modules__x": BAD})
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.py").write_text(BAD)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    (tmp_path / "notes.txt").write_text("not Python")
    said = [line.split(":")[0].removeprefix(f"{tmp_path}/") for line in audited(tmp_path)[1]]
    assert said == ["a.py", "m/x.py", "z.py"]
    assert len(audited(tmp_path / "venv")[1]) == 1  # asked for by name


def test_exclude(tmp_path: Path) -> None:
    write(tmp_path, a=BAD, tests__b=BAD, tests__deep__c=BAD, d_test=BAD)
    left = audited(tmp_path, exclude=["tests", "*_test.py"])[1]
    assert [line.split(":")[0] for line in left] == [f"{tmp_path}/a.py"]


@pytest.mark.parametrize(
    ("data", "column"),
    [
        (b"\xef\xbb\xbf" + BAD.encode(), 5),
        (BAD.replace("\n", "\r\n").encode(), 5),
        (BAD.replace("\n", "\r").encode(), 5),
        ("# coding: latin-1\nimport random\né = 'ü'; r = random.Random()\n".encode("latin-1"), 14),
        ("import random\nr = 'ü日本'; r = random.Random()\n".encode(), 16),
    ],
)
def test_encodings_and_columns(data: bytes, column: int) -> None:
    report = Report()
    audit_text(report, "x.py", data, default_rules())
    assert (report.problems, [f.place.column for f in report.findings]) == ([], [column])


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BAD.encode())))
    code, said, _ = audited("-", stdin_name="given.py")
    assert code == 1
    assert said[0].startswith("given.py:2:5: ")


def test_nothing_is_executed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    text = f"import pathlib, sys\npathlib.Path({str(marker)!r}).write_text('run')\nsys.exit(7)\n"
    write(tmp_path, script=text, conftest=text, __init__=text)
    modules = set(sys.modules)
    assert audited(tmp_path)[0] == 0
    assert not marker.exists()
    assert not {"script", "conftest"} & (set(sys.modules) - modules)


# Options --------------------------------------------------------------------------------------------------------------


def test_select_and_ignore(tmp_path: Path) -> None:
    write(tmp_path, a=BAD + "x = random.random()\n")
    assert len(audited(tmp_path)[1]) == 2
    assert len(audited(tmp_path, select="unseeded-generator")[1]) == 1
    assert audited(tmp_path, ignore="unseeded-generator, unseeded-global-random")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "unseded-generator"}, "there is no rule 'unseded-generator'; did you mean unseeded-generator?"),
        ({"ignore": "set"}, "there is no rule 'set'; did you mean set-order?"),
        ({"explain": "gpu-scater"}, "there is no rule 'gpu-scater'; did you mean gpu-scatter?"),
        ({"form": "xml"}, "--format is one of text, json, sarif; got 'xml'"),
        ({}, "audit needs a file or a folder, or - for standard input"),
    ],
)
def test_bad_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        audited(**options)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_listed_and_explained(name: str) -> None:
    assert any(line.startswith(f"{name} ") for line in audited(list_rules=True)[1])
    code, said, _ = audited(explain=name)
    assert code == 0
    assert said[0].startswith(f"{name} (")
    assert any(line.startswith("Instead: ") for line in said)


# Waivers --------------------------------------------------------------------------------------------------------------

RANDOM = "r = random.Random()"


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        (f"{RANDOM}  # convlstm: allow unseeded-generator: names of scratch files", []),
        (f"# convlstm: allow unseeded-generator: names of scratch files\n{RANDOM}", []),
        (f"# convlstm: allow unseeded-generator: names\n# of scratch files\n\n{RANDOM}", []),
        (f"{RANDOM}  # convlstm: allow unseeded-generator", ["unseeded-generator", "waiver-without-reason"]),
        (f"{RANDOM}  # convlstm: allow unseeded-generator:", ["unseeded-generator", "waiver-without-reason"]),
        (f"{RANDOM}  # convlstm: allow unseeded: why", ["unseeded-generator", "waiver-unknown-rule"]),
        (f"{RANDOM}  # convlstm: allow", ["unseeded-generator", "waiver-unknown-rule"]),
        (f"{RANDOM}  # convlstm: allow set-order: why", ["unseeded-generator", "waiver-unused"]),
        ("x = 1  # convlstm: allow set-order: why", ["waiver-unused"]),
        ("x = 1  # convlstm: allow waiver-unused: why", ["waiver-unknown-rule"]),
        (f"# convlstm: allow unseeded-generator: why\nx = 1\n{RANDOM}", ["unseeded-generator", "waiver-unused"]),
        (f"x = '# convlstm: allow unseeded-generator: why'; {RANDOM}", ["unseeded-generator"]),
        (
            "r = [random.Random(), random.random()]  # convlstm: allow unseeded-generator, unseeded-global-random: why",
            [],
        ),
    ],
)
def test_waivers(source: str, rules: list[str]) -> None:
    report = Report()
    audit_text(report, "x.py", f"import random\n{source}\n".encode(), default_rules())
    assert sorted(f.rule for f in report.findings) == rules


def test_a_waiver_of_a_rule_that_was_not_asked_is_not_called_unused() -> None:
    report = Report()
    audit_text(report, "x.py", b"x = 1  # convlstm: allow set-order: why\n", choose([], ["set-order"]))
    assert report.findings == []


# Notebooks ------------------------------------------------------------------------------------------------------------


def notebook(*cells: str | tuple[str, str], **metadata: object) -> bytes:
    made = [
        {"cell_type": "code", "source": c.splitlines(keepends=True)}
        if isinstance(c, str)
        else {"cell_type": c[0], "source": c[1]}
        for c in cells
    ]
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4}).encode()


def audit_notebook(data: bytes) -> Report:
    report = Report()
    audit_text(report, "n.ipynb", data, default_rules())
    return report


def test_a_notebook_is_one_module_and_places_are_cells() -> None:
    cells = (
        ("markdown", "# title ("),
        "%matplotlib inline\nimport numpy as np\n!pip install x\nx = np.empty(3)",
        "y = 1\nx += y",
    )
    report = audit_notebook(notebook(*cells))
    (finding,) = report.findings
    assert str(finding).startswith("n.ipynb:cell 2:4:5: uninitialised-accumulated: numpy.empty allocated here")
    assert "at cell 3, line 2 before" in finding.message
    assert report.problems == []


@pytest.mark.parametrize(
    "cell",
    [
        "%%bash\nls (",
        "%%time\nimport random\nx = 1",
        "files = !ls *.py\nx = %who",
        "if True:\n    !ls\nelse:\n    %time f()",
        "f?\n?f\nf??",
        "!ls \\\n  more (\nx = 1",
        "await f()",
        "x = ('a'\n     % 3)",
        "",
    ],
)
def test_magics_are_blanked(cell: str) -> None:
    report = audit_notebook(notebook(cell, "import random\nr = random.Random()"))
    assert report.problems == []
    assert [str(f.place) for f in report.findings] == ["n.ipynb:cell 2:2:5"]


def test_a_broken_cell_is_said_and_the_others_audited() -> None:
    report = audit_notebook(notebook("def f(:", "import random\nr = random.Random()"))
    assert [str(p) for p in report.problems] == ["n.ipynb:cell 1: line 1: is not Python: invalid syntax"]
    assert len(report.findings) == 1
    assert report.exit_code == 2


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"{}", b"3", b'{"cells": 3}', b"\0", b'{"cells": [3, {"cell_type": "code"}]}']
)
def test_what_is_no_notebook(data: bytes) -> None:
    report = audit_notebook(data)
    assert report.findings == []
    assert report.exit_code in (0, 2)


def test_another_language_is_left_alone() -> None:
    assert audit_notebook(notebook("x <- c(1", kernelspec={"language": "R"})).exit_code == 0


# Formats --------------------------------------------------------------------------------------------------------------


def report_of(tmp_path: Path) -> Report:
    write(tmp_path, a=BAD + BAD, broken="(")
    (tmp_path / "n.ipynb").write_bytes(notebook("import random\nr = random.Random()"))
    return audit([str(tmp_path)], default_rules())


def test_json(tmp_path: Path) -> None:
    document = json.loads(render(report_of(tmp_path), "json"))
    assert set(document) == {"version", "files", "findings", "problems"}
    assert (document["version"], document["files"], len(document["findings"])) == (1, 3, 3)
    kinds: dict[str, type | tuple[type, ...]] = {
        "path": str,
        "cell": (int, type(None)),
        "line": int,
        "column": int,
        "rule": str,
        "severity": str,
    }
    kinds |= {"message": str, "text": str, "fingerprint": str}
    for finding in document["findings"]:
        assert set(finding) == set(kinds)
        assert all(isinstance(finding[key], kind) for key, kind in kinds.items())
        assert finding["severity"] in ("error", "warning", "note")
    assert [f["cell"] for f in document["findings"]] == [None, None, 1]
    assert [set(p) for p in document["problems"]] == [{"path", "reason"}]


def test_sarif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = json.loads(render(report_of(tmp_path), "sarif"))
    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("sarif-2.1.0.json")
    (made,) = document["runs"]
    driver = made["tool"]["driver"]
    assert [rule["id"] for rule in driver["rules"]] == list(RULES)
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
    for result in made["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert physical["artifactLocation"]["uri"] in ("a.py", "n.ipynb")
        if physical["artifactLocation"]["uri"] == "a.py":
            assert physical["region"]["startLine"] >= 1
            assert physical["region"]["startColumn"] >= 1
        assert len(result["partialFingerprints"]["convlstmAudit/v1"]) == 32
    (invocation,) = made["invocations"]
    assert invocation["executionSuccessful"] is False
    assert "broken.py" in invocation["toolExecutionNotifications"][0]["message"]["text"]


def test_fingerprints_stay_when_lines_move_and_tell_equal_lines_apart() -> None:
    def prints(source: str) -> list[str]:
        report = Report()
        audit_text(report, "x.py", source.encode(), default_rules())
        return [f["fingerprint"] for f in json.loads(render(report, "json"))["findings"]]

    before, after = prints(BAD + BAD), prints("# moved\n\n" + BAD + "x = 1\n" + BAD)
    assert before == after
    assert len(set(before)) == 2
    assert prints(BAD.replace("r =", "s =")) != before[:1]


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_found_in_every_format(form: str) -> None:
    text = render(Report(), form)
    assert text == "" if form == "text" else json.loads(text)


def test_this_repository_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert audited("convlstm", "backends") == (0, [], [])
