"""Fuzzing: what boards, phones and files may say, 10,000 cases of each property of the tests: results/fuzz.json.

    .venv/bin/python benchmarks/fuzz.py [--cases 10000] [--only WORD]

Each of the twenty kinds of conversation with an agent is tried on a twentieth of them. The properties are those that
`make test` tries on fewer cases: nothing but an error of edgeprune's own comes of any input, and each comes to an end.
The cases are drawn anew each time; the result file grows with each property.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from machine import describe_machine

from edgeprune.run import read_json, write_json

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "deploy" / "agent")]

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
MESSAGES = "test_device_conversations.test_no_answer_of_an_agent_is_a_traceback"
CONVERSATIONS = 20
"""Each of the twenty conversations is tried on so small a share of the cases."""
PROPERTIES: dict[str, tuple[str, ...]] = {
    "agent messages": (
        MESSAGES,
        "test_device_agent.test_no_lines_upset_the_reader",
        "test_device_lease.test_a_lease_in_other_words_is_an_error_of_ours",
        "test_device_providers.test_no_profile_upsets_the_count",
    ),
    "facts": (
        "test_device_texts.test_no_greeting_of_a_board_is_a_traceback",
        "test_device_facts.test_no_text_upsets_a_parser",
        "test_device_doctor.test_whatever_a_board_prints_is_read",
    ),
    "phones": (
        "test_device_texts.test_no_text_of_a_phone_is_a_traceback",
        "test_core_phone.test_no_text_upsets_a_parser",
    ),
    "meters": (
        "test_device_power.test_no_text_upsets_a_parser",
        "test_device_power.test_no_phone_draws_more_than_a_phone_can",
        "test_device_energy.test_no_answer_upsets_a_plugs_parser",
        "test_device_energy.test_a_commands_lines_are_readings_or_nothing",
        "test_core_energy.test_no_windows_upset_the_parser",
        "test_core_energy.test_no_readings_upset_the_figures",
    ),
    "targets": (
        "test_device_documents.test_a_changed_target_is_one_or_a_clear_error",
        "test_device_documents.test_a_spliced_target_is_one_or_a_clear_error",
        "test_device_energy.test_any_power_table_is_a_source_or_a_clear_error",
        "test_core_gate.test_any_document_is_a_target_or_a_clear_error",
    ),
    "devices.toml": (
        "test_device_documents.test_spliced_devices_are_some_or_a_clear_error",
        "test_device_address.test_no_document_upsets_the_devices_parser",
        "test_device_address.test_no_text_upsets_the_parser",
        "test_core_fleet.test_no_document_upsets_the_groups_parser",
    ),
}


def expand(name: str, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A property with its fixture, once for each conversation where it is of these."""
    module_name, function_name = name.split(".")
    module = import_module(module_name)
    function = getattr(module, function_name)
    takes = inspect.signature(function).parameters
    if "name" in takes:
        yield from ((f"{name}[{case}]", partial(function, name=case)) for case in module.CASES)
    else:
        yield name, partial(function, folder=folder) if "folder" in takes else function


def prepare(cases: int) -> None:
    """Import the tests so that each property tries so many cases, and each of the conversations a share of them."""
    import_module("conftest")
    rare = settings(derandomize=False, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    for share, modules in ((CONVERSATIONS, [MESSAGES]), (1, [name for names in PROPERTIES.values() for name in names])):
        settings.register_profile("fuzz", rare, max_examples=cases // share)
        settings.load_profile("fuzz")
        for name in modules:
            import_module(name.split(".")[0])


def main() -> None:
    """Try every property that is asked for; write the result file, or end with the first failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    prepare(options.cases)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HOME": folder, "XDG_CONFIG_HOME": folder}
        properties = [
            (kind, row)
            for kind, names in PROPERTIES.items()
            for pattern in names
            for row in expand(pattern, Path(folder))
        ]
        for kind, (name, try_it) in properties:
            if options.only not in f"{kind} {name}":
                continue
            begun = time.process_time()
            try_it()
            cases = options.cases // (CONVERSATIONS if name.startswith(MESSAGES) else 1)
            seconds = round(time.process_time() - begun, 1)
            record({"kind": kind, "property": name, "cases": cases, "cpu_seconds": seconds})
            print(f"{seconds:7.1f} s  {name}", flush=True)


def record(row: dict[str, Any]) -> None:
    """Write a property's row into the result file, in place of an older one."""
    before = read_json(RESULTS)["rows"] if RESULTS.exists() else []
    rows = [other for other in before if other["property"] != row["property"]] + [row]
    document = {
        "what": "none of these cases, drawn anew each time, ended otherwise than by an error of edgeprune's own",
        "machine": describe_machine(["hypothesis"]),
        "cases": {kind: sum(row["cases"] for row in rows if row["kind"] == kind) for kind in PROPERTIES},
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows), 1),
        "rows": rows,
    }
    write_json(RESULTS, document)


if __name__ == "__main__":
    main()
