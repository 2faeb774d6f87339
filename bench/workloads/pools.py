# SPDX-License-Identifier: Apache-2.0
"""Runs pools of workers, for the programs of this folder."""
import time


def run_pool(method, workers, function, items, initializer=None, shared=()):
    """Runs `function` on `items` in a pool. Returns the results, and the seconds from the pool's start
    to its end. `method` is a start method of multiprocessing, or loky. `shared` goes to the initializer
    of each worker, or with loky to each task, because joblib maps large arrays into the workers."""
    begin = time.perf_counter()
    if method == "loky":
        import joblib
        from joblib.externals.loky import get_reusable_executor

        results = joblib.Parallel(n_jobs=workers)(
            joblib.delayed(function)(item, *shared) for item in items)
        get_reusable_executor().shutdown()  # else joblib keeps the workers for the next pool
    else:
        import multiprocessing

        with multiprocessing.get_context(method).Pool(workers, initializer, shared) as pool:
            results = pool.map(function, items)
            pool.close()
            pool.join()
    return results, time.perf_counter() - begin
