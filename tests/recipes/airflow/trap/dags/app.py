# SPDX-License-Identifier: Apache-2.0
"""Runs the Python program APP in a BashOperator that has an environment of its own."""
import os

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag

kept = ("PATH", "PYTHONPATH", "WILD_FOLDER", "WILD_FORKS", "APP", "APP_OUTPUT")


@dag(schedule="@once")
def app():
    BashOperator(
        task_id="work",
        bash_command="python3 $APP >$APP_OUTPUT",
        env={name: os.environ[name] for name in kept if name in os.environ},
    )


app()
