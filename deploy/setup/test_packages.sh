#!/bin/sh
# Installs what tests need beyond pip: an SSH server, login shells, programs of small systems,
# an emulated ARM64 userland, and a browser that looks at the report.
# Where it may not (not root, no apt), it says what is missing and succeeds: those tests are then skipped.
set -eu

missing=""
need() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }

need sshd openssh-server
need ssh-keygen openssh-client
need qemu-aarch64-static qemu-user-static
need mmdebstrap mmdebstrap
need arch-test arch-test
need adb adb
need arm-none-eabi-gcc gcc-arm-none-eabi
need arm-none-eabi-gcc libnewlib-arm-none-eabi
need qemu-system-arm qemu-system-arm
need cmake cmake
need ip iproute2
need busybox busybox
need toybox toybox
need mksh mksh
need tcsh tcsh
need fish fish
need zsh zsh
command -v google-chrome >/dev/null 2>&1 || need chromium chromium

[ -n "$missing" ] || exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # a list of package names
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
        exit 0
    fi
    echo "test_packages.sh: apt-get could not install:$missing" >&2
fi
echo "missing:$missing (as root: apt-get install$missing); tests that need them are skipped" >&2
