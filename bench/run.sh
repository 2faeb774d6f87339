#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh bench/run.sh [BUILD_DIR] [--quick]: builds the benchmark programs in BUILD_DIR (default:
# build), runs them, prints a table, and writes BUILD_DIR/bench.json.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
build=$source/build
case ${1-} in
  '' | -*) ;;
  *) build=$1; shift ;;
esac
[ -f "$build/build.ninja" ] || meson setup "$build" "$source"
# ninja rather than `meson compile`: it needs no meson of the version that set the folder up.
ninja -C "$build" shim/libforksafe.so cli/forksafe bench-programs >&2
exec python3 "$source/bench/run.py" "$build" "$@"
