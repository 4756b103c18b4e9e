"""Gates as a JUnit file, so that a CI server shows each as a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS
from edgeprune.core.text import make_printable
from edgeprune.report.markdown import NO_GATE, describe_conditions

TAGS = {FAIL: "failure", INCONCLUSIVE: "error"}


def render_junit(report: Mapping[str, Any]) -> str:
    """XML with a test case for each gate; an inconclusive gate is an error, a failed one a failure.

    After the schema of Jenkins (https://github.com/jenkinsci/xunit-plugin, junit-10.xsd), of which GitLab shows the
    text and actions of GitHub the message. Times are 0: that of judging. Without a gate one error says so.
    """
    rows = report["gates"] or [{"gate": "gates", "outcome": INCONCLUSIVE, "reason": NO_GATE}]
    outcomes = [row["outcome"] for row in rows]
    counts = {"failures": outcomes.count(FAIL), "errors": outcomes.count(INCONCLUSIVE), "skipped": 0}
    totals = {"tests": str(len(rows)), **{name: str(count) for name, count in counts.items()}, "time": "0"}
    title = f"edgeprune {report['recipe']} on {report['target']}"
    suites = ElementTree.Element("testsuites", {"name": "edgeprune", **_plain(totals)})
    stamp = str(report["created"]).partition("+")[0]  # the schema has no zones; it is UTC
    facts = {"name": title, **totals, "timestamp": stamp, "hostname": report["device"]["host"]}
    suite = ElementTree.SubElement(suites, "testsuite", _plain(facts))
    _add_properties(suite, report)
    for row in rows:
        _add_case(suite, row, report)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)


def _add_properties(suite: ElementTree.Element, report: Mapping[str, Any]) -> None:
    names = ("verdict", "edgeprune", "target", "recipe", "runtime", "judged_by")
    facts = {name: report[name] for name in names} | {"file": report["result"]["artifact"]}
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in facts.items():
        ElementTree.SubElement(properties, "property", _plain({"name": name, "value": value}))


def _add_case(suite: ElementTree.Element, row: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    names = {"classname": f"edgeprune.{report['target']}.{report['recipe']}", "name": row["gate"], "time": "0"}
    case, outcome = ElementTree.SubElement(suite, "testcase", _plain(names)), row["outcome"]
    reason = make_printable(row["reason"])
    if outcome != PASS:
        ElementTree.SubElement(case, TAGS[outcome], _plain({"message": reason, "type": outcome})).text = reason
    conditions = f"{reason}\n{make_printable(describe_conditions(report))}"
    ElementTree.SubElement(case, "system-out").text = conditions


def _plain(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Without what XML cannot hold."""
    return {name: make_printable(str(value)) for name, value in attributes.items()}
