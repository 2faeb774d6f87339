# SPDX-License-Identifier: Apache-2.0
"""Starts Airflow's API server, and its scheduler as systemd would, and waits until a Python program has run
in a task of the only DAG: deployment.py UNIT.PY DAGS PROGRAM [ARG...]"""
import contextlib
import os
import shlex
import socket
import sqlite3
import subprocess
import sys
import time

import wild

API = ("127.0.0.1", 18793)


def listens(address):
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def state_of_run():
    with contextlib.closing(sqlite3.connect("airflow.db")) as database:
        return dict(database.execute("select dag_id, state from dag_run")).get("app")


def main(unit, dags, *program):
    os.environ.update(AIRFLOW_HOME=os.getcwd(), AIRFLOW__CORE__DAGS_FOLDER=os.path.abspath(dags),
                      APP=shlex.join(program), APP_OUTPUT=wild.own_output())
    for command in ("db migrate", "dags reserialize"):
        subprocess.run(["airflow", *command.split()], stdout=sys.stderr, check=True)
    server = subprocess.Popen(["airflow", "api-server"], stdout=sys.stderr)
    while not listens(API):
        time.sleep(0.1)
    scheduler = subprocess.Popen([sys.executable, unit, "airflow-scheduler.service"], stdout=sys.stderr)
    while (state := state_of_run()) not in ("success", "failed"):
        time.sleep(0.5)
    for process in (scheduler, server):
        process.terminate()
        process.wait()
    sys.exit(state == "failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
