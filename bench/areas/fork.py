# SPDX-License-Identifier: Apache-2.0
"""fork() against _Fork(), which runs no handlers, in one process: the pool asleep, the pool spinning
after a call, calls in flight, 2 GB resident."""
import statistics

from measure import openblas_builds, spread


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


def ratios(runs, runs_without_handlers):
    """Returns fork() with the library against fork() without any handler, each as a multiple of _Fork() in
    its own process."""
    return spread([a / b for a, b in zip(medians(runs), medians(runs_without_handlers))])


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
                call = lambda variant: bench.program("fork_cost", *blas, *options, f"--pairs={pairs}",
                                                     variant=variant)
                about = {"build": label, "situation": situation}
                if situation != "sleeping pool":
                    runs, = bench.in_turns(rounds, lambda: call("forksafe"),
                                           spreads=(lambda runs: [spread(medians(runs))]) if bar else None)
                    add_row(bench, what, runs, bar=bar, variant="forksafe", **about)
                    continue
                runs, others = bench.in_turns(
                    rounds, lambda: call("forksafe"), lambda: call("no handlers"),
                    spreads=lambda runs, others: [spread(medians(runs)), ratios(runs, others)])
                add_row(bench, what, runs, bar=bar, variant="forksafe", **about)
                about["situation"] += ", no handlers at all"
                add_row(bench, what + ", no handlers at all", others, variant="no handlers", **about)
                bench.add(f"{label}: fork / fork without handlers, sleeping pool", ratios(runs, others),
                          statistics.median(r["fork_us"]["median"] for r in runs),
                          statistics.median(r["fork_us"]["median"] for r in others),
                          bar=BAR_WITHOUT_HANDLERS, build="")
