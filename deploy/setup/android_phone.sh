#!/bin/bash
# Fetches a real adbd, to test phones against: Debian trixie's, with the libraries it needs, unpacked beside this system.
#   android_phone.sh DIR        leaves DIR/root and DIR/ready; does nothing where DIR/ready is there
# Nothing is installed. Needs root (the tests run it in namespaces), apt, adb and iproute2. Exits 3, with the reason,
# where it cannot do it here.
set -euo pipefail

DIR=${1:?usage: android_phone.sh DIR}
PACKAGES="adbd android-libbase android-libboringssl android-libcutils android-liblog libbrotli1 libbsd0 libc6 libcap2
libgcc-s1 liblz4-1 libmd0 libprotobuf32t64 libstdc++6 libsystemd0 libxxhash0 libzstd1 zlib1g"

refuse() { echo "android_phone.sh: $1" >&2; exit 3; }

[ "$(id -u)" -eq 0 ] || refuse "needs root"
[ "$(uname -m)" = x86_64 ] || refuse "is written for x86-64"
for tool in adb ip unshare apt-get dpkg-deb; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null || refuse "needs $tool; run deploy/setup/test_packages.sh"
done
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || refuse "needs Debian's keyring"
mkdir -p "$DIR"
[ ! -e "$DIR/ready" ] || exit 0

cd "$DIR"
rm -rf root debs
mkdir -p lists/partial cache/archives/partial root debs
: > status
mirror=$(sed -n 's/^URIs: *\(.*debian\)\/*$/\1/p;s/^deb [^ ]* *\(http[^ ]*debian\)\/* .*/\1/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1 || true)
[ -n "$mirror" ] || refuse "no mirror of Debian among apt's sources"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" \
    > sources.list
OPTIONS=(-o "Dir::Etc::SourceList=$DIR/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$DIR/lists"
    -o "Dir::Cache=$DIR/cache" -o "Dir::State::status=$DIR/status" -o APT::Architecture=amd64
    -o Acquire::Languages=none -o APT::Sandbox::User=root)
apt-get "${OPTIONS[@]}" update -qq >&2 || refuse "apt cannot fetch trixie's lists"
# shellcheck disable=SC2086  # a list of package names
(cd debs && apt-get "${OPTIONS[@]}" download -qq $PACKAGES >&2) || refuse "apt cannot fetch adbd"
for package in debs/*.deb; do dpkg-deb -x "$package" root; done
rm -rf lists cache debs
touch ready
