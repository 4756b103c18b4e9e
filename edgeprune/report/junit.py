"""Gates as a JUnit file, so that a CI server shows each as a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE


def render_junit(report: Mapping[str, Any]) -> str:
    """XML with a test case for each gate; an inconclusive gate is an error, a failed one a failure."""
    rows = report["gates"]
    outcomes = [row["outcome"] for row in rows]
    suite = ElementTree.Element(
        "testsuite",
        name=f"edgeprune {report['recipe']} on {report['target']}",
        tests=str(len(rows)),
        failures=str(outcomes.count(FAIL)),
        errors=str(outcomes.count(INCONCLUSIVE)),
        timestamp=report["created"],
    )
    for row in rows:
        case = ElementTree.SubElement(suite, "testcase", classname=report["target"], name=row["gate"])
        tag = {FAIL: "failure", INCONCLUSIVE: "error"}.get(row["outcome"])
        if tag:
            ElementTree.SubElement(case, tag, message=row["reason"])
        else:
            ElementTree.SubElement(case, "system-out").text = row["reason"]
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)
