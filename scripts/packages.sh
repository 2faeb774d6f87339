#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/packages.sh [--quick] [KIND...]: builds the packages of these kinds (default: all), and checks
# them: deb wheel rpm arch conda spack easybuild modules.
#
# --quick leaves out what repeats a check on one more release of Debian or Python or for another processor, the
# second build that must give the same bytes, piuparts, and the project's suite on the installed package.
#
# It needs root, because it builds and checks in trees of Debian's releases (trees.sh). There, no package
# of this machine can hide a missing dependency. The finished packages are in build/packages/artefacts. The
# script ends with a table of all checks; the exit status is 0 if none failed. Each kind has a file in
# scripts/packages.
. "$(dirname "$0")/common.sh"

quick=no
if [ "${1:-}" = --quick ]; then
  quick=yes
  shift
fi
kinds='deb wheel rpm arch conda spack easybuild modules'
for kind in "$@"; do
  case " $kinds " in
    *" $kind "*) ;;
    *) fail "no such kind: $kind (known: $kinds)" ;;
  esac
done
# shellcheck disable=SC2086 # a list
[ $# -gt 0 ] || set -- $kinds
need_packages git python3 python3-pip bsdextrautils
. "$root/scripts/trees.sh"
. "$root/scripts/qemu.sh"

packages=$build/packages
artefacts=$packages/artefacts
rows=$packages/rows
mkdir -p "$artefacts"
: >"$rows"

version=$(sed -n "s/^ *version: '\(.*\)',/\1/p" "$root/meson.build")
[ -n "$version" ] || fail "meson.build has no line with the version"

# The source archive, as in a release. The same sources always give the same bytes.
copy_sources "$packages/forksafe-$version"
mkdir -p "$artefacts/sources"
SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
tar -C "$packages" --sort=name --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
  --mtime="@$SOURCE_DATE_EPOCH" -c "forksafe-$version" |
  gzip -9n >"$artefacts/sources/forksafe-$version.tar.gz"

# in_tree SUITE LAYER COMMAND...: calls run_in_tree, with the artefacts at /artefacts.
in_tree() {
  in_suite=$1
  in_layer=$2
  shift 2
  run_in_tree "$in_suite" "$in_layer" --bind "$artefacts" /artefacts rw "$@"
}

tab=$(printf '\t')
# record NAME RESULT SECONDS: adds a row to the table, and prints it.
record() {
  say "$kind$tab$1$tab$2$tab$3 s" >>"$rows"
  say "$kind: $1: $2, $3 s"
}

# check NAME COMMAND...: runs the command and records whether it passed, and how long it took. Returns its
# status.
check() {
  checked=$1
  shift
  check_began=$(date +%s)
  say "== $checked: $*" >>"$packages/$kind.log"
  checked_status=0
  "$@" >>"$packages/$kind.log" 2>&1 || checked_status=$?
  result=passed
  [ $checked_status -eq 0 ] || result=failed
  record "$checked" $result "$(($(date +%s) - check_began))"
  [ $checked_status -eq 0 ] || tail -n 15 "$packages/$kind.log" >&2
  return $checked_status
}

# skipped NAME WHY
skipped() { record "$1" "skipped: $2" 0; }

# beside COMMAND...: runs the command beside the kinds that follow. apt locks its cache, so the command has one of
# its own. Only one command can run so.
beside_id=
beside() {
  (
    stop_when_signalled
    at_end=:
    apt_cache=$trees/cache-beside
    mkdir -p "$apt_cache"
    "$@"
  ) &
  beside_id=$!
}
end_beside() {
  [ -z "$beside_id" ] || kill "$beside_id" 2>/dev/null || true
  wait
}
at_end=end_beside

for kind in "$@"; do
  : >"$packages/$kind.log"
  rm -rf "${artefacts:?}/$kind"
  mkdir -p "$artefacts/$kind"
  . "$root/scripts/packages/$kind.sh"
  "package_$kind"
done
[ -z "$beside_id" ] || wait "$beside_id" || exit 2 # it has said why
beside_id=
for kind in "$@"; do
  [ "$kind" != wheel ] || measure_wheel
done

say
for kind in "$@"; do
  grep "^$kind$tab" "$rows"
done | column -t -s "$tab"
if grep -q "${tab}failed$tab" "$rows"; then
  say "(logs: $packages/*.log)"
  exit 1
fi
say "$(grep -c "${tab}passed$tab" "$rows") passed, none failed," \
  "$(grep -c "${tab}skipped: " "$rows") skipped"
