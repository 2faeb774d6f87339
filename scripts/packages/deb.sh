# SPDX-License-Identifier: Apache-2.0
# Debian's packages: packaging/debian. Sourced by packages.sh.
#
# deb_suites  the releases they are built for and checked in (default: "bookworm trixie sid")
#
# On amd64 they are also built for arm64, by the cross-compiler of bookworm and trixie. (In sid the packages
# of two architectures often have different versions, and then can't be installed together.)

# deb_step SUITE LAYER STEP: a step of deb/inside.sh, in a layer of that suite. The tree itself is at /base.
deb_step() {
  deb_suite=$1
  deb_layer=$2
  shift 2
  in_tree "$deb_suite" "deb-$deb_suite-$deb_layer" \
    --bind "$root/scripts/packages/deb" /deb ro --bind "$trees/$deb_suite" /base ro \
    env mirror="$mirror" suite="$deb_suite" version="$version" sh /deb/inside.sh "$@"
}

package_deb() {
  deb_built_on=$(dpkg --print-architecture)
  for deb_suite in ${deb_suites:-bookworm trixie sid}; do
    for deb_layer in build test piuparts install cross; do
      drop_layer "deb-$deb_suite-$deb_layer"
    done
    check "$deb_suite: a tree" make_tree "$deb_suite" || continue
    deb_build "$deb_suite" "$deb_suite $deb_built_on"
    case $deb_built_on-$deb_suite in
      amd64-bookworm | amd64-trixie) deb_cross "$deb_suite" "$deb_suite arm64" ;;
    esac
    for deb_layer in build test piuparts install cross; do
      drop_layer "deb-$deb_suite-$deb_layer"
    done
  done
}

# deb_build SUITE WORDS
deb_build() {
  check "$2: build, by an ordinary user without a network" deb_step "$1" build build || return
  check "$2: lintian" deb_step "$1" build lintian
  check "$2: blhc" deb_step "$1" build blhc
  check "$2: the same bytes twice" deb_step "$1" build again
  check "$2: autopkgtest smoke" deb_step "$1" test autopkgtest smoke
  check "$2: autopkgtest upstream" deb_step "$1" test autopkgtest upstream
  check "$2: piuparts" deb_step "$1" piuparts piuparts
  check "$2: install, run, purge" deb_step "$1" install install
}

# deb_cross SUITE WORDS
deb_cross() {
  check "$2: cross-build" deb_step "$1" cross cross || return
  check "$2: lintian" deb_step "$1" cross lintian
  check "$2: needs libc alone, installs beside amd64" deb_step "$1" cross cross-install
  # Bookworm's own qemu 7.2 does not do.
  case " ${deb_suites:-bookworm trixie sid} " in
    *' sid '*) ;;
    *)
      skipped "$2: runs under qemu" 'needs qemu from sid, which is not among the suites'
      return
      ;;
  esac
  check "$2: runs under qemu" deb_qemu "$1"
}

deb_qemu() {
  make_tree sid && deb_step sid qemu fetch-qemu &&
    deb_step "$1" cross --bind "$trees/layers/deb-sid-qemu/changes/qemu" /qemu ro cross-run
}
