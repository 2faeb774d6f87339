# SPDX-License-Identifier: Apache-2.0
"""usage: pool_work.py WORK METHOD SECONDS

Computes a product, runs pools of two workers, and computes the product again. WORK is a function of
works.py. Pools are started until SECONDS have passed, at least one and at most five. Prints two lines
of JSON: the time of the parent's product before, and then the median time of a pool and the time of the
parent's product afterwards."""
import json
import statistics
import sys
import time

import works
from pools import run_pool


def product_ms(a, count=9):
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        a @ a
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


def main():
    work, method, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    function, items = getattr(works, work), range(works.ITEMS[work])
    a = works.matrix(1000)
    function(0)
    print(json.dumps({"before_ms": product_ms(a)}), flush=True)
    times = []
    end = time.perf_counter() + seconds
    while not times or (len(times) < 5 and time.perf_counter() < end):
        results, needed = run_pool(method, 2, function, items)
        assert len(results) == len(items)
        times.append(needed)
    print(json.dumps({"pool_s": statistics.median(times), "pools": len(times),
                      "after_ms": product_ms(a)}))


if __name__ == "__main__":
    main()
