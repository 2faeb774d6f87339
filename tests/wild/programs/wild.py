# SPDX-License-Identifier: Apache-2.0
"""What the Python programs of the cases share. Each dot on standard output stands for a child that
returned the right result."""
import contextlib
import os
import runpy
import sys
import threading
import time

forks = int(os.environ.get("WILD_FORKS", "20"))


def parent_is_ready():
    """Asks run_case.py to inspect this process before it forks, and waits until it has."""
    request = os.path.join(os.environ["WILD_FOLDER"], f"parent-{os.getpid()}")
    with open(request, "w", encoding="ascii"):
        pass
    while os.path.exists(request):
        time.sleep(0.01)


def forked_well(count=1):
    sys.stdout.write("." * count)
    sys.stdout.flush()


def same(a, b):
    """Returns whether arrays, numbers, or lists of them are equal to the bit."""
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a.tobytes() == b.tobytes() if hasattr(a, "tobytes") else a == b


@contextlib.contextmanager
def in_flight(function, threads=1):
    """Until the block ends, other threads call `function` over and over. Each result must be the
    same."""
    stop = threading.Event()
    expected = function()
    wrong = []

    def work():
        while not stop.is_set():
            if not same(function(), expected):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    if wrong:
        sys.exit("the result of a call in flight differs")


def fork_and_compare(function, equal=same):
    """Calls `function` in this process, then in `forks` children, and here again after each child.
    All results must be equal."""
    expected = function()
    parent_is_ready()
    for _ in range(forks):
        child = os.fork()
        if child == 0:
            os._exit(0 if equal(function(), expected) else 3)
        status = os.waitpid(child, 0)[1]
        if status != 0:
            sys.exit(f"a child ended with wait status {status:#x}")
        if not equal(function(), expected):
            sys.exit("after a fork, the parent's result differs")
        forked_well()


def own_output():
    """Returns a path by which another process can write to this one's standard output."""
    return f"/proc/{os.getpid()}/fd/1"


def run_program(output, *words):
    """Runs another program of this folder in this process, which has lost its standard output."""
    with open(output, "w", encoding="ascii") as sys.stdout:
        sys.argv = list(words)
        runpy.run_path(words[0])
