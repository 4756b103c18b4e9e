#!/bin/bash
# Builds virtual environments with TFLite runtimes that cannot live beside edgeprune's own packages, to test against:
# what boards had before LiteRT (tflite-runtime 2.14 needs numpy 1 and Python 3.11 at most), and TFLite Micro.
#   other_runtimes.sh DIR       leaves DIR/tflite-runtime, DIR/tflite-micro and DIR/ready; does nothing where it is there
# HOST_PYTHON names the interpreter. Exits 3, with the reason, where it cannot build here.
set -euo pipefail

DIR=${1:?usage: other_runtimes.sh DIR}
PYTHON=${HOST_PYTHON:-python3}
TFLITE_RUNTIME="tflite-runtime==2.14.0 numpy==1.26.4"
TFLITE_MICRO="tflite-micro==0.dev20261023182759"

refuse() { echo "other_runtimes.sh: $1" >&2; exit 3; }

[ ! -e "$DIR/ready" ] || exit 0
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    refuse "needs Python 3.11, the newest that tflite-runtime has wheels for"

# make_venv NAME REQUIREMENT...
make_venv() {
    local place=$DIR/$1
    shift
    rm -rf "$place"
    "$PYTHON" -m venv "$place"
    "$place/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: "$@" ||
        refuse "pip cannot install $*"
}

mkdir -p "$DIR"
# shellcheck disable=SC2086  # lists of requirements
make_venv tflite-runtime $TFLITE_RUNTIME
# shellcheck disable=SC2086
make_venv tflite-micro $TFLITE_MICRO
touch "$DIR/ready"
