#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/distros.sh [SUITE...]: runs the tests on other releases of Debian (default: bullseye, trixie
# and sid). It needs root, because it makes a tree of each release with debootstrap in the build folder.
#
# The library is built once, on bullseye, and that binary is tested in each tree. The tree's own compiler
# builds the tests and the command. Everything in a tree runs in a mount and process namespace of its own
# (alone.sh), so no mount and no process is left when this script ends.
. "$(dirname "$0")/common.sh"

[ $# -gt 0 ] || set -- bullseye trixie sid
for suite in "$@"; do
  case $suite in
    bullseye | trixie | sid) ;;
    *) fail "no such suite: $suite (known: bullseye, trixie, sid)" ;;
  esac
done
need_packages python3 python3-pip git
. "$root/scripts/trees.sh"

distros=$build/distros
mkdir -p "$distros" "$build/wheels"

tree_packages="$build_packages binutils mandoc zsh bash-completion python3-numpy
  python3-threadpoolctl libcap2-bin make procps libopenblas0-pthread libopenblas0-openmp libomp5
  libeatmydata1 libjemalloc2"

# packages_of SUITE: prints the packages of a tree. Bullseye has no CLI11, and a meson older than 1.0, so
# it gets bookworm's. They are scripts and headers, which work on bullseye too.
packages_of() {
  case $1 in
    bullseye)
      say "$tree_packages libblis3-pthread libblis3-openmp" |
        sed 's:\<meson\>:&/bookworm:; s:\<libcli11-dev\>:&/bookworm:'
      ;;
    *) say "$tree_packages libblis4-pthread libblis4-openmp" ;;
  esac
}

# inside SUITE COMMAND...: runs the command in the tree of the suite. The sources and the wheels are in
# /forksafe there.
inside() {
  in_suite=$1
  shift
  run_in_tree "$in_suite" "distros-$in_suite" --bind "$distros/source" /forksafe/source ro \
    --bind "$build/wheels" /forksafe/build/wheels ro "$@"
}

# files_of SUITE: prints the folder where the files of /forksafe in that tree are.
files_of() { say "$trees/layers/distros-$1/changes/forksafe"; }

# prepare SUITE: makes the tree and installs its packages.
prepare() {
  log=$distros/$1.log
  packages=$(packages_of "$1")
  : >"$log"
  if ! make_tree "$1"; then
    cat "$trees/$1.log" >>"$log"
    return 1
  fi
  [ "$(cat "$(files_of "$1")/packages" 2>/dev/null)" = "$packages" ] && return 0
  say "$1: installing packages"
  # shellcheck disable=SC2086 # word splitting is meant
  inside "$1" apt-get -q update >>"$log" 2>&1 &&
    inside "$1" apt-get -q install -y --no-install-recommends $packages >>"$log" 2>&1 &&
    say "$packages" >"$(files_of "$1")/packages"
}

# Copy the sources once, so all trees test the same even if they change meanwhile.
copy_sources "$distros/source"

fetch_test_wheels
# A numpy for the Python of each tree.
while read -r version requirement; do
  fetch_wheel "numpy-python$version" "$requirement" --python-version "$version" ||
    say "not available from PyPI: $requirement for Python $version"
done <<END
3.9 numpy==2.0.2
3.13 numpy==2.2.6
3.14 numpy==2.4.0
END

# A binary that was built on an older glibc runs on a newer one, but not the other way round.
oldest=bullseye
case " $* " in
  *" $oldest "*) prepared=$* ;;
  *) prepared="$oldest $*" ;;
esac
for suite in $prepared; do
  prepare "$suite" || {
    tail -n 15 "$distros/$suite.log" >&2
    fail "the tree of $suite can't be made (log: $distros/$suite.log)"
  }
done

say "$oldest: building the library"
inside "$oldest" sh /forksafe/source/scripts/distros/inside.sh build-library \
  >>"$distros/$oldest.log" 2>&1 || {
  tail -n 30 "$distros/$oldest.log" >&2
  fail "the library could not be built (log: $distros/$oldest.log)"
}
library=$distros/libforksafe.so
cp "$(files_of "$oldest")/library/shim/libforksafe.so" "$library"

for suite in "$@"; do
  files=$(files_of "$suite")
  cp "$library" "$files/libforksafe.so"
  rm -f "$files/versions" "$files/ended" "$files/build/meson-logs/testlog.json"
  inside "$suite" sh /forksafe/source/scripts/distros/inside.sh versions >"$files/versions"
  say "$suite: $(tr '\n' ' ' <"$files/versions" | tr '=' ' ')"
  inside "$suite" sh /forksafe/source/scripts/distros/inside.sh test >>"$distros/$suite.log" 2>&1
  "$python" "$root/scripts/tree_results.py" collect "$distros" "$suite=$files" ||
    say "  (log: $distros/$suite.log)"
done
say
for suite in "$@"; do
  shift
  set -- "$@" "$suite=$(files_of "$suite")"
done
"$python" "$root/scripts/tree_results.py" collect "$distros" "$@"
