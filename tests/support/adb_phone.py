"""A phone as far as this machine can be one: a real adbd, in namespaces of its own, over this system's programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from network import Cable, laid_cable, why_no_network
from places import DEPLOY

START_S = 10.0
CANNOT_FETCH = 3
CACHE = os.environ.get("EDGEPRUNE_CACHE") or Path.home() / ".cache" / "edgeprune"
"""The user's own, as it is before a test has one for itself."""
CPU = Path("/sys/devices/system/cpu")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
ENTER = """
set -e
phone=$1 debian=$2
mkdir -p "$phone/root"
mount -t tmpfs phone "$phone/root"
for place in /*; do
    case $place in /data|/system) continue ;; esac
    if [ -L "$place" ]; then cp -P "$place" "$phone/root/"
    elif [ -d "$place" ]; then mkdir "$phone/root$place"; mount --rbind "$place" "$phone/root$place"; fi
done
mkdir -p "$phone/root/data/local" "$phone/root/system"
mkdir -p "$phone/tmp" "$phone/bin"
mkdir "$phone/root/data/local/tmp" "$phone/root/system/bin"
mount --bind "$phone/tmp" "$phone/root/data/local/tmp"
mount --bind "$phone/bin" "$phone/root/system/bin"
mount --bind "$phone/cpu" "$phone/root/sys/devices/system/cpu"
libraries=$debian/usr/lib/x86_64-linux-gnu
exec chroot "$phone/root" "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries:$libraries/android" \
    "$debian/usr/lib/android-sdk/platform-tools/adbd"
"""
"""Runs in a mount namespace of its own, which goes with it: folder of the phone $1, folder of adbd $2."""


@dataclass
class Phone:
    """`tmp` is what it has at /data/local/tmp, `bin` at /system/bin, before anything else in its PATH, `cpu` at
    /sys/devices/system/cpu: this machine's own, without clocks until :meth:`tell_clocks`."""

    folder: Path
    debian: Path
    cable: Cable
    process: subprocess.Popen[bytes] | None = None
    tmp: Path = field(init=False)
    bin: Path = field(init=False)
    cpu: Path = field(init=False)

    def __post_init__(self) -> None:
        self.tmp, self.bin, self.cpu = (self.folder / name for name in ("tmp", "bin", "cpu"))
        for place in (self.tmp, self.bin, self.cpu):
            place.mkdir(parents=True)
        for name in ("online", "possible", "present"):
            shutil.copyfile(CPU / name, self.cpu / name)
        (self.bin / "sh").symlink_to("/bin/sh")

    @property
    def host(self) -> str:
        return f"adb:{self.serial}"

    @property
    def serial(self) -> str:
        return f"{self.cable.address}:5555"

    def script(self, name: str, text: str, place: Path | None = None) -> None:
        """Give it a program."""
        path = (place or self.bin) / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def tell_clocks(self, clocks: Mapping[int, int]) -> None:
        """Have it tell the highest clock of each core in kHz, as phones do; machines such as this one may not."""
        for core, khz in clocks.items():
            place = self.cpu / f"cpu{core}" / "cpufreq"
            place.mkdir(parents=True)
            (place / "cpuinfo_max_freq").write_text(f"{khz}\n")

    def start(self) -> None:
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]
        words = [*self.cable.inside, *enter, str(self.folder), str(self.debian / "root")]
        environment = {**os.environ, "PATH": f"/system/bin:{os.environ['PATH']}"}
        log = self.folder / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(words, stdout=output, stderr=output, env=environment)
        end = time.monotonic() + START_S
        while "adbd listening on tcp:5555" not in log.read_text(errors="replace"):
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"adbd did not start: {log.read_text(errors='replace')[-300:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it with all that it runs, as when its battery is taken out."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            (self.folder / "log").write_text("")
            self.process = None


def fetch_adbd() -> Path:
    """A real adbd, fetched once and kept in the user's cache; the test is skipped where it cannot be had or run."""
    cache = Path(CACHE) / "adbd"
    script = DEPLOY / "setup" / "android_phone.sh"
    built = subprocess.run([script, cache], capture_output=True, text=True, check=False)
    if built.returncode == CANNOT_FETCH or why_no_network():
        pytest.skip(built.stderr.strip().splitlines()[-1] if built.returncode else why_no_network())
    assert built.returncode == 0, built.stderr
    return cache


@contextmanager
def switched_on(folder: Path, debian: Path, number: int, patch: pytest.MonkeyPatch) -> Iterator[Phone]:
    """A phone in a network of its own, with an adb server of its own."""
    patch.setenv("ANDROID_ADB_SERVER_PORT", str(5080 + number))
    patch.setenv("ADB_MDNS", "0")
    with laid_cable(number) as cable:
        phone = Phone(folder, debian, cable)
        phone.start()
        yield phone
        subprocess.run(["adb", "kill-server"], capture_output=True, timeout=20, check=False)
        phone.stop()
