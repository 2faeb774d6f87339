# SPDX-License-Identifier: Apache-2.0
# Trees of Debian's releases, in which commands run as on a new machine. Sourced after common.sh, by a
# script that runs as root.
#
# make_tree makes a tree with debootstrap, in the build folder. run_in_tree runs a command there. What the
# command writes goes to a layer on top (overlayfs), so the tree itself never changes. Everything in a
# tree runs in a mount and process namespace of its own (alone.sh), so no mount and no process is left
# when the script ends.
. "$root/scripts/alone.sh"

trees=$build/trees
apt_cache=$trees/cache
[ "$(id -u)" -eq 0 ] || fail "debootstrap and chroot need root: sudo sh scripts/$(basename -- "$0")"
need_packages debootstrap util-linux
mkdir -p "$apt_cache" "$trees/layers"
exec 9>"$trees/lock"
# Wait for some seconds, because background processes of an earlier run end a moment after it.
flock --wait 3 9 || fail "another run is using $trees"

# The mirror of Debian that this system uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' \
  2>/dev/null | head -n 1)
[ -n "$mirror" ] || fail "apt-get indextargets shows no source with the label Debian, so no mirror is known"

# make_tree SUITE: makes a tree with the required packages. A complete tree is used again, an incomplete
# one is made anew. To get a newer sid, remove the folder build/trees. Returns 1 if it can't be made;
# SUITE.log tells why.
make_tree() {
  tree=$trees/$1
  [ -f "$tree.made" ] && return 0
  # These scripts leave no mount behind. If there is one, somebody else made it, and rm must not enter it.
  grep -qF " $tree/" /proc/mounts && fail "something is mounted below $tree: see /proc/mounts"
  rm -rf --one-file-system "$tree"
  logged "$tree.log" "$1: debootstrap from $mirror" \
    alone debootstrap --variant=minbase --cache-dir="$apt_cache" "$1" "$tree" "$mirror" || return 1
  # Bullseye has no CLI11, and a meson older than 1.0. PACKAGE/bookworm installs bookworm's, which are
  # scripts and headers, and work on bullseye too.
  if [ "$1" = bullseye ]; then
    say "deb $mirror bookworm main" >>"$tree/etc/apt/sources.list"
    say 'APT::Default-Release "bullseye";' >"$tree/etc/apt/apt.conf.d/forksafe"
  fi
  # Sid's lists are valid for a week only, and a mirror that is a snapshot may be older.
  say 'Acquire::Check-Valid-Until "false";' >"$tree/etc/apt/apt.conf.d/forksafe-snapshot"
  say 'force-unsafe-io' >"$tree/etc/dpkg/dpkg.cfg.d/forksafe"
  : >"$tree.made"
}

# run_in_tree SUITE LAYER [--bind SOURCE TARGET ro|rw]... COMMAND...: runs the command with the tree as its
# root. What it changes is kept in the layer (a name), which a later call sees again. Packages that were
# downloaded once are not downloaded again.
run_in_tree() {
  lower=$trees/$1
  layer=$trees/layers/$2
  shift 2
  mkdir -p "$layer/changes" "$layer/work" "$layer/root"
  # shellcheck disable=SC2016 # the variables are the inner shell's
  alone sh -euc '
    lower=$1 layer=$2 cache=$3 root=$2/root
    shift 3
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$layer/changes,workdir=$layer/work" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount --bind "$cache" "$root/var/cache/apt/archives"
    while [ "$1" = --bind ]; do
      mkdir -p "$root$3"
      mount --bind -o "$4" "$2" "$root$3"
      shift 4
    done
    # A shell ignores INT and QUIT in a command that it starts with &, as alone does. Set the defaults.
    exec chroot "$root" env --default-signal=INT,QUIT PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
      LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
  ' sh "$lower" "$layer" "$apt_cache" "$@"
}

# drop_layer LAYER: removes the layer, and so every change in it.
drop_layer() { rm -rf --one-file-system "$trees/layers/$1"; }

# copy_sources FOLDER: copies the sources as they are now, with changes that are not committed.
copy_sources() {
  rm -rf "$1.new"
  mkdir -p "$1.new"
  git -C "$root" ls-files -z --cached --others --exclude-standard |
    tar -C "$root" --null -T - --ignore-failed-read -c 2>/dev/null | tar -C "$1.new" -x -m ||
    fail "the sources can't be copied: $root must be a git checkout"
  # A file that has not changed keeps its time. All other files are new, so meson builds them again.
  # shellcheck disable=SC2016 # the variables are the inner shell's
  [ ! -d "$1" ] || (cd "$1.new" && find . -type f -exec sh -c '
    for file; do cmp -s "$file" "$0/$file" && touch -r "$0/$file" "$file"; done' "$1" {} +) || true
  rm -rf "$1"
  mv "$1.new" "$1"
}
