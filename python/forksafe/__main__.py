# SPDX-License-Identifier: Apache-2.0
"""python -m forksafe ARGUMENT...: becomes the command, also where that is not on PATH."""

import os
import signal
import sys

import forksafe


def main() -> None:
    try:
        command = forksafe._command()
        # Python ignores these, and a program keeps what was ignored before.
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        os.execv(command, ["forksafe", *sys.argv[1:]])
    except forksafe.Error as e:
        reason = str(e)
    except OSError as e:
        reason = str(forksafe._cannot_run(command, e))
    print(f"forksafe: {reason}", file=sys.stderr)
    sys.exit(2)


main()
