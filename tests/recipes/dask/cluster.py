# SPDX-License-Identifier: Apache-2.0
"""Runs a Python program in a worker process of Dask: cluster.py PROGRAM [ARG...]"""
import runpy
import sys

from dask.distributed import Client, LocalCluster


def run(*words):
    sys.argv = list(words)
    runpy.run_path(words[0])


if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True,
                      dashboard_address=None) as cluster, Client(cluster) as client:
        client.submit(run, *sys.argv[1:]).result()
