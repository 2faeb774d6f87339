#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/soak_system.sh SECONDS [NAME...]: runs real programs in a tree of Debian 12 (bookworm), with
# the library in /etc/ld.so.preload and without it (tests/soak/system). A case runs if one of the words is
# in its name. The area "system" of the soak calls this script, when the library is built.
#
# The results go to BUILD/soak/system/results.json. It needs root, for debootstrap and chroot.
. "$(dirname "$0")/common.sh"

[ $# -gt 0 ] || fail "usage: sh scripts/soak_system.sh SECONDS [NAME...]"
[ -f "$build/shim/libforksafe.so" ] || fail "$build/shim/libforksafe.so does not exist"
. "$root/scripts/trees.sh"

make_tree bookworm || fail "the tree can't be made (log: $trees/bookworm.log)"
mkdir -p "$build/soak/system"
rm -f "$build/soak/system/results.json"
# shellcheck disable=SC2016 # the variables are the inner shell's
logged "$build/soak/system/packages.log" "preparing the tree" run_in_tree bookworm system sh -euc '
  rm -f /etc/ld.so.preload # a run that was killed leaves it
  list=/etc/apt/sources.list
  grep -q ^deb-src $list || sed "s/^deb /deb-src /" $list >>$list.new
  [ ! -f $list.new ] || cat $list.new >>$list
  rm -f $list.new
  grep -qs localhost /etc/hosts || echo 127.0.0.1 localhost >>/etc/hosts
  apt-get -q update
  apt-get -q install -y --no-install-recommends python3 util-linux procps' ||
  fail "the tree can't be prepared (log: $build/soak/system/packages.log)"
run_in_tree bookworm system --bind "$root" /forksafe ro --bind "$build/soak/system" /results rw \
  --bind "$build/shim" /library ro \
  python3 -B /forksafe/tests/soak/system/inside.py /library/libforksafe.so /results/results.json "$@"
