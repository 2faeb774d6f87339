# SPDX-License-Identifier: Apache-2.0
"""Two workers that compute at the same time, each with all threads. The workers of spawn and loky are programs
of their own, so FORKSAFE_CHILD_THREADS=auto does not share the processors among them."""
import statistics

from measure import ratios

# name: (a variant of measure.py, how the workers are started)
VARIANTS = {
    "spawn, stock": ("stock", "spawn"),
    "spawn, forksafe": ("forksafe", "spawn"),
    "spawn, forksafe auto": ("forksafe auto", "spawn"),
    "loky, forksafe auto": ("forksafe auto", "loky"),
    "joblib, forksafe auto": ("forksafe auto", "joblib"),
    "fork, forksafe auto": ("forksafe auto", "fork"),
}
BASE = ("NUM_THREADS=1", "spawn")


def measure(bench):
    if not bench.python:
        bench.skip("workers that execute", "no numpy wheel in BUILD/wild/science (sh bench/run.sh has it)")
        return
    with bench.cell("workers that execute"):
        base, *others = bench.in_turns(
            1 if bench.quick else 9,
            *[lambda v=variant, m=method: bench.workload("exec_workers.py", m, variant=v)["work_s"]
              for variant, method in (BASE, *VARIANTS.values())])
        for name, times in zip(VARIANTS, others):
            bench.add(f"2 workers, {name} / NUM_THREADS=1", ratios(times, base),
                      statistics.median(times), statistics.median(base), "s", variant=name, times=times)
