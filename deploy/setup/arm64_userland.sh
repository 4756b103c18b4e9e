#!/bin/bash
# Builds an ARM64 Debian userland with an SSH server, Python and aarch64 inference runtimes, to test against.
#   arm64_userland.sh DIR       leaves DIR/rootfs and DIR/ready; does nothing where DIR/ready is there
# Needs root, mmdebstrap and qemu-user-static. Exits 3, with the reason, where it cannot build here.
#
# Emulation traps: qemu-user 7 shows the host's /proc/cpuinfo, which onnxruntime cannot read on ARM, and its default
# CPU miscomputes XNNPACK int8. So a Raspberry Pi 4's cpuinfo is bound over it and QEMU_CPU is set, here and in use.
set -euo pipefail

DIR=${1:?usage: arm64_userland.sh DIR}
ROOTFS=$DIR/rootfs
VENV=/root/.local/share/edgeprune/venv
SUITE=bookworm
PYTHON=3.11  # what SUITE has
PACKAGES="onnxruntime==1.31.1 numpy==2.4.6 ai-edge-litert==2.3.0"

refuse() { echo "arm64_userland.sh: $1" >&2; exit 3; }

[ "$(id -u)" -eq 0 ] || refuse "needs root"
for tool in mmdebstrap qemu-aarch64-static unshare; do
    command -v "$tool" >/dev/null || refuse "needs $tool; run deploy/setup/test_packages.sh"
done

# The kernel must hand aarch64 programs to qemu; flag F keeps the interpreter open across chroot.
register_qemu() {
    local formats=/proc/sys/fs/binfmt_misc
    [ -e $formats/register ] || mount -t binfmt_misc binfmt_misc $formats || refuse "this kernel has no binfmt_misc"
    if [ -e $formats/qemu-aarch64 ]; then return; fi
    local magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":qemu-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):OCF" > $formats/register ||
        refuse "the kernel refused the binfmt_misc entry for qemu-aarch64"
}

write_cpuinfo() {
    for core in 0 1 2 3; do
        printf 'processor\t: %d\nBogoMIPS\t: 108.00\n' $core
        printf 'Features\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU architecture: 8\n'
        printf 'CPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
    done > "$DIR/cpuinfo"
    printf 'Hardware\t: BCM2835\nRevision\t: c03111\nModel\t\t: Raspberry Pi 4 Model B Rev 1.1 (emulated)\n' >> "$DIR/cpuinfo"
}

# Runs a command inside, in a mount namespace of its own, so that no mount is left behind.
inside() {
    QEMU_CPU=cortex-a72 unshare --mount --propagation private sh -c '
        mount -t proc proc "$1/proc" && mount --bind "$2" "$1/proc/cpuinfo" && mount --bind /dev "$1/dev"
        root=$1; shift 2; exec chroot "$root" "$@"' inside "$ROOTFS" "$DIR/cpuinfo" "$@"
}

mkdir -p "$DIR"
register_qemu
write_cpuinfo
[ ! -e "$DIR/ready" ] || exit 0

if [ ! -d "$ROOTFS" ]; then
    rm -rf "$ROOTFS.partial"
    mmdebstrap --arch=arm64 --variant=minbase --quiet \
        --include=openssh-server,python3,python3-venv,ca-certificates,procps,iproute2 $SUITE "$ROOTFS.partial"
    mv "$ROOTFS.partial" "$ROOTFS"
fi

# Wheels are fetched here and installed there offline, as for a board without a network.
# shellcheck disable=SC2086  # a list of requirements
"${HOST_PYTHON:-python3}" -m pip download --quiet --only-binary=:all: --implementation cp --python-version $PYTHON \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    --dest "$ROOTFS/var/cache/wheels" $PACKAGES
inside python3 -m venv "$VENV"
# shellcheck disable=SC2086
inside "$VENV/bin/python" -m pip --isolated install --quiet --no-index --find-links /var/cache/wheels $PACKAGES
rm -rf "$ROOTFS/var/cache/wheels"
touch "$DIR/ready"
