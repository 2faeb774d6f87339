# SPDX-License-Identifier: Apache-2.0
# QEMU, which runs programs of other architectures. It comes from sid, because bookworm's QEMU (7.2) aborts
# in a child that makes threads. It is a static binary, so it runs in every tree. Sourced after trees.sh.

qemu=$trees/qemu
handlers=/proc/sys/fs/binfmt_misc

# fetch_qemu: unpacks QEMU into $qemu. Returns 1 if it can't be had; qemu.log tells why.
fetch_qemu() {
  [ -d "$qemu" ] && return 0
  rm -rf "$qemu.part"
  mkdir -p "$qemu.part/unpacked"
  own_lists "$qemu.part" "deb $mirror sid main"
  # shellcheck disable=SC2086,SC2016
  logged "$qemu.log" "fetching QEMU from sid" sh -euc '
    cd "$0"
    apt-get -q -o Acquire::Check-Valid-Until=false "$@" update
    apt-get -q "$@" download qemu-user qemu-user-binfmt
    for package in *.deb; do dpkg-deb -x "$package" unpacked; done
  ' "$qemu.part" $own_lists && mv "$qemu.part/unpacked" "$qemu"
  fetched=$?
  rm -rf "$qemu.part"
  return $fetched
}

# register_qemu NAME: makes the kernel run programs of an architecture with QEMU; NAME is QEMU's name for it.
# It works in all trees, because the kernel opens QEMU's file now (flag F). forget_qemu undoes it.
register_qemu() {
  forget_qemu "$1"
  [ -w "$handlers/register" ] || mount -t binfmt_misc none "$handlers" || return 1
  sed "s|^:qemu-|:forksafe-|; s|:/usr/bin/|:$qemu/usr/bin/|" "$qemu/usr/lib/binfmt.d/qemu-$1.conf" \
    >"$handlers/register"
}
forget_qemu() { [ ! -e "$handlers/forksafe-$1" ] || echo -1 >"$handlers/forksafe-$1"; }
