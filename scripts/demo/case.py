# SPDX-License-Identifier: Apache-2.0
"""What the cases share. A case prints `ready` when everything is loaded and its forks are about to
begin; then demo.py starts to count its time limit. In its last line it prints what it did, as JSON. It
ends with 77 if it can't run as it should, for example on another BLAS."""

import json
import os
import sys
import threading
import time

import numpy as np

# A product of this size uses the thread pool. It takes so long that a thread which multiplies all the
# time is nearly always inside a call when another thread forks.
SIZE = 1000

# The busy thread stops before demo.py's time limit of 20 s. So a thread that demo.py then finds inside a
# BLAS call is stuck there.
BUSY_SECONDS = 15


def matrix(size=SIZE):
    return np.random.default_rng(1).random((size, size))


def cannot_run(reason):
    print(json.dumps({"cannot_run": reason}), flush=True)
    sys.exit(77)


def check_surroundings(blas):
    """Ends the case if numpy uses another BLAS than the case names, or if the library is loaded
    although it should not be, or the other way round."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        objects = {line.split(None, 5)[5].strip() for line in maps if "/" in line}
    if not any(blas in path for path in objects):
        cannot_run(f"numpy ({np.__file__}) did not load {blas}")
    asked_for = "LD_PRELOAD" in os.environ
    if asked_for != any(os.path.basename(path) == "libforksafe.so" for path in objects):
        cannot_run("libforksafe.so was not loaded" if asked_for else "libforksafe.so was loaded")


class BusyThread(threading.Thread):
    """Multiplies `a` by itself all the time, and compares each product with the expected one."""

    def __init__(self, a, expected):
        super().__init__(daemon=True)
        self.a = a
        self.expected = expected
        self.exact = True
        self.resting = False

    def run(self):
        end = time.monotonic() + BUSY_SECONDS
        while not self.resting and time.monotonic() < end:
            self.exact = np.array_equal(self.a @ self.a, self.expected) and self.exact

    def rest(self):
        self.resting = True
        self.join()
        return self.exact


def ready():
    print("ready", flush=True)
    return time.monotonic()


def finish(count, what, exact, since):
    seconds = time.monotonic() - since
    print(json.dumps({"count": count, "what": what, "exact": exact, "seconds": seconds}), flush=True)
    sys.exit(0 if exact else 1)
