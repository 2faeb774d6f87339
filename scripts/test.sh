#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/test.sh [--quick | --wild | --recipes | --verdicts]: installs what the tests need, builds, runs
# the tests, and prints the counts.
#
# Debian's packages come through apt-get, as root or with sudo. The Python wheels whose OpenBLAS is tested
# come from PyPI into the build folder. A test whose package is not available is skipped, named and
# counted.
#
# --quick    only the unit tests, the command, and the main cases of one build of each kind
# --wild     also the suite "more", which repeats cases on further builds of OpenBLAS and BLIS, the unit tests
#            with sanitizers, and the suite of real programs (tests/wild). It installs about 2 GB more and
#            takes up to 25 minutes more.
# --recipes  only the suite of systems that start programs (tests/recipes). It installs about 4 GB, and takes
#            up to 20 minutes.
# --verdicts only the suite of thread pools that the library does not support (tests/wild/cases/verdicts.toml).
#            It installs about 1 GB, and takes about 10 minutes.
. "$(dirname "$0")/common.sh"

quick=no
wild=no
only=
case $* in
  '') ;;
  --quick) quick=yes ;;
  --wild) wild=yes ;;
  --recipes | --verdicts) only=${1#--} ;;
  *) fail "unknown arguments: $*. Usage: sh scripts/test.sh [--quick | --wild | --recipes | --verdicts]" ;;
esac

if [ "$quick" = yes ]; then
  say "This takes about 3 minutes on 2 cores, and the first time about 5 more to install and build."
elif [ "$only" = verdicts ]; then
  say "This takes about 10 minutes on 2 cores, and the first time about 5 more to install and build."
elif [ -n "$only" ]; then
  say "This takes up to 20 minutes on 2 cores, and the first time up to 15 more to install and build."
elif [ "$wild" = yes ]; then
  say "This takes about 35 minutes on 2 cores, and the first time up to 15 more to install and build."
else
  say "This takes about 10 minutes on 2 cores, and the first time about 5 more to install and build." \
    "(--quick: 3 minutes)"
fi

need_packages $build_packages binutils mandoc zsh bash-completion \
  python3 python3-pip python3-numpy python3-threadpoolctl r-base-core libcap2-bin make procps gdb clang-format \
  libopenblas0-pthread libopenblas-pthread-dev libopenblas0-openmp \
  libblis4-pthread libblis4-openmp libomp5-14 \
  libeatmydata1 libjemalloc2

# The wheels come while the programs are built.
mkdir -p "$build"
fetch_test_wheels &
fetching=$!
trap 'kill "$fetching" 2>/dev/null' EXIT
trap 'exit 130' INT

# install_packages SUITE: installs what the cases of a suite of tests/wild or tests/recipes need. If that fails as a
# whole, it installs the packages one by one. A case whose package is missing is skipped.
install_packages() {
  wanted=$("$python" "$root/tests/wild/cases.py" "$1" --debian)
  # shellcheck disable=SC2086
  (need_packages python3-venv python3-scipy $wanted) ||
    for package in python3-venv python3-scipy $wanted; do
      (need_packages "$package") || missing="$missing $package"
    done
  for environment in $("$python" "$root/tests/wild/cases.py" "$1" --environments); do
    list=$root/tests/wild/environments/$environment.txt
    # shellcheck disable=SC2046
    make_venv "wild/$environment" --no-deps $(cat "$list") ||
      while read -r requirement; do
        case $requirement in -*) continue ;; esac
        # shellcheck disable=SC2046 # the options of the list, such as --no-binary=PACKAGE
        "$venv/bin/python" -m pip install --quiet --no-deps --disable-pip-version-check --no-input \
          --only-binary :all: $(grep '^-' "$list") --timeout 10 --retries 2 "$requirement" \
          >>"$build/pip.log" 2>&1 ||
          missing="$missing $requirement"
      done <"$list"
  done
}

install_wild_packages() {
  install_packages wild
  make_obspy_venv || missing="$missing obspy==1.4.1"
  # threadpoolctl's tests use extensions of their own. If one can't be built, they skip what needs it.
  helpers=$build/wild/sources/python-threadpoolctl/tests/_openmp_test_helper
  if fetch_sources python-threadpoolctl "$build/wild/sources/python-threadpoolctl"; then
    for extension in inner outer nested_prange_blas; do
      (cd "$helpers" && "$python" "setup_$extension.py" build_ext -i) >"$helpers/$extension.log" 2>&1
    done
  else
    missing="$missing python-threadpoolctl's sources"
  fi
}

if [ "$wild" = yes ] || [ -n "$only" ]; then
  if "$python" -m pip download --quiet --no-deps --dest "$build/wheels/probe" --timeout 10 \
    --retries 2 threadpoolctl >"$build/pip.log" 2>&1; then
    missing=
    if [ -n "$only" ]; then install_packages "$only"; else install_wild_packages; fi
    [ -z "$missing" ] || say "not available, so their cases are skipped:$missing"
  else
    say "PyPI can't be reached, so cases whose packages are not installed are skipped"
  fi
fi

# count FIELD LOG: prints the number behind "FIELD:" in meson's summary.
count() { sed -n "s/^$1: *\([0-9]*\) *$/\1/p" "$2" | tail -n 1; }

passed=0
failed=0
skipped=0
# run_tests FOLDER ARGUMENT...: runs tests of that build folder, and adds to the counts. Meson shows each
# test when it ends, with its number and the number of all. Many tests wait for a process to hang, so one
# more runs at a time than there are processors.
run_tests() {
  folder=$1
  shift
  summary=$folder/meson-logs/testlog.txt
  rm -f "$summary"
  PYTHONUNBUFFERED=1 "$meson" test -C "$folder" --print-errorlogs --num-processes "$(($(nproc) + 1))" "$@"
  status=$?
  if ! grep -q '^Ok: ' "$summary" 2>/dev/null; then
    fail "meson test ended with status $status before any test had run"
  fi
  passed=$((passed + $(count Ok "$summary") + $(count 'Expected Fail' "$summary")))
  failed=$((failed + $(count Fail "$summary") + $(count Timeout "$summary") +
    $(count 'Unexpected Pass' "$summary")))
  skipped=$((skipped + $(count Skipped "$summary")))
}

# start_sanitized_builds: builds the unit tests with sanitizers while other tests run. The build uses only the
# processor time that the tests leave. It has a session of its own, so that the script can end all of it.
start_sanitized_builds() {
  build_log=$build/sanitized.log
  # shellcheck disable=SC2016 # the variables are the inner shell's
  setsid chrt --idle 0 sh -euc '
    meson=$1 build=$2 root=$3
    make() { # FOLDER SANITIZERS TARGET
      [ -f "$1/meson-private/coredata.dat" ] ||
        "$meson" setup "$1" "$root" -Db_sanitize="$2" -Db_lundef=false -Dbuildtype=debug
      "$meson" compile -C "$1" "$3"
    }
    make "$build/asan" address,undefined unit
    make "$build/tsan" thread gate_test
  ' sh "$meson" "$build" "$root" >"$build_log" 2>&1 &
  sanitizing=$!
  trap 'kill -- "-$sanitizing" 2>/dev/null' EXIT
  trap 'exit 130' INT
}

wait_for_sanitized_builds() {
  say "waiting for the unit tests with sanitizers, which are built meanwhile"
  wait "$sanitizing" || build_failed
  trap - EXIT INT
}

build_targets
wait "$fetching"
trap - EXIT INT
if [ "$quick" = yes ]; then
  run_tests "$build" --suite quick
elif [ -n "$only" ]; then
  run_tests "$build" --suite "$only"
elif [ "$wild" = yes ]; then
  start_sanitized_builds
  run_tests "$build"
  wait_for_sanitized_builds
  run_tests "$build/asan" --suite unit
  run_tests "$build/tsan" 'unit gate'
  say "real programs, without and with the library"
  run_tests "$build" --suite wild
else
  run_tests "$build" --no-suite more
fi

say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
