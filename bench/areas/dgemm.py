# SPDX-License-Identifier: Apache-2.0
"""dgemm in the parent: what the doors cost each call, with one and with several calling threads, and
what a program loses if it sets the number of threads to one."""
import statistics

from measure import openblas_builds, ratios

SIZES = (64, 128, 256, 512, 1000)


def run_once(bench, blas, n, callers, variant):
    repetitions = 3 if bench.quick else 5
    found = bench.program("dgemm", *blas, f"--n={n}", f"--callers={callers}",
                          f"--benchmark_repetitions={repetitions}", "--benchmark_min_time=0.02",
                          "--benchmark_format=json", "--benchmark_report_aggregates_only=true",
                          variant=variant)
    return next(b for b in found["benchmarks"] if b.get("aggregate_name") == "median")


def compare(bench, label, blas, n, callers, variant="forksafe", bar=None):
    what = f"{label}: dgemm n={n}, {callers} calling: {variant} / stock"
    with bench.cell(what):
        # The smallest size has a bar. It takes more pairs to tell whether the ratio meets it.
        pairs = 1 if bench.quick else 15 if bar else 4
        real = lambda runs: [run["real_time"] for run in runs]
        some, stock = bench.in_turns(
            pairs, lambda: run_once(bench, blas, n, callers, variant),
            lambda: run_once(bench, blas, n, callers, "stock"),
            spreads=(lambda some, stock: [ratios(real(some), real(stock))]) if bar else None)
        times = [real(some), real(stock)]
        cpu = [[run["cpu_time"] for run in runs] for runs in (some, stock)]
        bench.add(what, ratios(*times), *map(statistics.median, times), bar=bar, build=label, n=n,
                  callers=callers, variant=variant, cpu_ratio=ratios(*cpu))


def measure(bench):
    if not (bench.programs / "dgemm").exists():
        bench.skip("dgemm", "no Google Benchmark: apt-get install libbenchmark-dev")
        return
    for label, blas in openblas_builds(bench):
        for n in SIZES[::4] if bench.quick else SIZES:
            for callers in (1, 4):
                compare(bench, label, blas, n, callers, bar=1.01 if n == 64 else None)
        compare(bench, label, blas, 1000, 1, "NUM_THREADS=1")
        if label == "Debian OpenMP" and bench.libomp:
            compare(bench, label, blas, 1000, 1, "libomp")
