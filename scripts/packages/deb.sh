# SPDX-License-Identifier: Apache-2.0
# Debian's packages: packaging/debian. Sourced by packages.sh.
#
# On amd64, bookworm and trixie also build them for arm64, with a cross-compiler. sid does not: the two
# architectures often have different versions of a library there, which can't be installed together.
deb_suites='bookworm trixie sid'
[ "$quick" = no ] || deb_suites=bookworm

# The builds take as long as all other kinds, mostly on one processor, so they run beside the kinds that
# come after this one.
package_deb() {
  deb_made=
  for deb_suite in $deb_suites; do
    check "$deb_suite: a tree" make_tree "$deb_suite" && deb_made="$deb_made $deb_suite"
  done
  # shellcheck disable=SC2086 # a list
  beside deb_all $deb_made
}

# deb_all SUITE...
deb_all() {
  deb_built_on=$(dpkg --print-architecture)
  for deb_suite in "$@"; do
    deb_drop_layers "$deb_suite"
    deb_build "$deb_suite" "$deb_suite $deb_built_on"
    case $quick-$deb_built_on-$deb_suite in
      no-amd64-bookworm | no-amd64-trixie) deb_cross "$deb_suite" "$deb_suite arm64" ;;
    esac
    deb_drop_layers "$deb_suite"
  done
}

deb_drop_layers() {
  for deb_layer in build test piuparts install cross; do
    drop_layer "deb-$1-$deb_layer"
  done
}

# deb_step SUITE LAYER STEP...: runs a step of deb/inside.sh in a layer of that suite. The tree itself is
# at /base, for piuparts.
deb_step() {
  step_suite=$1
  step_layer=$2
  shift 2
  in_tree "$step_suite" "deb-$step_suite-$step_layer" \
    --bind "$root/scripts/packages/deb" /deb ro --bind "$trees/$step_suite" /base ro \
    env mirror="$mirror" suite="$step_suite" version="$version" sh /deb/inside.sh "$@"
}

# deb_build SUITE WORDS: each row begins with the words.
deb_build() {
  check "$2: build, by an ordinary user without a network" deb_step "$1" build build "$quick" || return 0
  check "$2: lintian" deb_step "$1" build lintian
  check "$2: blhc" deb_step "$1" build blhc
  check "$2: autopkgtest smoke" deb_step "$1" test autopkgtest smoke
  check "$2: install, run, purge" deb_step "$1" install install
  [ "$quick" = no ] || return 0
  check "$2: the same bytes twice" deb_step "$1" build again
  check "$2: autopkgtest upstream" deb_step "$1" test autopkgtest upstream
  check "$2: piuparts" deb_step "$1" piuparts piuparts
}

# deb_cross SUITE WORDS
deb_cross() {
  check "$2: cross-build" deb_step "$1" cross cross || return 0
  check "$2: lintian" deb_step "$1" cross lintian
  check "$2: needs libc alone, installs beside amd64" deb_step "$1" cross cross-install || return 0
  check "$2: runs under QEMU" deb_qemu "$1"
}

deb_qemu() {
  fetch_qemu &&
    in_tree "$1" "deb-$1-cross" --bind "$root/scripts/packages/deb" /deb ro --bind "$qemu" /qemu ro \
      env suite="$1" version="$version" sh /deb/inside.sh cross-run
}
