#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/test.sh: installs what the test suite needs, builds, runs all tests, prints the counts.
#
# Debian's packages come through apt-get (as root or with sudo), the Python wheels whose OpenBLAS is
# tested from PyPI into the build folder. What can't be had is skipped by name and counted.
. "$(dirname "$0")/common.sh"

need_packages $build_packages binutils mandoc zsh bash-completion \
  python3 python3-pip python3-numpy python3-threadpoolctl r-base-core libcap2-bin make procps \
  libopenblas0-pthread libopenblas0-openmp libblis4-pthread libblis4-openmp libomp5-14 \
  libeatmydata1 libjemalloc2

# fetch_wheel NAME REQUIREMENT: unpacks a wheel into BUILD/wheels/NAME. Only the libraries in it are
# used, by their path: nothing is installed, and its own dependencies are not fetched.
fetch_wheel() {
  folder=$build/wheels/$1
  [ -f "$folder.of" ] && [ "$(cat "$folder.of")" = "$2" ] && return 0
  rm -rf "$folder" "$folder.whl"
  mkdir -p "$folder" "$folder.whl"
  "$python" -m pip download --quiet --disable-pip-version-check --no-input --no-deps \
    --only-binary :all: --timeout 10 --retries 2 --dest "$folder.whl" "$2" \
    >"$build/pip.log" 2>&1 &&
    "$python" -m zipfile -e "$folder.whl"/*.whl "$folder" &&
    printf '%s\n' "$2" >"$folder.of"
  fetched=$?
  rm -rf "$folder.whl"
  return $fetched
}

mkdir -p "$build/wheels"
missing=
while read -r name requirement; do
  fetch_wheel "$name" "$requirement" || missing="$missing $requirement"
done <<END
numpy-1.26 numpy==1.26.4
numpy-2.2 numpy==2.2.6
numpy-2.4 numpy==2.4.0
scipy-1.17 scipy==1.17.1
openblas64 scipy-openblas64==0.3.34.481.3
openblas32 scipy-openblas32==0.3.34.481.3
scikit-learn scikit-learn==1.7.2
intel-openmp intel-openmp==2026.2.0
END
[ -z "$missing" ] || say "not to be had from PyPI, their tests are skipped:$missing"

# count FIELD LOG: the number behind "FIELD:" in meson's summary.
count() { sed -n "s/^$1: *\([0-9]*\) *$/\1/p" "$2" | tail -n 1; }

passed=0
failed=0
skipped=0
# run_tests FOLDER ARGUMENT...: meson test there, which builds what the tests need; adds to the
# counts.
run_tests() {
  folder=$1
  shift
  "$meson" test -C "$folder" --print-errorlogs "$@" >"$folder/test.log" 2>&1
  status=$?
  grep -v '^$' "$folder/test.log"
  if ! grep -q '^Ok: ' "$folder/test.log"; then
    fail "meson test ended with status $status before any test had run"
  fi
  passed=$((passed + $(count Ok "$folder/test.log") + $(count 'Expected Fail' "$folder/test.log")))
  failed=$((failed + $(count Fail "$folder/test.log") + $(count Timeout "$folder/test.log") +
    $(count 'Unexpected Pass' "$folder/test.log")))
  skipped=$((skipped + $(count Skipped "$folder/test.log")))
}

# set_up_sanitized NAME SANITIZERS: a build folder for the unit tests, which meson test builds.
set_up_sanitized() {
  build_log=$build/$1.log
  [ -f "$build/$1/meson-private/coredata.dat" ] ||
    "$meson" setup "$build/$1" "$root" -Db_sanitize="$2" -Db_lundef=false -Dbuildtype=debug \
      >"$build_log" 2>&1 || build_failed
}

build_targets
run_tests "$build"
say "unit tests with the address and undefined behaviour sanitizers"
set_up_sanitized asan address,undefined
run_tests "$build/asan" --suite unit
say "unit tests of the gate with the thread sanitizer"
set_up_sanitized tsan thread
run_tests "$build/tsan" 'unit gate'

say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
