# SPDX-License-Identifier: Apache-2.0
"""Parallel regions of some microseconds under GNU OpenMP: in a process that never forks, in a parent,
in its child and grandchild. A child inherits the runtime's count of threads, and nothing outside of the
runtime can lower it. So GNU OpenMP does not spin in a child if the parent's team had all processors."""
import os
import statistics

from measure import ratios


def run_once(bench, who, variant):
    return bench.program("fine_regions", f"--who={who}", f"--threads={processors()}",
                         f"--rounds={20 if bench.quick else 40}", variant=variant)


def processors():
    return len(os.sched_getaffinity(0))


def per_second(runs):
    return [run["regions_per_second"] for run in runs]


def measure(bench):
    if processors() < 2:
        bench.skip("fine-grained regions", "needs two processors")
        return
    for who in ("alone", "parent", "child", "grandchild"):
        what = f"GNU OpenMP: fine-grained regions, {who}: forksafe / a process without it"
        with bench.cell(what):
            # A child without the library would hang, so all are compared with a process that never forks.
            ours, fresh = bench.in_turns(3 if bench.quick else 9,
                                         lambda: run_once(bench, who, "forksafe"),
                                         lambda: run_once(bench, "alone", "stock"))
            sleeps = [statistics.median(run["sleeps_per_region"] for run in runs)
                      for runs in (ours, fresh)]
            bench.add(what, ratios(per_second(ours), per_second(fresh)),
                      statistics.median(per_second(ours)), statistics.median(per_second(fresh)),
                      unit="regions/s", who=who, sleeps=sleeps[0], sleeps_alone=sleeps[1])
