# SPDX-License-Identifier: Apache-2.0
"""What the servers' workers compute. WILD_WORK names it: "product" of numpy, which a thread of the
master process also computes all the time, "product, idle" without that thread, or "model" of
scikit-learn, on OpenMP."""
import atexit
import contextlib
import gc
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np

import wild

a = np.random.default_rng(1).standard_normal((400, 400))
master = model = expected = thread = None
ends = threading.Event()


def compute():
    return model.predict(a[:, :10]) if model else a @ a


def go_on():
    while not ends.is_set():
        compute()


def compare_at_end():
    """OpenBLAS may hang in exit while another thread is inside a product, also in a process that never
    forked (docs/limits.md). So the thread ends before."""
    if os.getpid() != master:
        return
    if thread:
        ends.set()
        thread.join()
    if not wild.same(compute(), expected):
        os._exit(3)


def start(**_):
    """Called in the master, before it forks workers."""
    global master, model, expected, thread
    master = os.getpid()
    if os.environ["WILD_WORK"] == "model":
        from sklearn.ensemble import HistGradientBoostingRegressor
        model = HistGradientBoostingRegressor(max_iter=3).fit(a[:, :10], a[:, 10])
    expected = compute()
    if os.environ["WILD_WORK"] == "product":
        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
    atexit.register(compare_at_end)
    gc.freeze()  # workers end faster: their last garbage collection skips what is loaded by now
    wild.parent_is_ready()


def answer():
    """Called in the workers. Returns the worker's process id, and whether its result is that of the
    master process."""
    return os.getpid(), wild.same(compute(), expected)


@contextlib.contextmanager
def running(*command):
    """Runs a server until the block ends."""
    server = subprocess.Popen(command, stdout=sys.stderr)
    try:
        yield
    finally:
        server.terminate()
    if server.wait() != 0:
        sys.exit(f"{command[0]} ended with status {server.returncode}")


def wait_for_listener(path):
    """Waits until a server listens at the path. The socket's file exists a moment earlier."""
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                return
        time.sleep(0.01)


def get(path="gunicorn"):
    """Returns what a worker of an HTTP server at that path answers."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("GET", "/")
    return json.load(connection.getresponse())


def compare(answers):
    """Checks answers until enough workers have given one."""
    workers = set()
    for worker, good in answers:
        if not good:
            sys.exit("a worker's result differs")
        if worker not in workers:
            workers.add(worker)
            wild.forked_well()
        if len(workers) == wild.forks:
            return
