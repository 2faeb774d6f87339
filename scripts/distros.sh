#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/distros.sh [SUITE...]: runs the tests on other releases of Debian (default: bullseye, trixie
# and sid). It needs root, because it makes a tree of each release with debootstrap in the build folder.
#
# The library is built once, on bullseye, and that binary is tested in each tree. The tree's own compiler
# builds the tests and the command. Everything in a tree runs in a mount and process namespace of its own
# (alone.sh), so no mount and no process is left when this script ends.
. "$(dirname "$0")/common.sh"
. "$root/scripts/alone.sh"

[ $# -gt 0 ] || set -- bullseye trixie sid
for suite in "$@"; do
  case $suite in
    bullseye | trixie | sid) ;;
    *) fail "no such suite: $suite (known: bullseye, trixie, sid)" ;;
  esac
done
[ "$(id -u)" -eq 0 ] || fail "debootstrap and chroot need root: sudo sh scripts/distros.sh"
need_packages debootstrap util-linux python3 python3-pip git

distros=$build/distros
cache=$distros/cache
mkdir -p "$distros" "$cache" "$build/wheels"
exec 9>"$distros/lock"
flock --nonblock 9 || fail "another run is using $distros"

# The mirror of Debian that this system uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' \
  2>/dev/null | head -n 1)
[ -n "$mirror" ] || fail "apt-get indextargets shows no source with the label Debian, so no mirror is known"

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

# inside TREE COMMAND...: runs the command with the tree as its root. It mounts there /proc, /dev and
# /sys, the sources and the wheels (read-only), and the packages that were downloaded so far.
inside() {
  tree=$1
  shift
  mkdir -p "$tree/forksafe/source" "$tree/forksafe/build/wheels"
  # shellcheck disable=SC2016 # the variables are the inner shell's
  alone sh -euc '
    tree=$1 distros=$2 wheels=$3
    shift 3
    mount -t proc proc "$tree/proc"
    mount --rbind /dev "$tree/dev"
    mount --rbind /sys "$tree/sys"
    mount --bind -o ro "$distros/source" "$tree/forksafe/source"
    mount --bind -o ro "$wheels" "$tree/forksafe/build/wheels"
    mount --bind "$distros/cache" "$tree/var/cache/apt/archives"
    # A shell starts what follows & with INT and QUIT ignored.
    exec chroot "$tree" env --default-signal=INT,QUIT PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
      DEBIAN_FRONTEND=noninteractive "$@"
  ' sh "$tree" "$distros" "$build/wheels" "$@"
}

# make_tree SUITE: makes a tree. A complete tree is used again, an incomplete one is made anew. To get a
# newer sid, remove its folder.
make_tree() {
  tree=$distros/$1
  log=$distros/$1.log
  packages=$(packages_of "$1")
  : >"$log"
  if [ ! -f "$tree/forksafe/made" ]; then
    say "$1: debootstrap from $mirror"
    # This script leaves no mount behind. If there is one, somebody else made it, and rm must not enter it.
    grep -qF " $tree/" /proc/mounts && fail "something is mounted below $tree: see /proc/mounts"
    rm -rf --one-file-system "$tree"
    alone debootstrap --variant=minbase --cache-dir="$cache" "$1" "$tree" "$mirror" >>"$log" 2>&1 ||
      return 1
    if [ "$1" = bullseye ]; then
      say "deb $mirror bookworm main" >>"$tree/etc/apt/sources.list"
      say 'APT::Default-Release "bullseye";' >"$tree/etc/apt/apt.conf.d/forksafe"
    fi
    mkdir -p "$tree/forksafe"
    : >"$tree/forksafe/made"
  fi
  [ "$(cat "$tree/forksafe/packages" 2>/dev/null)" = "$packages" ] && return 0
  say "$1: installing packages"
  # Sid's lists are valid for a week only, and a mirror that is a snapshot may be older.
  # shellcheck disable=SC2086 # word splitting is meant
  inside "$tree" apt-get -q update -o Acquire::Check-Valid-Until=false >>"$log" 2>&1 &&
    inside "$tree" apt-get -q install -y --no-install-recommends -o DPkg::Options::=--force-unsafe-io \
      $packages >>"$log" 2>&1 &&
    say "$packages" >"$tree/forksafe/packages"
}

# Copy the sources once, so all trees test the same even if they change meanwhile.
rm -rf "$distros/source"
mkdir -p "$distros/source"
git -C "$root" ls-files -z --cached --others --exclude-standard |
  tar -C "$root" --null -T - --ignore-failed-read -c 2>/dev/null | tar -C "$distros/source" -x ||
  fail "the sources can't be copied: $root must be a git checkout"

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
  *" $oldest "*) trees=$* ;;
  *) trees="$oldest $*" ;;
esac
for suite in $trees; do
  make_tree "$suite" || {
    tail -n 15 "$distros/$suite.log" >&2
    fail "the tree of $suite can't be made (log: $distros/$suite.log)"
  }
done

say "$oldest: building the library"
inside "$distros/$oldest" sh /forksafe/source/scripts/distros/inside.sh build-library \
  >>"$distros/$oldest.log" 2>&1 || {
  tail -n 30 "$distros/$oldest.log" >&2
  fail "the library could not be built (log: $distros/$oldest.log)"
}
library=$distros/libforksafe.so
cp "$distros/$oldest/forksafe/library/shim/libforksafe.so" "$library"

for suite in "$@"; do
  tree=$distros/$suite
  cp "$library" "$tree/forksafe/libforksafe.so"
  rm -f "$tree/forksafe/versions" "$tree/forksafe/ended" \
    "$tree/forksafe/build/meson-logs/testlog.json"
  inside "$tree" sh /forksafe/source/scripts/distros/inside.sh versions >"$tree/forksafe/versions"
  say "$suite: $(tr '\n' ' ' <"$tree/forksafe/versions" | tr '=' ' ')"
  inside "$tree" sh /forksafe/source/scripts/distros/inside.sh test >>"$distros/$suite.log" 2>&1
  "$python" "$root/scripts/distros/results.py" "$distros" "$suite" ||
    say "  (log: $distros/$suite.log)"
done
say
"$python" "$root/scripts/distros/results.py" "$distros" "$@"
