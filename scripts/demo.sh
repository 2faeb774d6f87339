#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows the deadlock and its cure: each case runs without the library, under a time-out, then with
# it. Installs what it needs and builds. Ends with 0 when each case passed with the library and at
# least one failed without it, 1 when not, 2 when it could not start.
set -eu
. "$(dirname "$0")/common.sh"

say "About 5 minutes on a new machine, 2 when all is installed."
need_packages $build_packages python3 python3-venv python3-numpy python3-scipy \
  libopenblas0-openmp libopenblas0-pthread
build_targets shim/forksafe cli/forksafe # not the suite, which takes a while

set -- --forksafe "$build/cli/forksafe"
if make_obspy_venv; then
  set -- "$@" --obspy "$venv/bin/python"
else
  say "obspy can't be had from PyPI (see $build/pip.log): its case is left out"
fi
if make_venv numpy-venv numpy; then
  set -- "$@" --wheel "$venv/bin/python"
else
  say "numpy can't be had from PyPI (see $build/pip.log): its case is left out"
fi
exec "$python" -E -s -B "$root/scripts/demo/demo.py" "$@"
