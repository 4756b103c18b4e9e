"""What a phone says of itself over a transport, in one command; other boards say nothing of that kind."""

from __future__ import annotations

import re

from edgeprune.core.boards.phone import PhoneState, parse_phone
from edgeprune.device.transports.transport import Transport

SHORT_S = 60.0
COLLECT = r"""
section() { printf '\n== %s\n' "$1"; }
section model; getprop ro.product.manufacturer; getprop ro.product.model; cat /proc/device-tree/model
section soc; getprop ro.soc.manufacturer; getprop ro.soc.model
section android; getprop ro.build.version.release
section os; sed -n "s/^PRETTY_NAME=//p" /etc/os-release
section cpuinfo; grep -E "^(processor|model name|Hardware|cpu model)" /proc/cpuinfo
section machine; uname -m
section kernel; uname -r
section memory; grep MemTotal /proc/meminfo
section clocks; for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do echo "$f $(cat $f)"; done
section now; cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq
section governor; cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor
section battery; dumpsys battery
section power; dumpsys power | grep -e mWakefulness= -e 'Display Power'
section thermal; dumpsys thermalservice
section end
"""
SECTION = re.compile(r"^== ([a-z]+)$", re.MULTILINE)


Sections = dict[str, str]


def collect(transport: Transport) -> Sections:
    """What a phone says of itself, by section.

    Raises:
        DeviceError: it runs no commands.
    """
    completed = transport.run(["sh", "-c", f"exec 2>/dev/null\n{COLLECT}"], timeout_s=SHORT_S)
    names = SECTION.split(completed.stdout.decode(errors="replace"))
    return {name: text.strip() for name, text in zip(names[1::2], names[2::2], strict=True)}


def read_state(transport: Transport) -> PhoneState:
    """Screen, power and heat of a phone.

    Raises:
        DeviceError: it runs no commands.
    """
    return parse_phone(collect(transport))
