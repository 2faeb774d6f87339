# SPDX-License-Identifier: Apache-2.0
"""Runs each kind of multiprocessing's workers with each start method:
multiprocessing_workers.py pool|renewed|executor|process fork|forkserver|spawn"""
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from pool_work import SEEDS, run, square


def pool():
    with context.Pool(4) as workers:
        return workers.map(square, SEEDS, chunksize=1)


def renewed():
    with context.Pool(4, maxtasksperchild=1) as workers:
        return workers.map(square, SEEDS, chunksize=1)


def executor():
    with ProcessPoolExecutor(4, context) as workers:
        return list(workers.map(square, SEEDS))


def put_square(queue, seed):
    queue.put(square(seed))


def process():
    queue = context.SimpleQueue()
    workers = [context.Process(target=put_square, args=(queue, seed)) for seed in SEEDS]
    for worker in workers:
        worker.start()
    answers = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    return answers


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    context.set_forkserver_preload(["pool_work"])
    run({"pool": pool, "renewed": renewed, "executor": executor, "process": process}[sys.argv[1]])
