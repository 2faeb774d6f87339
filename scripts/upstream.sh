#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/upstream.sh [SUITE...]: runs other projects' own tests without and with the library. The
# results must be the same. It needs root, because each test runs in namespaces of its own.
#
#   glibc    glibc's tests that call fork, or a function that forks
#   loaded   the same tests, with OpenBLAS (its own threads) and GNU OpenMP loaded in both runs
#   libgomp  GCC's tests of GNU OpenMP
#   child    the same tests. With the library, each runs in a forked child of a process whose pool has
#            run. Without it they are not forked, because most of them would hang.
#   llvm     LLVM's tests of its OpenMP runtime
#
# The sources come from Debian's source packages. All files stay in the build folder.
# A test that passes without the library must have the same result with it. A test that does not pass
# without the library is skipped and named.
#
# All five suites took 26 minutes on two busy processors. Each test that hangs with the library takes some
# minutes more.
#
# FORKSAFE_LIB  the library to test (default: the one in the build folder, which is built first)
. "$(dirname "$0")/common.sh"
. "$root/scripts/alone.sh"
. "$root/scripts/upstream/glibc.sh"
. "$root/scripts/upstream/libgomp.sh"
. "$root/scripts/upstream/llvm.sh"

[ $# -gt 0 ] || set -- glibc loaded libgomp child llvm
for suite in "$@"; do
  case $suite in
    glibc | loaded | libgomp | child | llvm) ;;
    *) fail "no such suite: $suite (known: glibc, loaded, libgomp, child, llvm)" ;;
  esac
done
[ "$(id -u)" -eq 0 ] || fail "namespaces need root: sudo sh scripts/upstream.sh"

upstream=$build/upstream
mkdir -p "$upstream/sources"
exec 9>"$upstream/lock"
flock --nonblock 9 || fail "another run is using $upstream"

need_packages ninja-build util-linux gcc libc6-dev
if [ -n "${FORKSAFE_LIB:-}" ]; then
  library=$(realpath -e -- "$FORKSAFE_LIB") || fail "FORKSAFE_LIB: no such file: $FORKSAFE_LIB"
else
  # shellcheck disable=SC2086 # word splitting is meant
  need_packages $build_packages
  build_targets forksafe:shared_module
  library=$build/shim/libforksafe.so
fi

# count WORD FILE: prints how many lines start with the word.
count() { grep -c "^$1 " "$2"; }

# run_suite SUITE: compiles the suite, runs it, and adds to the counts.
run_suite() {
  # Defaults, which the suite's functions may change:
  folder=$upstream/$1 # the folder in which it is compiled
  before=             # further libraries in LD_PRELOAD, in both runs
  inside=             # further libraries in LD_PRELOAD, in the run with the library only
  jobs=1              # how many tests run at a time
  seconds=20          # the time limit of one run
  mkdir -p "$folder"

  started=$(date +%s)
  if ! "$1_fetch"; then
    say "$1: skipped, because its packages or sources are not available (see $(package_log))"
    skipped=$((skipped + 1))
    return
  fi
  "$1_prepare"
  ninja -C "$folder" -k 0 >"$folder/build.log" 2>&1
  "$1_commands" >"$upstream/$1/commands"
  compiled=$(date +%s)

  folder=$upstream/$1
  rm -rf "$folder/differ"
  mkdir -p "$folder/differ"
  # A line of commands is "NAME PROGRAM COMMAND". A program that did not compile is missing.
  : >"$folder/results"
  : >"$folder/runnable"
  while read -r name program command; do
    if [ -x "$program" ]; then
      say "$name $command" >>"$folder/runnable"
    else
      say "skipped $name: does not compile on this system" >>"$folder/results"
    fi
  done <"$folder/commands"
  [ -s "$folder/runnable" ] || fail "$1: nothing compiles (see $upstream/$1/build.log)"
  UPSTREAM_WITHOUT=$before UPSTREAM_WITH=$library:$inside:$before UPSTREAM_SECONDS=$seconds \
    UPSTREAM_OUTPUT=$folder/differ \
    alone xargs -a "$folder/runnable" -L 1 -P "$jobs" sh "$root/scripts/upstream/compare.sh" \
    >>"$folder/results"
  finished=$(date +%s)

  sed -n 's/^skipped \(.*\): does not compile on this system$/\1/p' "$folder/results" | sort | paste -sd ' ' |
    sed "s/^..*/$1: do not compile on this system: &/" | fold -s -w 110
  grep -v ': does not compile on this system$' "$folder/results" | grep -v '^passed ' | sort |
    sed "s/^/$1: /"
  say "$1: $(count passed "$folder/results") passed, $(count failed "$folder/results") failed," \
    "$(count skipped "$folder/results") skipped; $((compiled - started)) s to compile," \
    "$((finished - compiled)) s to run"
  if [ "$(wc -l <"$folder/results")" -ne "$(wc -l <"$folder/commands")" ]; then
    fail "$1: not every test has a result: compare $folder/commands with $folder/results"
  fi
  passed=$((passed + $(count passed "$folder/results")))
  failed=$((failed + $(count failed "$folder/results")))
  skipped=$((skipped + $(count skipped "$folder/results")))
}

passed=0
failed=0
skipped=0
for suite in "$@"; do
  run_suite "$suite"
done
[ "$failed" -eq 0 ] || say "the output of each test whose results differ is in $upstream/SUITE/differ"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
