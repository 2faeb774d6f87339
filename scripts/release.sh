#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/release.sh [--dry-run] VERSION: makes a release of the commit that is checked out.
#
# In a clone in the build folder it sets the version and the date, commits that as "release: VERSION",
# tags the commit vVERSION, and builds and checks all packages of it (packages.sh, as root). It puts them
# with SHA256SUMS into build/release/VERSION, a folder for each kind. If all of that has worked, it brings
# the commit and the tag into this repository, unless --dry-run is given. It pushes and uploads nothing.
. "$(dirname "$0")/common.sh"

usage="usage: sh scripts/release.sh [--dry-run] VERSION"
dry_run=no
if [ "${1:-}" = --dry-run ]; then
  dry_run=yes
  shift
fi
[ $# -eq 1 ] || fail "$usage"
version=$1
say "$version" | grep -qxE '[0-9]+\.[0-9]+\.[0-9]+' || fail "$version: not a version like 1.2.3; $usage"
git -C "$root" diff --quiet HEAD || fail "there are changes that are not committed: commit them first"
if git -C "$root" rev-parse --quiet --verify "refs/tags/v$version" >/dev/null; then
  fail "the tag v$version exists already: give another version"
fi
grep -qxF "## $version (not released yet)" "$root/NEWS.md" ||
  fail "NEWS.md has no line \"## $version (not released yet)\": say there what is new"

release=$build/release/$version
clone=$build/release/clone
rm -rf "$release" "$clone"
mkdir -p "$release"
git clone --quiet --no-tags "$root" "$clone" || fail "the repository can't be cloned"
(
  cd "$clone" || exit
  git config user.name "$(git -C "$root" config user.name)"
  git config user.email "$(git -C "$root" config user.email)"
  "$python" scripts/version.py "$version" &&
    git commit --quiet --all --message "release: $version" &&
    git tag --annotate --message "forksafe $version" "v$version"
) || fail "the version could not be set"

# The clone uses the trees of this build folder.
mkdir -p "$build/trees" "$clone/build"
ln -s "$build/trees" "$clone/build/trees"
(cd "$clone" && FORKSAFE_BUILD=build sh scripts/packages.sh) ||
  fail "packages.sh failed: nothing is released; the clone is $clone"
cp -a "$clone/build/packages/artefacts/." "$release" &&
  (cd "$release" && find . -type f | LC_ALL=C sort | sed 's|^./||' | tr '\n' '\0' |
    xargs -0 sha256sum -- >"$build/release/sums" && mv "$build/release/sums" SHA256SUMS) ||
  fail "the packages can't be copied to $release"

say "$(wc -l <"$release/SHA256SUMS") files with SHA256SUMS are in $release"
if [ "$dry_run" = yes ]; then
  say "dry run: the commit and the tag are only in $clone"
else
  git -C "$root" pull --quiet --ff-only "$clone" HEAD &&
    git -C "$root" fetch --quiet "$clone" "refs/tags/v$version:refs/tags/v$version" ||
    fail "the commit and the tag are in $clone, but can't be brought here"
  say "To publish it: git push origin HEAD v$version, and upload these files."
fi
