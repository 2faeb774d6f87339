#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/upstream/compare.sh NAME COMMAND [ARG...]: runs a test without and with the library and
# prints one line: "passed NAME", "failed NAME: why" or "skipped NAME: why". upstream.sh calls it.
#
# UPSTREAM_WITHOUT, UPSTREAM_WITH  LD_PRELOAD of the run without and of the run with the library
# UPSTREAM_SECONDS                 the time limit of a run
# UPSTREAM_OUTPUT                  a folder for both outputs of a test whose results differ
#
# Each run has process and IPC namespaces of its own, so nothing that it starts survives it.
#
# If the two results differ, the test is run again both ways, up to $repeats times, because many of these
# tests race with the clock:
# - If the test fails once without the library, it proves nothing and is skipped.
# - If it never fails without the library, it has failed, even if the results differed only once. The line
#   says how often they differed.
# - If the results differ in the first three runs, that is enough, and it is not run again.
name=$1
shift
repeats=4
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT HUP TERM

# same FILE FILE: returns whether the files have the same characters, in any order, because processes and
# threads write at the same time.
same() { [ "$(characters "$1")" = "$(characters "$2")" ]; }
characters() { LC_ALL=C fold -b -w 1 "$1" | LC_ALL=C sort | cksum; }

# run PRELOAD LABEL COMMAND...: sets $status; the output goes to $scratch/LABEL.
run() {
  preload=$1
  label=$2
  shift 2
  mkdir -p "$scratch/files"
  # The shell is process 1 of the namespace. The test must not be process 1, because the kernel drops signals
  # for which process 1 has no handler.
  # shellcheck disable=SC2016 # the variables are the inner shell's
  unshare --pid --ipc --fork --kill-child --mount-proc sh -c '
    # A few tests of glibc open a Makefile in the current folder.
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

# meaning STATUS: prints what an exit status means.
meaning() {
  case $1 in
    0) echo 'exit status 0' ;;
    77) echo 'not supported on this system' ;;
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

# settle LINE: prints the result of a test whose runs differed but that has not failed, and ends the script.
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
    settle "skipped $name: sometimes fails without the library too: $(meaning "$status")"
  # If only the output differs, it may differ from run to run (times, process ids). The test passes if the
  # outputs of two runs without the library differ, or if one run with the library and one without have the
  # same output.
  [ "$with" -ne 0 ] || same "$scratch/without" "$scratch/again" || settle "passed $name"
  run "$UPSTREAM_WITH" again "$@"
  if [ "$status" -eq 0 ] && same "$scratch/without" "$scratch/again"; then
    [ "$with" -ne 0 ] || settle "passed $name"
  else
    differs=$((differs + 1))
  fi
done
why=$(meaning "$with")
[ "$with" -ne 0 ] || why='exit status 0, but the output differs'
echo "failed $name: $why, in $differs of $runs runs; never without the library"
