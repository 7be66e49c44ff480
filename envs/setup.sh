#!/bin/sh
# Makes .venv with the tested set of packages. No root, nothing outside the clone.
#   TORCH=auto (default)  the CUDA build where an NVIDIA driver is found, else the CPU build
#   TORCH=cpu | cuda      that build
#   TORCH=keep            the torch that is in .venv already, untouched
#   PYTHON=/path/python3  which Python to build on (3.11 or later, with venv)
set -eu
cd "$(dirname "$0")/.."
TORCH=${TORCH:-auto}
VERSION=$(sed -n 's/^torch==//p' envs/constraints.txt)
CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

usable() { # a Python that is new enough and can make environments with pip
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        found=$(command -v "$name" 2>/dev/null) && usable "$found" && { echo "$found"; return 0; }
    done
    return 1
}

make_venv() {
    if python=$(find_python); then
        say "environment .venv from $python"
        "$python" -m venv .venv
    elif [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON is not a Python 3.11 or later with venv and pip. Name another one."
    elif command -v uv >/dev/null; then
        say "no Python >= 3.11 with venv found: using uv"
        uv venv --seed --python '>=3.11' .venv
    elif command -v conda >/dev/null; then
        say "no Python >= 3.11 with venv found: using conda"
        conda create --yes --quiet --prefix ./.venv 'python=3.12' pip
    else
        fail "needs Python 3.11 or later with venv, and found none, nor uv, nor conda. Install one of:
  apt-get install python3 python3-venv     (Debian 12, Ubuntu 24.04 or later)
  dnf install python3.12                   (Fedora, RHEL 9)
  conda create -n cellseg python=3.12 && conda activate cellseg
then run this again."
    fi
}

has_driver() { [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; }

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

torch_arguments() { # $1: cpu or cuda; prints what to give to pip
    if [ "$1" = cuda ]; then
        echo "torch==$VERSION"
    elif pip download --quiet --no-deps --dest .venv/wheels "torch==$VERSION+cpu" >/dev/null 2>&1; then
        # The pip configuration in force offers a CPU build: that one, from there.
        echo "--find-links .venv/wheels torch==$VERSION+cpu"
    elif [ "$(uname -sm)" != "Linux x86_64" ] || pip config list | grep -Eq 'index-url|find-links|no-index'; then
        echo "torch==$VERSION" # the plain wheel is a CPU build, or the site's own index decides
    else
        echo "--extra-index-url $CPU_INDEX torch==$VERSION+cpu"
    fi
}

install_torch() {
    build=$TORCH
    [ "$build" != auto ] || { has_driver && build=cuda || build=cpu; }
    case $build in
    keep)
        .venv/bin/python -c 'import torch' 2>/dev/null ||
            fail "TORCH=keep, but .venv has no torch. Install yours there, or use TORCH=cpu or TORCH=cuda."
        say "torch is kept as it is" ;;
    cpu | cuda)
        arguments=$(torch_arguments "$build")
        say "torch $VERSION, $build build (the CPU build takes about 0.7 GB on disk, CUDA about 7 GB)"
        # shellcheck disable=SC2086 - several arguments on purpose
        pip install --quiet $arguments
        rm -rf .venv/wheels ;;
    *) fail "TORCH needs to be auto, cpu, cuda or keep, got '$TORCH'." ;;
    esac
}

report_torch() {
    .venv/bin/python - <<'PY'
import pathlib, sysconfig, importlib.metadata
site = pathlib.Path(sysconfig.get_path("purelib"))
folders = [p for n in ("torch", "torchgen", "functorch", "nvidia", "triton") if (p := site / n).exists()]
size = sum(f.stat().st_size for d in folders for f in d.rglob("*") if f.is_file() and not f.is_symlink())
print(f"setup: torch {importlib.metadata.version('torch')} is installed, {size / 1e9:.1f} GB with its CUDA parts"
      if (site / "nvidia").exists() else
      f"setup: torch {importlib.metadata.version('torch')} is installed, {size / 1e9:.1f} GB")
PY
}

[ "${1:-}" != --find-python ] || { find_python || exit 1; exit 0; }
case $TORCH in auto | cpu | cuda | keep) ;; *) fail "TORCH needs to be auto, cpu, cuda or keep, got '$TORCH'." ;; esac
[ -x .venv/bin/python ] || make_venv
install_torch
# torch is settled above; under TORCH=keep its pin must not pull another one in.
grep -v '^torch==' envs/constraints.txt >.venv/constraints.txt
pip install --quiet --constraint .venv/constraints.txt --editable '.[test,lint]'
report_torch
