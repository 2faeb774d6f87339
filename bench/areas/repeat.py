# SPDX-License-Identifier: Apache-2.0
"""Whether the results of tasks in a pool are the same to the bit: in all pools, and in the parent."""

VARIANTS = ("NUM_THREADS=1", "forksafe", "forksafe auto")
WORKS = {"products600": "products 600 x 600", "singular_values": "singular values 300 x 300"}


def measure(bench):
    if not bench.python:
        bench.skip("repeat", "no numpy wheel in BUILD/wild/science (sh bench/run.sh installs it)")
        return
    for work, name in WORKS.items():
        for variant in VARIANTS:
            with bench.cell(f"{name}, {variant}"):
                found = bench.workload("repeat.py", work, 3 if bench.quick else 10, variant=variant)
                bench.add_count(f"{name}, {variant}: tasks with the same bits in all "
                                f"{found['pools']} pools", found["repeated"], found["tasks"])
                bench.add_count(f"{name}, {variant}: tasks with the bits of the parent, always",
                                found["as_parent"], found["tasks"])
