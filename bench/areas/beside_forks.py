# SPDX-License-Identifier: Apache-2.0
"""A thread that computes while another one forks in a loop, as a job launcher does: how many times as long a
call takes as without forks, with the library and without any fork handler."""
import statistics

from measure import openblas_builds, ratios

BUILDS = ("Debian", "Debian OpenMP")


def slowdowns(runs):
    return [1 / run["share"]["median"] for run in runs]


def forks(runs):
    return [run["forks_per_second"] for run in runs]


def measure(bench):
    for label, blas in openblas_builds(bench):
        for n in (64, 600) if label in BUILDS else ():
            with bench.cell(f"{label}: dgemm n={n} beside forks"):
                call = lambda variant: bench.program(
                    "beside_forks", *blas, f"--n={n}", f"--phases={2 if bench.quick else 10}", variant=variant)
                ours, bare = bench.in_turns(
                    1 if bench.quick else 5, lambda: call("forksafe"), lambda: call("no handlers"),
                    spreads=lambda ours, bare: [ratios(slowdowns(ours), slowdowns(bare))])
                bench.add(f"{label}: dgemm n={n} beside forks: forksafe / without handlers",
                          ratios(slowdowns(ours), slowdowns(bare)), statistics.median(slowdowns(ours)),
                          statistics.median(slowdowns(bare)), unit="times the time without forks", bar=1)
                bench.add(f"{label}: forks beside dgemm n={n}: forksafe / without handlers",
                          ratios(forks(ours), forks(bare)), statistics.median(forks(ours)),
                          statistics.median(forks(bare)), unit="a second")
