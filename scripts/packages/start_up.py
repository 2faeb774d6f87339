# SPDX-License-Identifier: Apache-2.0
"""Prints how many milliseconds `forksafe true` takes longer than `env LD_PRELOAD=LIBRARY true`.

The two take turns, so other work on the machine slows both. The figure is the difference of the medians.
"""
import os
import statistics
import sys
import time

import forksafe

ROUNDS = 500


def milliseconds(words, environment):
    start = time.perf_counter()
    _, status = os.waitpid(os.posix_spawnp(words[0], words, environment), 0)
    if status != 0:
        sys.exit(f"{words}: status {status}")
    return (time.perf_counter() - start) * 1000


WAYS = [["env", "LD_PRELOAD=" + forksafe.library(), "true"],
        [os.path.join(sys.prefix, "bin/forksafe"), "true"]]
times = [[milliseconds(words, os.environ) for words in WAYS] for _ in range(ROUNDS)]
by_env, by_forksafe = (statistics.median(column) for column in zip(*times))
print(f"{by_env:.2f} by env, {by_forksafe:.2f} by forksafe")
print(f"{by_forksafe - by_env:.2f}")
