# SPDX-License-Identifier: Apache-2.0
"""What the workers of all the pools compute, and how their parent checks the answers."""
import contextlib
import os
import sys
from pathlib import Path

import numpy as np

import wild

SEEDS = range(8)


def preloaded():
    return "libforksafe" in Path("/proc/self/maps").read_text(encoding="utf-8")


def answer(seed, result):
    """Returns the answer of a worker: the result, and which process computed it."""
    return seed, result, os.getpid(), preloaded()


def square(seed):
    """A product that OpenBLAS computes with all threads."""
    a = np.random.default_rng(seed).standard_normal((300, 300))
    return answer(seed, a @ a)


class Parent:
    """Does the work itself first, then compares the workers' answers with its own results."""

    def __init__(self, work=square):
        self.work = work
        self.expected = {seed: work(seed)[1] for seed in SEEDS}
        self.workers = {os.getpid()}
        wild.parent_is_ready()

    def enough(self):
        return len(self.workers) > wild.forks

    def compare(self, answers):
        """Checks the answers for all seeds, from workers or from this process."""
        answers = list(answers)
        if {seed for seed, *_ in answers} != set(SEEDS):
            sys.exit("an answer is missing")
        for seed, result, worker, is_preloaded in answers:
            if not wild.same(result, self.expected[seed]):
                sys.exit("a worker's result differs")
            if is_preloaded != preloaded():
                sys.exit("a worker has lost LD_PRELOAD")
            if worker not in self.workers:
                self.workers.add(worker)
                wild.forked_well()


def run(way, work=square, in_flight=True):
    """Calls `way`, which lets workers do the work, until enough workers have given right answers.
    With `in_flight`, another thread is inside a @ a meanwhile."""
    parent = Parent(work)
    flight = wild.in_flight(lambda: square(0)[1]) if in_flight else contextlib.nullcontext()
    with flight:
        while not parent.enough():
            parent.compare(way())
    parent.compare(map(work, SEEDS))
