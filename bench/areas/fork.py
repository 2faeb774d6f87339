# SPDX-License-Identifier: Apache-2.0
"""fork() against _Fork(), which runs no handlers, in one process: the pool asleep, the pool spinning
after a call, calls in flight, 2 GB resident."""
import statistics

from measure import openblas_builds, ratios, spread


def medians(results):
    """Returns the ratio of each run of fork_cost. The layout of memory, and so what shares a page, differs
    from process to process. So each process counts once, with the median of its pairs."""
    return [r["ratio"]["median"] for r in results]


def add_row(bench, what, results, **more):
    """Adds a row for runs of fork_cost."""
    median_of = lambda key: statistics.median(r[key]["median"] for r in results)
    bench.add(what, spread(medians(results)), median_of("fork_us"), median_of("bare_us"),
              more_us=spread([r["more_us"]["median"] for r in results]),
              first_us=spread([r["first_fork_us"] for r in results]),
              slowest_us=max(r["slowest_fork_us"] for r in results),
              fork_faults=median_of("fork_faults"), bare_faults=median_of("bare_faults"), **more)


def has_memory_for(megabytes):
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    return available / 1024 > 2 * megabytes


SITUATIONS = (  # name, options, bar, number of pairs in each process
    ("sleeping pool", [], 1.15, 100),
    ("spinning pool", ["--after-call=1"], 1.15, 100),
    # No bar with calls in flight: fork() waits for them, and _Fork() copies memory that they change.
    ("1 call in flight", ["--flight=1"], None, 30),
    ("3 calls in flight", ["--flight=3"], None, 30),
    ("sleeping pool, 2 GB", ["--resident-mb=2048"], 1.15, 12),
)
BAR_WITHOUT_HANDLERS = 1.03


def measure(bench):
    for label, blas in openblas_builds(bench):
        for situation, options, bar, pairs in SITUATIONS:
            what = f"{label}: fork / _Fork, {situation}"
            if "2 GB" in situation and not has_memory_for(2048):
                bench.skip(what, "not enough memory")
                continue
            with bench.cell(what):
                rounds = 1 if bench.quick else 9 if bar and pairs > 50 else 3
                pairs = max(6, pairs // 10) if bench.quick else pairs
                # The variant, and what its rows are called.
                variants = {"forksafe": situation}
                if situation == "sleeping pool":
                    variants["no handlers"] = situation + ", no handlers at all"
                # Each is a multiple of _Fork() in its own process.
                against = lambda runs, others: ratios(medians(runs), medians(others))
                found = bench.in_turns(
                    rounds, *[lambda v=variant: bench.program("fork_cost", *blas, *options, f"--pairs={pairs}",
                                                              variant=v) for variant in variants],
                    spreads=(lambda runs, *others: [spread(medians(runs)), *(against(runs, o) for o in others)])
                    if bar else None)
                for (variant, name), runs in zip(variants.items(), found):
                    add_row(bench, f"{label}: fork / _Fork, {name}", runs, build=label, situation=name,
                            bar=bar if variant == "forksafe" else None, variant=variant)
                if len(found) > 1:
                    us = [statistics.median(run["fork_us"]["median"] for run in runs) for runs in found]
                    bench.add(f"{label}: fork / fork without handlers, {situation}", against(*found), *us,
                              bar=BAR_WITHOUT_HANDLERS, build="")
