#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows the deadlock and its cure. Installs what it needs, builds, and runs each case twice, with a time
# limit: without the library, then with it.
#
# Exit status: 0 if each case passed with the library and at least one failed without it; 1 if not; 2 if
# the script could not start.
set -eu
. "$(dirname "$0")/common.sh"

say "This takes about 5 minutes on a new machine, 2 if everything is installed."
need_packages $build_packages python3 python3-venv python3-numpy python3-scipy \
  libopenblas0-openmp libopenblas0-pthread
build_targets shim/forksafe cli/forksafe # without the tests, which take longer to build

set -- --forksafe "$build/cli/forksafe"
if make_obspy_venv; then
  set -- "$@" --obspy "$venv/bin/python"
else
  say "obspy is not available from PyPI (see $build/pip.log), so its case is left out"
fi
if make_venv numpy-venv numpy; then
  set -- "$@" --wheel "$venv/bin/python"
else
  say "numpy is not available from PyPI (see $build/pip.log), so its case is left out"
fi
exec "$python" -E -s -B "$root/scripts/demo/demo.py" "$@"
