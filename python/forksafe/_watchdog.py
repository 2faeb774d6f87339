# SPDX-License-Identifier: Apache-2.0
"""_watchdog.py COMMAND PID SECONDS: the process behind pytest's option --forksafe-diagnose.

Reads "+TEST" and "-" lines from its standard input: a test starts, or has ended. If a test takes longer
than SECONDS, it runs `COMMAND diagnose --children PID`. It ends with its standard input.
"""

import os
import select
import subprocess
import sys


def watch(command: str, pid: str, seconds: float) -> None:
    unread = b""
    test = ""
    while True:
        # A test can't start before this one has ended, so the time starts anew with each line.
        if not select.select([0], [], [], seconds if test else None)[0]:
            print(f"\nforksafe: {test} has run for {seconds:g} s", file=sys.stderr, flush=True)
            subprocess.run([command, "diagnose", "--children", pid], stdin=subprocess.DEVNULL,
                           stdout=sys.stderr)
            test = ""
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *lines, unread = (unread + data).split(b"\n")
        for line in lines:
            test = line[1:].decode() if line.startswith(b"+") else ""


if __name__ == "__main__":
    # The starter ends, so this process becomes no child of pytest's.
    if os.fork() == 0:
        os.setsid()
        watch(sys.argv[1], sys.argv[2], float(sys.argv[3]))
