# SPDX-License-Identifier: Apache-2.0
"""Starts a uWSGI server by the command in the arguments, asks all workers, reloads the server by
SIGHUP, and asks all new workers."""
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import served
import wild

WORKERS = 4


def get():
    try:
        return served.get()
    except (OSError, ValueError):
        return None, True  # the server is reloading


def ask(known):
    """Asks until WORKERS workers that are not in `known` have given the right answer. It asks all at the
    same time, since a single client may get the same workers for ever."""
    workers = set()
    with ThreadPoolExecutor(WORKERS) as clients:
        while len(workers) < WORKERS:
            for worker, good in clients.map(lambda _: get(), range(WORKERS)):
                if not good:
                    sys.exit("a worker's result differs")
                if worker is not None and worker not in known | workers:
                    workers.add(worker)
                    wild.forked_well()
    return workers


server = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
served.wait_for_listener("gunicorn")
first = ask(set())
os.kill(server.pid, signal.SIGHUP)
ask(first)
server.terminate()
server.wait()
