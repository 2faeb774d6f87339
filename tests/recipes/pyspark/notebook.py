# SPDX-License-Identifier: Apache-2.0
"""Names the library for a session that is there already, as cells of a notebook do, and runs a Python
program in a UDF: notebook.py PROGRAM [ARG...]"""
import sys

from pyspark.sql import SparkSession

import job

NAME = "spark.executorEnv.LD_PRELOAD"

spark = SparkSession.builder.getOrCreate()
spark.conf.set(NAME, "/usr/lib/forksafe/libforksafe.so")
SparkSession.builder.config(NAME, "/usr/lib/forksafe/libforksafe.so").getOrCreate()
job.main(*sys.argv[1:])
