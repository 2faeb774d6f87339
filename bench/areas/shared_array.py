# SPDX-License-Identifier: Apache-2.0
"""100 small tasks on an array of 32 MB. A forked worker has the array already, others must get it."""
import statistics

from measure import ratios

# name: (a variant of measure.py, the start method of the workers, the bar for forksafe against it)
VARIANTS = {
    "stock, fork": ("stock", "fork", None),
    "spawn": ("stock", "spawn", 0.25),
    "forkserver": ("stock", "forkserver", 0.25),
    "loky": ("stock", "loky", 0.25),
}


def measure(bench):
    if not bench.python:
        bench.skip("shared array", "no numpy wheel in BUILD/wild/science (sh bench/run.sh has it)")
        return
    with bench.cell("100 tasks on a shared array"):
        runs = [("forksafe", "fork")] + [(preload, method) for preload, method, _ in
                                         VARIANTS.values()]
        ours, *others = bench.in_turns(
            2 if bench.quick else 9,
            *[lambda p=preload, m=method: bench.workload("shared_array.py", m, variant=p)["pool_s"]
              for preload, method in runs])
        for (name, (_, _, bar)), theirs in zip(VARIANTS.items(), others):
            bench.add(f"100 tasks on a shared array of 32 MB: forksafe / {name}",
                      ratios(ours, theirs), statistics.median(ours), statistics.median(theirs),
                      "s", bar=bar, variant=name, times=theirs, our_times=ours)
