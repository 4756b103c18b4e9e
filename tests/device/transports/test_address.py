"""Where a board is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.transports.address import Address, parse_address
from edgeprune.device.transports.lookup import parse_devices, resolve_host
from edgeprune.errors import TargetError


def write_devices(home: Path, text: str) -> None:
    path = home / ".config" / "edgeprune" / "devices.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_ssh_config(home: Path, text: str) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("board", Address("board")),
        ("pi@10.0.0.7", Address("10.0.0.7", "pi")),
        ("pi@board.lan:2222", Address("board.lan", "pi", 2222)),
        ("[fe80::1%eth0]:22", Address("fe80::1%eth0", None, 22)),
    ],
)
def test_an_address_is_read_and_written_back(text: str, address: Address) -> None:
    assert parse_address(text, "--host") == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "-oProxyCommand=x", "a b", "pi@", "@board", "board:0", "board:99999", "a@b@c", "x\ny"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match=r"--host: .* is not an address; expected user@host"):
        parse_address(text, "--host")


@given(st.text() | st.from_regex(r"[a-z@:\[\].0-9-]{1,20}", fullmatch=True))
def test_no_text_upsets_the_parser(text: str) -> None:
    try:
        address = parse_address(text, "--host")
    except TargetError:
        return
    assert parse_address(str(address), "--host") == address


def test_the_local_target_needs_no_address(no_devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_HOST", "pi@elsewhere")
    assert resolve_host("local", None) is None
    assert resolve_host("rpi4", "local") is None
    assert resolve_host("local", "pi@board") == Address("board", "pi")


def test_the_nearest_place_wins(no_devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ssh_config(no_devices, "Host rpi4 other\n  HostName 10.0.0.1\nHost *.lan !x\n  User pi\n")
    assert resolve_host("rpi4", None) == Address("rpi4")
    write_devices(no_devices, '[devices.kitchen]\nhost = "pi@10.0.0.2"\ntarget = "rpi4"\n')
    assert resolve_host("rpi4", None) == Address("10.0.0.2", "pi")
    monkeypatch.setenv("EDGEPRUNE_HOST", "10.0.0.3")
    assert resolve_host("rpi4", None) == Address("10.0.0.3")
    assert resolve_host("rpi4", "10.0.0.4") == Address("10.0.0.4")
    assert resolve_host("rpi4", "kitchen") == Address("10.0.0.2", "pi")


def test_without_an_address_all_four_ways_are_named(no_devices: Path) -> None:
    with pytest.raises(TargetError) as caught:
        resolve_host("rpi4", None)
    for way in ("--host", "EDGEPRUNE_HOST", "devices.toml", "Host rpi4"):
        assert way in str(caught.value)


def test_two_boards_of_a_kind_are_not_chosen_between(no_devices: Path) -> None:
    write_devices(no_devices, "".join(f'[devices.b{i}]\nhost = "b{i}"\ntarget = "rpi4"\n' for i in range(2)))
    with pytest.raises(TargetError, match="has b0, b1; choose one: --host NAME"):
        resolve_host("rpi4", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[devices.a]\nhots = 'x'", 'expected a table with host = "user@address"'),
        ("[devices.a]\nhost = 'x'\ntarhet = 'y'", "unknown key 'tarhet'; did you mean 'target'"),
        ("[devices.a]\nhost = 3", "host: expected text, found 3"),
        ("[device.a]\nhost = 'x'", "unknown key 'device'; did you mean 'devices'"),
        ("devices = 3", "expected tables"),
        ("[devices", "cannot be read as TOML"),
        ("[devices.rpi4]\nhost = 'a b'", "devices.rpi4: 'a b' is not an address"),
    ],
)
def test_a_devices_file_that_is_not_valid_says_where(no_devices: Path, text: str, said: str) -> None:
    write_devices(no_devices, text)
    with pytest.raises(TargetError, match=r"devices\.toml: .*") as caught:
        resolve_host("rpi4", None)
    assert said in str(caught.value)


values = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.dictionaries(st.text(), inner))


@given(st.dictionaries(st.sampled_from(["devices", "x"]), values))
def test_no_document_upsets_the_devices_parser(document: dict[str, object]) -> None:
    try:
        entries = parse_devices(document, "devices.toml")
    except TargetError as exc:
        said = str(exc)
    else:
        said = "devices.toml: "
        assert all(isinstance(entry["host"], str) for entry in entries.values())
    assert said.startswith("devices.toml: ")
