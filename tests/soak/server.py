# SPDX-License-Identifier: Apache-2.0
"""A server that forks its workers for hours: gunicorn --preload with LightGBM and numpy (server/app.py). A
worker ends after 20 requests, and the master forks another. Clients ask all the time. No request may stay
without an answer, each answer must be exact, and the master must not grow."""
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import storm
import watched

ENVIRONMENT = "server-venv"  # in the build folder; scripts/soak.sh makes it
CLIENTS = 4
REQUESTS = 20  # of each worker
PATIENCE = 60  # seconds; so long after a request without an answer, it is lost
WITHOUT_PATIENCE = 10  # the same without the library, where the first request is expected to be lost
WARM_UP = 0.1  # the part of the time after which the master is measured for the first time


@contextlib.contextmanager
def running(build, folder, variables):
    """Runs the server in the folder until the block ends. The value is its process."""
    python = build / ENVIRONMENT / "bin/python"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "FORKSAFE_WAIT_MS": "20000", **variables}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [python, "-m", "gunicorn", "--preload", "--workers=2", f"--max-requests={REQUESTS}", "--timeout=300",
             f"--bind=unix:{folder}/socket", f"--chdir={Path(__file__).parent / 'server'}", "app:app"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        while not listens(folder):
            if server.poll() is not None:
                raise RuntimeError("the server has ended: " + (folder / "log").read_text(errors="replace")[-500:])
            time.sleep(0.05)
        yield server
    finally:
        watched.end_session(server.pid)


def listens(folder):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(f"{folder}/socket") == 0


def ask(folder, patience):
    """Returns what a worker answers: its process id, and whether its result is exact."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(patience)
        connection.sock.connect(f"{folder}/socket")
        connection.request("GET", "/")
        return json.load(connection.getresponse())
    finally:
        connection.close()


class Client(threading.Thread):
    """Asks until the time is over or a request is lost."""

    def __init__(self, folder, end):
        super().__init__()
        self.folder, self.end = folder, end
        self.requests = self.inexact = 0
        self.workers = set()
        self.lost = ""  # why a request was lost

    def run(self):
        while time.monotonic() < self.end:
            try:
                worker, exact = ask(self.folder, PATIENCE)
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.lost = repr(error)
                return
            self.requests += 1
            self.inexact += not exact
            self.workers.add(worker)


def measure(pid):
    """Returns the size of a process, in the words of tests/programs/storm.cpp."""
    status = Path(f"/proc/{pid}/status").read_text()
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {"rss_kb": int(re.search(r"VmRSS:\s*(\d+)", status)[1]), "mappings": len(maps),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "objects": len({line.split(None, 5)[5] for line in maps if ".so" in line})}


def without(build):
    """Runs the server without the library, where a worker must hang. Returns what happened."""
    with tempfile.TemporaryDirectory() as name:
        with running(build, Path(name), {}) as server:
            try:
                ask(name, WITHOUT_PATIENCE)
            except TimeoutError:
                _, verdict = watched.diagnose(build, server.pid)
                codes = {d["code"] for d in storm.verdicts(verdict) if d.get("stuck")}
                return "hangs" + (f" ({', '.join(sorted(codes))})" if codes else "")
            except OSError as error:
                return f"fails: {error!r}"
            return "answers"


def run(build, seed, end):
    del seed  # nothing here is random
    if not (build / ENVIRONMENT / "bin/gunicorn").exists():
        print(f"server: skipped, gunicorn and LightGBM are not in {build / ENVIRONMENT}")
        return {"well": True, "requests": 0}
    control = without(build)
    print(f"without the library: {control}", flush=True)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        library = str(build / "shim/libforksafe.so")
        with running(build, Path(name), {"LD_PRELOAD": library}) as server:
            clients = [Client(name, end) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            time.sleep(max(0, WARM_UP * (end - begin)))
            early = measure(server.pid)
            for client in clients:
                client.join()
            late = measure(server.pid)
            lost = [client.lost for client in clients if client.lost]
            if lost:
                saved = build / "soak/server.json"
                saved.write_text(watched.diagnose(build, server.pid)[1])
                print(f"server: a request was lost: {lost[0]} (diagnose: {saved})")
    result = {"without": control, "lost": len(lost), "early": early, "late": late,
              "growth": storm.grown(early, late),
              "requests": sum(client.requests for client in clients),
              "inexact": sum(client.inexact for client in clients),
              "workers": len(set().union(*(client.workers for client in clients)))}
    print(f"server: {result['requests']} requests, {result['workers']} workers, {result['lost']} lost, "
          f"{result['inexact']} inexact {result['growth']}", flush=True)
    well = (control != "answers" and result["requests"] > 0 and
            not (result["lost"] or result["inexact"] or result["growth"]))
    return {"well": well, **result}


def report(result):
    if not result["requests"]:
        return "## A server\n\nNot run: gunicorn and LightGBM were not available.\n"
    sizes = "; ".join(f"{words} {result['early'][key]} and {result['late'][key]}" for key, words in (
        ("rss_kb", "kB of memory (VmRSS)"), ("mappings", "mappings"), ("descriptors", "descriptors"),
        ("objects", "loaded objects")))
    return f"""## A server

gunicorn with `--preload`, LightGBM and numpy, while a thread of the master multiplies matrices. {CLIENTS} clients \
ask all the time, and a worker ends after {REQUESTS} requests. Without the library it {result['without']}.

With the library: {result['requests']} requests, answered by {result['workers']} workers: {result['lost']} lost, \
{result['inexact']} inexact. The master after a tenth of the time, and at the end: {sizes}.
"""
