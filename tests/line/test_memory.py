"""A second run in another directory: what the first has measured and scored is found again, whatever its budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from line import QUICK, TINY

import edgeprune as ep
from edgeprune.deployment import REQUEST as OPTIONS
from edgeprune.pipeline import deploy as run_line
from edgeprune.pipeline import open_job
from edgeprune.stages import latency
from edgeprune.stages.results import Fitted, Profiled, Scored, Traced


@pytest.mark.slow
def test_another_run_measures_and_scores_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(latency, "_is_undisturbed", lambda profiled: True)  # other tests run beside this one
    ep.deploy(tmp_path / "first", lambda text: None, **REQUEST, latency_ms=1e6)
    said: list[str] = []
    request = {**dict.fromkeys(OPTIONS), **REQUEST, "speedup": 1.2}
    with open_job(tmp_path / "second", request, said.append) as job:
        run_line(job, "fit")
        profiled, scored = job.read(Profiled), job.read(Scored)
        with open_job(tmp_path / "first", dict.fromkeys(request), said.append) as first:
            assert job.read(Traced).model_sha256 == first.read(Traced).model_sha256
            assert (profiled.recalled, scored.recalled) == (True, True)
            assert profiled.baseline_ms == first.read(Profiled).baseline_ms
            assert scored.loss == first.read(Scored).loss
            assert job.read(Fitted).plan.widths != first.read(Fitted).plan.widths
    assert any("--fresh measures anew" in line for line in said)
    assert not any("layer shapes" in line or "sensitivity" in line for line in said)


REQUEST = {"target": str(QUICK), "recipe": str(TINY), "host": "local", "allow_busy": True}
