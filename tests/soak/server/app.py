# SPDX-License-Identifier: Apache-2.0
"""An app for gunicorn --preload. The master trains a model of LightGBM and multiplies matrices before it
forks workers, and a thread of the master goes on multiplying. Each request computes both again. The answer
says whether the results are those of the master, to the bit."""
import atexit
import json
import os
import threading
import time

import lightgbm
import numpy as np

a = np.random.default_rng(1).standard_normal((400, 400))
model = lightgbm.train({"verbose": -1}, lightgbm.Dataset(a[:, :10], a[:, 10]), num_boost_round=5)


def compute():
    return (a @ a).tobytes() + model.predict(a[:, :10]).tobytes()


expected = compute()


ends = threading.Event()


def go_on():
    while not ends.is_set():
        if (a @ a).tobytes() != expected[:a.nbytes]:
            os._exit(3)
        time.sleep(0.005)


thread = threading.Thread(target=go_on, daemon=True)
thread.start()


@atexit.register
def end():
    """OpenBLAS may hang in an exit while another thread is inside a product (docs/limits.md)."""
    ends.set()
    thread.join()


def app(_, start_response):
    body = json.dumps([os.getpid(), compute() == expected]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
