# SPDX-License-Identifier: Apache-2.0
"""Runs a Python program in a UDF: job.py PROGRAM [ARG...]"""
import sys

from pyspark.sql import SparkSession
from pyspark.sql.functions import udf

import wild


def main(*words):
    output = wild.own_output()

    @udf(useArrow=False)
    def program(_):
        wild.run_program(output, *words)

    spark = SparkSession.builder.getOrCreate()
    spark.range(1).select(program("id")).collect()
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
