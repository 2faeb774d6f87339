#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/upstream/compare.sh NAME COMMAND [ARG...]: runs a test without and with the library and
# prints one line: "passed NAME", or "failed NAME: why" or "skipped NAME: why". upstream.sh calls it.
#
# UPSTREAM_WITHOUT, UPSTREAM_WITH  LD_PRELOAD of the run without and of the run with the library
# UPSTREAM_SECONDS                 the most that a run may take
# UPSTREAM_OUTPUT                  a folder for the output of both runs of tests that differ
#
# Each run has process and IPC namespaces of its own, so whatever it leaves behind ends with it.
# A test that differs is run again both ways, as often as $repeats says: many of these tests race with
# the clock, and one that sometimes fails without the library as well tells nothing. One that never
# does has failed, even if it differs only once; the line tells how often. Three times of three are
# enough.
name=$1
shift
repeats=4
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT HUP TERM

# same FILE FILE: the same characters, in any order: processes and threads write at the same time.
same() { [ "$(characters "$1")" = "$(characters "$2")" ]; }
characters() { LC_ALL=C fold -b -w 1 "$1" | LC_ALL=C sort | cksum; }

# run PRELOAD LABEL COMMAND...: sets $status; the output goes to $scratch/LABEL.
run() {
  preload=$1
  label=$2
  shift 2
  mkdir -p "$scratch/files"
  # The shell is process 1 there. The kernel keeps signals from process 1, so a test must not be it.
  # shellcheck disable=SC2016 # the variables are the inner shell's
  unshare --pid --ipc --fork --kill-child --mount-proc sh -c '
    # A few tests of glibc open the Makefile of the folder that they are run in.
    cd "$1" && : >Makefile && TMPDIR=$1 && export TMPDIR
    preload=$2 seconds=$3
    shift 3
    timeout --kill-after=5 "$seconds" env LD_PRELOAD="$preload" "$@"
    exit $?
  ' sh "$scratch/files" "$preload" "$UPSTREAM_SECONDS" "$@" \
    </dev/null >"$scratch/$label" 2>&1
  status=$?
  rm -rf "$scratch/files"
}

# meaning STATUS
meaning() {
  case $1 in
    0) echo 'exit status 0' ;;
    77) echo 'not supported here' ;;
    124 | 137) echo "still running after $UPSTREAM_SECONDS s" ;;
    *) echo "exit status $1" ;;
  esac
}

run "$UPSTREAM_WITHOUT" without "$@"
if [ "$status" -ne 0 ]; then
  echo "skipped $name: without the library: $(meaning "$status")"
  exit
fi

run "$UPSTREAM_WITH" with "$@"
with=$status
if [ "$with" -eq 0 ] && same "$scratch/without" "$scratch/with"; then
  echo "passed $name"
  exit
fi

file=$UPSTREAM_OUTPUT/$(printf '%s' "$name" | tr / .)
cp "$scratch/without" "$file.without"
cp "$scratch/with" "$file.with"

# settle LINE: the test has not failed.
settle() {
  echo "$1"
  rm -f "$file.without" "$file.with"
  exit
}

runs=1
differs=1
while [ $runs -le $repeats ] && { [ $runs -lt 3 ] || [ $differs -lt $runs ]; }; do
  runs=$((runs + 1))
  run "$UPSTREAM_WITHOUT" again "$@"
  [ "$status" -eq 0 ] ||
    settle "skipped $name: sometimes fails without the library, too: $(meaning "$status")"
  # Only the output was different. It says nothing where it is not always the same without the library
  # (times, process ids, order of threads), nor where the library's is the same at times.
  [ "$with" -ne 0 ] || same "$scratch/without" "$scratch/again" || settle "passed $name"
  run "$UPSTREAM_WITH" again "$@"
  if [ "$status" -eq 0 ] && same "$scratch/without" "$scratch/again"; then
    [ "$with" -ne 0 ] || settle "passed $name"
  else
    differs=$((differs + 1))
  fi
done
why=$(meaning "$with")
[ "$with" -ne 0 ] || why='exit status 0, but other output'
echo "failed $name: $why, in $differs of $runs runs; without the library never"
