# SPDX-License-Identifier: Apache-2.0
"""Start-up: how much time a preload adds to a program without BLAS, and to one that imports numpy."""
import shutil
import statistics

from areas.command import hyperfine
from measure import ratios


def without_blas(bench):
    pairs = 100 if bench.quick else 1500
    against = {"forksafe": bench.library, "libomp": bench.libomp}
    for variant, library in against.items():
        what = f"/bin/true: {variant} / an empty preload"
        if library is None:
            bench.skip(what, "no libomp.so.5: apt-get install libomp5-14")
            continue
        with bench.cell(what):
            found = bench.program("start_up", f"--preload={library}", f"--pairs={pairs}",
                                  f"--against={bench.preload('empty')}", variant="stock")
            bench.add(what, found["ratio"], found["with_us"]["median"],
                      found["without_us"]["median"],
                      bar=1.2 if variant == "forksafe" else None, program="/bin/true",
                      variant=variant)


def import_numpy(bench):
    if not bench.python or not shutil.which("hyperfine"):
        bench.skip("import numpy", "no hyperfine, or no numpy wheel (sh bench/run.sh installs them)")
        return
    variants = ["stock", "forksafe", "NUM_THREADS=1"] + (["libomp"] if bench.libomp else [])

    def command(variant):
        set_here = " ".join(f"{name}={value}" for name, value in bench.variables(variant).items())
        return f"env {set_here} {bench.python} -s -c 'import numpy'"

    with bench.cell("import numpy"):
        # Each round measures every variant. The medians of two variants in a round are a pair.
        rounds, runs = (2, 3) if bench.quick else (10, 5)
        times = {variant: [] for variant in variants}
        for turn in range(rounds):
            order = variants if turn % 2 == 0 else variants[::-1]
            for variant, found in zip(order, hyperfine(bench, *map(command, order), runs=runs)):
                times[variant].append(statistics.median(found))
        for variant in variants[1:]:
            bench.add(f"python3 -c 'import numpy': {variant} / stock",
                      ratios(times[variant], times["stock"]), statistics.median(times[variant]),
                      statistics.median(times["stock"]), "ms", program="import numpy",
                      bar=1.2 if variant == "forksafe" else None, variant=variant)


def measure(bench):
    without_blas(bench)
    import_numpy(bench)
