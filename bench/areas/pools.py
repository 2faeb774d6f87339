# SPDX-License-Identifier: Apache-2.0
"""Whole programs with a pool of two workers: how long the pool takes, and how fast the parent
computes afterwards, with the library and with what people use instead."""
import statistics

from measure import Failed, Hung, ratios

WORKS = {
    "detrend": "50 detrend calls of obspy",
    "products600": "40 products 600 x 600",
    "products64": "100 x 100 products 64 x 64",
    "lightgbm": "4 trainings of LightGBM",
}
# name: (a variant of measure.py, the start method of the workers)
VARIANTS = {
    "stock": ("stock", "fork"),
    "NUM_THREADS=1": ("NUM_THREADS=1", "fork"),
    "spawn": ("stock", "spawn"),
    "forkserver": ("stock", "forkserver"),
    "loky": ("stock", "loky"),
    "libomp": ("libomp", "fork"),
    "forksafe": ("forksafe", "fork"),
    "forksafe auto": ("forksafe auto", "fork"),
}
# The bars for the pool, against NUM_THREADS=1, and for the parent afterwards, against stock.
POOL_BARS = {("detrend", "forksafe auto"): 1.05, ("products600", "forksafe auto"): 1.05}
PARENT_BARS = {"forksafe": 1.02, "forksafe auto": 1.02}


def run_all(bench, work):
    """Returns {variant: the results of all rounds}, and {variant: the reason} of the variants that hang
    or fail."""
    variants = [v for v in VARIANTS if v != "libomp" or bench.libomp]
    given_up = {}

    def run(variant):
        if variant in given_up:
            return None
        preload, method = VARIANTS[variant]
        try:
            return bench.workload("pool_work.py", work, method, 0.1 if bench.quick else 1,
                                  variant=preload)
        except Failed as why:  # do not try this variant again
            given_up[variant] = why
            return None

    def of_bars(*rounds):
        """The ratios that have a bar, as far as they are against NUM_THREADS=1."""
        of = dict(zip(variants, rounds))
        return [ratios(*([run["pool_s"] for run in of[v]] for v in (variant, "NUM_THREADS=1")))
                for bar_work, variant in POOL_BARS
                if bar_work == work and not {variant, "NUM_THREADS=1"} & given_up.keys()]

    rounds = bench.in_turns(1 if bench.quick else 5,
                            *[lambda v=variant: run(v) for variant in variants], spreads=of_bars)
    results = {v: found for v, found in zip(variants, rounds) if v not in given_up}
    return results, given_up


def compare(bench, work):
    results, given_up = run_all(bench, work)
    for variant, why in given_up.items():
        with bench.cell(f"{work}, {variant}"):
            # A hang without the library is a result. With it, a hang is a failure.
            if "forksafe" in variant or not isinstance(why, Hung):
                raise why
            bench.hangs(f"{work}, {variant}", why, work=work, variant=variant)

    def column(variant, key):
        return [result[key] for result in results[variant]]

    def add(what, values, others, unit, bar, variant, part):
        bench.add(f"{work}: {what}", ratios(values, others), statistics.median(values),
                  statistics.median(others), unit, bar=bar, work=work, variant=variant, part=part,
                  times=values, complaint=results[variant][-1]["complaint"])

    with bench.cell(f"{work}, ratios"):
        workaround = column("NUM_THREADS=1", "pool_s")
        # Compare with stock's parent after the pool, when stock has made a new thread pool. If stock
        # hangs, compare with spawn's parent before its pool, which runs on stock libraries too.
        stock = (column("stock", "after_ms") if "stock" in results else
                 column("spawn", "before_ms"))
        for variant in results:
            add(f"pool, {variant} / NUM_THREADS=1", column(variant, "pool_s"), workaround, "s",
                POOL_BARS.get((work, variant)), variant, "pool")
            add(f"parent afterwards, {variant} / stock", column(variant, "after_ms"), stock, "ms",
                PARENT_BARS.get(variant), variant, "parent")


def measure(bench):
    if not bench.python:
        bench.skip("pools", "no numpy wheel in BUILD/wild/science (sh bench/run.sh installs it)")
        return
    if not bench.libomp:
        bench.skip("pools under libomp", "no libomp.so.5: apt-get install libomp5-14")
    for work in WORKS:
        compare(bench, work)
