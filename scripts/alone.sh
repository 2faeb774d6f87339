# SPDX-License-Identifier: Apache-2.0
# For scripts that run as root to source. It defines `alone COMMAND...`, which runs the command in a
# mount and process namespace of its own. When the script ends, for whatever reason, the kernel removes
# what the command mounted and ends what it started. Sourcing this file sets the script's traps.

# A shell runs a trap at once while it is in `wait`, but not while it runs a command in the foreground.
# So the command runs in the background.
running=
at_end=: # a function that the script also wants to run when it ends
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
  # KILL, because unshare ignores TERM while it waits. The kernel then ends all that unshare started.
  [ -z "$running" ] || kill -KILL "$running"
  $at_end
  exit "$1"
}
# A subshell begins without traps.
stop_when_signalled() {
  trap 'stop $?' EXIT
  trap 'stop 130' INT
  trap 'stop 143' TERM
  trap 'stop 129' HUP
}
stop_when_signalled
