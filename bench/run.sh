#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh bench/run.sh [--quick] [--only=AREA] [--report]: installs and builds what the benchmarks need,
# runs them, prints a table of ratios, and writes BUILD/bench.json. It takes 20 to 40 minutes.
#
# --quick      few repetitions, about 3 minutes, to see that everything runs
# --only=AREA  measures one area (a file of bench/areas) and keeps the results of the others
# --report     measures nothing: writes docs/performance.md, its pictures and the README's part from
#              the results of the last run
#
# A benchmark whose package is not available is skipped and named. Exit status 1: something could not be
# measured. A slow result is no failure.
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

# need_each PKG...: installs each package that is available. The areas skip what needs the others.
need_each() {
  for package in "$@"; do
    (need_packages "$package") || say "$package is not available, so what needs it is skipped"
  done
}

case " $* " in
  *' --only='*) ;;
  *' --quick '*) say "This takes about 3 minutes on 2 cores, when everything is installed." ;;
  *) say "This takes 20 to 40 minutes on 2 cores, when everything is installed. (--quick: 3 minutes)" ;;
esac
need_packages $build_packages python3
need_each python3-pip python3-venv hyperfine libbenchmark-dev binutils \
  libopenblas0-pthread libopenblas0-openmp libomp5-14
fetch_test_wheels numpy-2.4 openblas64
# scripts/test.sh --wild makes the same environment.
# shellcheck disable=SC2046
make_venv wild/science --no-deps $(cat "$root/tests/wild/environments/science.txt") ||
  say "packages of tests/wild/environments/science.txt are not available from PyPI (see" \
    "$build/pip.log), so what needs them is skipped"

# If the build folder was configured before Google Benchmark was installed, configure it again.
if [ -f "$build/build.ninja" ] && ! grep -q '^build bench/programs/dgemm:' "$build/build.ninja"; then
  meson setup --reconfigure "$build" >"$build/build.log" 2>&1 || true
fi
build_targets shim/forksafe cli/forksafe bench-programs
exec "$python" -B "$root/bench/run.py" "$build" "$@"
