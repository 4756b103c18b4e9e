"""docs/ci.md: its CI files are parsed, and their steps run in a repository made here, as a CI server runs them.

What fetches or posts is replaced on PATH; `edgeprune measure` lays down a run that was recorded, all else is real.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from judged_run import judge_run
from measured_run import Shipped, record_measured_run
from places import ROOT

PAGE = (ROOT / "docs" / "ci.md").read_text()
GITHUB, GITLAB = (yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SERVICES = ("pip", "gh", "curl", "ssh-agent", "ssh-add")
REPEATED = 20
PLANTED: dict[str, tuple[float, float, int]] = {
    "nothing": (0.4, 0.79, 0),
    "slower": (0.44, 0.79, 3),
    "worse": (0.4, 0.70, 3),
}
"""What is planted: latency in ms and F1 of what ships, and the exit code of the gate. The baseline has 0.4 and 0.79."""
GATES = '[[gates]]\nmetric = "quality"\nat_least = 0.75\n'


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its exit code, what it printed, and what the services were called with."""

    code: int
    printed: str
    calls: list[str]


def run_script(script: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder, env=dict(environment), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def settle(value: str, context: Mapping[str, str]) -> str:
    """A value with its `${{ ... }}` as the server fills them in."""
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda match: context[match[1]], value)


CONTEXT = {
    "github.run_id": "17", "vars.EDGEPRUNE_HOST": "local", "secrets.BOARD_HOST_KEY": "board ssh-ed25519 AAAA",
    "secrets.BOARD_SSH_KEY": "a key", "github.token": "a token", "github.event.number": "5", "env.RUN": "runs/17",
}  # fmt: skip


def run_github(folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The steps in order; after one that fails, those that say so."""
    job, code, printed = GITHUB["jobs"]["gate"], 0, ""
    context = {**CONTEXT, "github.workspace": str(folder)}
    environment = environment | {name: settle(value, context) for name, value in job["env"].items()}
    for step in job["steps"]:
        if "run" not in step or (code and "!cancelled()" not in step.get("if", "")):
            continue
        own = {name: settle(str(value), context) for name, value in step.get("env", {}).items()}
        completed = run_script(step["run"], folder, environment | own)
        printed += completed.stdout + completed.stderr
        code = code or completed.returncode
    return code, printed


def run_gitlab(folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """before_script and script in one shell, after_script in another whatever became of them."""
    variables = {"CI_PIPELINE_ID": "17", "CI_PROJECT_DIR": str(folder), "BOARD_HOST_KEY": "board ssh-ed25519 AAAA"}
    variables |= {
        "BOARD_SSH_KEY": "a key",
        "COMMENT_TOKEN": "a token",
        "CI_API_V4_URL": "https://gitlab.example/api/v4",
    }
    variables |= {"CI_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "5", "EDGEPRUNE_HOST": "local"}
    job = GITLAB["edgeprune"]
    for name, value in job["variables"].items():
        variables[name] = re.sub(r"\$(\w+)", lambda match: variables[match[1]], value)
    main = run_script("\n".join([*job["before_script"], *job["script"]]), folder, environment | variables)
    after = run_script("\n".join(job["after_script"]), folder, environment | variables)
    return main.returncode, "".join((main.stdout, main.stderr, after.stdout, after.stderr))


SERVERS: dict[str, Callable[[Path, dict[str, str]], tuple[int, str]]] = {"GitHub": run_github, "GitLab": run_gitlab}


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with gates and a baseline, and the programs that its CI files call."""
    base = tmp_path_factory.mktemp("ci")
    folder, programs = base / "repository", base / "bin"
    folder.mkdir()
    programs.mkdir()
    (folder / "gates.toml").write_text(GATES)
    (folder / "my_recipe.py").write_text("# a recipe")
    for name in SERVICES:
        write_program(programs / name, f'echo {name} "$@" >> "$CALLS"; [ -t 0 ] || cat > /dev/null')
    write_program(programs / "curl", 'echo curl "$@" >> "$CALLS"; [[ "$*" = *per_page* ]] && echo "$NOTES"')
    write_program(
        programs / "edgeprune",
        f'if [ "$1" = measure ]; then mkdir -p runs && cp -r "$PLANTED" "$RUN"; '
        f'else exec {shlex.quote(sys.executable)} -m edgeprune "$@"; fi',
    )
    passed = judge_run(base / "passed", shipped=Shipped(processes=8, energy=None))
    command = [sys.executable, "-m", "edgeprune", "baseline", "set", "main", "--run", str(passed)]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    return folder


def run_job(
    server: str, planted: str, seed: int, repository: Path, base: Path, notes: Sequence[Mapping[str, Any]] = ()
) -> Outcome:
    """One job of a CI server on a change that plants something; `notes` are the comments that the change has."""
    latency_ms, quality, _ = PLANTED[planted]
    noisy_ms = latency_ms * (1 + random.Random(seed).uniform(-0.002, 0.002))
    run = record_measured_run(base / "planted", noisy_ms, shipped=Shipped(processes=8, quality=quality, energy=None))
    folder, calls, home = base / "checkout", base / "calls", base / "home"
    subprocess.run(["cp", "-r", str(repository), str(folder)], check=True)
    home.mkdir()
    environment = {
        "PATH": f"{repository.parent / 'bin'}:{os.environ['PATH']}", "HOME": str(home), "PYTHONPATH": str(ROOT),
        "CALLS": str(calls), "PLANTED": str(run), "GITHUB_ENV": str(base / "env"), "CI": "true",
        "GITHUB_STEP_SUMMARY": str(base / "summary.md"), "EDGEPRUNE_HISTORY": "",
        "NOTES": json.dumps(list(notes)),
    }  # fmt: skip
    code, printed = SERVERS[server](folder, environment)
    return Outcome(code, printed, calls.read_text().splitlines())


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("server", SERVERS)
def test_a_planted_regression_fails_the_job_and_is_told(
    server: str, planted: str, repository: Path, tmp_path: Path
) -> None:
    outcome = run_job(server, planted, 0, repository, tmp_path)
    assert outcome.code == PLANTED[planted][2], outcome.printed
    run = tmp_path / "checkout" / "runs" / "17"
    verdict = "fail" if outcome.code else "pass"
    assert f"verdict: {verdict}" in outcome.printed
    assert f"{verdict}: mine on board" in (run / "gates.md").read_text().splitlines()[0]
    assert [call.split()[0] for call in outcome.calls] == [
        "pip", "ssh-agent", "ssh-add", *(["gh"] if server == "GitHub" else ["curl", "curl"])
    ]  # fmt: skip
    assert bool(list((run / "baselines" / "main").glob("*.json"))) == (planted == "nothing")
    assert "runs/17/gates.md" in outcome.calls[-1]
    assert "a key" not in " ".join(outcome.calls) + outcome.printed
    known = (tmp_path / "home" / ".ssh" / "known_hosts").read_text()
    assert known == "board ssh-ed25519 AAAA\n"
    if server == "GitHub":
        assert (tmp_path / "summary.md").read_text().strip() == (run / "gates.md").read_text().strip()


def test_a_change_has_one_comment_that_is_edited(repository: Path, tmp_path: Path) -> None:
    for place, notes in {"first": [], "again": [{"id": 41, "body": "### pass\n<!-- edgeprune -->"}]}.items():
        (tmp_path / place).mkdir()
        others = [{"id": 7, "body": "by a person"}]
        calls = run_job("GitLab", "slower", 0, repository, tmp_path / place, [*others, *notes]).calls
        address = "merge_requests/5/notes/41" if notes else "merge_requests/5/notes"
        assert calls[-1].endswith(address)
        assert ("--request PUT" in calls[-1]) == bool(notes)


@pytest.mark.slow
@pytest.mark.parametrize("planted", PLANTED)
def test_each_of_twenty_jobs_comes_to_the_right_end(planted: str, repository: Path, tmp_path: Path) -> None:
    codes = []
    for seed in range(REPEATED):
        place = tmp_path / str(seed)
        place.mkdir()
        codes.append(run_job("GitHub", planted, seed, repository, place).code)
    assert codes == [PLANTED[planted][2]] * REPEATED


def test_a_key_that_is_known_is_not_written_again(tmp_path: Path) -> None:
    step = next(step for step in GITHUB["jobs"]["gate"]["steps"] if step.get("name") == "Reach the board")
    (line,) = [line for line in step["run"].splitlines() if "known_hosts" in line]
    (tmp_path / ".ssh").mkdir()
    for key in ("a", "a", "b"):
        run_script(line, tmp_path, {"HOME": str(tmp_path), "HOST_KEY": key, "PATH": os.environ["PATH"]})
    assert (tmp_path / ".ssh" / "known_hosts").read_text() == "a\nb\n"


def test_what_comes_from_outside_is_never_part_of_a_script() -> None:
    """An expression in a script is replaced before the shell reads it: whoever names a branch could run commands."""
    steps = GITHUB["jobs"]["gate"]["steps"]
    assert not [step for step in steps if "${{" in step.get("run", "")]
    assert all(re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", step["uses"]) for step in steps if "uses" in step)
    assert GITHUB["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert "head.repo.full_name == github.repository" in GITHUB["jobs"]["gate"]["if"]


def test_files_that_are_kept_are_those_that_a_run_has(repository: Path) -> None:
    kept = [step["with"]["path"] for step in GITHUB["jobs"]["gate"]["steps"] if "upload" in step.get("uses", "")]
    names = re.findall(r"/([\w.]+)$", kept[0], re.MULTILINE)
    job: Any = GITLAB["edgeprune"]["artifacts"]
    names += [path.split("/")[-1] for path in (*job["paths"], job["reports"]["junit"])]
    assert set(names) - {"baselines"} == {"gates.junit.xml", "report.html", "report.json"}
    assert all((repository.parent / "passed" / name).is_file() for name in set(names) - {"baselines"})
    assert names.count("baselines") == 2  # the job itself makes it, once the gate passes
    assert job["when"] == "always"
