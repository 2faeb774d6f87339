# SPDX-License-Identifier: Apache-2.0
"""Runs a Python program in a task of Ray: job.py RUNTIME_ENV PROGRAM [ARG...]. If RAY_ADDRESS is not set, it
starts a cluster of this machine alone."""
import os
import sys
from pathlib import Path

import ray
import yaml

import wild


@ray.remote(num_cpus=2)
def run(*words):
    wild.run_program(*words)


def main(runtime_env, *words):
    # Ray's default folder may belong to another user.
    cluster = {} if "RAY_ADDRESS" in os.environ else {
        "num_cpus": 2, "include_dashboard": False, "_temp_dir": os.environ["WILD_FOLDER"]}
    ray.init(log_to_driver=False, runtime_env=yaml.safe_load(Path(runtime_env).read_text()), **cluster)
    ray.get(run.remote(wild.own_output(), *words))


if __name__ == "__main__":
    main(*sys.argv[1:])
