"""A report as text, JSON or SARIF."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path, PurePath
from urllib.parse import quote

from convlstm._version import __version__
from convlstm.determinism.audit.catalogue import RULES
from convlstm.determinism.audit.check import Report
from convlstm.determinism.audit.findings import Finding

FORMATS = ("text", "json", "sarif")
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def render(report: Report, form: str) -> str:
    """Return a report in one of FORMATS, without a newline at its end."""
    if form == "json":
        return json.dumps(as_json(report), indent=2, ensure_ascii=False)
    if form == "sarif":
        return json.dumps(as_sarif(report), indent=2, ensure_ascii=False)
    return "\n".join(map(str, report.findings))


def as_json(report: Report) -> dict[str, object]:
    """Return findings and problems as plain values."""
    prints = fingerprints(report.findings)
    return {
        "version": 1,
        "files": report.files,
        "findings": [
            {
                "path": f.place.path,
                "cell": f.place.cell or None,
                "line": f.place.line,
                "column": f.place.column,
                "rule": f.rule,
                "severity": RULES[f.rule].severity,
                "message": f.message,
                "text": f.text,
                "fingerprint": fingerprint,
            }
            for f, fingerprint in zip(report.findings, prints, strict=True)
        ],
        "problems": [{"path": p.path, "reason": p.reason} for p in report.problems],
    }


def fingerprints(findings: list[Finding]) -> list[str]:
    """Return for each finding what stays the same when its line moves: its rule, its file and the text of the line."""
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for finding in findings:
        key = (finding.rule, PurePath(finding.place.path).as_posix(), finding.text)
        seen[key] += 1  # equal lines of one file are told apart by their order
        found.append(hashlib.sha256("\0".join((*key, str(seen[key]))).encode("utf-8", "replace")).hexdigest()[:32])
    return found


def as_sarif(report: Report) -> dict[str, object]:
    """Return the report in SARIF 2.1.0, as code scanning on GitHub reads it."""
    order = {name: position for position, name in enumerate(RULES)}
    prints = fingerprints(report.findings)
    rules = [
        {
            "id": rule.name,
            "name": "".join(word.capitalize() for word in rule.name.split("-")),
            "shortDescription": {"text": rule.what},
            "fullDescription": {"text": f"{rule.what} {rule.why}"},
            "help": {"text": f"{rule.why} Instead: {rule.instead}"},
            "defaultConfiguration": {"level": rule.severity, "enabled": rule.default},
        }
        for rule in RULES.values()
    ]
    results = [
        {
            "ruleId": f.rule,
            "ruleIndex": order[f.rule],
            "level": RULES[f.rule].severity,
            "message": {"text": f"cell {f.place.cell}: {f.message}" if f.place.cell else f.message},
            "locations": [_location(f)],
            "partialFingerprints": {"convlstmAudit/v1": fingerprint},
        }
        for f, fingerprint in zip(report.findings, prints, strict=True)
    ]
    notices = [
        {"level": "error", "message": {"text": str(p)}, "locations": [{"physicalLocation": _file(p.path)}]}
        for p in report.problems
    ]
    driver = {"name": "convlstm audit", "version": __version__, "semanticVersion": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": not report.problems, "toolExecutionNotifications": notices}],
        "results": results,
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _location(finding: Finding) -> dict[str, object]:
    region = {"startLine": finding.place.line, "startColumn": finding.place.column}
    # A notebook's lines are those of its JSON, which nobody sees: the message names the cell.
    found = {**_file(finding.place.path), **({} if finding.place.cell else {"region": region})}
    return {"physicalLocation": found}


def _file(path: str) -> dict[str, object]:
    """Return a file as SARIF names it: relative to the working directory, or with its scheme."""
    plain = path.partition(".ipynb:cell ")[0] + ".ipynb" if ".ipynb:cell " in path else path
    pure = Path(plain)
    if pure.is_absolute():
        try:
            pure = pure.relative_to(Path.cwd())
        except ValueError:
            return {"artifactLocation": {"uri": pure.as_uri()}}
    return {"artifactLocation": {"uri": quote(pure.as_posix(), errors="replace")}}
