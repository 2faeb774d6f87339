# SPDX-License-Identifier: Apache-2.0
"""How the cost of a fork, compared with _Fork() in the same process, grows with the threads of the pool,
the loaded objects, the copies of OpenBLAS, the children alive, and the depth of nested forks."""
import statistics
import tempfile

from areas.fork import add_row, medians
from measure import openblas_builds, ratios

# what grows: (the program's option, its values)
SERIES = {
    "threads of the pool": ("threads", (2, 8, 16, 32, 60)),
    "loaded objects": ("objects", (10, 100, 300, 1000)),
    "copies of OpenBLAS": ("copies", (1, 2, 4, 8, 16)),
    "children alive": ("alive", (1, 10, 50, 200)),
    "depth of nested forks": ("depth", (1, 5, 10, 25)),
}


def run_with(bench, blas, option, value):
    with tempfile.TemporaryDirectory(prefix="forksafe-bench-") as folder:
        return bench.program("fork_cost", *blas, f"--{option}={value}", f"--folder={folder}",
                             f"--object={bench.preload('loaded_object')}",
                             f"--pairs={20 if bench.quick else 60}")


def grow(bench, label, blas, series):
    option, values = SERIES[series]
    if bench.quick:
        values = (values[0], values[-1])
    with bench.cell(f"{label}: fork / _Fork by {series}"):
        bar = 1.05 if option == "objects" else None
        found = bench.in_turns(
            1 if bench.quick else 3,
            *[lambda v=value: run_with(bench, blas, option, v) for value in values],
            spreads=(lambda *found: [ratios(medians(found[-1]), medians(found[0]))]) if bar else None)
        for value, results in zip(values, found):
            add_row(bench, f"{label}: fork / _Fork, {series}: {value}", results, build=label,
                    series=series, value=value)
        fewest, most = medians(found[0]), medians(found[-1])
        # The kernel's work for more threads, mappings or children is in fork() and in _Fork().
        bench.add(f"{label}: {series}: the ratio with {values[-1]} / with {values[0]}",
                  ratios(most, fewest), *map(statistics.median, (most, fewest)), unit="x",
                  bar=bar, build=label, series=series, value="growth")


def measure(bench):
    for label, blas in openblas_builds(bench, "Debian"):
        for series in SERIES:
            grow(bench, label, blas, series)
