# SPDX-License-Identifier: Apache-2.0
"""Forks N times while a thread multiplies matrices. Each child must get the parent's result."""
import os
import sys
import threading

import numpy as np

a = np.random.default_rng(0).random((200, 200))
expected = a @ a
stop = False


def multiply():
    while not stop:
        assert (a @ a == expected).all()


worker = threading.Thread(target=multiply)
worker.start()
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os._exit(0 if (a @ a == expected).all() else 3)
    _, status = os.waitpid(child, 0)
    if status != 0:
        sys.stderr.write(f"a child ended with wait status {status}\n")
        os._exit(1)
    sys.stdout.write(".")
    sys.stdout.flush()
stop = True
worker.join()
