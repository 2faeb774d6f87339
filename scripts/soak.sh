#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/soak.sh [--minutes N] [--seed S] [AREA...]: forks, makes system calls fail and fuzzes for a
# long time, and counts hangs and wrong results.
#
#   storm   forks in situations that the seed chooses; every child and every call in flight is exact
#   faults  each system call that the library makes fails once, at each place, with each error
#   fuzz    random inputs for the code that reads foreign files and text
#   limits  limits of resources, filters of system calls, and views of the file system
#   server  gunicorn with LightGBM and numpy, whose workers end after 20 requests each
#   system  real programs in a tree of Debian with the library in /etc/ld.so.preload. It needs root, some 4 GB
#           of disk and, for all cases once, an hour. So it runs only if it is named
#
# The areas share the minutes (default: 10). A run that fails is printed with the command that repeats it.
# The results go to BUILD/debug/soak/results.json; `sh scripts/soak.sh --report` takes them into
# tests/soak/results.json, and writes docs/reliability.md from that. Exit status: 0 if everything went as
# promised; 1 if something did not; 2 for bad usage.
. "$(dirname "$0")/common.sh"

# A build of its own, because faults names the functions of the library by debugging information.
debug=true
shared=$build
build=$build/debug

if [ "$*" = --report ]; then
  exec "$python" -B "$root/tests/soak/report.py" "$build"
fi
areas=
for word in "$@"; do
  case $word in
    storm | faults | fuzz | limits | server | system) areas="$areas $word" ;;
    --minutes | --seed | --minutes=* | --seed=* | [0-9]*) ;;
    *) fail "unknown argument: $word. Usage: sh scripts/soak.sh [--minutes N] [--seed S] [AREA...]" ;;
  esac
done
mkdir -p "$shared/wheels" "$shared/trees" "$build"
ln -sfn "$shared/wheels" "$shared/trees" "$build"
inject=
[ "$(uname -m)" != x86_64 ] || inject=tests/inject
need_packages $build_packages python3 python3-pip python3-venv procps util-linux binutils clang-14 libclang-rt-14-dev \
  libopenblas0-pthread libopenblas0-openmp libblis4-pthread libblis4-openmp
fetch_test_wheels numpy-1.26 numpy-2.2 numpy-2.4 openblas64
case ${areas:- server} in
  *' server'*)
    make_venv server-venv gunicorn numpy scipy lightgbm ||
      say "gunicorn or LightGBM is not available from PyPI, so the server is not run"
    ;;
esac
build_targets shim/forksafe cli/forksafe tests/storm tests/blas_forker tests/omp_forker \
  tests/limited tests/plain $inject
exec "$python" -B "$root/tests/soak/soak.py" "$build" "$@"
