#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh bench/run.sh [--quick] [--only=AREA] [--report]: installs and builds what the benchmarks need,
# runs them, prints a table of ratios, and writes BUILD/bench.json. About 20 minutes.
#
# --quick      few repetitions, about 3 minutes: does all of it run
# --only=AREA  one file of bench/areas; the results of the others stay
# --report     measures nothing: writes docs/performance.md, its pictures and the README's part from
#              the results of the last run
#
# What can't be had is skipped by name. Ends with 1 when a cell could not be measured; no time is
# wrong.
. "$(dirname "$0")/../scripts/common.sh"

report=no
for argument in "$@"; do
  case $argument in
    --quick | --only=* | --library=*) ;;
    --report) report=yes ;;
    *) fail "unknown argument: $argument. Usage: sh bench/run.sh [--quick] [--only=AREA] [--report]" ;;
  esac
done

if [ "$report" = yes ]; then
  need_packages python3 python3-matplotlib
  exec "$python" -B "$root/bench/report.py" --build "$build"
fi

# What some of the areas can do without.
need_each() {
  for package in "$@"; do
    (need_packages "$package") || say "$package can't be had: what needs it is skipped"
  done
}

case " $* " in
  *' --only='*) ;;
  *' --quick '*) say "About 3 minutes on 2 cores, once all is installed." ;;
  *) say "About 20 minutes on 2 cores, once all is installed. (--quick: 3 minutes)" ;;
esac
need_packages $build_packages python3
need_each python3-pip python3-venv hyperfine libbenchmark-dev binutils \
  libopenblas0-pthread libopenblas0-openmp libomp5-14
fetch_test_wheels numpy-2.4 openblas64
# The same one as for scripts/test.sh --wild.
# shellcheck disable=SC2046
make_venv wild/science --no-deps $(cat "$root/tests/wild/environments/science.txt") ||
  say "the packages of tests/wild/environments/science.txt can't be had from PyPI (see
$build/pip.log): what needs them is skipped"

# A build folder may be older than Google Benchmark here.
if [ -f "$build/build.ninja" ] && ! grep -q '^build bench/programs/dgemm:' "$build/build.ninja"; then
  meson setup --reconfigure "$build" >"$build/build.log" 2>&1 || true
fi
build_targets shim/forksafe cli/forksafe bench-programs
exec "$python" -B "$root/bench/run.py" "$build" "$@"
