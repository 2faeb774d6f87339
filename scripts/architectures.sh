#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/architectures.sh [--quick] [ARCHITECTURE...]: runs tests on other architectures (default: all
# that scripts/architectures has a file for).
#
# It needs root and an x86-64 machine. In a tree of Debian (trees.sh), Debian's cross-compiler builds the
# project. The tests run there with Debian's libraries of that architecture, under QEMU (qemu.sh). While
# this script runs, the kernel knows QEMU as "forksafe-ARCHITECTURE" (binfmt_misc).
#
# arm64 runs all scenarios and all unit tests but the model (unit interleavings), also with PyPI's wheels and
# a Python of that architecture. The others, and arm64 with --quick, run the unit tests and the main
# scenarios. Under QEMU each scenario forks at most 20 times. Nothing can read stacks under QEMU, so
# `forksafe list`, `check` and `diagnose` are not tried.
. "$(dirname "$0")/common.sh"

quick=no
if [ "${1:-}" = --quick ]; then
  quick=yes
  shift
fi
known=$(cd "$root/scripts/architectures" && ls -- *.txt | sed 's/\.txt$//' | tr '\n' ' ')
# shellcheck disable=SC2086 # a list
[ $# -gt 0 ] || set -- $known
for architecture in "$@"; do
  [ -f "$root/scripts/architectures/$architecture.txt" ] ||
    fail "no such architecture: $architecture (known: $known)"
done
need_packages git python3 python3-pip
. "$root/scripts/trees.sh"
. "$root/scripts/qemu.sh"

architectures=$build/architectures
mkdir -p "$architectures"
forget_all() { for entry in "$handlers"/forksafe-*; do forget_qemu "${entry##*/forksafe-}"; done; }
# shellcheck disable=SC2034 # alone.sh's
at_end=forget_all

# choose ARCHITECTURE: sets $suite to the release of Debian, and $emulator to QEMU's name for the
# architecture. It is empty for i386, because this machine runs i386's programs without QEMU.
choose() {
  suite=bookworm
  case $1 in
    arm64) emulator=aarch64 ;;
    armhf) emulator=arm ;;
    i386) emulator= ;;
    ppc64el) emulator=ppc64le ;;
    riscv64)
      suite=trixie # the first release that has it
      emulator=riscv64
      ;;
    *) emulator=$1 ;;
  esac
}

# inside STEP [ARGUMENT...]: runs a step of architectures/inside.sh in the tree.
inside() {
  mkdir -p "$architectures/wheels-$architecture"
  run_in_tree "$suite" "architecture-$architecture" --bind "$architectures/source" /forksafe/source ro \
    --bind "$architectures/wheels-$architecture" /forksafe/build/wheels ro \
    sh /forksafe/source/scripts/architectures/inside.sh "$architecture" "$@"
}

# fetch_wheels: fetches PyPI's arm64 wheels that contain an OpenBLAS.
fetch_wheels() (
  build=$architectures/pip
  mkdir -p "$build"
  rm -f "$build/wheels"
  ln -s "$architectures/wheels-$architecture" "$build/wheels"
  wheel_options='--platform=manylinux2014_aarch64 --platform=manylinux_2_17_aarch64
    --platform=manylinux_2_27_aarch64 --platform=manylinux_2_28_aarch64'
  fetch_test_wheels
)

# prepare: installs the compiler and the libraries, and builds.
prepare() {
  log=$architectures/$architecture.log
  : >"$log"
  fetch_qemu || {
    cat "$qemu.log" >>"$log"
    return 1
  }
  make_tree "$suite" || {
    cat "$trees/$suite.log" >>"$log"
    return 1
  }
  logged "$log" "$architecture: installing packages" inside packages &&
    logged "$log" "$architecture: building" inside build
}

copy_sources "$architectures/source"
worst=0
for architecture in "$@"; do
  choose "$architecture"
  prepare || {
    tail -n 15 "$log" >&2
    fail "$architecture: the project can't be built (log: $log)"
  }
  suites='--suite quick --no-suite cli --no-suite harm --no-suite style --no-suite model'
  if [ "$architecture-$quick" = arm64-no ]; then
    suites='--suite unit --suite scenario --no-suite model'
    fetch_wheels
  fi
  [ -z "$emulator" ] || register_qemu "$emulator" || fail "$handlers/register takes no entry for QEMU"
  files=$trees/layers/architecture-$architecture/changes/forksafe
  rm -f "$files/versions" "$files/ended" "$files/build/meson-logs/testlog.json"
  inside versions >"$files/versions"
  # shellcheck disable=SC2086 # a list
  inside test "$emulator" $suites || worst=1
  forget_all
  "$python" "$root/scripts/tree_results.py" collect "$architectures" "$architecture=$files" || worst=1
done
exit $worst
