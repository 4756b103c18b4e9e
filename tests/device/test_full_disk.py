"""Boards without a byte to spare, on real small disks: what makes room works, and what does not fit is told first."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from device_models import LINEAR, ignore
from release_board import LARGE, Board, read_run
from ssh_server import SshServer

from edgeprune.cli.releases import release
from edgeprune.device import lease as leases
from edgeprune.device.connect import open_agent
from edgeprune.device.lease import hold_lease, list_leases
from edgeprune.device.preparing.site import find_free, find_needed
from edgeprune.device.preparing.wheels import Wheel
from edgeprune.device.releasing.releases import activate_release, list_releases, prune_releases, push_release
from edgeprune.device.ssh.transport import connect
from edgeprune.device.transports.address import Address
from edgeprune.device.transports.local import LocalTransport
from edgeprune.device.transports.transport import Completed, describe_size, describe_space
from edgeprune.errors import DeviceError, NoSpace


@pytest.fixture
def small_disk(ssh_server: SshServer) -> Iterator[Path]:
    """A disk of 8 MiB on which all of edgeprune's lies on the board."""
    place = ssh_server.board / ".cache" / "edgeprune"
    place.mkdir(parents=True, mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs root, to mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    assert os.statvfs(disk).f_bavail == 0


def push_three(folder: Path) -> list[str]:
    ids = []
    with open_agent("rpi4", "board", "") as agent:
        for count, shape in enumerate((LARGE, replace(LINEAR, cout=4), replace(LINEAR, cout=5))):
            content, model = read_run(folder / str(count), shape)
            with hold_lease(agent, "push", ignore):
                push_release(agent, content, model)
                activate_release(agent, content.id)
            ids.append(content.id)
    return ids


@pytest.mark.parametrize("agent_there", [True, False], ids=["the agent is there", "another agent is there"])
def test_prune_makes_room_where_there_is_none(
    ssh_server: SshServer, small_disk: Path, tmp_path: Path, agent_there: bool
) -> None:
    ids = push_three(tmp_path)
    if not agent_there:
        for agent in (small_disk / "board").glob("agent-*"):
            agent.unlink()
    fill(small_disk)
    done = CliRunner().invoke(release, ["prune", "--target", "rpi4", "--host", "board", "--keep", "0"])
    assert (done.exit_code, done.exception) == (0, None)
    assert done.output == f"board: removed {ids[0]}\n"
    assert Board(ssh_server).active() == ids[2]
    assert os.statvfs(small_disk).f_bavail > 0
    with open_agent("rpi4", "board", "") as agent, hold_lease(agent, "again", ignore):
        assert [row.id for row in list_releases(agent)] == ids[1:]


def test_prune_on_a_full_disk_keeps_out_of_the_way_of_others(
    ssh_server: SshServer, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_three(tmp_path)
    with monkeypatch.context() as patch, open_agent("rpi4", "board", "") as agent:
        patch.setattr(leases, "describe_owner", lambda: "ben@elsewhere")
        leases.reserve(agent, "a soak test", 600)
    fill(small_disk)
    with open_agent("rpi4", "board", "") as agent:
        with pytest.raises(DeviceError, match="reserved"):
            prune_releases(agent, 0, ignore)
        assert len(list_releases(agent)) == 3
        assert [one.owner for one in list_leases(agent)] == ["ben@elsewhere"]


def test_a_full_disk_is_named_with_its_file_and_what_to_do(
    ssh_server: SshServer, small_disk: Path, tmp_path: Path
) -> None:
    push_three(tmp_path)
    fill(small_disk)
    with open_agent("rpi4", "board", "") as agent:
        with (
            pytest.raises(NoSpace, match=r"board: /.*/lease-work\.json: No space left on device; .*release prune"),
            hold_lease(agent, "push", ignore),
        ):
            pass
        with pytest.raises(NoSpace, match=r"No space left on device.*release prune"):
            leases.reserve(agent, "mine", 60)
        assert not list(small_disk.rglob("*.partial"))


def test_a_file_for_a_full_disk_is_refused_with_sizes_that_can_be_compared(
    ssh_server: SshServer, small_disk: Path, tmp_path: Path
) -> None:
    fill(small_disk)
    os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - (20 << 10))
    source = tmp_path / "a"
    source.write_bytes(bytes(70 << 10))
    with (
        closing(connect(Address("board"))) as link,
        pytest.raises(NoSpace, match=r"it needs 70\.0 KiB, 20\.0 KiB are free"),
    ):
        link.put(source, ".cache/edgeprune/a")


def test_sizes_are_told_in_what_shows_them() -> None:
    assert [describe_size(one) for one in (0, 1536, 100 << 10, 1 << 17, 3 << 20)] == [
        "0 B", "1.5 KiB", "100.0 KiB", "0.1 MiB", "3.0 MiB",
    ]  # fmt: skip
    assert describe_space("x", 50 << 10, 0) == "no space for x: it needs 50.0 KiB, 0 B are free; make room there"


@pytest.mark.parametrize(
    ("printed", "free_bytes"),
    [
        ("Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/root 30000 10000 20000 34% /\n", 20000 << 10),
        ("Filesystem 1024-blocks Used Available Capacity Mounted on\na b/c 9 9 0 100% /mnt/a disk\n", 0),
        ("df: /x: No such file or directory\n", None),
    ],
)
def test_what_df_prints_is_read_in_bytes(printed: str, free_bytes: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = LocalTransport()
    monkeypatch.setattr(transport, "run", lambda command, **_: Completed(0, printed.encode(), ""))
    assert find_free(transport, "/") == free_bytes


def test_room_is_asked_for_wheels_and_for_what_is_in_them() -> None:
    """Python compiles what it loads, which lies beside it; a venv that is not there yet is made too."""
    wheel = Wheel(Path("a.whl"), "a", "1", "0" * 64, packed_bytes=100, unpacked_bytes=1000)
    needed = find_needed(True, ["a"], [wheel, wheel])
    assert 2 * 1100 <= needed <= 2 * 1500
    assert find_needed(False, ["a"], [wheel, wheel]) - needed >= 10 << 20
