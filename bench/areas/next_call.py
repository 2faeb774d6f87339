# SPDX-License-Identifier: Apache-2.0
"""A fork and the next BLAS call, by the number of threads in the pool. In the parent, stock must make a
new pool. In the child, every variant must. The pool is idle at the fork, because stock would hang with
calls in flight."""
import statistics

from measure import Hung, openblas_builds, ratios, spread

THREADS = (2, 8, 32, 60)


def bar_of(label, threads):
    """Returns the bar in the parent. There is none in the child, where both make a new pool."""
    if label == "0.3.34 wheel":
        return {"bar": 0.1}
    if threads >= 32:
        return {"bar": 0.6, "below": True}
    return {"bar": 1.0} if threads == 2 else {}


def run_once(bench, blas, who, threads, variant):
    return bench.program("next_call", *blas, f"--who={who}", f"--threads={threads}",
                         f"--forks={4 if bench.quick else 20}", variant=variant)


def us(runs):
    return [run["us"]["median"] for run in runs]


def median(runs, field):
    return statistics.median(run[field] for run in runs)


def profile(bench, label, threads, ours, stock, alone):
    """Adds rows that split the time into its parts."""
    more = {"build": label, "who": "profile", "threads": threads}
    bench.add(f"{label}: the call alone / the fork and the call", ratios(us(alone), us(ours)),
              statistics.median(us(alone)), statistics.median(us(ours)), **more)
    shares = spread([run["fork_us"] / run["us"]["median"] for run in ours])
    bench.add(f"{label}: the fork alone / the fork and the call", shares, median(ours, "fork_us"),
              statistics.median(us(ours)), **more)
    faults = ratios([run["faults"] for run in ours], [run["faults"] for run in stock])
    bench.add(f"{label}: page faults in the fork and the call: forksafe / stock", faults,
              median(ours, "faults"), median(stock, "faults"), unit="faults", **more)


def compare(bench, label, blas, who, threads):
    what = f"{label}: fork and the {who}'s next call, {threads} threads: forksafe / stock"
    more = {"build": label, "who": who, "threads": threads}
    with bench.cell(what):
        try:
            run_once(bench, blas, who, threads, "stock")  # it also fills the page cache
        except Hung as why:
            ours = run_once(bench, blas, who, threads, "forksafe")
            bench.hangs(f"{label}: fork and the {who}'s next call, {threads} threads: stock",
                        why, measured=ours["us"]["median"], unit="us", **more)
            return
        bar = bar_of(label, threads) if who == "parent" else {}
        ours, stock, alone = bench.in_turns(
            1 if bench.quick else 5,
            lambda: run_once(bench, blas, who, threads, "forksafe"),
            lambda: run_once(bench, blas, who, threads, "stock"),
            lambda: run_once(bench, blas, "nobody", threads, "forksafe"),
            spreads=(lambda ours, stock, _: [ratios(us(ours), us(stock))]) if bar else None)
        bench.add(what, ratios(us(ours), us(stock)), statistics.median(us(ours)),
                  statistics.median(us(stock)), **bar, **more)
        if who == "parent":
            profile(bench, label, threads, ours, stock, alone)


def measure(bench):
    for label, blas in openblas_builds(bench, "Debian", "numpy 2.4 wheel", "0.3.34 wheel"):
        for threads in THREADS[::2] if bench.quick else THREADS:
            compare(bench, label, blas, "parent", threads)
        for threads in THREADS[::3]:
            compare(bench, label, blas, "child", threads)
    for label, blas in openblas_builds(bench, "Debian OpenMP"):
        compare(bench, label, blas, "parent", 2)
        compare(bench, label, blas, "child", 2)
