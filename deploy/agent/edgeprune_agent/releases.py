"""Releases on the board: folders named by their content, and `current`, which leads to the active one.

releases/ID/manifest.json, run.py, model.onnx or model.tflite    ID: the first 16 digits of the manifest's sha256
releases/ID/manifest.json.sig                                     the manifest's signature, where it was signed
releases/ID.part/                                                 on its way here, or out
releases/current -> ID                                            switched by renaming
releases/activated.json                                           IDs in the order in which they became active
releases/allowed_signers                                          whose releases are taken; see signatures.py

A folder gets its name once all of it is there, verified and on the disk. Nothing in it is changed after that, but its
signature may be replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.files import home
from edgeprune_agent.lease import find_holder, guarded
from edgeprune_agent.signatures import check_signature, find_signers

ID = re.compile(r"[0-9a-f]{16}")
MODELS = ("model.onnx", "model.tflite")
MANIFEST, SIGNATURE, RUNNER = "manifest.json", "manifest.json.sig", "run.py"
CURRENT, ACTIVATED = "current", "activated.json"
TRIAL_S = 90
SPARE_BYTES = 1 << 20
"""What must stay free beside a release, for the folder itself and the small files."""


def release(request: dict[str, Any], root: str, events: Events) -> None:
    """Do one thing with the releases; the result says how they stand, and what else there is to say.

    With `instead_of_lease`, the request for a lease that there was no room for, the leases stay locked meanwhile.

    Raises:
        AgentError: somebody else has the lease.
    """
    folder = home() / "releases"
    folder.mkdir(exist_ok=True)
    lease_request = request.get("instead_of_lease")
    with guarded(lease_request) if lease_request else nullcontext():
        if lease_request and find_holder(lease_request) is not None:
            raise AgentError("request", "somebody else uses or has reserved this board; try again later")
        outcome = ACTIONS[request["action"]](folder, request)
    events.emit("result", **outcome, releases=describe(folder), folder=str(folder))


def prepare(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Begin or resume a release, where there is space: its small files are written, what is there of its model is told.

    Raises:
        AgentError: the manifest is not what its name says, or not signed as this board asks.
    """
    place = find(folder, request["id"])
    content, signature = request["manifest"].encode(), request["signature"].encode()
    if hashlib.sha256(content).hexdigest()[:16] != place.name:
        raise AgentError("hash", f"the manifest of release {place.name} was damaged on the way; push it again")
    check_signed(place, content, signature)
    if is_whole(place):
        if signature:
            write_whole(place / SIGNATURE, request["signature"])
        return {"there": True}
    part, model = part_of(place), read_manifest(content)["model"]
    if part.is_symlink() or (part.exists() and not part.is_dir()):
        remove_all(part)
    begun = part / model["file"]
    if begun.is_symlink() or begun.is_dir():
        remove_all(begun)
    had = begun.stat().st_size if begun.is_file() else 0
    needed = max(0, model["bytes"] - had) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed <= free:
        part.mkdir(exist_ok=True)
        files = {MANIFEST: content, RUNNER: request["runner"].encode(), **({SIGNATURE: signature} if signature else {})}
        for name, text in files.items():
            if (part / name).is_symlink() or (part / name).is_dir():
                remove_all(part / name)
            (part / name).write_bytes(text)
    return {"there": False, "needed": needed, "free": free, "part": str(begun), "had": had, "sha256": hash_of(begun)}


def finish(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Name a release that is all here.

    Raises:
        AgentError: it is not, then its model is removed, to be sent anew; or it is not signed as this board asks.
    """
    place = find(folder, request["id"])
    part = part_of(place)
    try:
        verify(part)
    except AgentError:
        for name in MODELS:
            remove_all(part / name)
        raise
    require_signed(part)
    for path in sorted(part.iterdir()):
        if path.is_file() and not path.is_symlink():
            sync(path)
    sync(part)
    remove_all(place)  # damaged since it came here
    part.replace(place)
    sync(folder)
    return {}


def activate(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Try a release, then let `current` lead to it; whatever fails, the one before stays.

    Raises:
        AgentError: there is no such release, it is damaged, not signed as this board asks, or does not run here.
    """
    place = find(folder, request["id"])
    if place.is_symlink() or not place.is_dir():
        raise AgentError("request", f"no release {request['id']} here")
    verify(place)
    require_signed(place)
    trial = try_out(place)
    order, current = read_activated(folder), find_current(folder)
    order = order[: order.index(current) + 1] if current in order else order
    write_whole(folder / ACTIVATED, json.dumps([*(name for name in order if name != place.name), place.name]))
    switch(folder, place.name)
    return {"trial": trial}


def rollback(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Let `current` lead to the release that was active before.

    Raises:
        AgentError: there is none, or it is damaged, not signed as this board asks, or does not run here.
    """
    before = find_previous(folder)
    if before is None:
        raise AgentError("request", "no release was active before the current one")
    place = find(folder, before)
    verify(place)
    require_signed(place)
    trial = try_out(place)
    switch(folder, place.name)
    return {"trial": trial}


def prune(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Remove all releases but the active one, the one to go back to, and the newest `keep` of the rest.

    What broken pushes and removals have left goes first: it makes room, and stands in nobody's way then.
    """
    for path in folder.glob("*.part"):
        remove_all(path)
    protected = {find_current(folder), find_previous(folder)}
    rest = [path for path in list_places(folder) if path.name not in protected]
    removed = rest[: len(rest) - request["keep"]] if request["keep"] < len(rest) else []
    for path in removed:
        gone = part_of(path)
        try:
            path.replace(gone)
        except OSError:  # no room for a longer name
            gone = path
        remove_all(gone)
    return {"removed": [path.name for path in removed]}


ACTIONS = {
    "list": lambda folder, request: {},
    "prepare": prepare,
    "finish": finish,
    "activate": activate,
    "rollback": rollback,
    "prune": prune,
}


def remove_all(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; nothing where there is nothing."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    for inner in path.iterdir():
        remove_all(inner)
    path.rmdir()


def find(folder: Path, name: object) -> Path:
    """The folder of a release.

    Raises:
        AgentError: the name is no such name.
    """
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise AgentError("request", f"{name!r} is no release; expected 16 hexadecimal digits")
    return folder / name


def part_of(place: Path) -> Path:
    """Where a release lies while it is not whole."""
    return place.with_name(f"{place.name}.part")


def read_manifest(content: bytes) -> Any:
    """A manifest whose model has one of the names that are allowed.

    Raises:
        AgentError: it is none.
    """
    try:
        manifest = json.loads(content)
        model = manifest["model"]
        is_valid = model["file"] in MODELS and isinstance(model["bytes"], int) and isinstance(model["sha256"], str)
        is_valid = is_valid and isinstance(manifest["runner"]["sha256"], str)
    except (ValueError, TypeError, KeyError, RecursionError):
        is_valid = False
    if not is_valid:
        raise AgentError("hash", "the release's manifest is not one; push it again")
    return manifest


def verify(place: Path) -> None:
    """Require that a release is what its manifest says, and the manifest what the folder's name says.

    Raises:
        AgentError: it is not.
    """
    name = place.name[:16]
    content = read_file(place / MANIFEST)
    if hashlib.sha256(content).hexdigest()[:16] != name:
        raise AgentError("hash", f"the manifest of release {name} is damaged or missing; push it again")
    manifest = read_manifest(content)
    for file, entry in ((manifest["model"]["file"], manifest["model"]), (RUNNER, manifest["runner"])):
        if hash_of(place / file) != entry["sha256"]:
            raise AgentError("hash", f"{file} of release {name} is damaged or missing; run the same command again")


def require_signed(place: Path) -> None:
    """Require that a release is signed as this board asks.

    Raises:
        AgentError: it is not.
    """
    check_signed(place, read_file(place / MANIFEST), read_file(place / SIGNATURE))


def check_signed(place: Path, content: bytes, signature: bytes) -> None:
    """Require that the manifest of a release is signed by a key that this board trusts, if it trusts any.

    Raises:
        AgentError: it is not.
    """
    signers = find_signers(place.parent)
    try:
        if signers is not None:
            check_signature(content, signature, signers)
    except AgentError as exc:
        raise AgentError(
            exc.kind, f"release {place.name[:16]} {exc}; sign it: edgeprune release push --sign KEY"
        ) from exc


def describe_signature(place: Path) -> str:
    """What a release's signature is worth here: "none", "refused", "trusted", or "not checked" without trusted keys."""
    if find_signers(place.parent) is None:
        return "not checked" if (place / SIGNATURE).is_file() else "none"
    try:
        require_signed(place)
    except AgentError:
        return "refused"
    return "trusted"


def is_whole(place: Path) -> bool:
    """Whether a release is there and verified."""
    try:
        verify(place)
    except AgentError:
        return False
    return True


def read_file(path: Path) -> bytes:
    """What a file holds; nothing where there is none."""
    try:
        return path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    except OSError:
        return b""


def hash_of(path: Path) -> str:
    """The sha256 of a file that is one, and no link; empty where there is none."""
    if path.is_symlink() or not path.is_file():
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def try_out(place: Path) -> str:
    """Let the release run once; gives what its runner says.

    Raises:
        AgentError: it does not.
    """
    command = [sys.executable, "-I", "-B", str(place / RUNNER), "--check"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_S, check=False)
    except subprocess.TimeoutExpired:
        raise AgentError("model", f"release {place.name} does not run here: no answer for {TRIAL_S} s") from None
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        raise AgentError("model", f"release {place.name} does not run here: {lines[-1][:300]}")
    return process.stdout.strip()


def switch(folder: Path, name: str) -> None:
    """Let `current` lead to another release, at one moment."""
    link, place = folder / f"{CURRENT}.new", folder / CURRENT
    remove_all(link)
    link.symlink_to(name)
    if place.is_dir() and not place.is_symlink():  # nobody but a stranger makes a folder of that name
        remove_all(folder / f"{CURRENT}.part")
        place.replace(folder / f"{CURRENT}.part")
    link.replace(folder / CURRENT)
    sync(folder)


def find_current(folder: Path) -> str | None:
    """The active release."""
    link = folder / CURRENT
    name = os.readlink(link) if link.is_symlink() else ""
    return name if ID.fullmatch(name) and (folder / name).is_dir() else None


def find_previous(folder: Path) -> str | None:
    """The release that was active before the current one, of those that are still here."""
    current = find_current(folder)
    before = read_activated(folder)
    before = before[: before.index(current)] if current in before else []
    present = [name for name in before if (folder / name).is_dir()]
    return present[-1] if present else None


def read_activated(folder: Path) -> list[str]:
    """The releases in the order in which they became active; none where that cannot be read."""
    try:
        names = json.loads(read_file(folder / ACTIVATED))
    except (ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str) and ID.fullmatch(name)] if isinstance(names, list) else []


def list_places(folder: Path) -> list[Path]:
    """The whole releases, the oldest first."""
    places = [path for path in folder.iterdir() if ID.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]
    return sorted(places, key=lambda path: (path.stat().st_mtime, path.name))


def describe(folder: Path) -> list[dict[str, Any]]:
    """Every release, the oldest first, and those that are not whole."""
    current, previous, rows = find_current(folder), find_previous(folder), []
    for place in [*list_places(folder), *sorted(folder.glob("*.part"))]:
        try:
            manifest = read_manifest(read_file(place / MANIFEST))
        except AgentError:
            manifest = None
        rows.append({
            "id": place.name[:16],
            "whole": ID.fullmatch(place.name) is not None,
            "current": place.name == current,
            "previous": place.name == previous,
            "bytes": sum(path.lstat().st_size for path in place.iterdir()) if place.is_dir() else 0,
            "manifest": manifest,
            "signature": describe_signature(place),
        })  # fmt: skip
    return rows


def write_whole(path: Path, text: str) -> None:
    """Write a file whole."""
    partial = path.with_suffix(".new")
    remove_all(partial)
    if path.is_dir() and not path.is_symlink():
        remove_all(path)
    partial.write_text(text, "utf-8")
    sync(partial)
    partial.replace(path)


def sync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
