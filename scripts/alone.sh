# SPDX-License-Identifier: Apache-2.0
# alone COMMAND...: runs it in a mount and process namespace of its own. Whatever it mounts or starts
# goes with it, however the script ends. Sourced, as root; it sets the script's traps.

# A shell heeds a signal at once while it waits, but not while a command runs before it.
running=
alone() {
  unshare --mount --pid --fork --kill-child "$@" &
  running=$!
  wait "$running"
  status=$?
  running=
  return $status
}
stop() {
  trap - EXIT
  # Not unshare, which ignores TERM while it waits; the kernel ends what it started with it.
  [ -z "$running" ] || kill -KILL "$running"
  exit "$1"
}
trap 'stop $?' EXIT
trap 'stop 130' INT
trap 'stop 143' TERM
trap 'stop 129' HUP
