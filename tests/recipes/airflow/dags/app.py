# SPDX-License-Identifier: Apache-2.0
"""Runs the Python program APP in a task."""
import os
import shlex

from airflow.sdk import dag, task


@dag(schedule="@once")
def app():
    @task
    def work():
        import wild
        wild.run_program(os.environ["APP_OUTPUT"], *shlex.split(os.environ["APP"]))

    work()


app()
