# SPDX-License-Identifier: Apache-2.0
"""Celery's prefork pool, with a new worker for each task. It starts a Redis server of its own. The
arguments, if there are any, are the command that starts Celery instead."""
import os
import sys

from celery import Celery, signals

import served
import wild

REDIS = f"redis+socket://{os.environ['WILD_FOLDER']}/redis"
app = Celery("celery_prefork", broker=REDIS, backend=REDIS)
signals.worker_init.connect(served.start)


@app.task
def answer():
    return served.answer()


if __name__ == "__main__":
    with served.running("redis-server", "--port", "0", "--unixsocket", "redis", "--save", ""):
        served.wait_for_listener("redis")
        command = sys.argv[1:] or [
            "celery", "-A", "celery_prefork", "worker", "--pool=prefork", "--concurrency=4",
            "--max-tasks-per-child=1", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        with served.running(*command):
            tasks = [answer.delay() for _ in range(wild.forks)]
            served.compare(task.get() for task in tasks)
