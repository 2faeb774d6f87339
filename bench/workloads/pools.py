# SPDX-License-Identifier: Apache-2.0
"""Pools of workers, from their start to their end, for the programs of this folder."""
import time


def run_pool(method, workers, function, items, initializer=None, shared=()):
    """The results, and the seconds from the pool's start to its end. `method` is one of
    multiprocessing's start methods, or loky. What the workers share goes to the initializer, or with
    loky to each task: joblib maps large arrays into the workers."""
    begin = time.perf_counter()
    if method == "loky":
        import joblib
        from joblib.externals.loky import get_reusable_executor

        results = joblib.Parallel(n_jobs=workers)(
            joblib.delayed(function)(item, *shared) for item in items)
        get_reusable_executor().shutdown()  # joblib's own would live on for the next one
    else:
        import multiprocessing

        with multiprocessing.get_context(method).Pool(workers, initializer, shared) as pool:
            results = pool.map(function, items)
            pool.close()
            pool.join()
    return results, time.perf_counter() - begin
