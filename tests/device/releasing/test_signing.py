"""Signed releases: what ssh-keygen says of our signatures, and what a board that trusts keys refuses."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from device_models import LINEAR
from edgeprune_agent import signatures as board_side
from edgeprune_agent import trust as board_keys
from edgeprune_agent.errors import AgentError
from places import DEPLOY
from release_board import Board, make_run, read_run

from edgeprune.cli.boards import devices as devices_command
from edgeprune.cli.releases import release as release_command
from edgeprune.core.releasing.release import Release
from edgeprune.device.agent.client import Agent
from edgeprune.device.releasing.releases import activate_release, list_releases, push_release, roll_back
from edgeprune.device.releasing.signing import (
    distrust_key,
    list_keys,
    load_signing_key,
    read_public_key,
    sign,
    sign_release,
    trust_key,
)
from edgeprune.errors import EdgepruneError, RemoteError, UsageError

RUNNER = DEPLOY / "runner" / "run.py"
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "key")


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "ada@desk", "-f", path], check=True)
    return path


def never_ask() -> str:
    raise AssertionError("no passphrase is needed")


def public(key: Path) -> tuple[str, str]:
    return read_public_key(key.with_name(f"{key.name}.pub"))


def signed(release: Release, key: Path) -> Release:
    return sign_release(release, load_signing_key(key, never_ask))


# signing here


def test_our_signature_is_that_of_ssh_keygen(key: Path) -> None:
    """Ed25519 has no randomness: the same key and content give the same bytes."""
    content = b"a manifest\n" * 100
    command = ["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", "edgeprune-release"]
    theirs = subprocess.run(command, input=content, capture_output=True, check=True).stdout.decode()
    assert sign(content, load_signing_key(key, never_ask)) == theirs


@pytest.mark.parametrize("form", ["openssh", "openssh, encrypted", "pem", "pem, encrypted"])
def test_keys_are_read_in_both_forms(tmp_path: Path, form: str) -> None:
    made = Ed25519PrivateKey.generate()
    wrap = BestAvailableEncryption(b"secret") if "encrypted" in form else NoEncryption()
    kind = PrivateFormat.OpenSSH if "openssh" in form else PrivateFormat.PKCS8
    path = tmp_path / "key"
    path.write_bytes(made.private_bytes(Encoding.PEM, kind, wrap))
    ask = (lambda: "secret") if "encrypted" in form else never_ask
    assert sign(b"x", load_signing_key(path, ask)) == sign(b"x", made)
    if "encrypted" in form:
        with pytest.raises(UsageError, match="the passphrase is wrong") as caught:
            load_signing_key(path, lambda: "guess")
        assert "guess" not in str(caught.value)


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path, key: Path) -> None:
    rsa = make_key(tmp_path / "rsa", "ecdsa")
    (tmp_path / "text").write_text("text")
    for path, said in ((rsa, "no ed25519 key; make one"), (tmp_path / "text", "no private key"), (tmp_path, "be read")):
        with pytest.raises(UsageError, match=said):
            load_signing_key(path, never_ask)
    for path in (rsa.with_suffix(".pub"), tmp_path / "text", key):
        with pytest.raises(UsageError, match="is no ed25519 public key"):
            read_public_key(path)


def test_a_key_of_the_name_of_a_shell_command_is_renamed(key: Path) -> None:
    text = public(key)[0]
    key.with_suffix(".pub").write_text(f"ssh-ed25519 {text} $(reboot) x; y\n")
    assert public(key) == (text, "__reboot__x__y")


# the board


def test_a_board_that_trusts_a_key_takes_what_it_signed_and_nothing_else(
    agent: Agent, board: Board, tmp_path: Path, key: Path
) -> None:
    release, model = read_run(tmp_path / "a", LINEAR)
    assert trust_key(agent, *public(key))[0].name == "ada@desk"
    with pytest.raises(RemoteError, match=f"release {release.id} is not signed; this board takes what is signed by"):
        push_release(agent, release, model)
    with pytest.raises(RemoteError, match=f"release {release.id} is not signed by a key of .*allowed_signers"):
        push_release(agent, signed(release, make_key(tmp_path / "other")), model)
    assert list_releases(agent) == []
    push_release(agent, signed(release, key), model)
    activate_release(agent, release.id)
    assert [row.signature for row in list_releases(agent)] == ["trusted"]
    assert board.active() == release.id
    signers = board.folder / "allowed_signers"
    assert signers.stat().st_mode & 0o777 == 0o600


def test_an_active_release_whose_signature_is_lost_runs_no_more(
    agent: Agent, board: Board, tmp_path: Path, key: Path
) -> None:
    release, model = read_run(tmp_path / "a", LINEAR)
    trust_key(agent, *public(key))
    push_release(agent, signed(release, key), model)
    activate_release(agent, release.id)
    (board.folder / release.id / "manifest.json.sig").unlink()
    with pytest.raises(RemoteError, match=rf"release {release.id} is not signed.*; sign it: edgeprune release push"):
        activate_release(agent, release.id)
    assert [row.signature for row in list_releases(agent)] == ["refused"]
    done = board.run("--check")
    assert done.returncode == 1
    assert "is not signed by a key of" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert push_release(agent, signed(release, key), model).sent_bytes == 0
    assert board.active() == release.id


def test_files_changed_with_their_hashes_are_refused(agent: Agent, board: Board, tmp_path: Path, key: Path) -> None:
    """Whoever changes the model and its manifest, and names the folder anew, has no signature for that."""
    release, model = read_run(tmp_path / "a", LINEAR)
    other, changed = read_run(tmp_path / "b", replace(LINEAR, cout=3))
    trust_key(agent, *public(key))
    push_release(agent, signed(release, key), model)
    place, forged = board.folder / release.id, board.folder / other.id
    shutil.copytree(place, forged)
    (forged / "manifest.json").write_text(other.manifest)
    (forged / "model.onnx").write_bytes(changed)
    with pytest.raises(RemoteError, match=f"release {other.id} is not signed by a key"):
        activate_release(agent, other.id)
    (board.folder / "current").symlink_to(other.id)
    assert "is not signed by a key of" in board.run("--check").stderr
    (place / "run.py").write_text("print('other')")
    with pytest.raises(RemoteError, match=r"run\.py of release .* is damaged or missing"):
        activate_release(agent, release.id)
    (place / "manifest.json").write_text(release.manifest.replace("90.5", "99.5"))
    with pytest.raises(RemoteError, match=r"manifest of release .* is damaged or missing"):
        activate_release(agent, release.id)


def test_rollback_refuses_what_is_not_signed(agent: Agent, board: Board, tmp_path: Path, key: Path) -> None:
    made = [read_run(tmp_path / str(count), replace(LINEAR, cout=count)) for count in (3, 4)]
    ids = [release.id for release, _ in made]
    for release, model in made:
        push_release(agent, release, model)
        activate_release(agent, release.id)
    with pytest.raises(RemoteError, match=rf"the active release {ids[1]} would not run any more, as it is not signed"):
        trust_key(agent, *public(key))
    assert (list_keys(agent), board.active()) == (("", []), ids[1])
    push_release(agent, signed(made[1][0], key), made[1][1])
    assert [row.signature for row in list_releases(agent)] == ["none", "not checked"]
    trust_key(agent, *public(key))
    with pytest.raises(RemoteError, match=f"release {ids[0]} is not signed"):
        roll_back(agent)
    assert board.active() == ids[1]


def test_keys_come_and_go(agent: Agent, board: Board, tmp_path: Path, key: Path) -> None:
    second = make_key(tmp_path / "second")
    signers = board.folder / "allowed_signers"
    shown = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True).stdout.split()[1]
    assert [one.fingerprint for one in trust_key(agent, *public(key))] == [shown]
    signers.write_text("# the team's\n" + signers.read_text())
    assert len(trust_key(agent, *public(second))) == len(trust_key(agent, *public(second))) == 2
    assert signers.read_text().startswith("# the team's\n")
    release, model = read_run(tmp_path / "a", LINEAR)
    push_release(agent, signed(release, second), model)
    activate_release(agent, release.id)
    with pytest.raises(RemoteError, match=r"the active release .* would not run any more"):
        distrust_key(agent, public(second)[0])
    distrust_key(agent, public(key)[0])
    signers.write_text("".join(line for line in signers.read_text().splitlines(True) if line[0] != "#"))
    assert distrust_key(agent, public(second)[0]) == []
    assert not signers.exists()
    assert board.active() == release.id


def test_a_file_without_a_key_and_a_broken_link_keep_everything_out(
    agent: Agent, board: Board, tmp_path: Path, key: Path
) -> None:
    release, model = read_run(tmp_path / "a", LINEAR)
    signers = board.folder / "allowed_signers"
    board.folder.mkdir(parents=True)
    signers.touch()
    for _ in range(2):
        with pytest.raises(RemoteError, match="is not signed by a key of"):
            push_release(agent, signed(release, key), model)
        signers.unlink()
        signers.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("key_", "name"),
    [
        ("A" * 68, "x"),
        ("AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 42 + "\n", "x"),
        ("AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43, "x\nedgeprune ssh-ed25519 AAAA"),
        ("AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43, "x y"),
        ("", ""),
    ],
)
def test_no_other_line_gets_into_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_: str, name: str
) -> None:
    with pytest.raises(AgentError, match="no ed25519 public key"):
        board_keys.change(tmp_path, {"action": "add", "key": key_, "name": name})
    assert list(tmp_path.iterdir()) == []


# the administrator's file, a board without ssh-keygen: the agent's side and the runner's alike


def load_runner(place: Path) -> ModuleType:
    """The runner of a release's folder, as a module."""
    spec = importlib.util.spec_from_file_location("runner", place / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def place(tmp_path: Path, key: Path) -> Path:
    """A release's folder, signed, on a board that trusts the key."""
    release, model = read_run(tmp_path / "a", LINEAR)
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "manifest.json").write_text(release.manifest)
    (folder / "manifest.json.sig").write_text(signed(release, key).signature)
    (folder / "run.py").write_text(release.runner)
    (folder / "model.onnx").write_bytes(model)
    write_signers(tmp_path / "allowed_signers", key)
    return folder


def write_signers(path: Path, key: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'edgeprune namespaces="edgeprune-release" ssh-ed25519 {public(key)[0]} x\n')


def check_both(place: Path, patched: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What the agent's side and the runner say of a release; empty where they take it."""
    manifest, signature = ((place / name).read_bytes() for name in ("manifest.json", "manifest.json.sig"))
    runner, said = load_runner(place), []
    monkeypatch.setattr(board_side, "SYSTEM", patched.get("system", board_side.SYSTEM))
    monkeypatch.setattr(runner, "SIGNERS", (patched.get("system", runner.SIGNERS[0]), runner.SIGNERS[1]))
    signers = board_side.find_signers(place.parent)
    assert signers is not None
    for check in (lambda: board_side.check_signature(manifest, signature, signers), runner.read_release):
        try:
            check()
            said.append("")
        except (AgentError, runner.Refused) as exc:
            said.append(str(exc))
    return said[0], said[1]


def test_agent_and_runner_look_in_the_same_places_for_the_same(place: Path) -> None:
    runner = load_runner(place)
    assert (board_side.SYSTEM, place.parent / board_side.OWN) == runner.SIGNERS
    assert (runner.IDENTITY, runner.NAMESPACE) == (board_side.IDENTITY, board_side.NAMESPACE)


@pytest.mark.parametrize("fault", ["empty", "of another key", "of another content", "for another purpose", "text"])
def test_a_signature_that_does_not_verify_is_refused(
    place: Path, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    manifest = (place / "manifest.json").read_bytes()
    texts = {
        "empty": "",
        "of another key": sign(manifest, load_signing_key(make_key(tmp_path / "other"), never_ask)),
        "of another content": sign(manifest + b" ", load_signing_key(key, never_ask)),
        "for another purpose": sign_as_file(manifest, key),
        "text": "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n",
    }
    (place / "manifest.json.sig").write_text(texts[fault])
    assert all("not signed" in said for said in check_both(place, {}, monkeypatch))


def sign_as_file(content: bytes, key: Path) -> str:
    command = ["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", "file"]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout.decode()


def test_the_administrators_file_alone_counts(
    place: Path, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "etc" / "allowed_signers"
    assert check_both(place, {}, monkeypatch) == ("", "")
    write_signers(system, make_key(tmp_path / "other"))
    assert all("not signed by a key of" in said for said in check_both(place, {"system": system}, monkeypatch))
    write_signers(system, key)
    (tmp_path / "allowed_signers").unlink()
    assert check_both(place, {"system": system}, monkeypatch) == ("", "")
    monkeypatch.setattr(board_keys, "SYSTEM", system)
    with pytest.raises(AgentError, match=r"the administrator of this board says in .* whose releases it takes"):
        board_keys.change(tmp_path, {"action": "add", "key": public(key)[0], "name": ""})


@pytest.mark.parametrize("keygen", ["absent", "too old", "hangs"])
def test_what_cannot_be_verified_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keygen: str
) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    programs = {"too old": "echo 'unknown option -- Y' >&2; exit 1", "hangs": "exec sleep 60"}
    if keygen in programs:
        (bin_ / "ssh-keygen").write_text(f"#!{shutil.which('sh')}\nPATH=/bin:/usr/bin\n{programs[keygen]}\n")
        (bin_ / "ssh-keygen").chmod(0o700)
    monkeypatch.setenv("PATH", str(bin_))
    monkeypatch.setattr(board_side, "VERIFY_S", 0.3)
    said = {"absent": "No such file", "too old": "unknown option", "hangs": "timed out"}[keygen]
    runner = load_runner(place)
    monkeypatch.setattr(runner, "VERIFY_S", 0.3)
    manifest, signature = ((place / name).read_bytes() for name in ("manifest.json", "manifest.json.sig"))
    signers = board_side.find_signers(place.parent)
    assert signers is not None
    with pytest.raises(AgentError, match=said):
        board_side.check_signature(manifest, signature, signers)
    with pytest.raises(runner.Refused, match=said):
        runner.read_release()


# the commands


def test_the_commands_sign_and_trust(board: Board, tmp_path: Path, key: Path) -> None:
    def call(*words: str, group: Any = devices_command, stdin: str = "") -> str:
        done = CliRunner().invoke(group, [*words, "--target", "local", "--host", "board"], input=stdin)
        assert isinstance(done.exception, EdgepruneError | None), done.output
        return f"{done.output}{done.exception or ''}"

    run, locked = str(make_run(tmp_path / "a", LINEAR)), make_key(tmp_path / "locked", passphrase="secret")
    assert "takes every release" in call("keys")
    assert "board: trusts SHA256:" in call("trust-key", str(key.with_suffix(".pub")))
    assert "ada@desk" in call("keys")
    assert "is not signed" in call("push", "--run", run, group=release_command)
    assert "is not signed by a key" in call(
        "push", "--run", run, "--sign", str(locked), group=release_command, stdin="secret\n"
    )
    assert "active; there:" in call("push", "--run", run, "--sign", str(key), "--activate", group=release_command)
    assert "trusted" in call("list", group=release_command)
    assert "board: trusts SHA256:" in call("trust-key", "--remove", str(tmp_path / "locked.pub"))
    assert "takes every release" in call("trust-key", "--remove", str(key.with_suffix(".pub")))
    assert board.active()
