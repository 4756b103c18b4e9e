"""Gates as a JUnit file, so that a CI server shows each as a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS
from edgeprune.core.text import make_printable
from edgeprune.report.markdown import NO_GATE, describe_conditions

TAGS = {FAIL: "failure", INCONCLUSIVE: "error"}


@dataclass(frozen=True)
class Suite:
    """What gates were judged together: of which target and recipe, when (ISO 8601, UTC), on which host, and more."""

    target: str
    recipe: str
    created: str
    host: str
    properties: Mapping[str, Any]
    conditions: str = ""


def render_junit(report: Mapping[str, Any]) -> str:
    """XML with a test case for each gate of a report; an inconclusive gate is an error, a failed one a failure.

    After the schema of Jenkins (https://github.com/jenkinsci/xunit-plugin, junit-10.xsd), of which GitLab shows the
    text and actions of GitHub the message. Times are 0: that of judging. Without a gate one error says so.
    """
    names = ("verdict", "edgeprune", "target", "recipe", "runtime", "judged_by")
    properties = {name: report[name] for name in names} | {"file": report["result"]["artifact"]}
    host, conditions = report["device"]["host"], describe_conditions(report)
    suite = Suite(report["target"], report["recipe"], report["created"], host, properties, conditions)
    return _render(suite, report["gates"])


def render_fleet_junit(document: Mapping[str, Any], recipe: str) -> str:
    """The same of a fleet: a case for each gate with the board that decides, and one for each board not measured."""
    properties = {name: document[name] for name in ("verdict", "target", "artifact", "percentile")}
    against = document["against"]["rows"] if document.get("against") else []
    rows = [{**row, "gate": f"{row['gate']} ({row['host']})"} for row in document["gates"]]
    rows += [{**row, "gate": f"{row['metric']} against a baseline ({row['host']})"} for row in against]
    rows += [
        {"gate": f"measured ({board['host']})", "outcome": INCONCLUSIVE, "reason": board["error"]}
        for board in document["boards"]
        if board["error"]
    ]
    hosts = ", ".join(board["host"] for board in document["boards"])
    return _render(Suite(document["target"], recipe, document["created"], hosts, properties), rows)


def _render(about: Suite, gates: Sequence[Mapping[str, Any]]) -> str:
    rows = gates or [{"gate": "gates", "outcome": INCONCLUSIVE, "reason": NO_GATE}]
    outcomes = [row["outcome"] for row in rows]
    counts = {"failures": outcomes.count(FAIL), "errors": outcomes.count(INCONCLUSIVE), "skipped": 0}
    totals = {"tests": str(len(rows)), **{name: str(count) for name, count in counts.items()}, "time": "0"}
    suites = ElementTree.Element("testsuites", {"name": "edgeprune", **_plain(totals)})
    stamp = about.created.partition("+")[0]  # the schema has no zones; it is UTC
    title = f"edgeprune {about.recipe} on {about.target}"
    facts = {"name": title, **totals, "timestamp": stamp, "hostname": about.host}
    suite = ElementTree.SubElement(suites, "testsuite", _plain(facts))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in about.properties.items():
        ElementTree.SubElement(properties, "property", _plain({"name": name, "value": value}))
    for row in rows:
        _add_case(suite, row, about)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)


def _add_case(suite: ElementTree.Element, row: Mapping[str, Any], about: Suite) -> None:
    names = {"classname": f"edgeprune.{about.target}.{about.recipe}", "name": row["gate"], "time": "0"}
    case, outcome = ElementTree.SubElement(suite, "testcase", _plain(names)), row["outcome"]
    reason = make_printable(row["reason"])
    if outcome != PASS:
        ElementTree.SubElement(case, TAGS[outcome], _plain({"message": reason, "type": outcome})).text = reason
    lines = [reason, *([make_printable(about.conditions)] if about.conditions else [])]
    ElementTree.SubElement(case, "system-out").text = "\n".join(lines)


def _plain(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Without what XML cannot hold."""
    return {name: make_printable(str(value)) for name, value in attributes.items()}
