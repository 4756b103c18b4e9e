"""A run's page: the first lines answer whether it passed, why, what was cut, and whether the board was hot."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from report_page import EVIL, make_evidence, make_explanation, make_report

from edgeprune.report.losses import render_losses
from edgeprune.report.page import render_report
from edgeprune.report.records import render_gates, render_parity, write_command
from edgeprune.report.words import say_change, say_count, say_plainly, say_span

EVIDENCE = make_evidence()


def read_head(report: dict[str, Any]) -> str:
    """The text of a page down to its first section."""
    head = render_report(report, EVIDENCE).partition("<nav")[0]
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", head.partition("<body>")[2])))


def test_the_head_answers_the_four_questions() -> None:
    text = read_head(make_report(EVIDENCE))
    assert "Failed: 1 of 3 gates held" in text
    assert "speedup at_least 2: fail, measured 1.9. 1.9 is not >= 2." in text
    assert "energy_mj at_most 1: inconclusive. Not measured." in text
    assert "91.25 >= 90" not in text, "what held is not why it failed"
    assert "Cut: 61 of 72 channels" in text
    assert "The board was not hot. 50.0 to 58.5 C, clock 1500 MHz" in text


def test_figures_have_interval_file_device_runtime_threads_and_inputs() -> None:
    text = read_head(make_report(EVIDENCE))
    assert "speed-up 1.90 times 95 % interval 1.850 to 1.950; median of the unpruned fp32 file over that of" in text
    assert f"in turns on Cortex-A72 ({EVIL})" in text
    assert re.search(r"latency 0\.5\d+ ms median, 95 % interval 0\.\d+ to 0\.\d+ ms; p95 0\.\d+ ms; artifacts/", text)
    assert "(fp32), onnxruntime 1.31.1, 1 thread; before 1.0" in text
    assert "budget 0.5 ms" in text
    assert "91.25 % 0.75 points worse; before 92.00 %; higher is better; on 400 inputs in the runtime" in text
    assert "NOT VALID" not in text


@pytest.mark.parametrize(("verdict", "words"), [("pass", "Passed: 3 of 3"), ("inconclusive", "Inconclusive: neither")])
def test_a_verdict_is_told_with_how_many_gates_held(verdict: str, words: str) -> None:
    report = make_report(EVIDENCE, verdict=verdict)
    report["gates"] = [{**row, "outcome": verdict} for row in report["gates"]]
    assert words in read_head(report)
    assert ("91.25 >= 90" in read_head(report)) == (verdict in ("pass", "inconclusive"))


def test_a_run_that_nothing_judged_says_so() -> None:
    assert "Passed: there was no gate" in read_head(make_report(EVIDENCE, verdict="pass", gates=[]))
    assert "nothing was judged" in render_gates(make_report(EVIDENCE, gates=[]))


@pytest.mark.parametrize("side", ["baseline", "result"])
def test_figures_of_an_invalid_run_decide_nothing(side: str) -> None:
    report = make_report(EVIDENCE)
    report[side] = {**report[side], "problems": ["throttled"]}
    text = read_head(report)
    assert "NOT VALID, decides nothing. 95 % interval 1.850" in text
    assert ("NOT VALID, decides nothing. Median" in text) == (side == "result")


def test_a_metric_that_is_better_when_lower_and_one_without_a_number() -> None:
    rmse = {"name": "RMSE", "better": "lower", "unit": "K"}
    report = make_report(EVIDENCE, metric=rmse)
    for name, value in (("result", 0.4), ("baseline", 0.3)):
        report[name] = {**report[name], "quality": value}
    assert "RMSE 0.4 K 0.1 K worse; before 0.3 K; lower is better" in read_head(report)
    report["result"] = {**report["result"], "quality": None}
    assert "no finite number; before 0.3 K" in read_head(report)


def test_a_slower_file_is_called_slower_and_a_surer_interval_by_its_confidence() -> None:
    report = make_report(EVIDENCE, speedup=0.8, speedup_interval=[0.7, 0.9])
    report["budget"]["asked_confidence"] = 0.99
    assert "0.80 times slower than before; 98 % interval 0.700 to 0.900" in read_head(report)


def test_no_name_of_a_user_becomes_markup() -> None:
    page = render_report(make_report(EVIDENCE), EVIDENCE)
    assert EVIL not in page
    assert "alert(" in page
    bodies = re.sub(r"<script type='application/json'>.*?</script>", "", page.partition("<script type=module>")[0])
    assert "<script" not in bodies


def test_the_whole_explanation_is_taken_before_the_short_one_of_the_report() -> None:
    short = {**make_explanation(), "classes": None, "outputs": None, "robustness": None}
    report = make_report(EVIDENCE, explanation=short)
    assert "Right answers by class" in render_report(report, EVIDENCE)
    page = render_report(report, replace(EVIDENCE, explanation=None))
    assert "Right answers by class" not in page
    assert "Layer by layer" in page


def test_classes_that_lost_are_named_and_the_confusion_coloured_by_what_it_became() -> None:
    html = unescape(render_losses(make_explanation()))
    assert f"Lost most: class {EVIL} -20.0 points (by chance alone as much in 0.01 of cases)." in html
    assert f"{EVIL} answered cat: +2; {EVIL} answered {EVIL}: -2" in html
    assert f"cat 100 to 100; {EVIL} 90 to 70; dog 100 to 100" in html
    assert html.count('"kind":"worse"') == 2
    assert "noise 3 80 to 60" in html


def test_a_regression_has_errors_of_inputs_in_place_of_classes() -> None:
    errors = {"inputs": 9, "unit": "K", "quantiles": [{"share": 0.9, "before": 0.1, "after": 0.2}], "lost_most": []}
    document = {**make_explanation(), "classes": None, "errors": errors, "robustness": None}
    html = render_losses({**document, "missing": {"robustness": "integers"}})
    assert "90% of inputs 0.1 to 0.2" in html
    assert "nothing is known: integers." in html
    assert "edgeprune explain --run DIR" in render_losses(None)


def test_a_broken_link_of_the_parity_chain_stands_out() -> None:
    html = render_parity(make_report(EVIDENCE)["parity"])
    assert "<p class=bad>1 of 2 links are within their limits.</p>" in html
    assert "channel 3 of 9" in html
    assert html.count("fail") == 1
    assert "No file was compared" in render_parity([])
    earlier = {"link": "a", "max_error": 0.1, "sqnr_db": 40.0, "top1_agreement": None}
    assert "not known" in render_parity([earlier])


def test_the_command_can_be_pasted() -> None:
    request = {
        "target": "rpi4",
        "recipe": "my net.py",
        "allow_busy": True,
        "speedup": 2.0,
        "fresh": False,
    }
    assert write_command(request) == "edgeprune deploy --target rpi4 --recipe 'my net.py' --allow-busy --speedup 2.0"


def test_figures_are_said_shortly() -> None:
    assert say_plainly(0.007185304183706889) == "0.007185"
    assert say_plainly([2400, 2400, 1800.25]) == "2400, 1800"
    assert say_plainly({"share": 1 / 3, "names": ("a", "a", "b")}) == "share 0.3333, names a, b"
    assert [say_count(count) for count in (7, 999, 12_206_720, 2.5e9)] == ["7", "999", "12.2 M", "2.5 G"]
    changes = [say_change(*pair) for pair in ((2000, 1000), (0, 5), (5, 5))]
    assert changes == ["2 k to 1 k (-50%)", "0 to 5", "5 as before"]
    assert [say_span([1500.2, 1500.4], "MHz"), say_span([1.0, 2.0], "C", 1)] == ["1500 MHz", "1.0 to 2.0 C"]
