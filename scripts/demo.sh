#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows the deadlock and its cure: each case runs without the library, under a time-out, then with
# it. Installs what it needs and builds. Ends with 0 when each case passed with the library and at
# least one failed without it, 1 when not, 2 when it could not start.
set -eu
. "$(dirname "$0")/common.sh"

need_packages $build_packages \
  python3 python3-venv python3-numpy libopenblas0-openmp libopenblas0-pthread
build_targets shim/forksafe cli/forksafe # not the suite, which takes a while

set -- --forksafe "$build/cli/forksafe"
if make_venv demo-venv numpy scipy obspy; then
  set -- "$@" --wheels "$venv/bin/python"
else
  say "numpy, scipy and obspy can't be had from PyPI (see $build/pip.log): Debian's cases only."
fi
exec "$python" -E -s -B "$root/scripts/demo/demo.py" "$@"
